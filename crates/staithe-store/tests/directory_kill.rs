//! A process that is killed at any instant leaves every object whole, old or new.
//!
//! The child is this test binary itself, run again with an environment variable that names the directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::TryStreamExt;
use staithe_store::{
    CopyRequest, DeleteRequest, DirectoryOptions, DirectoryStore, Durability, GetRequest, Key, ListRequest,
    NewObject, ObjectStore, PartNumber, Payload, PutCondition,
};
use tempfile::TempDir;

const CHILD: &str = "STAITHE_STORE_TEST_CHILD_DIRECTORY";
const KILLS: u64 = 40;
const NAMES: usize = 12;

fn open(dir: &Path) -> DirectoryStore {
    let options = DirectoryOptions { durability: Durability::Buffered, ..DirectoryOptions::default() };
    DirectoryStore::open(dir, options).unwrap()
}

fn name(index: usize) -> Key {
    Key::new(format!("d{}/e{}/object-{index}", index % 3, index % 2)).unwrap()
}

/// A body that says itself whether it is whole: one byte, a thousand to a hundred thousand times.
fn body(round: usize) -> Vec<u8> {
    vec![(round % 251) as u8; 1000 + (round % 97) * 1021]
}

fn dressed(round: usize) -> NewObject {
    let metadata = [("round".to_owned(), (round % 251).to_string())].into();
    NewObject { metadata, content_type: None }
}

/// Writes in every way there is, for ever.
async fn write_until_killed(dir: &Path) {
    let store = open(dir);
    for round in 0.. {
        let key = name(round % NAMES);
        match round % 5 {
            0 | 1 => {
                let put = store.put(&key, body(round).into(), dressed(round), PutCondition::Always);
                put.await.unwrap();
            }
            2 => multipart(&store, &key, round).await,
            3 => {
                let from = name((round + 1) % NAMES);
                let copy = CopyRequest { from, from_version: None, to: key, replace: None };
                let _ = store.copy(copy).await; // the source may be deleted
            }
            _ => store.delete(DeleteRequest::latest(key)).await.unwrap(),
        }
    }
}

async fn multipart(store: &DirectoryStore, key: &Key, round: usize) {
    let upload = store.create_multipart(key, dressed(round)).await.unwrap();
    let body = Payload::from(body(round)).to_bytes();
    let mut receipts = Vec::new();
    for (number, half) in (1..).zip([body.slice(..500), body.slice(500..)]) {
        let number = PartNumber::new(number).unwrap();
        receipts.push(store.upload_part(&upload, number, half.into()).await.unwrap());
    }
    store.complete_multipart(&upload, &receipts, PutCondition::Always).await.unwrap();
}

/// Checks every object and that nothing else is there; gives how many objects.
async fn check(dir: &Path) -> usize {
    let store = open(dir);
    let page = store.list(ListRequest::default()).await.unwrap();
    let names: BTreeSet<_> = (0..NAMES).map(name).collect();
    for object in &page.objects {
        assert!(names.contains(&object.key), "{:?} was never written", object.key);
        let request = GetRequest { key: object.key.clone(), range: None, version: None };
        let response = store.get(request).await.unwrap();
        let round: u8 = response.meta.metadata["round"].parse().unwrap();
        let bytes: Vec<_> = response.body.try_collect().await.unwrap();
        let bytes = Payload::new(bytes).to_bytes();
        assert!(bytes.iter().all(|byte| *byte == round), "{:?} mixes versions", object.key);
        assert_eq!((bytes.len() - 1000) % 1021, 0, "{:?} is cut short", object.key);
    }
    let sessions = std::fs::read_dir(dir.join(".staithe-tmp")).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("session-")
    });
    assert_eq!(sessions.count(), 2, "only this session and its lock, the killed ones are swept");
    page.objects.len()
}

/// The child; passes at once when run as a test of its own.
#[tokio::test]
async fn child() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&dir)).await;
    }
}

#[tokio::test]
async fn killed_at_any_instant_objects_are_whole() {
    let dir = TempDir::new().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut most = 0;
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut started = [0_u8; 8];
        child.stdout.take().unwrap().read_exact(&mut started).unwrap();
        let moment = Duration::from_micros(random.u64(0..60_000));
        let exited = tokio::time::timeout(moment, std::future::pending::<()>()).await;
        assert!(exited.is_err());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success(), "the child ended by itself: {status}");
        most = most.max(check(dir.path()).await);
    }
    assert!(most > 0, "no child came as far as its first object");
}

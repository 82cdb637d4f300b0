//! The directory store keeps every promise of the port, and those of a directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use staithe_store::{
    CopyRequest, DeleteRequest, DirectoryOptions, DirectoryStore, Durability, ErrorKind, GetRequest,
    HeadRequest, Key, ListRequest, NewObject, ObjectStore, PutCondition, conformance,
};
use tempfile::TempDir;

fn buffered() -> DirectoryOptions {
    DirectoryOptions { durability: Durability::Buffered, ..DirectoryOptions::default() }
}

fn open(dir: &TempDir) -> DirectoryStore {
    DirectoryStore::open(dir.path(), buffered()).unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(store: &DirectoryStore, name: &str, body: &'static str) {
    store.put(&key(name), body.into(), NewObject::default(), PutCondition::Always).await.unwrap();
}

async fn names(store: &DirectoryStore) -> Vec<String> {
    let page = store.list(ListRequest::default()).await.unwrap();
    page.objects.iter().map(|object| object.key.to_string()).collect()
}

async fn kind(store: &DirectoryStore, name: &str) -> Option<ErrorKind> {
    store.head(HeadRequest::latest(key(name))).await.err().map(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let dir = TempDir::new().unwrap();
    let store = DirectoryStore::open(dir.path(), DirectoryOptions::default()).unwrap();
    conformance::run(Arc::new(store), "scratch/").await.assert_passed();
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [".staithe-tmp"], "directories are left");
}

#[tokio::test]
async fn with_tiny_pages_and_chunks_conforms() {
    let dir = TempDir::new().unwrap();
    let options = DirectoryOptions { page_max: 2, chunk_bytes: 1001, ..buffered() };
    let store = DirectoryStore::open(dir.path(), options).unwrap();
    conformance::run(Arc::new(store), "").await.assert_passed();
}

#[tokio::test]
async fn keys_are_paths() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    put(&store, "a/b/c", "here").await;
    assert_eq!(std::fs::read(dir.path().join("a/b/c")).unwrap(), b"here");
    std::fs::create_dir(dir.path().join("made")).unwrap();
    std::fs::write(dir.path().join("by-hand"), "x").unwrap();
    assert_eq!(names(&store).await, ["a/b/c", "by-hand", "made/"]);
}

#[tokio::test]
async fn an_empty_directory_stays_an_object_through_its_first_child() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    std::fs::create_dir(dir.path().join("made")).unwrap();
    put(&store, "made/deep/child", "x").await;
    assert_eq!(names(&store).await, ["made/", "made/deep/child"]);
    store.delete(DeleteRequest::latest(key("made/deep/child"))).await.unwrap();
    assert_eq!(names(&store).await, ["made/"]);
}

#[tokio::test]
async fn what_is_no_object_is_hidden_and_left_alone() {
    let (dir, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open(&dir);
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file-link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"not\xffutf8");
    std::fs::write(dir.path().join(odd), "x").unwrap();
    assert_eq!(names(&store).await, Vec::<String>::new());
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    put(&store, "object", "x").await;
    for name in ["link/secret", ".staithe-tmp/open.lock", "../x", "a//b"] {
        assert_eq!(kind(&store, name).await, Some(ErrorKind::NotFound), "{name}");
    }
    for name in ["link/new", ".staithe-tmp/x", "../x", "a//b"] {
        let put = store.put(&key(name), "".into(), NewObject::default(), PutCondition::Always).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
    for name in ["file-link", "pipe", "socket", "link", "link/"] {
        assert_eq!(kind(&store, name).await, Some(ErrorKind::Forbidden), "{name}");
        for condition in [PutCondition::Always, PutCondition::IfAbsent] {
            let put = store.put(&key(name), "".into(), NewObject::default(), condition).await;
            assert_eq!(put.unwrap_err().kind(), ErrorKind::Forbidden, "{name}");
        }
        let copy = |from: &str, to: &str| {
            store.copy(CopyRequest { from: key(from), from_version: None, to: key(to), replace: None })
        };
        assert_eq!(copy(name, "copied").await.unwrap_err().kind(), ErrorKind::Forbidden, "{name}");
        if !name.ends_with('/') {
            assert_eq!(copy("object", name).await.unwrap_err().kind(), ErrorKind::Forbidden, "{name}");
        }
        let delete = store.delete(DeleteRequest::latest(key(name))).await;
        assert_eq!(delete.unwrap_err().kind(), ErrorKind::Forbidden, "{name}");
        assert!(dir.path().join(name.trim_end_matches('/')).symlink_metadata().is_ok(), "{name}");
    }
    assert_eq!(names(&store).await, ["object"]);
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn changes_by_others_make_a_new_tag() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    put(&store, "object", "old bytes").await;
    let pinned = store.head(HeadRequest::latest(key("object"))).await.unwrap().version;
    let path = dir.path().join("object");
    for (change, bytes) in [("longer", "new, longer bytes"), ("same length", "new bytes")] {
        let before = store.head(HeadRequest::latest(key("object"))).await.unwrap().version;
        std::fs::write(&path, bytes).unwrap();
        let after = store.head(HeadRequest::latest(key("object"))).await.unwrap().version;
        assert_ne!(before, after, "{change}");
    }
    let request = GetRequest { key: key("object"), range: None, version: Some(pinned) };
    assert_eq!(store.get(request).await.unwrap_err().kind(), ErrorKind::VersionMismatch);
}

#[tokio::test]
async fn a_write_in_place_fails_the_body_under_way() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let body = vec![b'a'; 4 << 20];
    store.put(&key("object"), body.into(), NewObject::default(), PutCondition::Always).await.unwrap();
    let request = GetRequest { key: key("object"), range: None, version: None };
    let mut body = store.get(request).await.unwrap().body;
    let first = body.try_next().await.unwrap().unwrap();
    assert!(first.iter().all(|byte| *byte == b'a'));
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("object")).unwrap();
    file.write_at(b"b", 3 << 20).unwrap();
    let rest: Result<Vec<_>, _> = body.try_collect().await;
    assert_eq!(rest.unwrap_err().kind(), ErrorKind::VersionMismatch);
}

#[tokio::test]
async fn uploads_survive_a_restart_and_sessions_do_not() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let upload = store.create_multipart(&key("d/object"), NewObject::default()).await.unwrap();
    let number = staithe_store::PartNumber::new(1).unwrap();
    let receipt = store.upload_part(&upload, number, "part".into()).await.unwrap();
    drop(store);
    let store = open(&dir);
    let found = store.list_multiparts("", None).await.unwrap().uploads;
    assert_eq!(found, std::slice::from_ref(&upload));
    store.complete_multipart(&found[0], &[receipt], PutCondition::Always).await.unwrap();
    assert_eq!(names(&store).await, ["d/object"]);
    drop(store);
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_session_in_use_is_not_swept() {
    let dir = TempDir::new().unwrap();
    let (first, second) = (open(&dir), open(&dir));
    put(&first, "a", "1").await;
    put(&second, "b", "2").await;
    assert_eq!(leftovers(dir.path()).len(), 4, "two sessions and their locks");
    assert_eq!(names(&first).await, ["a", "b"]);
}

#[tokio::test]
async fn conditions_hold_between_two_stores_on_one_directory() {
    let dir = TempDir::new().unwrap();
    let stores = [open(&dir), open(&dir)];
    for round in 0..50 {
        let name = key(&format!("d{round}/object"));
        let puts = (0..8)
            .map(|i| stores[i % 2].put(&name, "x".into(), NewObject::default(), PutCondition::IfAbsent));
        let won = futures::future::join_all(puts).await.into_iter().flatten().count();
        assert_eq!(won, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_and_deletes_around_one_directory_leave_no_trace() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(open(&dir));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..60 {
                    let name = format!("a/b{}/c/{task}", round % 2);
                    put(&store, &name, "x").await;
                    assert_eq!(kind(&store, &name).await, None);
                    store.delete(DeleteRequest::latest(key(&name))).await.unwrap();
                    let listed = names(&store).await;
                    assert!(listed.iter().all(|name| !name.ends_with('/')), "a phantom: {listed:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(names(&store).await, Vec::<String>::new());
    assert!(!dir.path().join("a").exists());
}

#[tokio::test]
async fn a_removed_root_is_a_volume_gone() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    put(&store, "a", "1").await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::create_dir(dir.path()).unwrap(); // another directory of that name is not the volume
    assert_eq!(kind(&store, "a").await, Some(ErrorKind::VolumeGone));
    assert_eq!(store.probe().await.unwrap_err().kind(), ErrorKind::VolumeGone);
    let put = store.put(&key("a"), "1".into(), NewObject::default(), PutCondition::Always).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::VolumeGone);
    assert_eq!(store.list(ListRequest::default()).await.unwrap_err().kind(), ErrorKind::VolumeGone);
    let missing = DirectoryStore::open(dir.path().join("missing"), buffered());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::VolumeGone);
}

/// What sessions have left in the hidden area.
fn leftovers(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(".staithe-tmp")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("session-")).collect()
}

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use staithe_store::{
    HeadRequest, Key, MemoryStore, Metadata, NewObject, ObjectMeta, ObjectStore, PutCondition,
};

use super::*;
use crate::api::Kind;
use crate::config::{FsConfig, WriteMode};
use crate::inode::{Link, Marker, State};
use crate::metadata::FileMeta;
use crate::{Ino, Ttl};

async fn world(change: impl FnOnce(&mut FsConfig)) -> (Arc<MemoryStore>, Arc<Filesystem>, tempfile::TempDir) {
    let (bucket, state) = (Arc::new(MemoryStore::default()), tempfile::tempdir().unwrap());
    let mut config = FsConfig::new(state.path());
    change(&mut config);
    let fs = Filesystem::open(bucket.clone(), config).await.unwrap();
    (bucket, fs, state)
}

async fn verify(fs: &Filesystem, repair: bool) -> Vec<Difference> {
    let (tell, mut told) = mpsc::channel(64);
    let request = VerifyRequest { path: String::new(), repair };
    let progress = watch::Sender::default();
    fs.verify(&request, &progress, &tell).await.unwrap();
    drop(tell);
    let mut all = Vec::new();
    while let Some(difference) = told.recv().await {
        all.push(difference);
    }
    assert_eq!(progress.borrow().differences, all.len() as u64);
    all
}

fn kinds(found: &[Difference]) -> Vec<(&str, DifferenceKind)> {
    found.iter().map(|difference| (&*difference.path, difference.kind)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_that_are_kept_wrongly_are_forgotten() {
    let (bucket, fs, _state) =
        world(|config| config.live.metadata_ttl = Ttl::For(Duration::from_secs(1))).await;
    for name in ["right", "wrong"] {
        let key = Key::new(name).unwrap();
        bucket.put(&key, "bytes".into(), NewObject::default(), PutCondition::Always).await.unwrap();
        let there = bucket.head(HeadRequest::latest(key)).await.unwrap();
        let lie = Metadata::from([("mode".to_owned(), "33279".to_owned())]);
        let metadata = if name == "wrong" { lie } else { there.metadata.clone() };
        fs.keep_attributes(&ObjectMeta { metadata, ..there }, None);
    }
    fs.recall.settle().await;
    assert_eq!(kinds(&verify(&fs, false).await), [("wrong", DifferenceKind::Attributes)]);
    let mended = verify(&fs, true).await;
    assert_eq!(mended[0].outcome, Repair::Done("forgotten"));
    fs.recall.settle().await;
    assert_eq!(verify(&fs, false).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_job_is_given_one() {
    let (bucket, fs, _state) = world(|config| config.write_mode = WriteMode::Back).await;
    let meta = FileMeta::new(Kind::Directory, 0o755, 0, 0, SystemTime::now());
    let mut state = State::new(Some(Link { parent: Ino::ROOT, name: Arc::from("d") }), meta);
    (state.meta_dirty, state.marker) = (true, Marker::Pending);
    fs.inodes.insert(state);
    let found = verify(&fs, false).await;
    assert_eq!(kinds(&found), [("d", DifferenceKind::Unstored)]);
    assert!(found[0].detail.contains("nobody is storing it"), "{}", found[0].detail);
    assert_eq!(verify(&fs, true).await[0].outcome, Repair::Done("tried again"));
    let progress = watch::Sender::default();
    assert_eq!(fs.sync(&progress).await.failures, []);
    let marker = HeadRequest::latest(Key::new("d/").unwrap());
    bucket.head(marker).await.unwrap();
    assert_eq!(verify(&fs, false).await, []);
}

//! What a crash leaves, and what the next start makes of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use staithe_fs::{FsConfig, FsErrorKind as K, Ino, RenameMode};
use staithe_persist::{DiskJournal, Durability, Entry, Journal as _};
use staithe_store::decorators::{Fault, FaultAction, Operation as Op};
use staithe_store::{ErrorKind, MemoryOptions};
use world::{World, end, until};

/// Renames `a` to `z`, and ends the process at the first request of `op`.
async fn crash_in_rename(w: World, op: Op) -> World {
    w.ino("a").await;
    w.faults.add(Fault::new(FaultAction::Hang).on(op));
    let (fs, strikes) = (w.fs.clone(), w.faults.strikes());
    let rename =
        tokio::spawn(async move { fs.rename(Ino::ROOT, "a", Ino::ROOT, "z", RenameMode::Replace).await });
    until("the request is made", || w.faults.strikes() != strikes).await;
    rename.abort();
    let _ = rename.await;
    let World { bucket, fs, state, .. } = w;
    end(fs).await;
    World { bucket, state, ..World::new().await }
}

async fn restart(w: &World) -> World {
    let (log, faults, fs) = world::open(&w.bucket, FsConfig::new(w.state.path())).await.unwrap();
    World { bucket: w.bucket.clone(), log, faults, fs, state: tempfile::tempdir().unwrap() }
}

#[tokio::test]
async fn a_rename_that_a_crash_cut_short_is_finished() {
    for op in [Op::Copy, Op::DeleteBatch] {
        let w = World::new().await;
        for i in 0..5 {
            w.put(&format!("a/{i}"), format!("{i}").into_bytes()).await;
        }
        let w = crash_in_rename(w, op).await;
        let w = restart(&w).await;
        assert!(w.try_ino("a").await.is_none(), "{op:?}");
        assert_eq!(w.list("z").await, ["0", "1", "2", "3", "4"], "{op:?}");
        assert_eq!(w.cat("z/3").await.unwrap(), b"3");
    }
}

#[tokio::test]
async fn finishing_a_rename_keeps_what_was_written_since() {
    let w = World::new().await;
    for i in 0..5 {
        w.put(&format!("a/{i}"), "old").await;
    }
    let w = crash_in_rename(w, Op::DeleteBatch).await;
    w.put("z/1", "newer at the new name").await;
    w.put("a/2", "newer at the old name").await;
    let w = restart(&w).await;
    assert_eq!(w.stored("z/1").await.unwrap(), b"newer at the new name");
    assert_eq!(w.stored("z/0").await.unwrap(), b"old");
    let two = [w.stored("a/2").await, w.stored("z/2").await];
    assert!(two.contains(&Some(b"newer at the old name".to_vec())), "{two:?}");
}

#[tokio::test]
async fn a_rename_that_fails_before_the_switch_is_undone_for_good() {
    for op in [Op::Put, Op::DeleteBatch] {
        let w = World::new().await;
        for i in 0..5 {
            w.put(&format!("a/{i}"), "x").await;
        }
        w.put("a/", "").await;
        w.ino("a").await;
        w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden)).on(op).times(1));
        let error = w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "z", RenameMode::Replace).await.unwrap_err();
        assert_eq!(error.kind(), K::Forbidden, "{op:?}");
        w.faults.clear();
        assert!(w.try_ino("z").await.is_none(), "{op:?}");
        assert_eq!(w.cat("a/1").await.unwrap(), b"x");
        w.create("a", "new", b"after").await.unwrap();
        let World { bucket, fs, state, .. } = w;
        fs.drain(Duration::from_secs(1)).await;
        end(fs).await;
        let (_, _, fs) = world::open(&bucket, FsConfig::new(state.path())).await.unwrap();
        assert!(
            matches!(fs.lookup(Ino::ROOT, "z").await.unwrap(), staithe_fs::Lookup::Absent { .. }),
            "{op:?}"
        );
        drop(fs);
    }
}

/// A mount that could not store `f`, and has ended.
async fn unstored() -> World {
    let w = World::with(MemoryOptions::default(), |c| c.live.op_deadline = Duration::from_millis(30)).await;
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Unavailable)).on(Op::Put));
    w.create("", "f", b"precious").await.unwrap_err();
    assert_eq!(w.fs.drain(Duration::from_millis(100)).await.kept, ["f"]);
    let World { bucket, fs, state, .. } = w;
    end(fs).await;
    World { bucket, state, ..World::new().await }
}

#[tokio::test]
async fn storing_what_was_kept_twice_does_no_harm() {
    let w = unstored().await;
    let again = tempfile::tempdir().unwrap();
    copy_tree(w.state.path(), again.path());
    end(restart(&w).await.fs).await;
    assert_eq!(w.stored("f").await.unwrap(), b"precious");
    let second = World { state: again, ..w };
    let second = restart(&second).await;
    assert_eq!(second.list("").await, ["f"]);
}

#[tokio::test]
async fn what_was_kept_and_lost_its_race_is_stored_beside_once() {
    let w = unstored().await;
    w.put("f", "theirs").await;
    for _ in 0..3 {
        let w = restart(&w).await;
        assert_eq!(w.list("").await.len(), 2);
        assert_eq!(w.stored("f").await.unwrap(), b"theirs");
        end(w.fs).await;
    }
}

#[tokio::test]
async fn an_intent_of_a_newer_version_or_of_an_unknown_kind_is_refused_and_stays() {
    let records = [
        (&b"\x02{}"[..], K::Invalid),
        (b"\x01{\"intent\":\"dance\"}", K::Io),
        (b"\x01{", K::Io),
        (b"", K::Io),
    ];
    for (record, kind) in records {
        let w = unstored().await;
        let journal = DiskJournal::open(&w.state.path().join("journal")).unwrap();
        let entry = Entry::Record(journal.reserve(), record.into());
        journal.write(&[entry], Durability::Synced).unwrap();
        drop(journal);
        let before = bytes_of(w.state.path());
        let refused = world::open(&w.bucket, FsConfig::new(w.state.path())).await.err().unwrap();
        assert_eq!(refused.kind(), kind, "{refused}");
        assert_eq!(bytes_of(w.state.path()), before);
        assert_eq!(w.stored("f").await, None);
    }
}

/// Every file below a directory, with its bytes.
fn bytes_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                all.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    all
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

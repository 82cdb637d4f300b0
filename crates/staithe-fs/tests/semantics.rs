//! What a name means and what a handle reads, while the world changes underneath.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use staithe_fs::{Allocate, FsErrorKind as K, Ino, Lookup, OpenMode, RenameMode, SetAttr, Ttl, XattrMode};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op};
use staithe_store::{ErrorKind, MemoryOptions, ObjectStore};
use world::{READ, ROOT, WRITE, World, k, noise};

fn versioned() -> MemoryOptions {
    MemoryOptions { versioned: true, ..MemoryOptions::default() }
}

#[tokio::test]
async fn written_bytes_are_read_at_once_through_another_handle() {
    let w = World::new().await;
    let (entry, writer) = w.fs.create(Ino::ROOT, "log", 0o600, WRITE, ROOT).await.unwrap();
    let reader = w.fs.open_file(entry.attr.ino, READ).await.unwrap().handle;
    w.fs.write(writer.handle, 0, b"one ").unwrap();
    assert_eq!(w.read(reader, 0, 100).await.unwrap(), b"one ");
    w.fs.write(writer.handle, 4, b"two").unwrap();
    assert_eq!(w.read(reader, 0, 100).await.unwrap(), b"one two");
    assert!(w.list("").await.contains(&"log".to_owned()));
    w.close(writer.handle).await.unwrap();
    assert_eq!(w.read(reader, 0, 100).await.unwrap(), b"one two");
}

#[tokio::test]
async fn an_unlinked_open_file_reads_on() {
    let w = World::new().await;
    let body = noise(3 << 20);
    w.put("d/f", body.clone()).await;
    let handle = w.open("d/f", READ).await;
    assert_eq!(w.read(handle, 0, 10).await.unwrap(), &body[..10]);
    let dir = w.ino("d").await;
    w.fs.unlink(dir, "f").await.unwrap();
    assert!(w.stored("d/f").await.is_none());
    assert_eq!(w.read(handle, 2 << 20, 4096).await.unwrap(), &body[2 << 20..][..4096]);
    // The directory outlives its last child.
    assert!(w.stored("d/").await.is_some());
    assert!(w.list("d").await.is_empty());
    w.fs.release(handle);
}

#[tokio::test]
async fn f2_a_replaced_object_is_stale_on_that_handle_alone() {
    let w = World::new().await;
    let old = noise(4 << 20);
    w.put("movie", old.clone()).await;
    let handle = w.open("movie", READ).await;
    assert_eq!(w.read(handle, 0, 4096).await.unwrap(), &old[..4096]);
    let new = vec![9_u8; 4 << 20];
    w.put("movie", new.clone()).await;
    let mut at = 4096;
    let error = loop {
        match w.read(handle, at, 4096).await {
            Ok(bytes) => {
                assert_eq!(bytes, &old[at as usize..][..4096], "bytes of another version at {at}");
                at += 4096;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), K::Stale);
    assert_eq!(w.read(handle, at, 4096).await.unwrap_err().kind(), K::Stale);
    assert!(w.cat("movie").await.unwrap() == new);
}

#[tokio::test]
async fn f2_a_versioned_bucket_keeps_an_open_file_to_its_end() {
    let w = World::with(versioned(), |_| {}).await;
    let old = noise(4 << 20);
    w.put("movie", old.clone()).await;
    let handle = w.open("movie", READ).await;
    w.put("movie", "new").await;
    w.bucket.delete(staithe_store::DeleteRequest::latest(k("movie"))).await.unwrap();
    let mut all = Vec::new();
    while all.len() < old.len() {
        all.extend(w.read(handle, all.len() as u64, 100_000).await.unwrap());
    }
    assert!(all == old);
}

#[tokio::test]
async fn f1_an_operation_by_inode_on_a_name_that_is_gone_is_stale() {
    let w = World::new().await;
    w.put("f", "1").await;
    let ino = w.ino("f").await;
    w.bucket.delete(staithe_store::DeleteRequest::latest(k("f"))).await.unwrap();
    assert_eq!(w.fs.open_file(ino, READ).await.unwrap_err().kind(), K::Stale);
    assert!(matches!(w.fs.lookup(Ino::ROOT, "f").await.unwrap(), Lookup::Absent { .. }));
    w.create("", "f", b"2").await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"2");
}

#[tokio::test]
async fn a_lost_race_keeps_both() {
    let w = World::new().await;
    w.put("f", "base").await;
    let handle = w.open("f", WRITE).await;
    w.fs.write(handle, 0, b"OURS").unwrap();
    w.put("f", "theirs").await;
    assert_eq!(w.close(handle).await.unwrap_err().kind(), K::Stale);
    assert_eq!(w.stored("f").await.unwrap(), b"theirs");
    let beside = w.list("").await.into_iter().find(|n| n.starts_with("f.conflict-host-")).unwrap();
    assert_eq!(w.stored(&beside).await.unwrap(), b"OURS");
    assert_eq!(w.cat("f").await.unwrap(), b"theirs");
}

#[tokio::test]
async fn a_put_that_succeeded_behind_an_error_is_recognised() {
    let w = World::new().await;
    w.faults.add(Fault::new(FaultAction::FailAfter(ErrorKind::Unavailable)).on(Op::Put).times(1));
    w.create("", "f", b"once").await.unwrap();
    assert_eq!(w.list("").await, ["f"]);
    assert_eq!(w.stored("f").await.unwrap(), b"once");
}

#[tokio::test]
async fn a_store_that_stumbles_costs_no_byte() {
    let w = World::new().await;
    let body = noise(5 << 20);
    for op in [Op::Put, Op::Get, Op::Head, Op::List] {
        w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Unavailable)).on(op).times(2));
    }
    w.create("", "f", &body).await.unwrap();
    w.fs.forget(w.ino("f").await, u64::MAX);
    w.faults.add(Fault::new(FaultAction::ShortBody(1000)).on(Op::Get).times(3));
    assert!(w.cat("f").await.unwrap() == body);
}

#[tokio::test]
async fn a_directory_is_renamed_whole() {
    let w = World::new().await;
    for i in 0..30 {
        w.put(&format!("a/b/{i}"), format!("{i}").into_bytes()).await;
    }
    let open = w.open("a/b/7", READ).await;
    w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "z", RenameMode::Replace).await.unwrap();
    assert_eq!(w.list("z/b").await.len(), 30);
    assert!(w.try_ino("a").await.is_none());
    assert!(w.stored("a/b/7").await.is_none());
    assert_eq!(w.cat("z/b/29").await.unwrap(), b"29");
    assert_eq!(w.read(open, 0, 10).await.unwrap(), b"7");
}

#[tokio::test]
async fn a_failed_directory_rename_leaves_nothing_behind() {
    let w =
        World::with(MemoryOptions::default(), |c| c.live.op_deadline = std::time::Duration::from_millis(50))
            .await;
    for i in 0..5 {
        w.put(&format!("a/{i}"), "x").await;
    }
    w.ino("a").await;
    w.faults.add(
        Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden)).on(Op::Copy).key(|key| key.ends_with('3')),
    );
    let error = w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "z", RenameMode::Replace).await.unwrap_err();
    assert_eq!(error.kind(), K::Forbidden);
    assert_eq!(w.list("a").await.len(), 5);
    assert!(w.try_ino("z").await.is_none());
}

#[tokio::test]
async fn rmdir_refuses_a_directory_with_children_of_any_kind() {
    let w = World::new().await;
    let entry = w.fs.mkdir(Ino::ROOT, "d", 0o755, ROOT).await.unwrap();
    let (_, opened) = w.fs.create(entry.attr.ino, "unstored", 0o644, WRITE, ROOT).await.unwrap();
    assert_eq!(w.fs.rmdir(Ino::ROOT, "d").await.unwrap_err().kind(), K::NotEmpty);
    w.close(opened.handle).await.unwrap();
    assert_eq!(w.fs.rmdir(Ino::ROOT, "d").await.unwrap_err().kind(), K::NotEmpty);
    w.fs.unlink(entry.attr.ino, "unstored").await.unwrap();
    w.fs.rmdir(Ino::ROOT, "d").await.unwrap();
    assert_eq!(w.bucket.object_count(), 0);
}

#[tokio::test]
async fn attributes_survive_a_remount() {
    let w = World::new().await;
    let ino = w.create("", "f", b"body").await.unwrap();
    let set = SetAttr { mode: Some(0o4755), uid: Some(7), gid: Some(8), ..SetAttr::default() };
    w.fs.setattr(ino, None, set).await.unwrap();
    w.fs.setxattr(ino, "user.colour", b"blue\0", XattrMode::Set).await.unwrap();
    w.fs.symlink(Ino::ROOT, "l", b"../elsewhere", ROOT).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let (_, _, fs) = world::open(&w.bucket, staithe_fs::FsConfig::new(other.path())).await.unwrap();
    let Lookup::Found(entry) = fs.lookup(Ino::ROOT, "f").await.unwrap() else { panic!("gone") };
    let attr = entry.attr;
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o4755, 7, 8, 4));
    assert_eq!(&fs.getxattr(attr.ino, "user.colour").await.unwrap()[..], b"blue\0");
    let Lookup::Found(link) = fs.lookup(Ino::ROOT, "l").await.unwrap() else { panic!("gone") };
    assert_eq!(&fs.readlink(link.attr.ino).await.unwrap()[..], b"../elsewhere");
}

#[tokio::test]
async fn truncate_holes_and_allocation_end_up_in_the_object() {
    let w = World::new().await;
    let mut model = noise(300_000);
    w.put("f", model.clone()).await;
    let handle = w.open("f", WRITE).await;
    w.fs.fallocate(handle, 1000, 5000, Allocate::PunchHole).await.unwrap();
    model[1000..6000].fill(0);
    w.fs.write(handle, 400_000, b"tail").unwrap();
    model.resize(400_000, 0);
    model.extend(b"tail");
    w.fs.fallocate(handle, 0, 500_000, Allocate::Extend).await.unwrap();
    model.resize(500_000, 0);
    w.close(handle).await.unwrap();
    assert!(w.stored("f").await.unwrap() == model);
    w.fs.setattr(w.ino("f").await, None, SetAttr { size: Some(10), ..SetAttr::default() }).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), &model[..10]);
}

#[tokio::test]
async fn close_stores_what_only_opening_for_reading_changed() {
    let w = World::new().await;
    let (_, made) = w.fs.create(Ino::ROOT, "lock", 0o600, READ, ROOT).await.unwrap();
    assert!(!made.no_flush);
    w.close(made.handle).await.unwrap();
    assert_eq!(w.stored("lock").await.unwrap(), b"");

    w.put("f", noise(100)).await;
    let cut = w.fs.open_file(w.ino("f").await, OpenMode { truncate: true, ..READ }).await.unwrap();
    assert!(!cut.no_flush);
    // Its error is close's error.
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden)).on(Op::Put).times(1));
    assert_eq!(w.fs.flush(cut.handle).await.unwrap_err().kind(), K::Forbidden);
    w.close(cut.handle).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"");

    let read = w.fs.open_file(w.ino("f").await, READ).await.unwrap();
    assert!(read.no_flush);
    w.fs.release(read.handle);
}

#[tokio::test]
async fn what_a_failing_store_did_not_take_is_kept_for_the_next_mount() {
    let w =
        World::with(MemoryOptions::default(), |c| c.live.op_deadline = std::time::Duration::from_millis(30))
            .await;
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Unavailable)).on(Op::Put));
    let error = w.create("", "f", b"precious").await.unwrap_err();
    assert_eq!(error.kind(), K::TimedOut);
    assert!(w.fs.getxattr(w.ino("f").await, "user.staithe.state").await.unwrap().starts_with(b"failed: "));
    let report = w.fs.drain(std::time::Duration::from_millis(100)).await;
    assert_eq!(report.kept, ["f"]);
    let World { bucket, fs, state, .. } = w;
    drop(fs);
    let (_, _, fs) = world::open(&bucket, staithe_fs::FsConfig::new(state.path())).await.unwrap();
    let Lookup::Found(entry) = fs.lookup(Ino::ROOT, "f").await.unwrap() else { panic!("lost") };
    assert_eq!(entry.attr.size, 8);
    assert!(fs.drain(std::time::Duration::from_secs(1)).await.kept.is_empty());
}

#[tokio::test]
async fn a_full_volume_is_no_space() {
    let w = World::new().await;
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::OutOfSpace)).on(Op::Put));
    assert_eq!(w.create("", "f", b"x").await.unwrap_err().kind(), K::NoSpace);
}

#[tokio::test]
async fn a_truncated_open_file_reads_as_nothing() {
    let w = World::new().await;
    w.put("f", noise(1 << 20)).await;
    let reader = w.open("f", READ).await;
    let replace = OpenMode { truncate: true, ..WRITE };
    let writer = w.open("f", replace).await;
    assert_eq!(w.read(reader, 1000, 10).await.unwrap(), b"");
    w.close(writer).await.unwrap();
    assert_eq!(w.read(reader, 0, 10).await.unwrap(), b"");
}

#[tokio::test]
async fn a_listing_that_the_rename_of_a_directory_above_overtook_is_not_remembered() {
    for after_the_store_answers in [false, true] {
        let w = World::with(MemoryOptions::default(), |c| c.live.metadata_ttl = Ttl::Forever).await;
        for name in ["a/d/1", "a/d/2", "a/e/1"] {
            w.put(name, "x").await;
        }
        let dir = w.ino("a/d").await;
        let gate = Gate::new();
        let action = if after_the_store_answers { FaultAction::HoldAfter } else { FaultAction::HoldBefore };
        w.faults.add(Fault::new(action(gate.clone())).on(Op::List).key(|key| key == "a/d/").times(1));
        let change = async {
            gate.arrived(1).await;
            w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "b", RenameMode::Replace).await.unwrap();
            gate.open();
        };
        tokio::join!(w.entries(dir), change);
        assert_eq!(w.entries(dir).await, ["1", "2"]);
    }
}

//! Two things at once: a request is held at a gate while the world, or another caller, goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use std::time::Duration;

use staithe_fs::{FsErrorKind as K, HandleId, Ino, Lookup, Opened, RenameMode, SetAttr, SetTime, Ttl};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op};
use staithe_store::{Capabilities, ErrorKind, MemoryOptions, ObjectStore};
use tokio::task::JoinHandle;
use world::{READ, ROOT, WRITE, World, k, noise};

const MIB: usize = 1 << 20;

/// Holds the next request of this operation before it is made.
fn hold(w: &World, op: Op) -> Gate {
    let gate = Gate::new();
    w.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).on(op).times(1));
    gate
}

/// The next request of this operation has its effect, and then the store is out of reach.
fn lose_answers(w: &World, op: Op) {
    w.faults.add(Fault::new(FaultAction::FailAfter(ErrorKind::Unavailable)).on(op).times(1));
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Unavailable)).on(op));
}

async fn short_deadline() -> World {
    World::with(MemoryOptions::default(), |c| c.live.op_deadline = Duration::from_millis(30)).await
}

async fn always_asking() -> World {
    World::with(MemoryOptions::default(), |c| {
        (c.live.metadata_ttl, c.live.negative_ttl) = (Ttl::Zero, Ttl::Zero);
    })
    .await
}

async fn settled(w: &World) {
    w.fs.drain(Duration::from_secs(5)).await;
}

/// Inodes in memory.
fn inodes(w: &World) -> usize {
    let text = format!("{:?}", w.fs);
    text.split("inodes: ")
        .nth(1)
        .unwrap()
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_partial_change_of_a_replaced_object_is_never_dropped_in_silence() {
    let w = World::new().await;
    w.put("f", noise(1000)).await;
    let handle = w.open("f", WRITE).await;
    w.fs.write(handle, 10, b"OURS").unwrap();
    w.put("f", "theirs").await;
    assert_eq!(w.close(handle).await.unwrap_err().kind(), K::Stale);
    assert_eq!(w.cat("f").await.unwrap(), b"theirs");
    let aside = std::fs::read_dir(w.state.path().join("lost+found")).unwrap().next().unwrap().unwrap();
    assert_eq!(&std::fs::read(aside.path()).unwrap()[10..14], b"OURS");
}

#[tokio::test]
async fn a_reader_that_meets_a_replaced_base_does_not_take_the_name_from_a_writer() {
    let w = World::new().await;
    w.put("f", noise(4 * MIB)).await;
    let (writer, reader) = (w.open("f", WRITE).await, w.open("f", READ).await);
    w.fs.write(writer, 10, b"OURS").unwrap();
    w.put("f", "theirs").await;
    assert_eq!(w.read(reader, 2 << 20, 10).await.unwrap_err().kind(), K::Stale);
    assert_eq!(w.close(writer).await.unwrap_err().kind(), K::Stale);
}

#[tokio::test]
async fn a_writer_whose_object_was_replaced_is_told() {
    let w = always_asking().await;
    w.put("f", "base").await;
    let handle = w.open("f", WRITE).await;
    w.put("f", "theirs").await;
    w.ino("f").await;
    let written = w.fs.write(handle, 0, b"OURS");
    let closed = w.close(handle).await;
    assert!(written.is_err_and(|e| e.kind() == K::Stale) || closed.is_err_and(|e| e.kind() == K::Stale));
    assert_eq!(w.stored("f").await.unwrap(), b"theirs");
}

#[tokio::test]
async fn a_close_does_not_take_away_what_an_unlink_keeps_for_another_reader() {
    let w = World::new().await;
    let body = noise(3 * MIB);
    w.put("f", body.clone()).await;
    let (one, other) = (w.open("f", READ).await, w.open("f", READ).await);
    let gate = hold(&w, Op::Get);
    let fs = w.fs.clone();
    let unlink = tokio::spawn(async move { fs.unlink(Ino::ROOT, "f").await });
    gate.arrived(1).await;
    w.fs.release(other);
    gate.open();
    unlink.await.unwrap().unwrap();
    assert_eq!(w.read(one, 2 << 20, 4096).await.unwrap(), &body[2 << 20..][..4096]);
}

#[tokio::test]
async fn bytes_written_while_a_large_file_is_stored_are_stored_by_the_next_close() {
    let w = World::new().await;
    let mut body = noise(20 * MIB);
    let (_, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, &body).unwrap();
    let gate = hold(&w, Op::CompleteMultipart);
    let (fs, handle) = (w.fs.clone(), opened.handle);
    let sync = tokio::spawn(async move { fs.fsync(handle).await });
    gate.arrived(1).await;
    w.fs.write(handle, 5, b"later").unwrap();
    body[5..10].copy_from_slice(b"later");
    gate.open();
    sync.await.unwrap().unwrap();
    w.fs.write(handle, 9 << 20, b"last").unwrap();
    body[9 << 20..][..4].copy_from_slice(b"last");
    w.close(handle).await.unwrap();
    assert!(w.stored("f").await.unwrap() == body);
    settled(&w).await;
    assert!(w.bucket.list_multiparts("", None).await.unwrap().uploads.is_empty());
}

#[tokio::test]
async fn a_large_file_cut_to_nothing_while_it_is_stored() {
    let w = World::new().await;
    let gate = hold(&w, Op::UploadPart);
    let (entry, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, &noise(20 * MIB)).unwrap();
    gate.arrived(1).await;
    let (fs, handle) = (w.fs.clone(), opened.handle);
    let flush = tokio::spawn(async move { fs.flush(handle).await });
    tokio::task::yield_now().await;
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    w.fs.setattr(entry.attr.ino, Some(handle), cut).await.unwrap();
    gate.open();
    flush.await.unwrap().unwrap();
    w.close(handle).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"");
}

#[tokio::test]
async fn a_stored_large_file_cut_while_it_is_stored_again() {
    let w = World::new().await;
    w.put("f", noise(40 * MIB)).await;
    let ino = w.ino("f").await;
    let handle = w.open("f", WRITE).await;
    w.fs.write(handle, 30 << 20, b"x").unwrap();
    let gate = hold(&w, Op::CreateMultipart);
    let fs = w.fs.clone();
    let flush = tokio::spawn(async move { fs.flush(handle).await });
    gate.arrived(1).await;
    w.fs.setattr(ino, Some(handle), SetAttr { size: Some(5), ..SetAttr::default() }).await.unwrap();
    gate.open();
    flush.await.unwrap().unwrap();
    w.close(handle).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), &noise(5)[..]);
}

#[tokio::test]
async fn a_part_that_is_rewritten_while_it_is_sent() {
    let w = World::new().await;
    let gate = hold(&w, Op::UploadPart);
    let mut body = noise(20 * MIB);
    let (_, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, &body).unwrap();
    gate.arrived(1).await;
    w.fs.write(opened.handle, 0, b"header").unwrap();
    body[..6].copy_from_slice(b"header");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    w.close(opened.handle).await.unwrap();
    assert!(w.stored("f").await.unwrap() == body);
}

#[tokio::test]
async fn a_put_that_took_effect_though_it_failed_is_not_another_client() {
    let w = short_deadline().await;
    w.fs.lookup(Ino::ROOT, "f").await.unwrap();
    let (_, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, b"one").unwrap();
    lose_answers(&w, Op::Put);
    assert_eq!(w.fs.flush(opened.handle).await.unwrap_err().kind(), K::TimedOut);
    w.faults.clear();
    w.fs.write(opened.handle, 3, b" two").unwrap();
    w.close(opened.handle).await.unwrap();
    assert_eq!(w.list("").await, ["f"]);
    assert_eq!(w.stored("f").await.unwrap(), b"one two");
}

#[tokio::test]
async fn a_put_that_took_effect_though_it_failed_does_not_outlive_an_unlink() {
    let w = short_deadline().await;
    lose_answers(&w, Op::Put);
    w.create("", "f", b"one").await.unwrap_err();
    w.faults.clear();
    w.fs.unlink(Ino::ROOT, "f").await.unwrap();
    settled(&w).await;
    assert_eq!(w.bucket.object_count(), 0);
}

#[tokio::test]
async fn a_put_that_took_effect_though_it_failed_moves_with_a_rename() {
    let w = short_deadline().await;
    w.fs.lookup(Ino::ROOT, "f").await.unwrap();
    let (_, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, b"one").unwrap();
    lose_answers(&w, Op::Put);
    w.fs.flush(opened.handle).await.unwrap_err();
    w.faults.clear();
    w.fs.rename(Ino::ROOT, "f", Ino::ROOT, "g", RenameMode::Replace).await.unwrap();
    w.close(opened.handle).await.unwrap();
    assert!(w.stored("f").await.is_none());
    assert_eq!(w.stored("g").await.unwrap(), b"one");
    assert_eq!(w.list("").await, ["g"]);
}

#[tokio::test]
async fn a_close_that_is_given_up_is_finished_all_the_same() {
    let w = World::new().await;
    let gate = Gate::new();
    w.faults.add(Fault::new(FaultAction::HoldAfter(gate.clone())).on(Op::Put).times(1));
    w.fs.lookup(Ino::ROOT, "f").await.unwrap();
    let (_, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, b"one").unwrap();
    let (fs, handle) = (w.fs.clone(), opened.handle);
    let flush = tokio::spawn(async move { fs.flush(handle).await });
    gate.arrived(1).await;
    flush.abort();
    assert!(flush.await.unwrap_err().is_cancelled());
    gate.open();
    w.fs.write(handle, 0, b"two").unwrap();
    w.close(handle).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"two");
    assert_eq!(w.list("").await, ["f"]);
}

#[tokio::test]
async fn a_commit_in_parts_follows_its_base_when_the_directory_is_renamed() {
    let w = World::new().await;
    let mut body = noise(40 * MIB);
    w.put("d/f", body.clone()).await;
    let handle = w.open("d/f", WRITE).await;
    w.fs.write(handle, 0, b"new").unwrap();
    body[..3].copy_from_slice(b"new");
    let gate = hold(&w, Op::UploadPartCopy);
    let fs = w.fs.clone();
    let flush = tokio::spawn(async move { fs.flush(handle).await });
    gate.arrived(1).await;
    w.fs.rename(Ino::ROOT, "d", Ino::ROOT, "e", RenameMode::Replace).await.unwrap();
    gate.open();
    flush.await.unwrap().unwrap();
    w.close(handle).await.unwrap();
    assert!(w.stored("e/f").await.unwrap() == body);
    assert!(w.stored("d/f").await.is_none());
    assert_eq!(w.list("e").await, ["f"]);
}

#[tokio::test]
async fn a_renamed_directory_does_not_mix_two_versions_in_one_handle() {
    let w = World::new().await;
    let (old, new) = (noise(6 * MIB), vec![9; 6 * MIB]);
    w.put("a/f", old.clone()).await;
    let (reader, writer) = (w.open("a/f", READ).await, w.open("a/f", READ).await);
    w.fs.release(writer);
    assert_eq!(w.read(reader, 0, 4096).await.unwrap(), &old[..4096]);
    w.put("a/f", new).await;
    w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "z", RenameMode::Replace).await.unwrap();
    for at in (0..6 * MIB).step_by(64 << 10) {
        match w.read(reader, at as u64, 64 << 10).await {
            Ok(bytes) => assert!(bytes == old[at..][..64 << 10], "bytes of another version at {at}"),
            Err(error) => assert_eq!(error.kind(), K::Stale),
        }
    }
}

#[tokio::test]
async fn a_renamed_directory_does_not_hide_a_lost_race() {
    let w = World::new().await;
    w.put("a/f", noise(1000)).await;
    let handle = w.open("a/f", WRITE).await;
    w.fs.write(handle, 0, b"OURS").unwrap();
    w.put("a/f", vec![9; 1000]).await;
    w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "z", RenameMode::Replace).await.unwrap();
    assert_eq!(w.close(handle).await.unwrap_err().kind(), K::Stale);
    assert_eq!(w.stored("z/f").await.unwrap(), [9; 1000]);
}

/// A writer of `f`, and another open of it whose question to the store is held.
async fn asking_beside_a_writer(w: &World) -> (HandleId, Gate, JoinHandle<staithe_fs::Result<Opened>>) {
    w.put("f", "base").await;
    let ino = w.ino("f").await;
    let writer = w.open("f", WRITE).await;
    let gate = hold(w, Op::Head);
    let fs = w.fs.clone();
    let open = tokio::spawn(async move { fs.open_file(ino, WRITE).await });
    gate.arrived(1).await;
    (writer, gate, open)
}

#[tokio::test]
async fn an_own_commit_is_no_remote_change_to_an_open_that_asks() {
    let w = always_asking().await;
    let (writer, gate, open) = asking_beside_a_writer(&w).await;
    w.fs.write(writer, 0, b"OURS").unwrap();
    w.fs.flush(writer).await.unwrap();
    gate.open();
    let second = open.await.unwrap().unwrap().handle;
    w.fs.write(writer, 0, b"more").unwrap();
    w.close(writer).await.unwrap();
    w.close(second).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"more");
}

#[tokio::test]
async fn a_late_revalidation_does_not_take_the_name_from_a_writer() {
    let w = always_asking().await;
    let (writer, gate, open) = asking_beside_a_writer(&w).await;
    w.fs.write(writer, 0, b"OURS").unwrap();
    w.put("f", "theirs").await;
    gate.open();
    let _ = open.await.unwrap();
    assert_eq!(w.close(writer).await.unwrap_err().kind(), K::Stale);
    assert_eq!(w.list("").await.len(), 2, "ours is kept beside theirs");
}

#[tokio::test]
async fn an_unsynced_rename_over_a_stored_file_never_leaves_the_name_empty() {
    let w = World::new().await;
    w.put("f", "old").await;
    w.fs.lookup(Ino::ROOT, "tmp").await.unwrap();
    let (_, opened) = w.fs.create(Ino::ROOT, "tmp", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, b"new").unwrap();
    w.fs.rename(Ino::ROOT, "tmp", Ino::ROOT, "f", RenameMode::Replace).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"old");
    assert_eq!(w.cat("f").await.unwrap(), b"new");
    w.close(opened.handle).await.unwrap();
    assert_eq!(w.stored("f").await.unwrap(), b"new");
    assert_eq!(w.list("").await, ["f"]);
}

#[tokio::test]
async fn a_failed_copy_in_parts_is_not_taken_for_the_foreign_object_at_its_target() {
    let capabilities = Capabilities { part_size_max: 8 << 20, ..Capabilities::S3 };
    let w = World::with(MemoryOptions { capabilities, ..MemoryOptions::default() }, |_| {}).await;
    let body = noise(20 * MIB);
    let caps = w.bucket.create_multipart(&k("a"), staithe_store::NewObject::default()).await.unwrap();
    let mut receipts = Vec::new();
    for (i, part) in body.chunks(8 * MIB).enumerate() {
        let number = staithe_store::PartNumber::new(i as u16 + 1).unwrap();
        receipts.push(w.bucket.upload_part(&caps, number, part.to_vec().into()).await.unwrap());
    }
    w.bucket.complete_multipart(&caps, &receipts, staithe_store::PutCondition::Always).await.unwrap();
    w.put("b", "another").await;
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::NotFound)).on(Op::CompleteMultipart));
    w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "b", RenameMode::Replace).await.unwrap_err();
    assert!(w.stored("a").await.unwrap() == body);
}

#[tokio::test]
async fn a_chmod_whose_answer_was_lost_is_recognised() {
    let w = World::new().await;
    let (entry, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, &noise(20 * MIB)).unwrap();
    w.close(opened.handle).await.unwrap();
    w.faults.add(Fault::new(FaultAction::FailAfter(ErrorKind::Unavailable)).on(Op::Copy).times(1));
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    w.fs.setattr(entry.attr.ino, None, set).await.unwrap();
    assert_eq!(w.meta("f").await.unwrap().metadata["mode"], (0o100_600).to_string());
}

#[tokio::test]
async fn attributes_changed_while_a_file_is_uploaded_ahead_are_stored_or_stay_dirty() {
    let w = World::new().await;
    let (entry, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    let gate = hold(&w, Op::UploadPart);
    w.fs.write(opened.handle, 0, &noise(20 * MIB)).unwrap();
    gate.arrived(1).await;
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1000);
    let set = SetAttr { mode: Some(0o600), atime: Some(SetTime::To(then)), ..SetAttr::default() };
    w.fs.setattr(entry.attr.ino, Some(opened.handle), set).await.unwrap();
    gate.open();
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden)).on(Op::Copy).times(1));
    assert_eq!(w.fs.flush(opened.handle).await.unwrap_err().kind(), K::Forbidden);
    w.close(opened.handle).await.unwrap();
    let meta = w.meta("f").await.unwrap().metadata;
    assert_eq!((meta["mode"].as_str(), meta["atime"].as_str()), (&*(0o100_600).to_string(), "1000"));
}

#[tokio::test]
async fn an_access_time_set_while_a_file_is_uploaded_ahead_is_stored() {
    let w = World::new().await;
    let (entry, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    let gate = hold(&w, Op::UploadPart);
    w.fs.write(opened.handle, 0, &noise(20 * MIB)).unwrap();
    gate.arrived(1).await;
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1000);
    let set = SetAttr { atime: Some(SetTime::To(then)), ..SetAttr::default() };
    w.fs.setattr(entry.attr.ino, Some(opened.handle), set).await.unwrap();
    gate.open();
    w.close(opened.handle).await.unwrap();
    assert_eq!(w.meta("f").await.unwrap().metadata["atime"], "1000");
}

#[tokio::test]
async fn a_mkdir_whose_answer_was_lost_is_recognised() {
    let w = World::new().await;
    w.faults.add(Fault::new(FaultAction::FailAfter(ErrorKind::Unavailable)).on(Op::Put).times(1));
    w.fs.mkdir(Ino::ROOT, "d", 0o755, ROOT).await.unwrap();
}

#[tokio::test]
async fn create_opens_what_a_listing_showed_meanwhile() {
    let w = World::new().await;
    assert!(matches!(w.fs.lookup(Ino::ROOT, "f").await.unwrap(), Lookup::Absent { .. }));
    w.put("f", "theirs").await;
    w.list("").await;
    let (entry, opened) = w.fs.create(Ino::ROOT, "f", 0o644, WRITE, ROOT).await.unwrap();
    assert_eq!(entry.attr.size, 6);
    assert_eq!(w.read(opened.handle, 0, 10).await.unwrap(), b"theirs");
}

#[tokio::test]
async fn directory_streams_and_renames_leave_no_inode_behind() {
    let w =
        World::with(MemoryOptions::default(), |c| c.attributes = staithe_fs::AttributeSource::Listing).await;
    for i in 0..10 {
        w.put(&format!("{i}"), "x").await;
    }
    let before = inodes(&w);
    let dir = w.fs.opendir(Ino::ROOT).await.unwrap();
    w.fs.readdir(dir, 0, 100).await.unwrap();
    w.fs.readdir(dir, 0, 100).await.unwrap();
    w.fs.releasedir(dir);
    assert_eq!(inodes(&w), before);
    w.fs.rename(Ino::ROOT, "1", Ino::ROOT, "2", RenameMode::NoReplace).await.unwrap_err();
    w.fs.rename(Ino::ROOT, "1", Ino::ROOT, "2", RenameMode::Replace).await.unwrap();
    assert_eq!(inodes(&w), before);
}

#[tokio::test]
async fn every_descriptor_is_told_of_a_lost_race() {
    let w = World::new().await;
    w.put("f", "base").await;
    let (one, other) = (w.open("f", WRITE).await, w.open("f", WRITE).await);
    w.fs.write(one, 0, b"OURS").unwrap();
    w.put("f", "theirs").await;
    assert_eq!(w.close(one).await.unwrap_err().kind(), K::Stale);
    assert_eq!(w.fs.write(other, 0, b"more").unwrap_err().kind(), K::Stale);
    assert_eq!(w.close(other).await.unwrap_err().kind(), K::Stale);
}

#[tokio::test]
async fn a_reader_sees_what_was_stored_through_another_handle() {
    let w = World::new().await;
    let mut body = noise(MIB);
    w.put("f", body.clone()).await;
    let reader = w.open("f", READ).await;
    assert_eq!(w.read(reader, 0, 4096).await.unwrap(), &body[..4096]);
    let writer = w.open("f", WRITE).await;
    w.fs.write(writer, 100, b"new").unwrap();
    w.fs.write(writer, body.len() as u64, b"longer").unwrap();
    w.close(writer).await.unwrap();
    body[100..103].copy_from_slice(b"new");
    body.extend_from_slice(b"longer");
    for at in [0, MIB - 10] {
        let end = body.len().min(at + 4096);
        assert!(w.read(reader, at as u64, 4096).await.unwrap() == body[at..end], "at {at}");
    }
}

#[tokio::test]
async fn a_store_that_only_ever_sends_half_is_an_error_and_not_a_hang() {
    let w = short_deadline().await;
    w.put("f", noise(1000)).await;
    let handle = w.open("f", WRITE).await;
    w.fs.write(handle, 0, b"x").unwrap();
    w.faults.add(Fault::new(FaultAction::ShortBody(0)).on(Op::Get));
    let closed = tokio::time::timeout(Duration::from_secs(5), w.fs.flush(handle)).await;
    closed.expect("it ends").unwrap_err();
}

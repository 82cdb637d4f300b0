//! Forgetting on demand: what a refresh makes the next look ask, and what it leaves alone. Requests are counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::time::Duration;

use staithe_fs::{
    Attr, AttributeSource, FsConfig, FsErrorKind, Ino, RefreshReport, RenameMode, SetAttr, Ttl,
};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op};
use staithe_store::{CopyRequest, DeleteRequest, MemoryOptions, NewObject, ObjectStore};
use tokio::time::timeout;
use world::{READ, WRITE, World, k};

fn for_ever(config: &mut FsConfig) {
    (config.live.metadata_ttl, config.live.negative_ttl) = (Ttl::Forever, Ttl::Forever);
}

fn by_listing(config: &mut FsConfig) {
    for_ever(config);
    config.attributes = AttributeSource::Listing;
}

async fn world(change: impl FnOnce(&mut FsConfig)) -> World {
    World::with(MemoryOptions::default(), change).await
}

async fn refresh(world: &World, path: &str) -> RefreshReport {
    let report = world.fs.refresh(&[path.to_owned()]).await;
    assert_eq!(report.failures, [], "{path:?}");
    report
}

async fn attr(world: &World, path: &str) -> Attr {
    let ino = world.ino(path).await;
    world.fs.getattr(ino, None).await.unwrap().attr
}

/// Gives an object other metadata, as another client does: its bytes and its tag stay.
async fn chmod_remotely(world: &World, key: &str, mode: &str) {
    let before = world.meta(key).await.unwrap();
    let metadata = [("mode".to_owned(), mode.to_owned())].into_iter().collect();
    let replace = Some(NewObject { metadata, content_type: None });
    world.bucket.copy(CopyRequest { from: k(key), from_version: None, to: k(key), replace }).await.unwrap();
    assert_eq!(world.meta(key).await.unwrap().version.etag, before.version.etag);
}

#[tokio::test]
async fn what_changed_below_is_seen_after_a_refresh_and_what_lies_beside_is_not_asked_for() {
    for change in [for_ever, by_listing] {
        let world = world(change).await;
        for key in ["d/same", "d/changed", "d/gone", "d/sub/deep", "beside/x"] {
            world.put(key, key.as_bytes().to_vec()).await;
        }
        for dir in ["", "d", "d/sub", "beside"] {
            world.list(dir).await;
        }
        for path in ["d/same", "d/changed", "d/gone", "d/sub/deep", "beside/x"] {
            attr(&world, path).await;
        }
        assert_eq!(world.try_ino("d/new").await, None);
        assert_eq!(world.try_ino("d/sub/new").await, None);
        world.put("d/changed", b"something longer than before".to_vec()).await;
        for key in ["d/new", "d/sub/new"] {
            world.put(key, key.as_bytes().to_vec()).await;
        }
        world.bucket.delete(DeleteRequest::latest(k("d/gone"))).await.unwrap();
        world.spent();

        assert_eq!(world.list("d").await, ["changed", "gone", "same", "sub"]);
        assert_eq!(attr(&world, "d/changed").await.size, 9);
        assert_eq!(world.try_ino("d/new").await, None);
        assert_eq!(world.try_ino("d/sub/new").await, None);
        assert_eq!(world.spent(), [], "believed for ever");

        let report = refresh(&world, "d").await;
        assert_eq!(world.spent(), [], "a refresh asks nothing");
        assert!(report.names >= 6 && report.inodes >= 6, "{report:?}");
        assert_eq!(attr(&world, "d/new").await.size, 5);
        assert_eq!(attr(&world, "d/sub/new").await.size, 9);
        assert_eq!(attr(&world, "d/changed").await.size, 28);
        assert_eq!(world.try_ino("d/gone").await, None);
        assert_eq!(world.list("d").await, ["changed", "new", "same", "sub"]);
        assert_eq!(world.list("d/sub").await, ["deep", "new"]);
        assert!(!world.spent().is_empty());

        attr(&world, "beside/x").await;
        assert_eq!(world.list("beside").await, ["x"]);
        assert_eq!(world.try_ino("beside/y").await, None);
        assert_eq!(world.spent(), [], "beside the path");
    }
}

#[tokio::test]
async fn the_root_and_a_single_file_can_be_refreshed() {
    let world = world(for_ever).await;
    world.put("a", b"1".to_vec()).await;
    world.put("b", b"1".to_vec()).await;
    world.list("").await;
    let (a, b) = (attr(&world, "a").await.ino, attr(&world, "b").await.ino);
    assert_eq!(world.try_ino("c").await, None);
    for key in ["a", "b", "c"] {
        world.put(key, b"22".to_vec()).await;
    }
    refresh(&world, "a").await;
    assert_ne!(attr(&world, "a").await.ino, a, "another version is another inode");
    assert_eq!(attr(&world, "b").await.size, 1);
    refresh(&world, "").await;
    assert_ne!(attr(&world, "b").await.ino, b);
    assert_eq!(attr(&world, "c").await.size, 2);
    assert_eq!(world.list("").await, ["a", "b", "c"]);
}

#[tokio::test]
async fn other_attributes_of_the_same_bytes_are_seen() {
    let world = world(for_ever).await;
    world.put("d/f", b"x".to_vec()).await;
    world.put("d/", Vec::new()).await;
    let (dir, before) = (attr(&world, "d").await, attr(&world, "d/f").await);
    chmod_remotely(&world, "d/f", "33024").await;
    chmod_remotely(&world, "d/", "16832").await;
    world.list("d").await;
    assert_eq!(attr(&world, "d/f").await, before);
    refresh(&world, "d").await;
    world.list("d").await;
    let after = attr(&world, "d/f").await;
    assert_eq!((after.ino, after.mode & 0o777), (before.ino, 0o400), "the same file with another mode");
    let after = attr(&world, "d").await;
    assert_eq!((after.ino, after.mode & 0o777), (dir.ino, 0o700));
}

#[tokio::test]
async fn open_files_keep_their_version_and_unstored_ones_their_bytes() {
    let world = World::with(MemoryOptions { versioned: true, ..MemoryOptions::default() }, for_ever).await;
    world.put("d/read", b"old bytes".to_vec()).await;
    world.put("d/written", b"old bytes".to_vec()).await;
    let reader = world.open("d/read", READ).await;
    let writer = world.open("d/written", WRITE).await;
    let ino = world.ino("d/written").await;
    world.fs.write(writer, 0, b"new").unwrap();
    let dir = world.ino("d").await;
    world.fs.lookup(dir, "created").await.unwrap();
    let caller = world::ROOT;
    let (created, opened) = world.fs.create(dir, "created", 0o600, WRITE, caller).await.unwrap();
    world.fs.write(opened.handle, 0, b"fresh").unwrap();
    world.put("d/read", b"their bytes".to_vec()).await;
    refresh(&world, "").await;
    assert_eq!(world.cat("d/read").await.unwrap(), b"their bytes");
    assert_eq!(world.read(reader, 0, 100).await.unwrap(), b"old bytes");
    assert_eq!(world.ino("d/written").await, ino);
    assert_eq!(world.read(writer, 0, 100).await.unwrap(), b"new bytes");
    assert_eq!(attr(&world, "d/created").await.ino, created.attr.ino);
    assert_eq!(world.list("d").await, ["read", "written", "created"]);
    world.close(writer).await.unwrap();
    world.close(opened.handle).await.unwrap();
    world.fs.release(reader);
    assert_eq!(world.stored("d/written").await.unwrap(), b"new bytes");
    assert_eq!(world.stored("d/created").await.unwrap(), b"fresh");
}

#[tokio::test]
async fn a_change_of_attributes_after_a_refresh_builds_on_what_the_store_has() {
    let world = world(for_ever).await;
    world.put("f", b"x".to_vec()).await;
    let ino = attr(&world, "f").await.ino;
    chmod_remotely(&world, "f", "33024").await;
    refresh(&world, "f").await;
    let change = SetAttr { uid: Some(7), ..SetAttr::default() };
    let after = world.fs.setattr(ino, None, change).await.unwrap().attr;
    assert_eq!((after.mode & 0o777, after.uid), (0o400, 7));
}

/// Holds the answer to a request until a refresh has run: what it says is not believed afterwards.
async fn across_a_refresh<T>(world: &World, op: Op, look: impl Future<Output = T>, act: impl Future) -> T {
    let gate = Gate::new();
    world.faults.add(Fault::new(FaultAction::HoldAfter(gate.clone())).on(op).times(1));
    let act = async {
        timeout(Duration::from_mins(1), gate.arrived(1)).await.unwrap();
        act.await;
        gate.open();
    };
    tokio::join!(look, act).0
}

#[tokio::test]
async fn a_lookup_under_way_is_not_believed_afterwards() {
    let world = world(for_ever).await;
    world.put("d/f", b"1".to_vec()).await;
    world.ino("d").await;
    let change = async {
        world.put("d/f", b"22".to_vec()).await;
        refresh(&world, "d").await;
    };
    across_a_refresh(&world, Op::Head, attr(&world, "d/f"), change).await;
    assert_eq!(attr(&world, "d/f").await.size, 2);
    let change = async {
        world.put("d/new", b"333".to_vec()).await;
        refresh(&world, "").await;
    };
    across_a_refresh(&world, Op::Head, world.try_ino("d/new"), change).await;
    assert_eq!(attr(&world, "d/new").await.size, 3);
}

#[tokio::test]
async fn a_listing_under_way_is_not_believed_afterwards() {
    let world = World::with(MemoryOptions { page_max: 2, ..MemoryOptions::default() }, for_ever).await;
    for name in ["a", "b", "c"] {
        world.put(&format!("d/{name}"), b"1".to_vec()).await;
    }
    world.ino("d").await;
    let change = async {
        world.put("d/a", b"22".to_vec()).await;
        world.put("d/aa", b"1".to_vec()).await;
        refresh(&world, "d").await;
    };
    across_a_refresh(&world, Op::List, world.list("d"), change).await;
    assert_eq!(attr(&world, "d/a").await.size, 2);
    assert_eq!(attr(&world, "d/aa").await.size, 1);
    assert_eq!(world.list("d").await, ["a", "aa", "b", "c"]);
}

#[tokio::test]
async fn a_question_about_attributes_under_way_is_not_believed_afterwards() {
    let world = world(for_ever).await;
    world.put("d/f", b"1".to_vec()).await;
    let ino = attr(&world, "d/f").await.ino;
    refresh(&world, "d").await;
    let change = async {
        chmod_remotely(&world, "d/f", "33024").await;
        refresh(&world, "d").await;
    };
    let stat = async { world.fs.getattr(ino, None).await.unwrap().attr.mode };
    assert_eq!(across_a_refresh(&world, Op::Head, stat, change).await & 0o777, 0o644);
    assert_eq!(world.fs.getattr(ino, None).await.unwrap().attr.mode & 0o777, 0o400);
}

#[tokio::test]
async fn the_first_bytes_under_way_prove_nothing_afterwards() {
    let world = world(by_listing).await;
    world.put("d/f", b"1".to_vec()).await;
    world.list("d").await;
    let ino = attr(&world, "d/f").await.ino;
    refresh(&world, "d").await;
    let change = async {
        world.put("d/f", b"22".to_vec()).await;
        refresh(&world, "d").await;
    };
    let open = async { world.fs.open_file(ino, READ).await.unwrap().handle };
    let handle = across_a_refresh(&world, Op::Get, open, change).await;
    world.fs.release(handle);
    let error = world.fs.getattr(ino, None).await.unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::Stale, "{error}");
    assert_eq!(world.cat("d/f").await.unwrap(), b"22");
}

#[tokio::test]
async fn what_came_ahead_is_dropped_where_it_was_refreshed() {
    let world = world(for_ever).await;
    let names: Vec<_> = (0..8).map(|n| format!("{n}")).collect();
    for dir in ["d", "e"] {
        for name in &names {
            world.put(&format!("{dir}/{name}"), vec![b'1'; 100]).await;
        }
        world.list(dir).await;
        for name in &names[..2] {
            world.cat(&format!("{dir}/{name}")).await.unwrap();
        }
    }
    let asked = |world: &World| world.log.count(Op::Get) + world.log.count(Op::Head);
    world::until("everything is asked for", || asked(&world) >= 12).await;
    for name in &names[2..] {
        world.put(&format!("d/{name}"), vec![b'2'; 100]).await;
    }
    refresh(&world, "d").await;
    for name in &names[2..] {
        assert_eq!(world.cat(&format!("d/{name}")).await.unwrap(), vec![b'2'; 100], "{name}");
    }
}

#[tokio::test]
async fn a_path_of_which_nothing_is_known_is_looked_for() {
    let world = world(for_ever).await;
    world.put("a/b/c", b"1".to_vec()).await;
    refresh(&world, "a/b/c").await;
    assert_eq!(world.try_ino("late").await, None);
    assert_eq!(world.try_ino("a/late").await, None);
    world.put("late/x/y", b"1".to_vec()).await;
    world.put("a/late", b"1".to_vec()).await;
    refresh(&world, "late/x").await;
    refresh(&world, "a/late").await;
    assert_eq!(attr(&world, "late/x/y").await.size, 1);
    let paths = ["nothing", "a/b/c/d", "a/../b", "a/b", "a/nothing/at/all"].map(str::to_owned);
    let report = world.fs.refresh(&paths).await;
    let failed: Vec<_> = report.failures.iter().map(|f| (f.path.as_str(), f.reason.as_str())).collect();
    assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), ["a/../b", "a/nothing/at/all", "nothing"]);
    assert!(failed[2].1.contains("there is no"), "{failed:?}");
    // What is known to have been there may be gone without being an error.
    world.bucket.delete(DeleteRequest::latest(k("a/late"))).await.unwrap();
    refresh(&world, "a/late").await;
    assert_eq!(world.try_ino("a/late").await, None);
    let report = world.fs.refresh(&["a/b/c/d".to_owned()]).await;
    assert!(report.failures[0].reason.contains("directory"), "{report:?}");
}

#[tokio::test]
async fn who_writes_across_a_refresh_loses_no_attribute_of_it() {
    let world = world(for_ever).await;
    world.put("f", b"x".to_vec()).await;
    let writer = world.open("f", WRITE).await;
    let ino = world.ino("f").await;
    refresh(&world, "f").await;
    world.fs.write(writer, 0, b"y").unwrap();
    let written = world.fs.getattr(ino, Some(writer)).await.unwrap().attr.mtime;
    world.spent();
    assert_eq!(world.fs.listxattr(ino).await.unwrap(), [""; 0]);
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let after = world.fs.setattr(ino, Some(writer), change).await.unwrap().attr;
    assert_eq!((after.mode, after.mtime), (0o600, written));
    assert_eq!(world.spent(), [], "what is not stored is ours");
    world.close(writer).await.unwrap();
    assert_eq!(attr(&world, "f").await.mode, 0o600);
}

#[tokio::test]
async fn an_answer_about_attributes_does_not_undo_what_was_changed_meanwhile() {
    let world = world(for_ever).await;
    world.put("f", b"x".to_vec()).await;
    let ino = attr(&world, "f").await.ino;
    refresh(&world, "f").await;
    let change = async {
        let writer = world.fs.open_file(ino, WRITE).await.unwrap().handle;
        world.fs.write(writer, 0, b"y").unwrap();
        let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        world.fs.setattr(ino, Some(writer), change).await.unwrap();
        writer
    };
    let mut writer = None;
    let act = async { writer = Some(change.await) };
    across_a_refresh(&world, Op::Head, world.fs.listxattr(ino), act).await.unwrap();
    assert_eq!(world.fs.getattr(ino, None).await.unwrap().attr.mode, 0o600);
    world.close(writer.unwrap()).await.unwrap();
    refresh(&world, "f").await;
    assert_eq!(attr(&world, "f").await.mode, 0o600);
}

#[tokio::test]
async fn attributes_of_what_was_replaced_are_not_to_be_changed() {
    let world = world(for_ever).await;
    world.put("f", b"x".to_vec()).await;
    let reader = world.open("f", READ).await;
    let ino = world.ino("f").await;
    world.put("f", b"theirs".to_vec()).await;
    refresh(&world, "f").await;
    assert_ne!(world.ino("f").await, ino);
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let error = world.fs.setattr(ino, Some(reader), change).await.unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::Stale, "{error}");
    world.fs.release(reader);
}

#[tokio::test]
async fn a_directory_asks_for_its_own_attributes_once() {
    let world = world(for_ever).await;
    world.put("d/f", b"x".to_vec()).await;
    world.put("d/", Vec::new()).await;
    let ino = attr(&world, "d").await.ino;
    chmod_remotely(&world, "d/", "16832").await;
    refresh(&world, "d").await;
    world.spent();
    let mode = async || world.fs.getattr(ino, None).await.unwrap().attr.mode & 0o777;
    assert_eq!((mode().await, mode().await), (0o700, 0o700));
    assert_eq!(world.spent(), [(Op::Head, 1)]);
    world.bucket.delete(DeleteRequest::latest(k("d/"))).await.unwrap();
    refresh(&world, "d").await;
    let change = SetAttr { uid: Some(7), ..SetAttr::default() };
    let after = world.fs.setattr(ino, None, change).await.unwrap().attr;
    assert_eq!((after.mode & 0o777, after.uid), (0o755, 7), "without a marker it is as by default");
}

#[tokio::test]
async fn a_change_of_ours_under_way_is_asked_about_afterwards() {
    let world = world(for_ever).await;
    for name in ["chmodded", "unlinked", "from", "written"] {
        world.put(name, b"1".to_vec()).await;
        attr(&world, name).await;
    }
    let theirs = async |name| {
        world.put(name, b"theirs".to_vec()).await;
        refresh(&world, name).await;
    };

    let writer = world.open("written", WRITE).await;
    world.fs.write(writer, 0, b"ours").unwrap();
    across_a_refresh(&world, Op::Put, world.close(writer), theirs("written")).await.unwrap();
    assert_eq!(attr(&world, "written").await.size, 6);

    let unlink = world.fs.unlink(Ino::ROOT, "unlinked");
    across_a_refresh(&world, Op::Delete, unlink, theirs("unlinked")).await.unwrap();
    assert_eq!(attr(&world, "unlinked").await.size, 6);

    let rename = world.fs.rename(Ino::ROOT, "from", Ino::ROOT, "to", RenameMode::Replace);
    across_a_refresh(&world, Op::Copy, rename, theirs("to")).await.unwrap();
    assert_eq!(attr(&world, "to").await.size, 6);

    let mkdir = world.fs.mkdir(Ino::ROOT, "made", 0o755, world::ROOT);
    let gone = async {
        world.bucket.delete(DeleteRequest::latest(k("made/"))).await.unwrap();
        refresh(&world, "").await;
    };
    let made = across_a_refresh(&world, Op::Put, mkdir, gone).await.unwrap();
    assert_eq!((made.entry_ttl, made.attr_ttl), (Duration::ZERO, Duration::ZERO));
    assert_eq!(world.try_ino("made").await, None);

    let ino = world.ino("chmodded").await;
    let change = world.fs.setattr(ino, None, SetAttr { mode: Some(0o600), ..SetAttr::default() });
    let again = async {
        chmod_remotely(&world, "chmodded", "33024").await;
        refresh(&world, "chmodded").await;
    };
    let changed = across_a_refresh(&world, Op::Copy, change, again).await.unwrap();
    assert_eq!(changed.ttl, Duration::ZERO);
    assert_eq!(attr(&world, "chmodded").await.mode & 0o777, 0o400);
}

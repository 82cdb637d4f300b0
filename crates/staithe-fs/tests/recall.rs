//! Attributes that outlive a run. Requests are counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::time::Duration;

use staithe_fs::{Attr, AttributeSource, FsConfig, HandleId, Ino, Kind, RenameMode, SetAttr, Ttl, XattrMode};
use staithe_store::decorators::Operation as Op;
use staithe_store::{CopyRequest, MemoryOptions, NewObject, ObjectStore, PutCondition};
use world::{WRITE, World, end, k};

/// Longer than any test.
const SOON: Duration = Duration::from_mins(1);

fn believing(config: &mut FsConfig) {
    config.live.metadata_ttl = Ttl::For(Duration::from_hours(1));
}

async fn put(world: &World, key: &str, body: &str, mode: u32) {
    let metadata = [("mode".to_owned(), mode.to_string()), ("mtime".to_owned(), "1000000.5".to_owned())];
    let new = NewObject { metadata: metadata.into_iter().collect(), content_type: None };
    world.bucket.put(&k(key), body.as_bytes().to_vec().into(), new, PutCondition::Always).await.unwrap();
}

/// The next run on the same state directory.
async fn again(world: World, change: impl FnOnce(&mut FsConfig)) -> World {
    let World { bucket, fs, state, .. } = world;
    assert!(fs.drain(SOON).await.kept.is_empty());
    end(fs).await;
    let mut config = FsConfig::new(state.path());
    believing(&mut config);
    change(&mut config);
    let (log, faults, fs) = world::open(&bucket, config).await.unwrap();
    World { bucket, log, faults, fs, state }
}

/// Looks up each name of the root in order, as `ls -l` does where the listing came without attributes.
async fn look_up(world: &World) -> Vec<(String, Attr)> {
    let mut all = Vec::new();
    for name in world.list("").await {
        let ino = world.ino(&name).await;
        let attr = world.fs.getattr(ino, None).await.unwrap().attr;
        if attr.kind == Kind::Symlink {
            world.fs.readlink(ino).await.unwrap();
        }
        all.push((name, Attr { ino: Ino::ROOT, ..attr }));
    }
    all
}

/// The names of the root that its stream shows with attributes.
async fn shown(world: &World) -> usize {
    let dir: HandleId = world.fs.opendir(Ino::ROOT).await.unwrap();
    let (mut offset, mut shown) = (0, 0);
    loop {
        let items = world.fs.readdir(dir, offset, 64).await.unwrap();
        let Some(last) = items.last() else { break };
        offset = last.next;
        shown += items.iter().filter(|item| item.entry.is_some()).count();
    }
    world.fs.releasedir(dir);
    shown
}

async fn seen_once(count: u32) -> (World, Vec<(String, Attr)>) {
    let world = World::with(MemoryOptions { page_max: 20, ..MemoryOptions::default() }, believing).await;
    for n in 0..count {
        let mode = if n % 10 == 3 { 0o120_777 } else { 0o100_600 + n % 64 };
        put(&world, &format!("{n:03}"), &format!("target {n}"), mode).await;
    }
    let before = look_up(&world).await;
    assert_eq!(before.len(), count as usize);
    (world, before)
}

#[tokio::test]
async fn what_was_seen_in_an_earlier_run_costs_the_listing_only() {
    let (world, before) = seen_once(50).await;
    let world = again(world, |_| {}).await;
    assert_eq!(shown(&world).await, 50, "the listing comes with attributes");
    let world = again(world, |_| {}).await;
    assert_eq!(look_up(&world).await, before);
    assert_eq!(world.spent(), [(Op::List, 3)]);
    // What an earlier run has kept is counted in the background.
    world::until("all is kept", || world.fs.status().attributes_kept == Some(50)).await;
}

#[tokio::test]
async fn what_has_changed_since_is_asked_for_once() {
    let (world, _) = seen_once(20).await;
    let world = again(world, |_| {}).await;
    put(&world, "004", "other bytes", 0o100_400).await;
    // The same bytes and tag, other metadata.
    let before = world.meta("007").await.unwrap();
    let metadata = [("mode".to_owned(), 0o100_440.to_string())].into_iter().collect();
    let replace = Some(NewObject { metadata, content_type: None });
    let copy = CopyRequest { from: k("007"), from_version: None, to: k("007"), replace };
    world.bucket.copy(copy).await.unwrap();
    assert_eq!(world.meta("007").await.unwrap().version.etag, before.version.etag);
    put(&world, "100", "new", 0o100_444).await;
    let after = look_up(&world).await;
    let records = world.log.take();
    let asked: Vec<_> = records.iter().filter(|record| record.operation != Op::List).collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    let mode = |name: &str| after.iter().find(|(n, _)| n == name).unwrap().1.mode & 0o777;
    assert_eq!((mode("004"), mode("007"), mode("100")), (0o400, 0o440, 0o444));
    let world = again(world, |_| {}).await;
    assert_eq!(look_up(&world).await, after);
    assert_eq!(world.spent(), [(Op::List, 2)]);
}

#[tokio::test]
async fn after_a_refresh_the_listing_says_what_is_still_true() {
    let (world, before) = seen_once(20).await;
    world::until("all is kept", || world.fs.status().attributes_kept == Some(20)).await;
    world.spent();
    assert_eq!(world.fs.refresh(&[String::new()]).await.failures, []);
    assert_eq!(look_up(&world).await, before);
    assert_eq!(world.spent(), [(Op::List, 1)]);
}

#[tokio::test]
async fn our_own_change_is_not_undone_by_what_was_kept_before() {
    let world = World::with(MemoryOptions::default(), believing).await;
    // Without a time of its own, so that its change leaves it the time at which it was stored.
    world.put("f", b"bytes".to_vec()).await;
    look_up(&world).await;
    let world = again(world, |config| config.live.metadata_ttl = Ttl::Forever).await;
    world.list("").await;
    let ino = world.ino("f").await;
    assert_eq!(world.spent(), [(Op::List, 1)]);
    let change = SetAttr { mode: Some(0o640), ..SetAttr::default() };
    world.fs.setattr(ino, None, change).await.unwrap();
    // The kernel lets go of it, and comes back.
    world.fs.forget(ino, 100);
    let ino = world.ino("f").await;
    assert_eq!(world.fs.getattr(ino, None).await.unwrap().attr.mode & 0o777, 0o640);
}

#[tokio::test]
async fn nothing_is_kept_where_attributes_come_from_the_listing() {
    let (world, _) = seen_once(5).await;
    let listing = |config: &mut FsConfig| config.attributes = AttributeSource::Listing;
    let world = again(world, listing).await;
    assert_eq!(world.fs.status().attributes_kept, None);
    let all = look_up(&world).await;
    assert!(all.iter().all(|(_, attr)| attr.mode & 0o777 == 0o644), "{all:?}");
}

#[tokio::test]
async fn a_damaged_store_of_attributes_costs_questions_and_nothing_else() {
    let (world, before) = seen_once(5).await;
    let World { bucket, fs, state, .. } = world;
    fs.drain(SOON).await;
    end(fs).await;
    for entry in std::fs::read_dir(state.path().join("attributes")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, "garbage").unwrap();
        }
    }
    let mut config = FsConfig::new(state.path());
    believing(&mut config);
    let (log, faults, fs) = world::open(&bucket, config).await.unwrap();
    let world = World { bucket, log, faults, fs, state };
    assert_eq!(look_up(&world).await, before);
    let world = again(world, |_| {}).await;
    assert_eq!(look_up(&world).await, before);
    assert_eq!(world.spent(), [(Op::List, 1)]);
}

#[tokio::test]
async fn what_we_change_ourselves_is_kept_no_longer() {
    let (world, _) = seen_once(20).await;
    let world = again(world, |_| {}).await;
    let before = look_up(&world).await;
    world::until("all is counted", || world.fs.status().attributes_kept == Some(20)).await;
    let change = SetAttr { mode: Some(0o400), ..SetAttr::default() };
    let ino = world.ino("004").await;
    world.fs.setattr(ino, None, change).await.unwrap();
    let ino = world.ino("005").await;
    world.fs.setxattr(ino, "user.x", b"y", XattrMode::Set).await.unwrap();
    world.fs.unlink(Ino::ROOT, "006").await.unwrap();
    world.fs.rename(Ino::ROOT, "007", Ino::ROOT, "008", RenameMode::Replace).await.unwrap();
    let writer = world.open("009", WRITE).await;
    world.fs.write(writer, 0, b"other").unwrap();
    world.fs.flush(writer).await.unwrap();
    world.fs.release(writer);
    world::until("it is forgotten", || world.fs.status().attributes_kept == Some(14)).await;
    let changed: Vec<_> = look_up(&world).await;
    assert_eq!(changed.len(), before.len() - 2);
    let world = again(world, |_| {}).await;
    let after = look_up(&world).await;
    let modes = |all: &[(String, Attr)]| all.iter().map(|(n, a)| (n.clone(), a.mode)).collect::<Vec<_>>();
    assert_eq!(modes(&after), modes(&changed));
    let asked: usize = world.spent().iter().filter(|(op, _)| *op != Op::List).map(|(_, count)| count).sum();
    assert_eq!(asked, 4, "004, 005, 008, 009");
}

#[tokio::test]
async fn nothing_is_kept_where_nobody_wants_it() {
    let (world, _) = seen_once(5).await;
    let world = again(world, |config| config.keep_attributes = false).await;
    look_up(&world).await;
    assert_eq!(world.fs.status().attributes_kept, None);
}

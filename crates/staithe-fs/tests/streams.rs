//! Directory streams over the filesystem: offsets while names come and go, pages asked for ahead, and one that could
//! not be had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use staithe_fs::{HandleId, Ttl};
use staithe_store::decorators::{Fault, FaultAction, Operation};
use staithe_store::{DeleteRequest, ErrorKind, MemoryOptions, ObjectStore};
use world::{World, k, until};

const FILES: usize = 6000;

fn name(n: usize) -> String {
    format!("{n:05}")
}

async fn with(ttl: Ttl) -> World {
    World::with(MemoryOptions::default(), |config| config.live.metadata_ttl = ttl).await
}

fn lists(world: &World) -> usize {
    world.spent().into_iter().find(|(op, _)| *op == Operation::List).map_or(0, |(_, count)| count)
}

async fn large() -> World {
    let world = with(Ttl::Zero).await;
    for n in 0..FILES {
        world.put(&format!("d/{}", name(n)), "x").await;
    }
    world
}

/// What is met from an offset on, to the end: each with the offset behind it.
async fn rest(world: &World, stream: HandleId, mut offset: u64) -> Vec<(String, u64)> {
    let mut met = Vec::new();
    loop {
        let items = world.fs.readdir(stream, offset, 300).await.unwrap();
        let Some(last) = items.last() else { return met };
        offset = last.next;
        met.extend(items.into_iter().filter(|i| !i.name.starts_with('.')).map(|i| (i.name, i.next)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_far_back_still_means_its_entry() {
    let world = large().await;
    let stream = world.fs.opendir(world.ino("d").await).await.unwrap();
    let first = rest(&world, stream, 0).await;
    assert_eq!(first.len(), FILES);
    for n in (0..FILES).step_by(10) {
        world.bucket.delete(DeleteRequest::latest(k(&format!("d/{}", name(n))))).await.unwrap();
        world.put(&format!("d/{}-new", name(n)), "x").await;
    }
    for from in [5, 100, 3000] {
        let again = rest(&world, stream, first[from - 1].1).await;
        let distinct: BTreeSet<_> = again.iter().map(|(name, _)| name).collect();
        assert_eq!(distinct.len(), again.len(), "nothing twice");
        let old: Vec<_> = again.iter().filter(|(name, _)| !name.ends_with("-new")).cloned().collect();
        let stayed: Vec<_> = first[from..].iter().filter(|(name, _)| !name.ends_with('0')).cloned().collect();
        assert_eq!(old, stayed, "at the same offsets");
    }
    world.fs.releasedir(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_where_a_page_could_not_be_had() {
    let world = large().await;
    let stream = world.fs.opendir(world.ino("d").await).await.unwrap();
    let (mut names, mut offset, mut failures, mut armed) = (Vec::new(), 0, 0, false);
    loop {
        if !armed && names.len() > FILES / 2 {
            armed = true;
            let refused = Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden));
            world.faults.add(refused.on(Operation::List).times(1));
        }
        let Ok(items) = world.fs.readdir(stream, offset, 300).await else {
            failures += 1;
            continue;
        };
        let Some(last) = items.last() else { break };
        offset = last.next;
        names.extend(items.into_iter().map(|i| i.name).filter(|n| !n.starts_with('.')));
    }
    assert_eq!(failures, 1);
    assert_eq!(names, (0..FILES).map(name).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_next_page_is_asked_for_while_one_is_read() {
    let w = with(Ttl::Forever).await;
    for file in 0..3500 {
        w.put(&format!("d/{file:05}"), "x").await;
    }
    let dir = w.ino("d").await;
    w.spent();
    let handle = w.fs.opendir(dir).await.unwrap();
    let (mut offset, mut seen) = (0, Vec::new());
    while seen.len() < 400 {
        let items = w.fs.readdir(handle, offset, 100).await.unwrap();
        offset = items.last().unwrap().next;
        seen.extend(items.into_iter().map(|item| item.name));
    }
    assert_eq!(lists(&w), 1, "the end of the page is far");
    while seen.len() < 600 {
        let items = w.fs.readdir(handle, offset, 100).await.unwrap();
        offset = items.last().unwrap().next;
        seen.extend(items.into_iter().map(|item| item.name));
    }
    until("the second page is asked for", || w.log.count(Operation::List) > 1).await;
    // What changes here meanwhile is shown as it is: the page is asked for again.
    w.fs.unlink(dir, "01500").await.unwrap();
    w.create("d", "01500b", b"new").await.unwrap();
    loop {
        let items = w.fs.readdir(handle, offset, 100).await.unwrap();
        let Some(last) = items.last() else { break };
        offset = last.next;
        seen.extend(items.into_iter().map(|item| item.name));
    }
    let expected = (0..3500).map(|file| format!("{file:05}")).filter(|name| name != "01500");
    let expected: BTreeSet<String> = expected.chain([".", "..", "01500b"].map(String::from)).collect();
    assert_eq!(seen.len(), expected.len());
    assert!(seen.into_iter().collect::<BTreeSet<_>>() == expected);
}

#[tokio::test]
async fn a_slow_reader_asks_for_no_page_twice() {
    let ttl = Duration::from_millis(10);
    let w = with(Ttl::For(ttl)).await;
    for file in 0..3500 {
        w.put(&format!("d/{file:05}"), "x").await;
    }
    let dir = w.ino("d").await;
    w.spent();
    let handle = w.fs.opendir(dir).await.unwrap();
    let (mut offset, mut seen) = (0, 0);
    loop {
        let items = w.fs.readdir(handle, offset, 400).await.unwrap();
        let Some(last) = items.last() else { break };
        (offset, seen) = (last.next, seen + items.len());
        tokio::time::sleep(ttl * 2).await;
    }
    assert_eq!((seen, lists(&w)), (3500 + 2, 4));
}

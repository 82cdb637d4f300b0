//! Directory streams over the filesystem: offsets while names come and go, and after a page that could not be had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use std::collections::BTreeSet;

use staithe_fs::{HandleId, Ttl};
use staithe_store::decorators::{Fault, FaultAction, Operation};
use staithe_store::{DeleteRequest, ErrorKind, MemoryOptions, ObjectStore};
use world::{World, k};

const FILES: usize = 6000;

fn name(n: usize) -> String {
    format!("{n:05}")
}

async fn large() -> World {
    let world = World::with(MemoryOptions::default(), |config| config.metadata_ttl = Ttl::Zero).await;
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

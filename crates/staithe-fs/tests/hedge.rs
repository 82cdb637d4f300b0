//! Ranges that stall are asked for once more. Counted, not timed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{Filesystem, FsConfig, FsErrorKind, ReadStats};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op, Pace, Slow};
use staithe_store::{ErrorKind, MemoryOptions, MemoryStore};
use world::{READ, World, noise, until};

/// Longer than any test: whoever waits for a request that stalls does not end.
const FOR_EVER: Duration = Duration::from_hours(1);
/// Ranges after which it is known what silence is usual.
const ENOUGH: usize = 80;

/// A world with a large object in which ranges have been read already.
async fn world() -> (World, Vec<u8>) {
    let change = |config: &mut FsConfig| config.live.op_deadline = FOR_EVER;
    let world = World::with(MemoryOptions::default(), change).await;
    read_apart(&world, "usual", ENOUGH).await;
    let body = noise(4 << 20);
    world.put("big", body.clone()).await;
    world.ino("big").await;
    world.spent();
    (world, body)
}

/// Reads this many ranges, none next to another: each is a request.
async fn read_apart(world: &World, name: &str, count: usize) {
    let body = noise(count * (64 << 10));
    world.put(name, body.clone()).await;
    let handle = world.open(name, READ).await;
    for n in (0..count).rev().map(|n| n * 7 % count) {
        let at = n * (64 << 10);
        assert!(world.read(handle, at as u64, 4096).await.unwrap() == body[at..at + 4096]);
    }
    world.fs.release(handle);
}

/// Won hedges and asked ones, of those that there were since.
fn hedges(world: &World, before: ReadStats) -> (u64, u64) {
    let now = world.fs.read_stats();
    (now.hedges_asked - before.hedges_asked, now.hedges_won - before.hedges_won)
}

/// Waits until so many requests were struck.
async fn struck(world: &World, count: usize) {
    until("so many requests are struck", || world.faults.strikes() >= count).await;
}

#[tokio::test]
async fn a_body_that_stalls_in_its_middle_does_not_hold_up_its_reader() {
    let (world, body) = world().await;
    let before = world.fs.read_stats();
    let stall = Fault::new(FaultAction::StallBody(300_000)).on(Op::Get).key(|key| key == "big");
    // The second request: the first one is no longer than what it asks for at once.
    world.faults.add(stall.skip(1).times(1));
    assert!(world.cat("big").await.unwrap() == body);
    assert_eq!(world.faults.strikes(), 1);
    let (asked, won) = hedges(&world, before);
    assert!(asked >= 1 && won >= 1, "{asked} asked, {won} won");
    let table = world.log.table();
    let cut = |r: &&staithe_store::decorators::Record| {
        r.range.as_ref().is_some_and(|range| r.received > 0 && r.received < range.end - range.start)
    };
    let stalled: Vec<_> = table.0.iter().filter(cut).collect();
    assert!(!stalled.is_empty(), "one never came to its end\n{table}");
    // Its rest, and no more, was asked for again.
    let ends_alike = |r: &staithe_store::decorators::Record| {
        let (range, all) = (r.range.clone().unwrap(), stalled[0].range.clone().unwrap());
        range.end == all.end && range.start > all.start
    };
    assert!(table.0.iter().filter(|r| r.range.is_some()).any(ends_alike), "{table}");
    let received: u64 = table.0.iter().map(|r| r.received).sum();
    assert!(received as f64 <= 1.05 * body.len() as f64, "{table}");
}

#[tokio::test]
async fn a_request_that_is_never_answered_does_not_hold_up_its_reader() {
    let (world, body) = world().await;
    let before = world.fs.read_stats();
    world.faults.add(Fault::new(FaultAction::Hang).on(Op::Get).key(|key| key == "big").times(1));
    assert!(world.cat("big").await.unwrap() == body);
    let (asked, won) = hedges(&world, before);
    assert!(asked >= 1 && won >= 1, "{asked} asked, {won} won");
}

#[tokio::test]
async fn the_second_request_may_fail_while_the_first_one_lives() {
    let (world, body) = world().await;
    let gate = Gate::new();
    let of_big = |action| Fault::new(action).on(Op::Get).key(|key| key == "big").times(1);
    world.faults.add(of_big(FaultAction::HoldBefore(gate.clone())));
    world.faults.add(of_big(FaultAction::FailBefore(ErrorKind::Forbidden)));
    let read = world.cat("big");
    let open = async {
        struck(&world, 2).await;
        gate.open();
    };
    let (read, ()) = tokio::join!(read, open);
    assert!(read.unwrap() == body);
}

#[tokio::test]
async fn the_second_request_may_break_off_when_the_first_one_is_given_up() {
    let (world, body) = world().await;
    let of_big = |action| Fault::new(action).on(Op::Get).key(|key| key == "big").times(1);
    world.faults.add(of_big(FaultAction::Hang));
    world.faults.add(of_big(FaultAction::BodyError(50_000, ErrorKind::Unavailable)));
    assert!(world.cat("big").await.unwrap() == body);
    assert_eq!(world.faults.strikes(), 2);
}

#[tokio::test]
async fn the_second_request_is_for_the_same_version() {
    let (world, _) = world().await;
    let before = world.fs.read_stats();
    let (first, second) = (Gate::new(), Gate::new());
    for gate in [&first, &second] {
        let held = Fault::new(FaultAction::HoldBefore(gate.clone()));
        world.faults.add(held.on(Op::Get).key(|key| key == "big").times(1));
    }
    let ino = world.ino("big").await;
    let replace = async {
        struck(&world, 2).await;
        world.put("big", noise(4 << 20).into_iter().rev().collect::<Vec<_>>()).await;
        second.open();
        let refused = Some(Err(ErrorKind::VersionMismatch));
        until("it is refused", || world.log.table().0.iter().any(|r| r.outcome == refused)).await;
        first.open();
    };
    let (opened, ()) = tokio::join!(world.fs.open_file(ino, READ), replace);
    assert_eq!(opened.unwrap_err().kind(), FsErrorKind::Stale);
    assert_eq!(hedges(&world, before), (1, 0), "what was refused is not asked for again");
}

/// A filesystem over a store that can be slowed down.
async fn over_slow(pace: Pace) -> (World, Arc<Slow>) {
    let bucket = Arc::new(MemoryStore::default());
    let slow = Arc::new(Slow::new(bucket.clone(), pace));
    let state = tempfile::tempdir().unwrap();
    let faulty = staithe_store::decorators::Faulty::new(slow.clone(), 1);
    let faults = faulty.handle();
    let log = Arc::new(staithe_store::decorators::RequestLog::new(Arc::new(faulty)));
    let fs = Filesystem::open(log.clone(), FsConfig::new(state.path())).await.unwrap();
    (World { bucket, log, faults, fs, state }, slow)
}

#[tokio::test]
async fn a_store_that_is_slow_for_everybody_is_not_asked_for_everything_twice() {
    let pace = |ms| Pace { latency: Duration::from_millis(ms), bytes_per_second: None };
    let (world, slow) = over_slow(pace(0)).await;
    read_apart(&world, "usual", ENOUGH).await;
    let before = world.fs.read_stats();
    world.spent();
    // From one moment to the next, all of it is slower than anything before.
    slow.set_pace(pace(25));
    read_apart(&world, "slow", 300).await;
    let gets = world.spent().into_iter().find(|(op, _)| *op == Op::Get).map_or(0, |(_, n)| n as u64);
    let (asked, _) = hedges(&world, before);
    assert!(asked <= 300 / 20 + 8 + 1, "{asked} asked twice");
    assert!(gets <= 301 + asked, "{gets} requests, {asked} of them second ones");
}

#[tokio::test]
async fn nothing_is_asked_for_twice_before_the_usual_pace_is_known() {
    let (world, slow) = over_slow(Pace::default()).await;
    slow.set_pace(Pace { latency: Duration::from_millis(25), bytes_per_second: None });
    read_apart(&world, "slow", 50).await;
    assert_eq!(world.fs.read_stats().hedges_asked, 0);
}

#[tokio::test]
async fn the_figures_tell_what_memory_is_in_use() {
    let (world, body) = world().await;
    let handle = world.open("big", READ).await;
    world.read(handle, 0, 128 << 10).await.unwrap();
    let stats = world.fs.read_stats();
    assert_eq!(stats.memory_limit, 512 << 20);
    assert!(stats.memory_used > 0 && stats.memory_used <= stats.memory_peak, "{stats:?}");
    assert!(stats.memory_peak < 64 << 20, "{stats:?} for {}", body.len());
    world.fs.release(handle);
}

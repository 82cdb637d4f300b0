//! The queue's contract, one promise a test.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::FutureExt;
use staithe_parts::{Budget, Fetch, PartQueue, PlannerConfig, PushError, QueueState, ReadError};
use std::sync::Arc;

type Queue = Arc<PartQueue<u8, &'static str>>;
type Ticket = Fetch<u8, &'static str>;

const KIB: u64 = 1024;

fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

fn bytes(range: std::ops::Range<u64>) -> Bytes {
    range.map(byte).collect::<Vec<_>>().into()
}

fn queue(size: u64) -> Queue {
    PartQueue::new(size, 1, PlannerConfig::default(), &Budget::new(64 << 20))
}

fn deliver(fetch: Ticket) {
    let range = fetch.range();
    fetch.push(range.start, &1, bytes(range.clone())).unwrap();
    assert_eq!(fetch.done(), 0);
}

fn read_now(queue: &Queue, offset: u64, len: u64) -> Option<Result<Bytes, ReadError<u8, &'static str>>> {
    queue.read(offset, len).now_or_never().map(|r| r.map(staithe_parts::ReadSlices::into_bytes))
}

#[test]
fn a_sequential_read_fetches_every_byte_once() {
    let size = 40 * 1024 * KIB + 17;
    let queue = queue(size);
    let (mut fetched, mut requests) = (0, 0);
    for at in (0..size).step_by(128 * 1024) {
        let mut read = queue.read(at, 128 * KIB);
        let mut polled = (&mut read).now_or_never();
        for fetch in queue.take_fetches() {
            fetched += fetch.len();
            requests += 1;
            deliver(fetch);
        }
        polled = polled.or_else(|| (&mut read).now_or_never());
        let got = polled.unwrap().unwrap().into_bytes();
        assert_eq!(got, bytes(at..(at + 128 * KIB).min(size)));
    }
    assert_eq!(fetched, size);
    assert!(requests <= 36, "{requests} requests");
}

#[test]
fn a_random_read_fetches_only_what_was_asked() {
    let queue = queue(1 << 30);
    for at in [700u64 << 20, 3 << 20, 400 << 20, 90 << 20, 999 << 20] {
        let mut read = queue.read(at + 3, 4321);
        assert!((&mut read).now_or_never().is_none());
        let fetches = queue.take_fetches();
        assert!(fetches.iter().map(Fetch::range).eq(std::iter::once(at + 3..at + 3 + 4321)));
        fetches.into_iter().for_each(deliver);
        assert_eq!(read.now_or_never().unwrap().unwrap().len(), 4321);
    }
}

#[test]
fn bytes_are_readable_as_they_arrive_and_the_first_win() {
    let queue = queue(1000);
    let mut read = queue.read(0, 1000);
    assert!((&mut read).now_or_never().is_none());
    let fetch = queue.take_fetches().pop().unwrap();
    fetch.push(500, &1, bytes(500..700)).unwrap();
    assert_eq!(read_now(&queue, 550, 100).unwrap().unwrap(), bytes(550..650));
    fetch.push(0, &1, bytes(0..600)).unwrap();
    fetch.push(400, &1, Bytes::from(vec![0xEE; 300])).unwrap();
    fetch.push(650, &1, bytes(650..1000)).unwrap();
    let slices = read.now_or_never().unwrap().unwrap();
    assert_eq!((slices.count(), slices.into_bytes()), (3, bytes(0..1000)));
}

#[test]
fn another_version_is_never_delivered() {
    let queue = queue(4000);
    let (mut low, mut high) = (queue.read(0, 2000), queue.read(2000, 2000));
    assert!((&mut low).now_or_never().is_none());
    let first = queue.take_fetches().pop().unwrap();
    assert!((&mut high).now_or_never().is_none());
    let second = queue.take_fetches().pop().unwrap();
    second.push(2000, &1, bytes(2000..2500)).unwrap();
    assert_eq!(second.push(2500, &2, bytes(2500..2600)), Err(PushError::VersionChanged));
    assert_eq!(second.push(2500, &1, bytes(2500..2600)), Err(PushError::Failed));
    let changed = ReadError::VersionChanged { expected: 1, found: 2, offset: 2500 };
    assert_eq!(high.now_or_never().unwrap().unwrap_err(), changed);
    assert_eq!(queue.stats().state, QueueState::Draining);
    deliver(first);
    assert_eq!(low.now_or_never().unwrap().unwrap().into_bytes(), bytes(0..2000));
    assert_eq!(read_now(&queue, 2000, 500).unwrap().unwrap(), bytes(2000..2500));
    // Nothing is left below the failure: the same error to every later call.
    for (at, len) in [(0, 10), (2000, 10), (3999, 100), (9999, 1)] {
        assert_eq!(read_now(&queue, at, len).unwrap().unwrap_err(), changed);
    }
    assert_eq!(queue.stats().state, QueueState::Failed);
    queue.fail("later");
    queue.reset();
    queue.close();
    assert_eq!(read_now(&queue, 0, 1).unwrap().unwrap_err(), changed);
}

#[test]
fn a_dropped_fetch_is_planned_again() {
    let queue = queue(10_000);
    let mut read = queue.read(100, 1000);
    assert!((&mut read).now_or_never().is_none());
    let fetch = queue.take_fetches().pop().unwrap();
    fetch.push(100, &1, bytes(100..300)).unwrap();
    drop(fetch);
    let again = queue.take_fetches();
    assert_eq!(again[0].range(), 300..1100);
    again.into_iter().for_each(deliver);
    assert_eq!(read.now_or_never().unwrap().unwrap().into_bytes(), bytes(100..1100));
}

#[test]
fn a_reset_supersedes_what_is_in_flight() {
    let queue = queue(10_000);
    let mut read = queue.read(0, 1000);
    assert!((&mut read).now_or_never().is_none());
    let old = queue.take_fetches().pop().unwrap();
    queue.reset();
    assert_eq!(old.push(0, &1, bytes(0..1000)), Err(PushError::Superseded));
    assert!(!old.is_live());
    let new = queue.take_fetches().pop().unwrap();
    assert!(new.generation() > old.generation());
    deliver(new);
    assert_eq!(read.now_or_never().unwrap().unwrap().len(), 1000);
    queue.close();
    assert_eq!(read_now(&queue, 0, 1), Some(Err(ReadError::Ended)));
    assert_eq!(old.push(0, &1, bytes(0..10)), Err(PushError::Ended));
}

#[test]
fn reads_beyond_the_end_are_empty_and_memory_comes_back() {
    let budget = Budget::new(1 << 20);
    let queue: Queue = PartQueue::new(1000, 1, PlannerConfig::default(), &budget);
    assert_eq!(read_now(&queue, 1000, 5).unwrap().unwrap().len(), 0);
    let mut read = queue.read(900, 500);
    assert!((&mut read).now_or_never().is_none());
    let fetch = queue.take_fetches().pop().unwrap();
    assert_eq!((fetch.range(), budget.stats().used), (900..1000, 100));
    drop((read, queue));
    assert_eq!(budget.stats().used, 0);
    assert_eq!(fetch.push(900, &1, bytes(900..1000)), Err(PushError::Ended));
}

//! One reader and four producers: the part queue beside what one would use instead.
//!
//! Every part is a clone of one buffer, so that what is measured is the passing of parts, not of memory. The
//! channels carry `(offset, Bytes)` and their reader puts parts in order itself, as it would have to. The part
//! queue does more than they do: it checks the version and the range of every part, accounts for its memory,
//! keeps a window for seeks back, and plans ahead.

#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use staithe_parts::{Budget, Fetch, PartQueue, PlannerConfig};

const PRODUCERS: u64 = 4;
const KIB: u64 = 1 << 10;

#[derive(Clone)]
struct Work {
    part: Bytes,
    /// The offsets that each producer pushes, in its order.
    offsets: Vec<Vec<u64>>,
    parts: u64,
}

impl Work {
    fn new(size: u64, parts: u64, ordered: bool) -> Self {
        let part = Bytes::from(vec![0u8; size as usize]);
        let offsets = (0..PRODUCERS).map(|producer| {
            let mut mine: Vec<u64> =
                (producer..parts).step_by(PRODUCERS as usize).map(|n| n * size).collect();
            if !ordered {
                // Out of order within windows of 16 parts, as parallel range requests finish.
                mine.chunks_mut(16).for_each(<[u64]>::reverse);
            }
            mine
        });
        Self { offsets: offsets.collect(), part, parts }
    }

    fn size(&self) -> u64 {
        self.part.len() as u64
    }

    /// Runs `push` on every producer's thread and `read` on this one.
    fn run(&self, push: impl Fn(u64, Bytes) + Sync, read: impl FnOnce()) {
        thread::scope(|scope| {
            for offsets in &self.offsets {
                let push = &push;
                scope.spawn(move || offsets.iter().for_each(|offset| push(*offset, self.part.clone())));
            }
            read();
        });
    }

    /// Takes parts as they come and uses them in order.
    fn in_order(&self, mut next: impl FnMut() -> (u64, Bytes)) {
        let mut early = BTreeMap::new();
        for n in 0..self.parts {
            let part = loop {
                if let Some(part) = early.remove(&(n * self.size())) {
                    break part;
                }
                let (offset, part) = next();
                early.insert(offset, part);
            };
            black_box::<Bytes>(part);
        }
    }
}

fn part_queue(work: &Work) -> (Arc<PartQueue<u64, ()>>, Fetch<u64, ()>) {
    let size = work.parts * work.size();
    let config = PlannerConfig {
        initial_window: size,
        max_window: size,
        max_part: size,
        min_part: size,
        ..PlannerConfig::default()
    };
    let queue = PartQueue::new(size, 7, config, &Budget::new(u64::MAX));
    // One ticket for the whole object, which the producers share.
    let mut first = queue.read(0, 1);
    let _ = futures::FutureExt::now_or_never(&mut first);
    let fetch = queue.take_fetches().pop().expect("a read waits");
    assert_eq!(fetch.range(), 0..size);
    (queue, fetch)
}

fn run_part_queue(work: &Work, queue: &Arc<PartQueue<u64, ()>>, fetch: &Fetch<u64, ()>) {
    work.run(
        |offset, part| fetch.push(offset, &7, part).expect("wanted"),
        || {
            for n in 0..work.parts {
                black_box(queue.read_blocking(n * work.size(), work.size()).expect("readable"));
            }
        },
    );
}

fn run_crossbeam(work: &Work) {
    let (sender, receiver) = crossbeam::channel::unbounded();
    work.run(
        |offset, part| sender.send((offset, part)).expect("open"),
        || work.in_order(|| receiver.recv().expect("open")),
    );
}

fn run_async_channel(work: &Work) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    work.run(
        |offset, part| sender.send((offset, part)).expect("open"),
        || work.in_order(|| receiver.blocking_recv().expect("open")),
    );
}

fn run_locked_map(work: &Work) {
    let (map, bell) = (Mutex::new(BTreeMap::new()), Condvar::new());
    work.run(
        |offset, part| {
            map.lock().expect("sound").insert(offset, part);
            bell.notify_one();
        },
        || {
            for n in 0..work.parts {
                let mut held = map.lock().expect("sound");
                let part: Bytes = loop {
                    match held.remove(&(n * work.size())) {
                        Some(part) => break part,
                        None => held = bell.wait(held).expect("sound"),
                    }
                };
                drop(held);
                black_box(part);
            }
        },
    );
}

fn passing(criterion: &mut Criterion) {
    for (name, size, parts) in [("128KiB", 128 * KIB, 4096), ("8MiB", 8192 * KIB, 1024)] {
        for (order, ordered) in [("in_order", true), ("out_of_order", false)] {
            let work = Work::new(size, parts, ordered);
            let mut group = criterion.benchmark_group(format!("pass/{name}/{order}"));
            group.throughput(Throughput::Elements(parts)).sample_size(30);
            group.bench_function("part_queue", |b| {
                b.iter_batched(
                    || part_queue(&work),
                    |(queue, fetch)| run_part_queue(&work, &queue, &fetch),
                    BatchSize::PerIteration,
                );
            });
            group.bench_function("crossbeam_channel", |b| b.iter(|| run_crossbeam(&work)));
            group.bench_function("async_channel", |b| b.iter(|| run_async_channel(&work)));
            group.bench_function("mutex_btreemap", |b| b.iter(|| run_locked_map(&work)));
            group.finish();
        }
    }
}

/// The whole life of a sequential read on one thread: planned, fetched, read in pieces of 128 KiB.
fn streaming(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream/1GiB_by_128KiB");
    for chunk in [64 * KIB, 1024 * KIB] {
        let body = Bytes::from(vec![0u8; chunk as usize]);
        group.throughput(Throughput::Elements(8192)).sample_size(20);
        group.bench_with_input(BenchmarkId::new("chunks_of", chunk), &body, |b, body| {
            b.iter(|| {
                let queue =
                    PartQueue::<u64, ()>::new(1 << 30, 7, PlannerConfig::default(), &Budget::new(1 << 30));
                for n in 0..8192 {
                    let mut read = queue.read_with(n * 128 * KIB, 128 * KIB, |fetch| serve(&fetch, body));
                    while futures::FutureExt::now_or_never(&mut read).is_none() {}
                }
            });
        });
    }
    group.finish();
}

fn serve(fetch: &Fetch<u64, ()>, body: &Bytes) {
    let range = fetch.range();
    for at in range.clone().step_by(body.len()) {
        let len = (range.end - at).min(body.len() as u64);
        fetch.push(at, &7, body.slice(..len as usize)).expect("wanted");
    }
}

criterion_group!(benches, passing, streaming);
criterion_main!(benches);

//! The queue and its journal beside what one would use instead. On a machine that others use, compare with `ratios`.
#![allow(clippy::disallowed_methods, clippy::expect_used, missing_docs)]

mod contenders;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::PersistMode;
use staithe_persist::Durability;

const JOBS: u64 = 1_000_000;
const SUBTREE: u64 = 100_000;
const THREADS: u64 = 8;
const RECORDS: u64 = 50;

fn jobs(criterion: &mut Criterion) {
    let runtime = contenders::runtime();
    let mut group = criterion.benchmark_group("enqueue and complete");
    group.sample_size(10).throughput(Throughput::Elements(JOBS));
    let mut measure = |what: &str, jobs: &dyn Fn() -> Duration| {
        group.bench_function(what, |bench| bench.iter_custom(|rounds| (0..rounds).map(|_| jobs()).sum()));
    };
    measure("state machine", &|| contenders::core_jobs(JOBS));
    measure("queue on tokio", &|| contenders::queue_jobs(&runtime, JOBS));
    measure("channel, semaphore, map", &|| contenders::channel_jobs(&runtime, JOBS));
    group.finish();
}

fn cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cancel a subtree of 100,000 jobs");
    group.sample_size(10);
    let mut measure = |what: &str, cancel: &dyn Fn() -> Duration| {
        group.bench_function(what, |bench| bench.iter_custom(|rounds| (0..rounds).map(|_| cancel()).sum()));
    };
    measure("queued", &|| contenders::cancel_subtree(SUBTREE, false));
    measure("with 32 running", &|| contenders::cancel_subtree(SUBTREE, true));
    measure("retain of a map", &|| contenders::retain_subtree(SUBTREE));
    group.finish();
}

fn journal(criterion: &mut Criterion) {
    let runtime = contenders::runtime();
    let mut group = criterion.benchmark_group("journaled, synced");
    group.sample_size(10);
    for threads in [1, THREADS] {
        group.throughput(Throughput::Elements(threads * RECORDS));
        let mut measure = |what: &str, write: &dyn Fn(&std::path::Path) -> Duration| {
            group.bench_function(format!("{what}/{threads}"), |bench| {
                bench.iter_custom(|rounds| {
                    let round = |_| write(tempfile::tempdir().expect("a directory").path());
                    (0..rounds).map(round).sum()
                });
            });
        };
        measure("journal", &|dir| contenders::journal(dir, threads, RECORDS, Durability::Synced));
        measure("journal, then enqueue and complete", &|dir| {
            contenders::journaled_enqueue(dir, &runtime, threads, RECORDS)
        });
        measure("raw fjall", &|dir| contenders::raw(dir, threads, RECORDS, PersistMode::SyncData));
    }
    group.finish();
}

criterion_group!(benches, jobs, cancel, journal);
criterion_main!(benches);

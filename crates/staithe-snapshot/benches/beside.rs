//! The cell beside what one would use instead. On a machine that others use, compare with `ratios`.
#![allow(clippy::disallowed_methods, missing_docs)]

mod contenders;

use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const ENTRIES: u64 = 1_000_000;

fn loads(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("load, {threads} threads"));
        for (name, reads) in contenders::readers() {
            group.bench_function(name, |bench| {
                bench.iter_custom(|times| contenders::read_all(threads, times, &reads));
            });
        }
        group.finish();
    }
}

fn replacements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replace 1,000,000 entries");
    group.sample_size(10);
    for large in contenders::large(ENTRIES) {
        group.bench_function(large.name, |bench| {
            bench.iter_batched(|| 1, |value| (large.replace)(value), BatchSize::PerIteration);
        });
    }
    group.finish();

    // As a duration: the latency that one read of ten thousand exceeds.
    let mut group = criterion.benchmark_group("p99.99 of a read while 1,000,000 entries are replaced");
    group.sample_size(10);
    for large in contenders::large(ENTRIES) {
        group.bench_function(large.name, |bench| {
            bench.iter_custom(|times| {
                let (interval, each) = (Duration::from_micros(20), Duration::from_millis(100));
                let sorted = contenders::latencies(&large, ENTRIES, interval, 10, each);
                Duration::from_nanos(contenders::percentile(&sorted, 0.9999)) * times as u32
            });
        });
    }
    group.finish();
}

criterion_group!(benches, loads, replacements);
criterion_main!(benches);

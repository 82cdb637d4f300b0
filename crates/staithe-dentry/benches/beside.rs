//! Lookups and inserts beside what one would use instead: hit, miss, insert, 95 reads to 5 writes; 1 and 2 threads.
//!
//! Every contender checks a deadline against the same `now`, and looks the names up in the same random order. They run
//! one after another: on a machine that others use, compare with `ratios`.
#![allow(clippy::disallowed_methods, missing_docs)]

#[allow(dead_code)]
mod contenders;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use contenders::{Contender, Flat, Inode, Moka, Nested, Quick, filled, names};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use staithe_dentry::Dentries;

const ENTRIES: usize = 100_000;
/// Operations of one thread in one iteration.
const BATCH: usize = 10_000;

/// A fixed walk over the names (Weyl sequence through a multiplicative mix).
fn order(length: usize, seed: u64) -> Vec<usize> {
    let mix = |number: u64| (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    (0..BATCH as u64)
        .map(|step| (mix(step.wrapping_mul(0xD134_2543_DE82_EF95) + seed) % length as u64) as usize)
        .collect()
}

fn on_threads(threads: usize, rounds: u64, work: impl Fn(usize) + Sync) -> Duration {
    let start = Instant::now();
    if threads == 1 {
        (0..rounds).for_each(|_| work(0));
    } else {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let work = &work;
                scope.spawn(move || (0..rounds).for_each(|_| work(thread)));
            }
        });
    }
    start.elapsed()
}

fn contender<C: Contender>(group: &mut BenchmarkGroup<'_, WallTime>, label: &str) {
    let now = Instant::now();
    let names = names(ENTRIES);
    let absent: Vec<_> = names.iter().map(|(parent, name)| (*parent, format!("{name}.part"))).collect();
    let cache: C = filled(&names, now);
    let orders = [order(ENTRIES, 1), order(ENTRIES, 2)];
    let deadline = now + Duration::from_hours(1);
    for threads in [1, 2] {
        group.throughput(Throughput::Elements((BATCH * threads) as u64));
        let mut measure = |what: &str, work: &(dyn Fn(usize) + Sync)| {
            group.bench_function(format!("{what}/{threads}/{label}"), |bench| {
                bench.iter_custom(|rounds| on_threads(threads, rounds, work));
            });
        };
        measure("hit", &|thread| {
            for &at in &orders[thread] {
                let (parent, name) = &names[at];
                black_box(cache.get(*parent, name, now));
            }
        });
        measure("miss", &|thread| {
            for &at in &orders[thread] {
                let (parent, name) = &absent[at];
                black_box(cache.get(*parent, name, now));
            }
        });
        measure("mixed 95-5", &|thread| {
            for (step, &at) in orders[thread].iter().enumerate() {
                let (parent, name) = &names[at];
                if step % 20 == 0 {
                    cache.put(*parent, name, Inode(at as u64), deadline);
                } else {
                    black_box(cache.get(*parent, name, now));
                }
            }
        });
        measure("insert", &|thread| {
            let cache = C::with_room(BATCH, now);
            for (parent, name) in &names[thread * BATCH..][..BATCH] {
                cache.put(*parent, name, Inode(1), deadline);
            }
        });
    }
}

fn beside(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dentry");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    contender::<Dentries<Inode>>(&mut group, "staithe");
    contender::<Nested>(&mut group, "RwLock of HashMap");
    contender::<Flat>(&mut group, "RwLock of HashMap, tuned");
    contender::<Quick>(&mut group, "quick_cache");
    contender::<Moka>(&mut group, "moka");
    group.finish();
}

criterion_group!(benches, beside);
criterion_main!(benches);

//! The gate and the watcher beside what one would use instead. On a machine that others use, compare with `ratios`.
#![allow(clippy::disallowed_methods, missing_docs)]

mod contenders;

use criterion::{Criterion, criterion_group, criterion_main};

fn gates(criterion: &mut Criterion) {
    measure(criterion, "enter and leave", &contenders::gates());
}

fn reports(criterion: &mut Criterion) {
    measure(criterion, "report a success", &contenders::reports());
}

fn measure(criterion: &mut Criterion, what: &str, contenders: &[(&'static str, contenders::Work)]) {
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("{what}, {threads} threads"));
        for (name, work) in contenders {
            group.bench_function(*name, |bench| {
                bench.iter_custom(|times| contenders::on_threads(threads, times, work));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, gates, reports);
criterion_main!(benches);

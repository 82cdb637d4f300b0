//! The same work as `beside`, in short rounds that take turns, and of each contender the fastest round: what a
//! machine that others use too can say about ratios. The figures of the README come from here.
#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

#[allow(dead_code)]
mod contenders;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use contenders::{Contender, Flat, Inode, Moka, Nested, Quick, filled, names};
use staithe_dentry::Dentries;

const ENTRIES: usize = 100_000;
const BATCH: usize = 10_000;
const ROUNDS: usize = 60;
/// Passes of each thread, where several are started, so that starting them weighs little.
const REPEATS: u32 = 10;
const WORK: [&str; 5] = ["hit", "cold hit", "miss", "mixed 95-5", "insert"];

/// One pass of one kind of work by one thread of a number of them.
type Pass<'a> = Box<dyn Fn(&str, usize) + Sync + 'a>;

fn contender<C: Contender + 'static>(
    names: &[(u64, String)],
    absent: &[(u64, String)],
    now: Instant,
) -> Pass<'static> {
    let cache: C = filled(names, now);
    let deadline = now + Duration::from_hours(1);
    let (names, absent) = (names.to_vec(), absent.to_vec());
    Box::new(move |work, thread| {
        // A fixed walk that visits the names in no order: a step that shares no factor with their number.
        let order = (0..BATCH).map(|step| (step * 38_677 + thread * 50_021) % ENTRIES);
        match work {
            "hit" | "cold hit" => order.for_each(|at| {
                black_box(cache.get(names[at].0, &names[at].1, now));
            }),
            "miss" => order.for_each(|at| {
                black_box(cache.get(absent[at].0, &absent[at].1, now));
            }),
            "insert" => {
                let cache = C::with_room(BATCH, now);
                for (parent, name) in &names[thread * BATCH..][..BATCH] {
                    cache.put(*parent, name, Inode(1), deadline);
                }
            }
            _ => order.enumerate().for_each(|(step, at)| {
                let (parent, name) = &names[at];
                if step % 20 == 0 {
                    cache.put(*parent, name, Inode(at as u64), deadline);
                } else {
                    black_box(cache.get(*parent, name, now));
                }
            }),
        }
    })
}

/// A cold hit comes after the other contenders have used the processor's caches; all else has gone round once before.
fn timed(pass: &Pass<'_>, work: &str, threads: usize) -> Duration {
    if work != "cold hit" && work != "insert" {
        (0..threads).for_each(|thread| pass(work, thread));
    }
    let start = Instant::now();
    if threads == 1 {
        pass(work, 0);
    } else {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || (0..REPEATS).for_each(|_| pass(work, thread)));
            }
        });
        return start.elapsed() / REPEATS;
    }
    start.elapsed()
}

fn main() {
    let now = Instant::now();
    let names = names(ENTRIES);
    let absent: Vec<_> = names.iter().map(|(parent, name)| (*parent, format!("{name}.part"))).collect();
    let contenders: [(&str, Pass<'_>); 5] = [
        ("staithe", contender::<Dentries<Inode>>(&names, &absent, now)),
        ("quick_cache", contender::<Quick>(&names, &absent, now)),
        ("moka", contender::<Moka>(&names, &absent, now)),
        ("RwLock of HashMap", contender::<Nested>(&names, &absent, now)),
        ("the same, tuned", contender::<Flat>(&names, &absent, now)),
    ];
    let labels: Vec<_> = contenders.iter().map(|(label, _)| *label).collect();
    println!("| ns an operation of one thread | {} |", labels.join(" | "));
    println!("|---|{}", "---|".repeat(labels.len()));
    for threads in [1, 2] {
        for work in WORK.into_iter().filter(|work| threads == 1 || *work != "cold hit") {
            let mut best = [Duration::MAX; 5];
            for _ in 0..ROUNDS {
                for (best, (_, pass)) in best.iter_mut().zip(&contenders) {
                    *best = timed(pass, work, threads).min(*best);
                }
            }
            let cells = best.map(|best| format!("{:.0}", best.as_nanos() as f64 / BATCH as f64));
            println!(
                "| {work}, {threads} thread{} | {} |",
                if threads == 1 { "" } else { "s" },
                cells.join(" | ")
            );
        }
    }
}

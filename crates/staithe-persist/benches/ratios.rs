//! The figures of the README: contenders take turns, so that a busy machine is busy for all of them; the fastest
//! round counts.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod contenders;

use std::time::Duration;

use fjall::PersistMode;
use staithe_persist::Durability;

const ROUNDS: u32 = 7;
const JOBS: u64 = 1_000_000;
const SUBTREE: u64 = 100_000;

type Contender<'a> = (&'a str, Box<dyn Fn() -> Duration + 'a>);

/// The fastest of the rounds of each, for one of `per`.
fn rounds(title: &str, per: u64, contenders: &[Contender<'_>]) {
    let mut best = vec![Duration::MAX; contenders.len()];
    for _ in 0..ROUNDS {
        for (best, (_, run)) in best.iter_mut().zip(contenders) {
            *best = (*best).min(run());
        }
    }
    println!("\n{title}");
    for (best, (name, _)) in best.iter().zip(contenders) {
        let each = best.as_secs_f64() / per as f64;
        println!(
            "  {name:<36} {:>12.1} ns each, {:>12.0} a second, {:>10.3?} in all",
            each * 1e9,
            1.0 / each,
            best
        );
    }
}

fn main() {
    let runtime = contenders::runtime();
    rounds(
        "enqueue and complete, 1,000,000 jobs",
        JOBS,
        &[
            ("state machine", Box::new(|| contenders::core_jobs(JOBS))),
            ("queue on tokio", Box::new(|| contenders::queue_jobs(&runtime, JOBS))),
            ("channel, semaphore, map", Box::new(|| contenders::channel_jobs(&runtime, JOBS))),
        ],
    );
    rounds(
        "cancel a subtree of 100,000 of 200,000 jobs",
        SUBTREE,
        &[
            ("queued", Box::new(|| contenders::cancel_subtree(SUBTREE, false))),
            ("with 32 running", Box::new(|| contenders::cancel_subtree(SUBTREE, true))),
            ("retain of a map", Box::new(|| contenders::retain_subtree(SUBTREE))),
        ],
    );
    let in_dir =
        |run: &dyn Fn(&std::path::Path) -> Duration| run(tempfile::tempdir().expect("a directory").path());
    for (threads, records) in [(1, 200), (8, 100), (32, 50)] {
        let journal =
            |durability| move || in_dir(&|dir| contenders::journal(dir, threads, records, durability));
        let raw = |mode| move || in_dir(&|dir| contenders::raw(dir, threads, records, mode));
        rounds(
            &format!("records of 128 bytes, synced, {threads} writers"),
            threads * records,
            &[
                ("journal", Box::new(journal(Durability::Synced))),
                (
                    "journal, then enqueue and complete",
                    Box::new(|| {
                        in_dir(&|dir| contenders::journaled_enqueue(dir, &runtime, threads, records))
                    }),
                ),
                ("raw fjall", Box::new(raw(PersistMode::SyncData))),
            ],
        );
    }
    let buffered = 20_000;
    rounds(
        "records of 128 bytes, buffered, 1 writer",
        buffered,
        &[
            (
                "journal",
                Box::new(|| in_dir(&|dir| contenders::journal(dir, 1, buffered, Durability::Buffered))),
            ),
            ("raw fjall", Box::new(|| in_dir(&|dir| contenders::raw(dir, 1, buffered, PersistMode::Buffer)))),
        ],
    );
}

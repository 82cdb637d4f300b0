//! The figures of the README: contenders take turns, so that a busy machine is busy for all of them; the best round
//! counts.
#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

mod contenders;

use std::time::{Duration, Instant};

const ROUNDS: usize = 201;
const LOADS: u64 = 50_000;

const SWAP_ROUNDS: usize = 5;
const ENTRIES: u64 = 1_000_000;
const SWAPS: u32 = 10;
const EACH: Duration = Duration::from_millis(100);
const INTERVAL: Duration = Duration::from_micros(20);

fn loads(threads: usize) {
    let readers = contenders::readers();
    let mut rounds = vec![Vec::with_capacity(ROUNDS); readers.len()];
    for _ in 0..ROUNDS {
        for (rounds, (_, reads)) in rounds.iter_mut().zip(&readers) {
            rounds.push(contenders::read_all(threads, LOADS, reads).as_secs_f64() / LOADS as f64 * 1e9);
        }
    }
    // With several threads the best round may be one in which they took turns: there the median counts.
    println!("\nload and read, {threads} threads, {ROUNDS} rounds of {LOADS} each, in nanoseconds");
    let mut base = None;
    for (rounds, (name, _)) in rounds.iter_mut().zip(&readers) {
        rounds.sort_by(f64::total_cmp);
        let (best, median) = (rounds[0], rounds[ROUNDS / 2]);
        let (base_best, base_median) = *base.get_or_insert((best, median));
        println!(
            "  {name:<32} best {best:>8.2}, {:>5.2} of ArcSwap; median {median:>8.2}, {:>5.2} of ArcSwap",
            best / base_best,
            median / base_median
        );
    }
}

fn swaps() {
    let contenders = contenders::large(ENTRIES);
    let mut best = vec![[u64::MAX; 4]; contenders.len()];
    for round in 0..SWAP_ROUNDS {
        for (best, large) in best.iter_mut().zip(&contenders) {
            let begun = Instant::now();
            let sorted = contenders::latencies(large, ENTRIES, INTERVAL, SWAPS, EACH);
            let figures = [0.5, 0.99, 0.9999, 1.0].map(|share| contenders::percentile(&sorted, share));
            // A busy machine may not keep up.
            println!("  round {round}, {:<32} {SWAPS} replacements in {:?}", large.name, begun.elapsed());
            if figures[2] < best[2] {
                *best = figures;
            }
        }
    }
    println!(
        "\nto get hold of the state and let go of it while {ENTRIES} entries are replaced 10 times a second, in microseconds"
    );
    let cell = best[0][2] as f64;
    for ([p50, p99, p9999, worst], large) in
        best.iter().map(|row| row.map(|ns| ns as f64 / 1e3)).zip(&contenders)
    {
        let ratio = p9999 * 1e3 / cell;
        println!(
            "  {:<32} p50 {p50:>9.2}  p99 {p99:>10.2}  p99.99 {p9999:>10.2}  worst {worst:>10.2}  {ratio:>8.1} of the cell's p99.99",
            large.name
        );
    }
}

fn main() {
    swaps();
    loads(1);
    loads(2);
}

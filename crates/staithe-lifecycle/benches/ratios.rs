//! The figures of the README: contenders take turns, so that a busy machine is busy for all of them; the best round
//! counts, and beside it the median.
#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

mod contenders;

const ROUNDS: usize = 301;
const TIMES: u64 = 50_000;

fn rounds(title: &str, threads: usize, contenders: &[(&'static str, contenders::Work)]) {
    let mut rounds = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for (rounds, (_, work)) in rounds.iter_mut().zip(contenders) {
            let each = contenders::on_threads(threads, TIMES, work).as_secs_f64() / TIMES as f64;
            rounds.push(each * 1e9);
        }
    }
    println!("\n{title}, {threads} threads, {ROUNDS} rounds of {TIMES} each, in nanoseconds");
    let mut base = None;
    for (rounds, (name, _)) in rounds.iter_mut().zip(contenders) {
        rounds.sort_by(f64::total_cmp);
        let (best, median) = (rounds[0], rounds[ROUNDS / 2]);
        let (base_best, base_median) = *base.get_or_insert((best, median));
        println!(
            "  {name:<30} best {best:>7.2}, {:>5.2} of the first; median {median:>7.2}, {:>5.2} of the first",
            best / base_best,
            median / base_median
        );
    }
}

fn main() {
    for threads in [1, 2] {
        rounds("enter and leave", threads, &contenders::gates());
        rounds("report a success", threads, &contenders::reports());
    }
}

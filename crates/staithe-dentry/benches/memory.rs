//! Resident bytes an entry at a million entries, the bytes of the name subtracted: each contender in a process of
//! its own, measured by the kernel (`/proc/self/statm`), so the allocator's overhead is in the figure.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::type_complexity,
    missing_docs
)]

#[allow(dead_code)]
mod contenders;

use std::{process::Command, time::Instant};

use contenders::{Contender, Flat, Inode, Moka, Nested, Quick, filled, names};
use staithe_dentry::Dentries;

const ENTRIES: usize = 1_000_000;
const PAGE_BYTES: usize = 4_096;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * PAGE_BYTES
}

fn measure<C: Contender>(label: &str) {
    let now = Instant::now();
    let names = names(ENTRIES);
    let name_bytes: usize = names.iter().map(|(_, name)| name.len()).sum();
    let before = resident();
    let cache: C = filled(&names, now);
    let grown = resident() - before;
    let found = names.iter().filter(|(parent, name)| cache.get(*parent, name, now).is_some()).count();
    println!(
        "{label:28} {:6.1} bytes an entry beyond its name, {found} found",
        (grown - name_bytes) as f64 / ENTRIES as f64
    );
}

fn main() {
    let contenders: [(&str, fn(&str)); 5] = [
        ("staithe", measure::<Dentries<Inode>>),
        ("RwLock of HashMap", measure::<Nested>),
        ("RwLock of HashMap, tuned", measure::<Flat>),
        ("quick_cache", measure::<Quick>),
        ("moka", measure::<Moka>),
    ];
    match std::env::args().skip(1).find(|argument| argument.starts_with("only=")) {
        Some(only) => {
            contenders.iter().filter(|(label, _)| only[5..] == **label).for_each(|(label, run)| run(label));
        }
        None => {
            for (label, _) in contenders {
                let only = format!("only={label}");
                Command::new(std::env::current_exe().unwrap()).arg(only).status().unwrap();
            }
        }
    }
}

//! The end-to-end bench: staithe's mount beside others, on one S3 server, in one table.
//!
//! The server is the testkit's, in this process, with its data in memory: it shares the cores with what is
//! measured. Every figure is from a mount of its own, which begins with empty caches. See the README of this
//! package for how to read the table.

mod bare;
mod data;
mod http;
mod options;
mod process;
mod reads;
mod rows;
mod stored;
mod subject;
mod table;
mod trees;
mod writes;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use staithe_testkit::{S3Server, require_fuse};

use crate::data::Sizes;
use crate::options::{Link, Options};
use crate::rows::Row;
use crate::subject::{Bench, Subject};
use crate::table::{Figures, Line, Table};
use crate::trees::Trees;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        eprintln!("this measures for minutes: run it with `cargo bench -p staithe-benches --bench mount`");
        return ExitCode::SUCCESS;
    }
    let done = match &options.bare {
        Some(path) => bare::serve(path, &options),
        None => run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    require_fuse();
    let binary = if options.wants(Subject::Staithe) { Some(process::staithe(options)?) } else { None };
    let server = S3Server::start_blocking()?;
    server.credentials().allow_anonymous(true);
    let mut table = Table::default();
    let mut subjects = Vec::new();
    for subject in options.subjects() {
        match subject.absent() {
            Some(program) => table.note(format!("{subject} is left out: `{program}` is not installed")),
            None => subjects.push(subject),
        }
    }
    let mut rows = Vec::new();
    for row in Row::ALL.into_iter().filter(|row| options.wants_row(*row)) {
        match row.absent() {
            Some(program) => table.note(format!("{row} is left out: `{program}` is not installed")),
            None => rows.push(row),
        }
    }
    for link in options.links() {
        let sizes = Sizes::new(options.scale, link);
        let trees = Trees::new(&rows, &sizes)?;
        let bench = Bench { server: &server, binary: binary.as_deref(), options, link, sizes, trees };
        measure(&bench, &rows, &subjects, &mut table)?;
    }
    table.print(&mut std::io::stdout().lock())?;
    Ok(())
}

fn measure(bench: &Bench<'_>, rows: &[Row], subjects: &[Subject], table: &mut Table) -> Result<()> {
    bench.set_link(Link::Fast);
    if !rows.iter().all(|row| row.writes()) {
        data::prepare_shared(bench.server, &bench.sizes)?;
    }
    bench.set_link(bench.link);
    for &row in rows {
        let subjects: Vec<_> = subjects.iter().copied().filter(|s| s.can(row)).collect();
        for (subject, figures) in rounds(bench, row, &subjects) {
            match figures {
                Ok(figures) => table.add(Line { link: bench.link, row, subject, figures }),
                Err(error) => {
                    let text = error.to_string();
                    let first_line = text.lines().next().unwrap_or_default();
                    table.note(format!("{}: {row}: {subject} failed: {first_line}", bench.link));
                }
            }
        }
    }
    Ok(())
}

/// Each subject in turn, as often as was asked for, so that a slow moment of the machine meets them all; of each the
/// round with the median time.
fn rounds(bench: &Bench<'_>, row: Row, subjects: &[Subject]) -> Vec<(Subject, Result<Figures>)> {
    let mut found: Vec<Result<Vec<Figures>>> = subjects.iter().map(|_| Ok(Vec::new())).collect();
    for round in 1..=bench.options.rounds.max(1) {
        for (subject, found) in subjects.iter().zip(&mut found) {
            let Ok(figures) = found else { continue };
            eprintln!("{}: {row}: {subject}, round {round}", bench.link);
            match bench.round(row, *subject) {
                Ok(more) => figures.push(more),
                Err(error) => *found = Err(error),
            }
        }
    }
    let median = |mut figures: Vec<Figures>| {
        figures.sort_by_key(|figures| figures.done.time_per_op());
        figures.swap_remove(figures.len() / 2)
    };
    subjects.iter().copied().zip(found.into_iter().map(|found| found.map(median))).collect()
}

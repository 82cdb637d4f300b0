//! The table, and what its columns are made of.

use std::io::{self, Write};

use staithe_testkit::Traffic;

use crate::options::Link;
use crate::rows::{Done, Row, Unit};
use crate::subject::Subject;

/// What one round found.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) done: Done,
    /// What the server saw of it.
    pub(crate) traffic: Traffic,
    /// The share of the machine's cores that was in use meanwhile, by whomever.
    pub(crate) busy: f64,
    /// CPU seconds of the daemon.
    pub(crate) cpu: Option<f64>,
    /// Peak resident memory of the daemon, in bytes.
    pub(crate) peak_memory: Option<u64>,
    /// Whether the store had everything when the last close returned.
    pub(crate) is_stored: bool,
}

/// One line: one subject at one row over one link.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) row: Row,
    pub(crate) subject: Subject,
    pub(crate) figures: Figures,
}

impl Line {
    /// The figure in the row's unit.
    fn figure(&self) -> f64 {
        let done = &self.figures.done;
        let per_second = done.ops as f64 / done.time.as_secs_f64().max(1e-9);
        if self.row.unit() == Unit::Milliseconds { 1000.0 / per_second } else { per_second }
    }

    /// The same, so that more is better.
    fn merit(&self) -> f64 {
        if self.row.unit() == Unit::Milliseconds { 1.0 / self.figure() } else { self.figure() }
    }

    /// CPU seconds for a GiB, where the row moves many.
    fn cpu_per_gib(&self) -> Option<f64> {
        let gib = self.figures.done.ops as f64 / 1024.0;
        let moves = self.row.unit() == Unit::MibPerSecond && gib > 0.0;
        self.figures.cpu.filter(|_| moves).map(|cpu| cpu / gib)
    }

    /// Whether the others are measured by it: a mount that had done all of the work.
    fn is_standard(&self) -> bool {
        self.subject.is_peer() && self.figures.is_stored
    }

    fn figure_text(&self) -> String {
        let unit = match self.row.unit() {
            Unit::MibPerSecond => "MiB/s",
            Unit::PerSecond => "/s",
            Unit::Milliseconds => "ms",
        };
        let figure = self.figure();
        let mark = if self.figures.is_stored { "" } else { "*" };
        if figure < 100.0 { format!("{mark}{figure:.1} {unit}") } else { format!("{mark}{figure:.0} {unit}") }
    }
}

/// All lines, and what is to be said about those that are missing.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// Writes the table as Markdown.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "| link | {:15} | {:11} | {:>12} | {:>8} | {:>7} | {:>7} | {:>4} | {:>8} | {:>8} | {:>7} |",
            "row", "subject", "figure", "to peers", "CPU s", "CPU/GiB", "busy", "requests", "KiB", "RSS MiB"
        )?;
        writeln!(out, "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for line in &self.lines {
            let (figures, ops) = (&line.figures, line.figures.done.ops.max(1) as f64);
            let bytes = figures.traffic.bytes_in + figures.traffic.bytes_out;
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            writeln!(
                out,
                "| {:4} | {:15} | {:11} | {:>12} | {:>8} | {:>7} | {:>7} | {:>3.0}% | {:>8.2} | {:>8.1} | {:>7} |",
                line.link,
                line.row,
                line.subject,
                line.figure_text(),
                or_dash(self.best_peer(line).map(|best| format!("{:.2}", line.merit() / best))),
                or_dash(figures.cpu.map(|cpu| format!("{cpu:.2}"))),
                or_dash(line.cpu_per_gib().map(|cpu| format!("{cpu:.2}"))),
                figures.busy * 100.0,
                figures.traffic.requests as f64 / ops,
                bytes as f64 / 1024.0 / ops,
                or_dash(figures.peak_memory.map(|bytes| (bytes >> 20).to_string())),
            )?;
        }
        writeln!(out, "\nrequests, KiB: to and from the store, per operation (per MiB in rows with MiB/s)")?;
        writeln!(out, "* not all of it was in the store when the last close returned")?;
        self.notes.iter().try_for_each(|note| writeln!(out, "{note}"))
    }

    /// The merit of the best peer at the same row over the same link.
    fn best_peer(&self, line: &Line) -> Option<f64> {
        let peers = self.lines.iter().filter(|l| (l.link, l.row) == (line.link, line.row) && l.is_standard());
        peers.map(Line::merit).max_by(f64::total_cmp)
    }
}

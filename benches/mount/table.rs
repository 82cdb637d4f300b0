//! The table, and what its columns are made of.

use std::io::{self, Write};

use staithe_testkit::Traffic;

use crate::options::Link;
use crate::rows::{Done, Row, Unit};
use crate::stored::{PATIENCE, Stored};
use crate::subject::Subject;

/// The columns, and how wide they are at least.
const COLUMNS: [(&str, usize); 13] = [
    ("link", 4),
    ("row", 15),
    ("subject", 12),
    ("figure", 12),
    ("to peers", 8),
    ("stored s", 8),
    ("sent", 8),
    ("CPU s", 7),
    ("CPU/GiB", 7),
    ("busy", 4),
    ("requests", 8),
    ("KiB", 8),
    ("RSS MiB", 7),
];

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
    /// When the store had everything.
    pub(crate) stored: Stored,
    /// Bytes that were written.
    pub(crate) written: u64,
}

impl Figures {
    /// Whether the store had everything when the last close returned.
    fn is_stored(&self) -> bool {
        matches!(self.stored, Stored::Nothing | Stored::AtOnce)
    }

    /// Seconds from the beginning until the store had everything.
    fn until_stored(&self) -> Option<String> {
        match self.stored {
            Stored::Nothing => None,
            Stored::AtOnce => Some(format!("{:.2}", self.done.time.as_secs_f64())),
            Stored::After(time) => Some(format!("{:.2}", time.as_secs_f64())),
            Stored::NotYet => Some(format!("> {:.0}", (self.done.time + PATIENCE).as_secs_f64())),
        }
    }

    /// Bytes that the store was sent for each that was written.
    fn sent(&self) -> Option<f64> {
        let is_sent = self.written > 0 && self.stored != Stored::Nothing;
        is_sent.then(|| self.traffic.bytes_in as f64 / self.written as f64)
    }
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
        self.subject.is_peer() && self.figures.is_stored()
    }

    fn figure_text(&self) -> String {
        let unit = match self.row.unit() {
            Unit::MibPerSecond => "MiB/s",
            Unit::PerSecond => "/s",
            Unit::Milliseconds => "ms",
        };
        let figure = self.figure();
        let mark = if self.figures.is_stored() { "" } else { "*" };
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
        print_cells(out, &COLUMNS.map(|(name, _)| name.to_owned()))?;
        writeln!(out, "|---|---|---{}|", "|--:".repeat(COLUMNS.len() - 3))?;
        self.lines.iter().try_for_each(|line| print_cells(out, &self.cells(line)))?;
        writeln!(out, "\nrequests, KiB: to and from the store, per operation (per MiB in rows with MiB/s)")?;
        writeln!(out, "* not all of it was in the store when the last close returned")?;
        self.notes.iter().try_for_each(|note| writeln!(out, "{note}"))
    }

    fn cells(&self, line: &Line) -> [String; COLUMNS.len()] {
        let (figures, ops) = (&line.figures, line.figures.done.ops.max(1) as f64);
        let bytes = figures.traffic.bytes_in + figures.traffic.bytes_out;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            line.link.to_string(),
            line.row.to_string(),
            line.subject.to_string(),
            line.figure_text(),
            or_dash(self.best_peer(line).map(|best| format!("{:.2}", line.merit() / best))),
            or_dash(figures.until_stored()),
            or_dash(figures.sent().map(|sent| format!("{sent:.3}"))),
            or_dash(figures.cpu.map(|cpu| format!("{cpu:.2}"))),
            or_dash(line.cpu_per_gib().map(|cpu| format!("{cpu:.2}"))),
            format!("{:.0}%", figures.busy * 100.0),
            format!("{:.2}", figures.traffic.requests as f64 / ops),
            format!("{:.1}", bytes as f64 / 1024.0 / ops),
            or_dash(figures.peak_memory.map(|bytes| (bytes >> 20).to_string())),
        ]
    }

    /// The merit of the best peer at the same row over the same link.
    fn best_peer(&self, line: &Line) -> Option<f64> {
        let peers = self.lines.iter().filter(|l| (l.link, l.row) == (line.link, line.row) && l.is_standard());
        peers.map(Line::merit).max_by(f64::total_cmp)
    }
}

/// The names first, to the left; figures to the right.
fn print_cells(out: &mut impl Write, cells: &[String; COLUMNS.len()]) -> io::Result<()> {
    for (n, (cell, (_, width))) in cells.iter().zip(COLUMNS).enumerate() {
        if n < 3 { write!(out, "| {cell:width$} ")? } else { write!(out, "| {cell:>width$} ")? }
    }
    writeln!(out, "|")
}

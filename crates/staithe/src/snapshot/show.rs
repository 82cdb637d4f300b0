//! `staithe snapshot list` and `staithe snapshot diff`: manifests in lines.
//!
//! Names may hold anything, also what a terminal would obey: where a line is for people, such a name is in quotes.

use std::io::{self, BufWriter, ErrorKind, Write};

use bytesize::ByteSize;
use serde_json::{Value, json};
use staithe_fs::{FsError, FsErrorKind, ViewChange, ViewObject, diff_manifests};

use super::{failed, open, told};
use crate::failure::{DONE, Failure};
use crate::options::{DiffOptions, ListOptions};

/// Prints the objects of a manifest, and then what it is of.
///
/// # Errors
/// One sentence. What was printed before it is not to be believed.
pub(crate) fn list(options: &ListOptions) -> Result<u8, Failure> {
    let mut manifest = open(&options.file)?;
    let mut out = Out::new();
    let (mut objects, mut bytes) = (0u64, 0u64);
    while let Some(object) = manifest.next_object().map_err(|error| failed(&error))? {
        objects += 1;
        bytes = bytes.saturating_add(object.size);
        let (size, time, key) = (object.size, told(object.modified), name(object.key.as_str()));
        out.line(format_args!("{time} {size:>12} {key}"))?;
    }
    let header = manifest.header();
    let (place, time) = (format!("{} {}", header.volume, name(&header.prefix)), told(header.shows()));
    out.line(format_args!("{objects} objects, {}, of {} at {time}", size(bytes), place.trim_end()))?;
    out.end()
}

/// Prints what differs: `+` added, `-` removed, `~` changed.
///
/// # Errors
/// One sentence. What was printed before it is not to be believed.
pub(crate) fn diff(options: &DiffOptions) -> Result<u8, Failure> {
    let (mut first, mut second) = (open(&options.first)?, open(&options.second)?);
    let mut out = Out::new();
    let (mut added, mut removed, mut changed) = (0u64, 0u64, 0u64);
    let done = diff_manifests(&mut first, &mut second, |difference| {
        match &difference {
            ViewChange::Added(_) => added += 1,
            ViewChange::Removed(_) => removed += 1,
            ViewChange::Changed { .. } => changed += 1,
        }
        let line = if options.json { in_json(&difference).to_string() } else { in_words(&difference) };
        let cut_off = |failure: Failure| FsError::new(FsErrorKind::Io, failure.sentence);
        out.line(format_args!("{line}")).map_err(cut_off)
    });
    done.map_err(|error| failed(&error))?;
    if !options.json {
        out.line(format_args!("{added} added, {removed} removed, {changed} changed"))?;
    }
    out.end()
}

fn in_words(difference: &ViewChange) -> String {
    match difference {
        ViewChange::Added(object) => format!("+ {} ({})", name(object.key.as_str()), size(object.size)),
        ViewChange::Removed(object) => format!("- {} ({})", name(object.key.as_str()), size(object.size)),
        ViewChange::Changed { from, to } => {
            format!("~ {} ({} -> {})", name(to.key.as_str()), size(from.size), size(to.size))
        }
    }
}

fn in_json(difference: &ViewChange) -> Value {
    let (change, from, to) = match difference {
        ViewChange::Added(to) => ("added", None, Some(to)),
        ViewChange::Removed(from) => ("removed", Some(from), None),
        ViewChange::Changed { from, to } => ("changed", Some(from), Some(to)),
    };
    let key = from.or(to).map(|object| object.key.as_str());
    json!({ "change": change, "key": key, "from": from.map(object), "to": to.map(object) })
}

fn object(object: &ViewObject) -> Value {
    json!({
        "size": object.size,
        "etag": object.version.etag.as_str(),
        "version_id": object.version.id.as_ref().map(staithe_store::VersionId::as_str),
        "modified": told(object.modified),
    })
}

fn name(key: &str) -> String {
    if key.contains(char::is_control) { format!("{key:?}") } else { key.to_owned() }
}

fn size(bytes: u64) -> impl std::fmt::Display {
    ByteSize::b(bytes).display().iec()
}

/// Standard output. Who reads no more has read enough; a full disk is told.
struct Out(BufWriter<io::StdoutLock<'static>>, bool);

impl Out {
    fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()), false)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
        if self.1 {
            return Ok(());
        }
        let written = writeln!(self.0, "{line}");
        self.unless_closed(written)
    }

    fn end(mut self) -> Result<u8, Failure> {
        if !self.1 {
            let flushed = self.0.flush();
            self.unless_closed(flushed)?;
        }
        Ok(DONE)
    }

    fn unless_closed(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.1 = true,
            Err(error) => return Err(Failure::caused("standard output cannot be written", &error)),
            Ok(()) => {}
        }
        Ok(())
    }
}

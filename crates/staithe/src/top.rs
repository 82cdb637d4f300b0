//! `staithe top`: what a mount's daemon is doing, looked at again and again: a line each time, as vmstat has them.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

use bytesize::ByteSize;
use serde_json::json;

use crate::control::{Requests, Status};
use crate::failure::{DONE, Failure};
use crate::locate::locate;
use crate::options::TopOptions;
use crate::settings;
use crate::status;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);
/// How many lines of a terminal a header is good for.
const HEADER_EVERY: u64 = 20;
/// Columns of requests, and the operations that each stands for; all others are `other`.
const COLUMNS: [(&str, &[&str]); 5] = [
    ("get", &["get"]),
    ("head", &["head", "checksum"]),
    ("list", &["list", "list_versions", "list_multiparts"]),
    ("put", &["put", "create_multipart", "upload_part", "upload_part_copy", "complete_multipart", "copy"]),
    ("del", &["delete", "delete_batch", "abort_multipart"]),
];

/// Looks, and prints a line, until it is interrupted, or has done so as often as it was told to.
///
/// # Errors
/// One sentence: nothing of ours is mounted there, or its daemon does not answer, any more.
pub(crate) fn run(options: &TopOptions) -> Result<u8, Failure> {
    let every = settings::duration("--every", &options.every, "1s or 500ms")?;
    if every < SHORTEST {
        return Err(Failure::usage(format!("--every must be at least {SHORTEST:?}")));
    }
    let place = locate(&options.mountpoint)?;
    let mut before = Look::take(&place.mount)?;
    let mut lines = 0;
    let shows_anew = std::io::stdout().is_terminal();
    while options.count.is_none_or(|count| lines < count) {
        std::thread::sleep(every.saturating_sub(before.at.elapsed()));
        let now = Look::take(&place.mount)?;
        let line = if options.json {
            now.since(&before)
        } else {
            let needs_header = lines == 0 || (shows_anew && lines.is_multiple_of(HEADER_EVERY));
            if needs_header { format!("{}\n{}", header(), now.line(&before)) } else { now.line(&before) }
        };
        if writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush()).is_err() {
            // Nobody reads it any more.
            return Ok(DONE);
        }
        lines += 1;
        before = now;
    }
    Ok(DONE)
}

/// What a daemon said, and when.
struct Look {
    status: Status,
    at: Instant,
    time: SystemTime,
}

/// How many requests there were between two looks.
#[derive(Default)]
struct Spent {
    of_columns: [u64; COLUMNS.len()],
    others: u64,
    errors: u64,
}

impl Look {
    fn take(mount: &staithe_fuse::MountEntry) -> Result<Self, Failure> {
        let status = serde_json::from_value(status::ask(mount)?);
        let status = status.map_err(|e| Failure::caused("the daemon's status cannot be understood", &e))?;
        Ok(Self { status, at: Instant::now(), time: SystemTime::now() })
    }

    fn spent_since(&self, before: &Self) -> Spent {
        let same = |of: &Requests| {
            let is_same = |old: &&Requests| old.operation == of.operation && old.outcome == of.outcome;
            before.status.requests.iter().find(is_same).map_or(0, |old| old.count)
        };
        let mut spent = Spent::default();
        for requests in &self.status.requests {
            let count = requests.count.saturating_sub(same(requests));
            match COLUMNS.iter().position(|(_, all)| all.contains(&requests.operation.as_str())) {
                Some(column) => spent.of_columns[column] += count,
                None => spent.others += count,
            }
            // That something is not there, or is as it was, is an answer.
            if !matches!(
                requests.outcome.as_str(),
                "ok" | "not_found" | "version_mismatch" | "already_exists"
            ) {
                spent.errors += count;
            }
        }
        spent
    }

    fn phase(&self) -> &str {
        self.status.health.as_ref().map_or("unknown", |health| &health.phase)
    }

    fn line(&self, before: &Self) -> String {
        let seconds = (self.at - before.at).as_secs_f64();
        let a_second = |count: u64| format!("{:.0}", count as f64 / seconds);
        let size = |bytes| ByteSize::b(bytes).display().iec_short().to_string();
        let (spent, status) = (self.spent_since(before), &self.status);
        let mut line = format!("{:<9}", self.phase());
        let rates = spent.of_columns.into_iter().chain([spent.others, spent.errors]);
        let jobs = &status.jobs;
        let counts = [
            status.open_files.to_string(),
            status.dirty_files.to_string(),
            size(status.dirty_bytes),
            (jobs.running + jobs.waiting).to_string(),
            (jobs.retrying + jobs.failed).to_string(),
            size(status.staging.used_bytes),
            size(status.memory.used_bytes),
            status.cache.as_ref().map_or_else(|| "-".to_owned(), |cache| size(cache.used_bytes)),
            status.resident_bytes.map_or_else(|| "-".to_owned(), size),
        ];
        for cell in rates.map(a_second).chain(counts) {
            // Writing to a string does not fail.
            let _ = write!(line, " {cell:>7}");
        }
        line
    }

    /// The same for scripts: figures of the time between two looks, and what there is now.
    fn since(&self, before: &Self) -> String {
        let spent = self.spent_since(before);
        let names = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).zip(spent.of_columns);
        let requests: serde_json::Map<_, _> = names
            .chain([("other".to_owned(), spent.others), ("errors".to_owned(), spent.errors)])
            .map(|(name, count)| (name, json!(count)))
            .collect();
        json!({
            "time": humantime::format_rfc3339_millis(self.time).to_string(),
            "seconds": (self.at - before.at).as_secs_f64(),
            "phase": self.phase(),
            "requests": requests,
            "open_files": self.status.open_files,
            "dirty_files": self.status.dirty_files,
            "dirty_bytes": self.status.dirty_bytes,
            "jobs": self.status.jobs,
            "staging_bytes": self.status.staging.used_bytes,
            "memory_bytes": self.status.memory.used_bytes,
            "cache_bytes": self.status.cache.as_ref().map(|cache| cache.used_bytes),
            "resident_bytes": self.status.resident_bytes,
        })
        .to_string()
    }
}

fn header() -> String {
    let mut line = format!("{:<9}", "phase");
    let columns = COLUMNS.iter().map(|(name, _)| format!("{name}/s"));
    let columns = columns.chain(["other/s", "err/s"].map(str::to_owned));
    let others = ["open", "dirty", "bytes", "jobs", "failing", "staging", "memory", "cache", "process"];
    for name in columns.chain(others.map(str::to_owned)) {
        let _ = write!(line, " {name:>7}");
    }
    line
}

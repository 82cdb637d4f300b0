//! `staithe rescue`: bring out what a mount that has ended never stored.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use staithe_fs::{MissingBytes, RescueReport, RescueTo, Rescued, RescuedKind, rescue};
use staithe_store::VersionId;
use tokio::signal::unix::{SignalKind, signal};

use crate::audit::{Audit, FILE, Place};
use crate::failure::{DONE, Failure, chain};
use crate::options::RescueOptions;
use crate::source::{self, Access, Source};
use crate::{places, settings};

/// So many ranges of bytes that are missing are shown on one line.
const RANGES_SHOWN: usize = 8;

/// Where it goes.
enum Output {
    Directory(PathBuf),
    Volume(Source),
}

/// Brings it out; 0 if everything is there, whole.
///
/// # Errors
/// One sentence: something is not rescued, or not whole (it is on standard output already); there is nothing to read, or
/// nowhere to write.
pub(crate) fn run(options: &RescueOptions) -> Result<u8, Failure> {
    let output = output(options)?;
    let audit = open_audit(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::caused("the runtime cannot start", &e))?;
    let report = runtime.block_on(bring_out(options, output))?;
    if let Some(audit) = audit {
        let RescueReport { files, bytes, partial, failed, damaged, .. } = report;
        audit.record(
            "rescue",
            json!({"files": files, "bytes": bytes, "partial": partial, "failed": failed, "damaged": damaged}),
        );
    }
    judge(&report, options)
}

/// Where it is written down: where it is wanted, or in the audit log of the mount, as long as there is one that can be
/// written to.
fn open_audit(options: &RescueOptions) -> Result<Option<Audit>, Failure> {
    let state_dir = places::full_path(&options.state_dir);
    let place = Place::of(options.audit_log.as_deref(), &state_dir);
    let (from, to) = (state_dir.to_string_lossy(), options.output.to_string_lossy());
    let about = [("state_dir", &*from), ("output", &*to)];
    if options.audit_log.is_some() {
        return Audit::open(place, &about).map(Some);
    }
    // None is made.
    if !state_dir.join(FILE).is_file() {
        return Ok(None);
    }
    Ok(Audit::open(place, &about).ok())
}

/// Checks what can be checked without asking anybody.
fn output(options: &RescueOptions) -> Result<Output, Failure> {
    let name = options.output.to_str().filter(|name| name.contains("://"));
    let output = match name.map(Source::parse).transpose().map_err(Failure::usage)? {
        Some(Source::Memory) => {
            return Err(Failure::usage("memory:// is gone when this ends: name a directory or a bucket"));
        }
        Some(source) => Output::Volume(source),
        None => Output::Directory(PathBuf::from(&options.output)),
    };
    let directory = match &output {
        Output::Directory(directory) => Some(directory.as_path()),
        Output::Volume(source) => source.directory(),
    };
    if let Some(directory) = directory {
        check_apart(directory, &options.state_dir)?;
    }
    match &output {
        Output::Volume(source) => settings::check_store(source, &options.store)?,
        Output::Directory(_) => settings::check_store(&Source::Memory, &options.store)?,
    }
    Ok(output)
}

fn check_apart(directory: &Path, state_dir: &Path) -> Result<(), Failure> {
    let (directory, state_dir) = (places::full_path(directory), places::full_path(state_dir));
    if directory.starts_with(&state_dir) {
        return Err(Failure::usage(format!(
            "{} lies in the state directory {}, which stays as it is: name another",
            directory.display(),
            state_dir.display()
        )));
    }
    Ok(())
}

/// Ends with the work, or with the first signal that ends a program.
async fn bring_out(options: &RescueOptions, output: Output) -> Result<RescueReport, Failure> {
    let ended = |e| Failure::caused("signals cannot be received", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(ended)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ended)?;
    let work = async {
        let to = match output {
            Output::Directory(directory) => RescueTo::Directory(directory),
            Output::Volume(source) => {
                let opened =
                    source::open(&source, &options.store, Access { may_write: true, tries_again: false })
                        .await;
                let store = opened.map_err(|e| Failure::failed(chain(&e)))?.store;
                let prefix = source.prefix().to_owned();
                RescueTo::Store { store, prefix, scratch: std::env::temp_dir() }
            }
        };
        let mut tell = |rescued: &Rescued| tell(rescued, options.json);
        rescue(&options.state_dir, to, &mut tell).await.map_err(|e| Failure::failed(chain(&e)))
    };
    tokio::select! {
        biased;
        done = work => done,
        _ = terminate.recv() => Err(stopped()),
        _ = interrupt.recv() => Err(stopped()),
    }
}

fn stopped() -> Failure {
    Failure::failed("stopped; what was told is rescued")
}

fn tell(rescued: &Rescued, is_json: bool) {
    if is_json { say(&in_json(rescued)) } else { say(&in_words(rescued)) }
}

fn in_json(rescued: &Rescued) -> Value {
    let Rescued { kind, key, path, bytes, missing, failure, unlike, remark, .. } = rescued;
    let mut line = json!({
        "kind": word(*kind),
        "key": key,
        "path": path,
        "bytes": bytes,
        "failure": failure,
        "lacks_attributes": unlike,
        "remark": remark,
    });
    if let Some(MissingBytes { ranges, fetched, key, version }) = missing {
        let pairs =
            |ranges: &[Range<u64>]| ranges.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>();
        line["missing"] = json!({
            "ranges": pairs(ranges),
            "fetched": pairs(fetched),
            "key": key,
            "etag": version.as_ref().map(|version| version.etag.as_str()),
            "version_id": version.as_ref().and_then(|version| version.id.as_ref()).map(VersionId::as_str),
        });
    }
    line
}

fn word(kind: RescuedKind) -> &'static str {
    match kind {
        RescuedKind::File => "file",
        RescuedKind::Symlink => "symlink",
        RescuedKind::Directory => "directory",
        RescuedKind::Lost => "lost",
        RescuedKind::Attributes => "attributes",
        RescuedKind::Damage => "damage",
        _ => "note",
    }
}

fn in_words(rescued: &Rescued) -> String {
    let Rescued { kind, key, path, bytes, missing, failure, unlike, remark, .. } = rescued;
    // Names may hold anything, also what a terminal would obey.
    let mut line = if key.is_empty() { String::new() } else { format!("{key:?}: ") };
    // Writing to a string does not fail.
    let _ = match (failure, kind) {
        (Some(why), RescuedKind::Damage) => write!(line, "damaged: {}", plain(why)),
        (Some(why), _) => write!(line, "not rescued: {}", plain(why)),
        (None, RescuedKind::Symlink) => write!(line, "a symbolic link"),
        (None, RescuedKind::Directory) => write!(line, "a directory"),
        (None, RescuedKind::Attributes) => write!(line, "its attributes were to change"),
        (None, RescuedKind::File | RescuedKind::Lost) => write!(line, "{bytes} bytes"),
        (None, _) => Ok(()),
    };
    if let Some(path) = path.as_ref().filter(|path| *path != key.strip_suffix('/').unwrap_or(key)) {
        let says = if *kind == RescuedKind::Attributes { " says" } else { "" };
        let _ = write!(line, ", as {path:?}{says}");
    }
    if let Some(missing) = missing {
        line.push_str(&in_part(missing));
    }
    if let Some(unlike) = unlike {
        let _ = write!(line, "; it lacks attributes: {}", plain(unlike));
    }
    if let Some(remark) = remark {
        let _ = write!(line, "{}{}", if *kind == RescuedKind::Note { "" } else { "; " }, plain(remark));
    }
    line
}

fn in_part(MissingBytes { ranges, fetched, key, version }: &MissingBytes) -> String {
    let version = match version {
        Some(version) => {
            let id = version.id.as_ref().map(|id| format!(", id {}", id.as_str())).unwrap_or_default();
            format!(", version {}{id}", version.etag.as_str())
        }
        None => String::new(),
    };
    let (of, bytes, which) = (plain(&format!("{key:?}{version}")), total(ranges), listed(ranges));
    if total(fetched) == bytes {
        return format!("; the other {bytes} bytes seem to be those of the object {of}: {which}");
    }
    let but = if fetched.is_empty() {
        String::new()
    } else {
        format!("; but of these there seem to be: {}", listed(fetched))
    };
    format!("; only in part: {bytes} bytes of the object {of}, are not here: {which}{but}")
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

fn listed(ranges: &[Range<u64>]) -> String {
    let shown = ranges.iter().take(RANGES_SHOWN).map(|range| format!("{}-{}", range.start, range.end - 1));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match ranges.len().saturating_sub(RANGES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more ranges (--json lists them)"),
    }
}

fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn judge(report: &RescueReport, options: &RescueOptions) -> Result<u8, Failure> {
    if options.json {
        let RescueReport { files, directories, bytes, partial, attributes, unlike, failed, damaged, .. } =
            report;
        say(&json!({"summary": {
            "files": files,
            "directories": directories,
            "bytes": bytes,
            "partial": partial,
            "attributes": attributes,
            "lack_attributes": unlike,
            "failed": failed,
            "damaged": damaged,
        }}));
    }
    if report.is_whole() {
        if !options.json {
            let nothing = "there is nothing that was not stored";
            say(&if report.is_empty() { nothing.to_owned() } else { summary(report) });
        }
        return Ok(DONE);
    }
    Err(Failure::failed(summary(report)))
}

fn summary(report: &RescueReport) -> String {
    let RescueReport { files, directories, bytes, partial, attributes, unlike, failed, damaged, .. } = report;
    let mut summary = format!("{files} files, {directories} directories, {bytes} bytes rescued");
    let rest = [
        (partial, "only in part"),
        (attributes, "changes of attributes written down"),
        (unlike, "without all of their attributes"),
        (failed, "not rescued"),
        (damaged, "parts of the state directory unreadable"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| **count > 0) {
        // Writing to a string does not fail.
        let _ = write!(summary, "; {count} {what}");
    }
    summary
}

fn say(what: &dyn Display) {
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{what}");
}

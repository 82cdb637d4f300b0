//! The audit log: what an operator must be able to prove later. One JSON object a line; each is on the disk, or with the
//! system's log, before anything goes on that depends on it.
//!
//! | event | when | beside the fields of all |
//! |---|---|---|
//! | `phase` | the mount's phase changes | `from`, `to`, `reason` |
//! | `credentials-refused` | the store refused the credentials, and was asked again | `reason` |
//! | `conflict` | another client was first | `path`, `kept_as` |
//! | `volume-gone`, `credentials-refused-for-good` | it is confirmed | `code`, `reason`, `request_ids`, `unstored`, `seconds` |
//! | `unstored` | there are more names than one record takes | `unstored` |
//! | `task` | a task of the daemon panicked | `task`, `what` |
//! | `rescue` | `staithe rescue` has exported what was never stored | `files`, `bytes`, `left` |
//! | `exit` | the daemon ends | `code`, `unstored` |

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The audit log in a state directory, unless another place is named.
pub(crate) const FILE: &str = "audit.log";
/// Where the system's log takes messages.
const SYSLOG: &str = "/dev/log";
/// Facility `daemon`, severity `notice` (RFC 5424, 6.2.1).
const PRIORITY: u8 = 3 * 8 + 5;
/// How long the system's log may take for a message.
const PATIENCE: Duration = Duration::from_secs(2);
/// What names may take of one record, in bytes as they are; it may be more as JSON has them. A datagram for the system's log
/// takes some 200,000.
const NAMES_MOST: usize = 24_000;
/// What is held of the disk for vital records, in bytes.
const RESERVE: u64 = 256 << 10;

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file that is appended to.
    File(PathBuf),
    /// The system's log.
    Syslog,
}

/// An open audit log.
#[derive(Debug)]
pub(crate) struct Audit {
    place: Place,
    /// What every record says.
    about: Map<String, Value>,
    /// One record at a time; whether the last one is there in part only.
    is_torn: Mutex<bool>,
    /// Room on its disk, until there is no other.
    reserve: Mutex<Option<File>>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Syslog => f.write_str("syslog"),
        }
    }
}

impl Place {
    /// What `--audit-log` names, or the file in the state directory.
    pub(crate) fn of(option: Option<&Path>, state_dir: &Path) -> Self {
        match option {
            None => Self::File(state_dir.join(FILE)),
            Some(name) if name.as_os_str() == "syslog" => Self::Syslog,
            Some(path) => Self::File(path.to_owned()),
        }
    }
}

impl Audit {
    /// Sees whether records can be written there. `about` is in each of them.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn open(place: Place, about: &[(&str, &str)]) -> Result<Self, Failure> {
        let tried = match &place {
            Place::File(path) => append(path).map(drop),
            Place::Syslog => syslog().map(drop),
        };
        tried.map_err(|e| Failure::caused(format!("--audit-log {place} cannot be written"), &e))?;
        let about = about.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        Ok(Self { place, about, is_torn: Mutex::default(), reserve: Mutex::default() })
    }

    /// Holds room for vital records from now on, should the disk be full one day.
    pub(crate) fn hold_room(&self) {
        let Place::File(path) = &self.place else { return };
        let held = hold_room(path);
        let held = held.inspect_err(|error| tracing::debug!(%error, "no room is held for the audit log"));
        *self.reserve.lock() = held.ok();
    }

    /// Writes a record, and has it on the disk when it returns. Blocks. A disk that does not take it is said in the log,
    /// with the record.
    pub(crate) fn record(&self, event: &str, fields: Value) {
        self.write(&[(event, fields)], false);
    }

    /// The same of records without which nothing could be proven, in their order: they have room that is held for them.
    pub(crate) fn record_vital(&self, records: &[(&str, Value)]) {
        self.write(records, true);
    }

    fn write(&self, records: &[(&str, Value)], is_vital: bool) {
        let now = SystemTime::now();
        let line = |(event, fields): &(&str, Value)| line_of(now, event, &self.about, fields.clone());
        let lines: Vec<_> = records.iter().map(line).collect();
        let mut is_torn = self.is_torn.lock();
        let written = match &self.place {
            Place::File(path) => match append_lines(path, &lines, &mut is_torn) {
                Err(error) if is_vital && is_full(&error) && self.reserve.lock().take().is_some() => {
                    append_lines(path, &lines, &mut is_torn)
                }
                written => written,
            },
            Place::Syslog => lines.iter().try_for_each(|line| {
                let message = format!("<{PRIORITY}>staithe[{}]: {line}", std::process::id());
                syslog().and_then(|socket| socket.send(message.as_bytes()).map(drop))
            }),
        };
        if let Err(error) = written {
            for record in lines {
                tracing::error!(%error, record, "the audit log does not take this record");
            }
        }
    }
}

/// Names for a record, as many as fit, with how many there are; and those for further records.
pub(crate) fn names(all: &[String]) -> (Value, Vec<Value>) {
    let told = |names: &[String]| json!({"count": all.len(), "names": names});
    let (mut pieces, mut rest) = (Vec::new(), all);
    while !rest.is_empty() || pieces.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|name| {
            bytes += name.len();
            bytes <= NAMES_MOST
        });
        let (piece, left) = rest.split_at(fits.count().max(1).min(rest.len()));
        pieces.push(told(piece));
        rest = left;
    }
    let others = pieces.split_off(1);
    (pieces.swap_remove(0), others)
}

/// Appends records, and has them on the disk. `is_torn`: whether the last one is there in part only.
fn append_lines(path: &Path, lines: &[String], is_torn: &mut bool) -> io::Result<()> {
    let begin = if *is_torn { "\n" } else { "" };
    *is_torn = true;
    let mut file = append(path)?;
    // In one call, so that a record is never in two pieces.
    file.write_all(format!("{begin}{}\n", lines.join("\n")).as_bytes())?;
    file.sync_data()?;
    *is_torn = false;
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Room on the disk of a file. It has no name there, and goes with the process.
fn hold_room(log: &Path) -> io::Result<File> {
    let dir = log.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let held = rustix::fs::open(dir, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)?;
    fallocate(&held, FallocateFlags::empty(), 0, RESERVE)?;
    Ok(File::from(held))
}

/// Opened for each record: the file may have been moved away by whoever rotates logs.
fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let (0, Some(dir)) = (file.metadata()?.len(), dir) {
        // A new name is as durable as what it holds.
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

fn syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}

fn line_of(now: SystemTime, event: &str, about: &Map<String, Value>, fields: Value) -> String {
    let mut record = Map::new();
    record.insert("time".to_owned(), json!(humantime::format_rfc3339_millis(now).to_string()));
    record.insert("event".to_owned(), json!(event));
    record.extend(about.clone());
    if let Value::Object(fields) = fields {
        record.extend(fields);
    }
    Value::Object(record).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_and_rotation_loses_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::open(Place::File(path.clone()), &[("volume", "s3://b\nc")]).unwrap();
        audit.record("phase", json!({"from": "healthy", "to": "degraded"}));
        std::fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
        audit.record("conflict", json!({"path": "a\nb"}));
        for (name, event) in [("audit.log.1", "phase"), ("audit.log", "conflict")] {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            let record: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&record["event"], &record["volume"]), (&json!(event), &json!("s3://b\nc")));
            humantime::parse_rfc3339(record["time"].as_str().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_place_that_takes_no_records_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing/audit.log");
        let refused = Audit::open(Place::File(missing), &[]).unwrap_err();
        assert!(refused.sentence.contains("missing/audit.log cannot be written"), "{refused}");
    }

    #[test]
    fn many_names_are_told_in_more_than_one_record() {
        let all: Vec<String> = (0..5_000).map(|n| format!("{n:08}-\n\"quoted\"")).collect();
        let (first, others) = names(&all);
        let mut told = Vec::new();
        for piece in std::iter::once(&first).chain(&others) {
            assert_eq!(piece["count"], 5_000);
            assert!(piece.to_string().len() < 60_000);
            told.extend(
                piece["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()),
            );
        }
        assert!(told == all && others.len() > 1);
        assert_eq!(names(&[]), (json!({"count": 0, "names": []}), Vec::new()));
    }
}

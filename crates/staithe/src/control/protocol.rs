//! What may be asked, and how the answers look. Fields may be added in a version; what is unknown in an answer is
//! ignored.

mod health;
mod jobs;
mod reload;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use staithe_fs::{
    Difference, DifferenceKind, RefreshReport, Repair, SyncProgress, SyncReport, VerifyProgress, ViewStatus,
    WarmReport,
};

pub(crate) use health::{Health, Mishap, Requests, Running, Suspicion};
pub(crate) use jobs::{Counts, JobLine, JobList};
pub(crate) use reload::{Change, InForce, Reload, Reloaded, Reloading};

/// The version of requests and replies.
const VERSION: u32 = 1;
/// The longest line, in bytes, without its end.
pub(crate) const LINE_MAX: u64 = 1 << 20;
/// Failures told with their reasons.
const FAILURES_MAX: usize = 100;

/// A request. Its name and its arguments are what stands in `request`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// What the daemon serves, and how it fares. Done: [`Status`].
    Status {},
    /// Fetch files into the cache. News and done: [`Warming`].
    Warm(Warm),
    /// Forget names and attributes. News: it is still at it. Done: [`Refreshed`].
    Refresh(Refresh),
    /// Show another view. News: it is still at it. Done: [`View`].
    Swap(Swap),
    /// Wait until the store has everything that it lacks now. News: [`Syncing`]. Done: [`Synced`].
    Sync {},
    /// What is to be stored, and what is being done about it. News: it is still at it. Done: [`JobList`].
    Jobs(Paths),
    /// Try again what has failed. News: it is still at it. Done: how many there were.
    RetryJobs(Paths),
    /// Stop storing. News: it is still at it. Done: how many there were.
    CancelJobs(Paths),
    /// Compare what is here with the store. News: [`VerifyNews`]. Done: [`Verifying`].
    Verify(Verify),
    /// Change settings, and read the credentials again. News: it is still at it. Done: [`Reloading`].
    Reload(Reload),
}

/// A reply; all but `News` are the last one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// How far it has come.
    News(Value),
    /// The answer.
    Done(Value),
    /// Why there is none, in one sentence.
    Error(String),
}

/// The answer to `status`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) mountpoint: String,
    pub(crate) source: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) state_dir: String,
    pub(crate) read_only: bool,
    /// As the option says it: `through` or `back`.
    pub(crate) write_mode: String,
    pub(crate) open_files: u64,
    /// Files of which something is not in the store yet.
    pub(crate) dirty_files: u64,
    /// The bytes of these that are not in the store yet.
    #[serde(default)]
    pub(crate) dirty_bytes: u64,
    #[serde(default)]
    pub(crate) jobs: Counts,
    #[serde(default)]
    pub(crate) staging: Staging,
    /// Objects whose attributes are kept for later runs. `null`: nothing is kept.
    #[serde(default)]
    pub(crate) attributes_kept: Option<u64>,
    /// In memory.
    pub(crate) inodes: u64,
    pub(crate) memory: Memory,
    /// Ranges asked for a second time because nothing came of the first request.
    pub(crate) hedges_asked: u64,
    /// Of these, those whose second request delivered first.
    pub(crate) hedges_won: u64,
    /// `null`: there is none.
    pub(crate) cache: Option<Cache>,
    /// `null`: what the bucket holds is shown.
    #[serde(default)]
    pub(crate) view: Option<View>,
    /// `null`: a daemon that cannot reload.
    #[serde(default)]
    pub(crate) settings: Option<InForce>,
    /// `null`: a daemon that does not watch over its volume.
    #[serde(default)]
    pub(crate) health: Option<Health>,
    #[serde(default)]
    pub(crate) requests: Vec<Requests>,
    /// Memory of the process.
    #[serde(default)]
    pub(crate) resident_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) audit_log: Option<String>,
    #[serde(default)]
    pub(crate) tasks: Running,
}

/// The view that is shown instead of what the bucket holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    /// The manifest.
    pub(crate) file: String,
    /// How many views were shown, this one included.
    pub(crate) epoch: u64,
    /// The moment that it shows, as RFC 3339 has it.
    pub(crate) shows: String,
    pub(crate) objects: u64,
    pub(crate) memory_bytes: u64,
    /// Earlier views that are still in memory.
    pub(crate) old_epochs: u64,
}

/// The cache on the local disk.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cache {
    pub(crate) dir: String,
    pub(crate) limit_bytes: u64,
    pub(crate) used_bytes: u64,
    /// Versions of objects, whole or in part.
    pub(crate) files: u64,
    /// Blocks found damaged, and fetched again, since the start.
    pub(crate) damaged_blocks: u64,
    /// Versions removed for others since the start.
    pub(crate) evicted_files: u64,
    /// Whether the kernel reads whole files by itself (FUSE passthrough).
    pub(crate) passthrough: bool,
    /// If not, why.
    pub(crate) no_passthrough_because: Option<String>,
}

/// The local files with bytes that the store does not have, or that are being written.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staging {
    /// What they take of their disk.
    pub(crate) used_bytes: u64,
    /// `null`: as much as the disk has.
    pub(crate) limit_bytes: Option<u64>,
    /// Whether the kernel writes new files by itself (FUSE passthrough).
    #[serde(default)]
    pub(crate) passthrough: bool,
    /// If not, why.
    #[serde(default)]
    pub(crate) no_passthrough_because: Option<String>,
}

/// The memory for read-ahead.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "scripts read the names: they say the unit")]
pub(crate) struct Memory {
    pub(crate) limit_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) peak_bytes: u64,
}

/// What to warm.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Warm {
    /// From the root of the mount, whose own path is empty; without links.
    pub(crate) paths: Vec<String>,
    /// How many files at once.
    pub(crate) jobs: usize,
}

/// How far warming has come: a [`WarmReport`].
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Warming {
    pub(crate) files_found: u64,
    pub(crate) files_done: u64,
    pub(crate) bytes_wanted: u64,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_fetched: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<Failed>,
}

/// What to forget.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refresh {
    /// From the root of the mount, whose own path is empty.
    pub(crate) paths: Vec<String>,
}

/// What was forgotten: a [`RefreshReport`].
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refreshed {
    /// Names that were remembered.
    pub(crate) names: u64,
    /// Files and directories in memory.
    pub(crate) inodes: u64,
    pub(crate) failures: Vec<Failed>,
}

/// Which view to show.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swap {
    /// The manifest, by its full path.
    pub(crate) file: String,
}

/// Where to look: at these paths and below.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paths {
    /// From the root of the mount, whose own path is empty.
    pub(crate) paths: Vec<String>,
}

/// How far a sync has come: a [`SyncProgress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Syncing {
    pub(crate) files: u64,
    pub(crate) files_left: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_left: u64,
}

/// What a sync has stored: a [`SyncReport`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Synced {
    pub(crate) stored: u64,
    pub(crate) failed: u64,
    /// The first of them.
    pub(crate) failures: Vec<Failed>,
}

/// What to compare.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verify {
    /// From the root of the mount, whose own path is empty.
    pub(crate) path: String,
    pub(crate) repair: bool,
}

/// News of a comparison.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerifyNews {
    /// How far it has come; told again and again.
    Progress(Verifying),
    /// Something differs; told once, and never left out.
    Difference(Differing),
}

/// How far a comparison has come: a [`VerifyProgress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verifying {
    pub(crate) compared: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_most: u64,
    pub(crate) differences: u64,
    pub(crate) repaired: u64,
}

/// What differs: a [`Difference`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Differing {
    pub(crate) path: String,
    /// `cache`, `intent`, `upload`, `staged`, `unstored`, `attributes` or `unknown`.
    pub(crate) kind: String,
    pub(crate) detail: String,
    /// What was done about it.
    pub(crate) repaired: Option<String>,
    /// Why nothing was, though it was asked for.
    pub(crate) left: Option<String>,
}

/// What could not be warmed, refreshed or stored, and why.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) path: String,
    pub(crate) reason: String,
}

impl From<&WarmReport> for Warming {
    fn from(report: &WarmReport) -> Self {
        let failures = report.failures.iter();
        Self {
            files_found: report.files_found,
            files_done: report.files_done,
            bytes_wanted: report.bytes_wanted,
            bytes_done: report.bytes_done,
            bytes_fetched: report.bytes_fetched,
            failed: report.failed,
            failures: failures.map(|f| Failed { path: f.path.clone(), reason: f.reason.clone() }).collect(),
        }
    }
}

impl From<ViewStatus> for View {
    fn from(status: ViewStatus) -> Self {
        Self {
            file: status.file.to_string_lossy().into_owned(),
            epoch: status.epoch,
            shows: humantime::format_rfc3339_millis(status.shows).to_string(),
            objects: status.objects,
            memory_bytes: status.memory,
            old_epochs: status.old,
        }
    }
}

impl From<RefreshReport> for Refreshed {
    fn from(report: RefreshReport) -> Self {
        let failures = report.failures.into_iter();
        let failures = failures.map(|f| Failed { path: f.path, reason: f.reason }).collect();
        Self { names: report.names, inodes: report.inodes, failures }
    }
}

impl From<SyncProgress> for Syncing {
    fn from(progress: SyncProgress) -> Self {
        let SyncProgress { files, files_left, bytes, bytes_left } = progress;
        Self { files, files_left, bytes, bytes_left }
    }
}

impl From<SyncReport> for Synced {
    fn from(report: SyncReport) -> Self {
        let failed = report.failures.len() as u64;
        let first = report.failures.into_iter().take(FAILURES_MAX);
        let failures = first.map(|(path, reason)| Failed { path, reason }).collect();
        Self { stored: report.stored, failed, failures }
    }
}

impl From<VerifyProgress> for Verifying {
    fn from(progress: VerifyProgress) -> Self {
        let VerifyProgress { compared, bytes, bytes_most, differences, repaired } = progress;
        Self { compared, bytes, bytes_most, differences, repaired }
    }
}

impl From<Difference> for Differing {
    fn from(difference: Difference) -> Self {
        let kind = match difference.kind {
            DifferenceKind::Cache => "cache",
            DifferenceKind::Intent => "intent",
            DifferenceKind::Upload => "upload",
            DifferenceKind::Staged => "staged",
            DifferenceKind::Unstored => "unstored",
            DifferenceKind::Attributes => "attributes",
            _ => "unknown",
        };
        let (repaired, left) = match difference.outcome {
            Repair::NotAsked => (None, None),
            Repair::Done(what) => (Some(what.to_owned()), None),
            Repair::Left(why) => (None, Some(why)),
        };
        Self { path: difference.path, kind: kind.to_owned(), detail: difference.detail, repaired, left }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    v: u32,
    request: R,
}

impl Request {
    /// As it goes over the wire.
    pub(crate) fn enveloped(&self) -> impl Serialize {
        Envelope { v: VERSION, request: self }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// One sentence for the client.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let envelope: Envelope<Value> =
            serde_json::from_slice(line).map_err(|e| format!("this is no request: {e}"))?;
        let daemon = env!("CARGO_PKG_VERSION");
        if envelope.v != VERSION {
            return Err(format!(
                "the daemon (staithe {daemon}) speaks version {VERSION} of the control protocol, not {}",
                envelope.v
            ));
        }
        serde_json::from_value(envelope.request)
            .map_err(|e| format!("the daemon (staithe {daemon}) does not know this request: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let warm = Request::Warm(Warm { paths: vec![String::new(), "a \"b\"\n".to_owned()], jobs: 3 });
        let refresh = Request::Refresh(Refresh { paths: vec!["d".to_owned()] });
        let paths = || Paths { paths: vec!["d".to_owned()] };
        let jobs = [Request::Jobs(paths()), Request::RetryJobs(paths()), Request::CancelJobs(paths())];
        let verify = Request::Verify(Verify { path: "d".to_owned(), repair: true });
        let swap = Request::Swap(Swap { file: "/views/a b".to_owned() });
        let options = vec![("--metadata-ttl".to_owned(), "10s".to_owned())];
        let reload = Request::Reload(Reload { options });
        let others = [Request::Status {}, Request::Sync {}, warm, refresh, verify, swap, reload];
        for request in others.into_iter().chain(jobs) {
            let line = serde_json::to_vec(&request.enveloped()).unwrap();
            assert!(!line.contains(&b'\n'));
            assert_eq!(Request::parse(&line).unwrap(), request);
        }
        let line = br#"{"v":1,"request":{"status":{"later":1}},"more":2}"#;
        assert_eq!(Request::parse(line).unwrap(), Request::Status {});
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        let deep = [b"{\"v\":1,\"request\":".to_vec(), vec![b'['; 100_000]].concat();
        for (line, word) in [
            (&b""[..], "no request"),
            (b"\xff\0", "no request"),
            (b"[]", "no request"),
            (&deep, "no request"),
            (br#"{"v":2,"request":{"status":{}}}"#, "version 1"),
            (br#"{"v":1,"request":{"dance":{}}}"#, "dance"),
            (br#"{"v":1,"request":{}}"#, "does not know"),
        ] {
            let said = Request::parse(line).unwrap_err();
            assert!(said.contains(word) && !said.contains('\n'), "{said}");
        }
    }
}

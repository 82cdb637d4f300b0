//! What may be asked, and how the answers look. Fields may be added in a version; what is unknown in an answer is
//! ignored.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use staithe_fs::{RefreshReport, WarmReport};

/// The version of requests and replies.
const VERSION: u32 = 1;
/// The longest line, in bytes, without its end.
pub(crate) const LINE_MAX: u64 = 1 << 20;

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

/// What could not be warmed or refreshed, and why.
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

impl From<RefreshReport> for Refreshed {
    fn from(report: RefreshReport) -> Self {
        let failures = report.failures.into_iter();
        let failures = failures.map(|f| Failed { path: f.path, reason: f.reason }).collect();
        Self { names: report.names, inodes: report.inodes, failures }
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
        for request in [Request::Status {}, warm, refresh] {
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

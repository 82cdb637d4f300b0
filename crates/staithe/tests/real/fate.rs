//! What a mount says of its fate, and what it wrote down of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use staithe_testkit::{MountedDaemon, wait_until};

use super::status;

const SOON: Duration = Duration::from_mins(1);

/// The phase that a mount is in.
pub(crate) fn phase(mount: &MountedDaemon) -> String {
    status(mount)["health"]["phase"].as_str().unwrap().to_owned()
}

pub(crate) fn becomes(mount: &MountedDaemon, wanted: &str) {
    assert!(wait_until(SOON, || phase(mount) == wanted), "not {wanted}: {}", status(mount)["health"]);
}

/// The audit log, record by record.
pub(crate) fn audit(state_dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(state_dir.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn of_event<'r>(records: &'r [Value], event: &str) -> Vec<&'r Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

/// The phases that a mount went through, as the audit log has them.
pub(crate) fn phases(records: &[Value]) -> Vec<String> {
    of_event(records, "phase").into_iter().map(|record| record["to"].as_str().unwrap().to_owned()).collect()
}

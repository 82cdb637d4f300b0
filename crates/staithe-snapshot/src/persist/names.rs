//! The names in a directory of snapshots.

use std::ffi::OsStr;

use crc_fast::crc64_nvme;

pub(crate) const CURRENT: &str = "CURRENT";
pub(crate) const LOCK: &str = "LOCK";
/// The end of the name of what is being written.
pub(crate) const ASIDE: &str = ".tmp";
const SNAPSHOT: &str = "snapshot-";
/// As many as the largest number has: names sort as their numbers do.
const DIGITS: usize = 20;

/// The number of a file: the next save has the next one, whatever the epoch in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(pub(crate) u64);

impl Serial {
    pub(crate) fn name(self) -> String {
        format!("{SNAPSHOT}{:0DIGITS$}", self.0)
    }

    pub(crate) fn of(name: &OsStr) -> Option<Self> {
        let digits = name.to_str()?.strip_prefix(SNAPSHOT)?;
        let plain = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse().ok().map(Self))?
    }

    /// What `CURRENT` says.
    pub(crate) fn line(self) -> String {
        let name = self.name();
        format!("{name} {:016x}\n", crc64_nvme(name.as_bytes()))
    }

    /// What it was meant to say, if it is whole.
    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        let serial = Self::of(OsStr::new(line.split(' ').next()?))?;
        (serial.line() == line).then_some(serial)
    }
}

/// Whether it is a file of ours that was not finished.
pub(crate) fn is_aside(name: &OsStr) -> bool {
    let Some(name) = name.to_str().and_then(|name| name.strip_suffix(ASIDE)) else { return false };
    name == CURRENT || Serial::of(OsStr::new(name)).is_some()
}

//! The mount table of this process (proc(5), `/proc/pid/mountinfo`).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The filesystem type that staithe's mounts carry.
pub const FS_TYPE: &str = "fuse.staithe";

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Minor device number: names the FUSE connection and the backing-device settings.
    pub minor: u32,
    /// What of the filesystem is mounted there: `/`, or a directory in it that was mounted again (`mount --bind`).
    pub root: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The filesystem type.
    pub fs_type: String,
    /// The source.
    pub source: String,
    /// The user who mounted it, where the filesystem says so.
    pub user_id: Option<u32>,
}

impl MountEntry {
    /// Whether it is one of staithe's.
    pub fn is_staithe(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// How often the table is read while it changes.
const TRIES: u32 = 10;

/// The mount table, in the order of mounting: of several at one place, the last is the visible one.
///
/// The kernel gives it piece by piece, and one that changes meanwhile may lack what is mounted all the time: so it is read
/// until it is the same twice.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    let read = || std::fs::read("/proc/self/mountinfo");
    let mut table = read()?;
    for _ in 0..TRIES {
        let again = read()?;
        if again == table {
            break;
        }
        table = again;
    }
    Ok(table.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// What is visible at a mount point.
pub(crate) fn visible_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|m| m.mountpoint == path))
}

fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let device = text(fields.nth(2)?)?;
    let root = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let mountpoint = unescape(fields.next()?);
    let mut after = fields.skip_while(|f| *f != b"-").skip(1);
    let fs_type = text(after.next()?)?.to_owned();
    let source = String::from_utf8_lossy(&unescape(after.next()?)).into_owned();
    let options = text(after.next().unwrap_or_default())?;
    let user_id = options.split(',').find_map(|o| o.strip_prefix("user_id=")?.parse().ok());
    let minor = device.split_once(':')?.1.parse().ok()?;
    let mountpoint = PathBuf::from(OsString::from_vec(mountpoint));
    Some(MountEntry { minor, root, mountpoint, fs_type, source, user_id })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Space, tab, newline and backslash stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(digits) = digits {
            plain.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
            rest = &tail[3..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table() {
        let line =
            br"36 25 0:45 / /mnt/a\040b rw,nosuid shared:1 - fuse.staithe s3://b rw,user_id=1000,group_id=5";
        let entry = parse(line).unwrap();
        assert_eq!((entry.minor, entry.mountpoint.as_path()), (45, Path::new("/mnt/a b")));
        assert_eq!(entry.root, Path::new("/"));
        assert_eq!((entry.source.as_str(), entry.user_id), ("s3://b", Some(1000)));
        assert!(entry.is_staithe());
    }

    #[test]
    fn a_line_without_optional_fields_and_with_a_broken_escape() {
        let entry = parse(br"1 0 8:1 / /x\9 rw - ext4 /dev/root rw").unwrap();
        assert_eq!(entry.mountpoint, Path::new(r"/x\9"));
        assert_eq!((entry.user_id, entry.is_staithe()), (None, false));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(mounts().unwrap().iter().any(|m| m.mountpoint == Path::new("/")));
    }
}

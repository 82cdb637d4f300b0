//! READDIRPLUS records that `fuser` cannot express.
//!
//! An entry whose attributes are not known is sent with nodeid 0: the kernel then lists the name and counts no
//! reference (it does not mean that the name is absent). The number that the listing shows must still not be 0,
//! because C libraries skip such entries, and `fuser` writes one number to both places. So the buffer is
//! built here, byte for byte (`struct fuse_direntplus` of the kernel's `fuse.h`), and written to the session's
//! device.

use std::time::{Duration, SystemTime};

use staithe_fs::{DirItem, Entry, Kind};

use crate::attributes;

/// Length of `struct fuse_entry_out`.
const ENTRY_OUT: usize = 128;
/// Records are aligned to this.
const ALIGN: usize = 8;
/// `DT_UNKNOWN`: who needs to know asks for the attributes.
const UNKNOWN: u32 = 0;

/// A reply buffer.
#[derive(Debug, Default)]
pub(crate) struct Records(Vec<u8>);

impl Records {
    /// The bytes, after the header of the reply.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an entry, with its attributes if `entry` is given.
    pub(crate) fn push(&mut self, item: &DirItem, entry: Option<&Entry>) {
        match entry {
            Some(entry) => self.entry_out(entry),
            None => self.0.resize(self.0.len() + ENTRY_OUT, 0),
        }
        self.u64(entry.map_or(item.ino, |e| e.attr.ino.0));
        self.u64(item.next);
        self.u32(item.name.len() as u32);
        self.u32(item.kind.map_or(UNKNOWN, |kind| type_bits(kind) >> 12));
        self.0.extend_from_slice(item.name.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    fn entry_out(&mut self, entry: &Entry) {
        let (entry_ttl, attr_ttl) = (attributes::ttl(entry.entry_ttl), attributes::ttl(entry.attr_ttl));
        self.u64(entry.attr.ino.0);
        self.u64(0); // generation: inode numbers are not reused
        self.u64(entry_ttl.as_secs());
        self.u64(attr_ttl.as_secs());
        self.u32(entry_ttl.subsec_nanos());
        self.u32(attr_ttl.subsec_nanos());
        let attr = attributes::file_attr(&entry.attr);
        let times = [attr.atime, attr.mtime, attr.ctime].map(since_epoch);
        self.u64(attr.ino.0);
        self.u64(attr.size);
        self.u64(attr.blocks);
        for (seconds, _) in times {
            self.u64(seconds as u64);
        }
        for (_, nanos) in times {
            self.u32(nanos);
        }
        let mode = type_bits(entry.attr.kind) | u32::from(attr.perm);
        for word in [mode, attr.nlink, attr.uid, attr.gid, attr.rdev, attr.blksize, attr.flags] {
            self.u32(word);
        }
    }

    fn u64(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_ne_bytes());
    }

    fn u32(&mut self, word: u32) {
        self.0.extend_from_slice(&word.to_ne_bytes());
    }
}

/// The header of a successful reply (`struct fuse_out_header`) to request `unique` with `len` bytes after it.
pub(crate) fn header(unique: u64, len: usize) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&((16 + len) as u32).to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
    }
}

fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            // Rounded down to whole seconds, so that the nanoseconds count forward.
            let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
            let forward = Duration::from_secs(seconds).saturating_sub(before);
            (-(seconds as i64), forward.subsec_nanos())
        }
    }
}

#[cfg(test)]
mod tests {
    use staithe_fs::{Attr, Ino};

    use super::*;

    fn item(name: &str) -> DirItem {
        DirItem { name: name.to_owned(), ino: 77, kind: None, next: 5, entry: None }
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn a_bare_record_has_nodeid_zero_and_a_number_to_show() {
        let mut records = Records::default();
        records.push(&item("abc"), None);
        let bytes = records.as_bytes();
        assert_eq!(bytes.len(), 160, "128 + 24 + 3, aligned");
        assert!(bytes[..ENTRY_OUT].iter().all(|b| *b == 0));
        assert_eq!((u64_at(bytes, 128), u64_at(bytes, 136)), (77, 5));
        assert!(bytes[148..152].iter().all(|b| *b == 0), "the kind is unknown");
        assert_eq!(&bytes[152..155], b"abc");
    }

    #[test]
    fn a_full_record_has_the_same_length() {
        let never = SystemTime::UNIX_EPOCH;
        let attr = Attr {
            ino: Ino(9),
            kind: Kind::File,
            size: 4096,
            mode: 0o644,
            uid: 1,
            gid: 2,
            nlink: 1,
            atime: never,
            mtime: never,
            ctime: never,
        };
        let entry = Entry { attr, entry_ttl: Duration::from_secs(1), attr_ttl: Duration::from_secs(2) };
        let mut records = Records::default();
        records.push(&item("abc"), Some(&entry));
        let bytes = records.as_bytes();
        assert_eq!(bytes.len(), 160);
        assert_eq!((u64_at(bytes, 0), u64_at(bytes, 16), u64_at(bytes, 24)), (9, 1, 2));
        assert_eq!((u64_at(bytes, 48), u64_at(bytes, 128)), (4096, 9));
    }

    #[test]
    fn times_before_the_epoch_count_forward() {
        let time = SystemTime::UNIX_EPOCH - Duration::from_millis(1200);
        assert_eq!(since_epoch(time), (-2, 800_000_000));
        assert_eq!(since_epoch(SystemTime::UNIX_EPOCH - Duration::from_secs(3)), (-3, 0));
        assert_eq!(since_epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)), (1, 500_000_000));
    }
}

//! A copy of a staging file, for a start that must not go on with the file itself.

use std::io;
use std::path::Path;

use rustix::fs::{SeekFrom, copy_file_range, seek};
use rustix::io::{Errno, retry_on_intr};

use crate::disk_file::DiskFile;
use crate::{FsError, Result};

/// Copies the first `len` bytes of a file that was lent when its process ended, holes left out, and makes the copy
/// durable. The file that was lent; `None`, and nothing is done, if it was not, or is gone.
///
/// # Errors
/// The local disk's; then there is no copy.
pub(crate) fn copy_if_lent(dir: &Path, from: &str, to: &str, len: u64) -> Result<Option<DiskFile>> {
    if !dir.join(from).try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let lent = DiskFile::open(dir, from)?;
    if !lent.is_lent()? {
        return Ok(None);
    }
    let copy = DiskFile::create(dir, to)?;
    let copied = copy_data(&lent, &copy, len.min(lent.len()?)).and_then(|()| copy.sync());
    if let Err(error) = copied {
        copy.remove()?;
        return Err(error);
    }
    Ok(Some(lent))
}

fn copy_data(from: &DiskFile, to: &DiskFile, len: u64) -> Result<()> {
    let failed =
        |error: Errno| FsError::local(&format!("could not copy {from}: {error}"), io::Error::from(error));
    to.set_len(len)?;
    let mut at = 0;
    while at < len {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // There is nothing but a hole.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let end = seek(from, SeekFrom::Hole(start)).map_err(failed)?.min(len);
        at = start;
        while at < end {
            let (mut read, mut write) = (at, at);
            let most = (end - at).min(1 << 30) as usize;
            let copied = || copy_file_range(from, Some(&mut read), to, Some(&mut write), most);
            match retry_on_intr(copied).map_err(failed)? {
                // Cut meanwhile.
                0 => return Ok(()),
                copied => at += copied as u64,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_is_copied_and_holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile::create(dir.path(), "f").unwrap();
        file.set_len(64 << 20).unwrap();
        for at in [0, 5 << 20, (63 << 20) + 7] {
            file.write_at(at, b"bytes").1.unwrap();
        }
        assert!(copy_if_lent(dir.path(), "f", "copy", u64::MAX).unwrap().is_none());
        assert!(copy_if_lent(dir.path(), "missing", "copy", u64::MAX).unwrap().is_none());
        file.set_lent(true).unwrap();
        for len in [64 << 20, 9, 0] {
            let lent = copy_if_lent(dir.path(), "f", "copy", len).unwrap().unwrap();
            assert_eq!(lent.name(), "f");
            let copy = DiskFile::open(dir.path(), "copy").unwrap();
            assert!(!copy.is_lent().unwrap() && copy.allocated().unwrap() < 1 << 20);
            assert_eq!(copy.len().unwrap(), len);
            let whole = |file: &DiskFile| file.read_at(0, len as usize).unwrap();
            assert!(whole(&copy) == whole(&file));
            copy.remove().unwrap();
        }
    }
}

//! Bytes from one local file to another, holes left out.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

/// Between two of these it is looked whether the copy is still wanted, in bytes.
const PIECE: u64 = 64 << 20;
/// Where the disks cannot copy among themselves, in bytes.
const BUFFER: usize = 1 << 20;

/// Makes `to`, an empty file, a copy of the first `len` bytes of `from`, which has as many; shares blocks where the disk
/// can.
///
/// # Errors
/// The disks'; `Interrupted` once `stop` is set. Then the copy is not whole.
pub(super) fn copy_sparse(from: impl AsFd, to: impl AsFd, len: u64, stop: &AtomicBool) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    ftruncate(to, len)?;
    let (mut at, mut buffer) = (0, Vec::new());
    while at < len {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // There is nothing but a hole.
            Err(Errno::NXIO) => return Ok(()),
            // Nobody knows of holes here.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(start)).unwrap_or(len).min(len);
        at = start;
        while at < end {
            if stop.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "it was stopped"));
            }
            let most = (end - at).min(PIECE);
            let copied = if buffer.is_empty() { by_the_disk(from, to, at, most)? } else { None };
            at += if let Some(copied) = copied {
                copied
            } else {
                buffer.resize(BUFFER, 0);
                by_hand(from, to, at, most, &mut buffer)?
            };
        }
    }
    Ok(())
}

/// Copies as much as the disks do at once; `None`: they cannot.
fn by_the_disk(from: impl AsFd, to: impl AsFd, at: u64, most: u64) -> io::Result<Option<u64>> {
    let (mut read, mut write) = (at, at);
    match retry_on_intr(|| copy_file_range(&from, Some(&mut read), &to, Some(&mut write), most as usize)) {
        Ok(0) | Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Ok(copied) => Ok(Some(copied as u64)),
        Err(error) => Err(error.into()),
    }
}

fn by_hand(from: impl AsFd, to: impl AsFd, at: u64, most: u64, buffer: &mut [u8]) -> io::Result<u64> {
    let most = buffer.len().min(most as usize);
    let read = retry_on_intr(|| pread(&from, &mut buffer[..most], at))?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut written = 0;
    while written < read {
        match retry_on_intr(|| pwrite(&to, &buffer[written..read], at + written as u64))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => written += n,
        }
    }
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn holes_stay_holes_and_every_byte_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let new = |name: &str| File::create_new(dir.path().join(name)).unwrap();
        let from = new("from");
        from.set_len(80 << 20).unwrap();
        for (at, len) in [(7, 3), (5 << 20, 3 << 20), ((79 << 20) + 1, 100)] {
            from.write_all_at(&vec![7; len], at).unwrap();
        }
        let from = File::open(dir.path().join("from")).unwrap();
        for len in [80 << 20, (6 << 20) + 1, 8, 0] {
            let to =
                File::options().read(true).write(true).create_new(true).open(dir.path().join("to")).unwrap();
            copy_sparse(&from, &to, len, &AtomicBool::new(false)).unwrap();
            assert_eq!(to.metadata().unwrap().len(), len);
            assert!(to.metadata().unwrap().blocks() * 512 < 8 << 20);
            let read = |file: &File| {
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            assert!(read(&to) == read(&from), "{len}");
            let mut by_buffer = vec![0; 4096];
            assert_eq!(by_hand(&from, &to, 0, len, &mut by_buffer).is_ok(), len > 0);
            assert!(read(&to) == read(&from), "{len}");
            std::fs::remove_file(dir.path().join("to")).unwrap();
        }
        let stopped = copy_sparse(&from, new("to"), 80 << 20, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }
}

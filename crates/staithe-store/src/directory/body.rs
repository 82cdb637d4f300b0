//! The body of a GET: bytes of one open file, checked to be those of the version that was asked for.

use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::fs::Stat;
use rustix::io::{Errno, ReadWriteFlags};

use super::attributes::modified_ns;
use super::{blocking, errno};
use crate::{Body, ErrorKind, Key, Result, StoreError};

/// One file, being read.
#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    key: Key,
    /// Length and time of last write when it was opened. Not the time of change: that also moves when the
    /// file loses its name, which leaves the bytes alone.
    opened: (i64, i128),
}

/// The bytes `range` of the file, in chunks of `chunk` bytes.
///
/// A chunk that is in the page cache is read at once (`RWF_NOWAIT`); one that is not, on a blocking thread.
/// After each read the inode is looked at, before the bytes are handed on: a file that was written in place
/// fails the body with `VersionMismatch`, one that was only replaced is read to its end.
pub(super) fn stream(fd: OwnedFd, key: Key, stat: &Stat, range: Range<u64>, chunk: usize) -> Body {
    let opened = (stat.st_size, modified_ns(stat));
    let source = Arc::new(Source { fd, key, opened });
    stream::try_unfold(range, move |range| {
        let source = source.clone();
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let want = (range.end - range.start).min(chunk as u64) as usize;
            let bytes = match source.cached(range.start, want)? {
                Some(bytes) => bytes,
                None => blocking::run("get", move |_| source.read(range.start, want)).await?,
            };
            let next = range.start + bytes.len() as u64..range.end;
            Ok(Some((bytes, next)))
        }
    })
    .boxed()
}

impl Source {
    /// What of these bytes is in memory already; `None` if the first of them is not.
    fn cached(&self, offset: u64, want: usize) -> Result<Option<Bytes>> {
        let mut buffer = vec![0; want];
        let slices = &mut [IoSliceMut::new(&mut buffer)];
        match rustix::io::preadv2(&self.fd, slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(0) | Err(_) => Ok(None), // the blocking read finds out why
            Ok(read) => {
                buffer.truncate(read);
                self.unchanged()?;
                Ok(Some(Bytes::from(buffer)))
            }
        }
    }

    /// Reads until `want` bytes are there.
    fn read(&self, offset: u64, want: usize) -> Result<Bytes> {
        let mut buffer = Vec::with_capacity(want);
        while buffer.len() < want {
            let at = offset + buffer.len() as u64;
            match rustix::io::pread(&self.fd, rustix::buffer::spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(self.changed()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        buffer.truncate(want); // the allocator may have given more room than was asked for
        self.unchanged()?;
        Ok(Bytes::from(buffer))
    }

    fn unchanged(&self) -> Result<()> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|errno| self.failed(errno))?;
        if (stat.st_size, modified_ns(&stat)) == self.opened { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> StoreError {
        let text = "the file was written in place while it was read; read it anew";
        StoreError::new(ErrorKind::VersionMismatch, "get", text).with_key(&self.key)
    }

    fn failed(&self, errno: Errno) -> StoreError {
        errno::error("get", Some(&self.key), "reading the file", errno)
    }
}

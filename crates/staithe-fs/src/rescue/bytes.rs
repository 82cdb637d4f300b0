//! The bytes of one thing, ready to be copied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;

use rustix::io::{pwrite, retry_on_intr};

use super::copy::copy_sparse;
use super::plan::Local;

/// Where bytes come from.
#[derive(Debug)]
pub(super) enum Bytes {
    /// A local file, opened for reading only.
    File {
        /// The file.
        file: File,
        /// Its length, in bytes.
        len: u64,
    },
    /// A text of ours.
    Text(String),
}

/// A file on the local disk, and what of it is not there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bytes: Bytes,
    /// What only the base has: ascending, disjoint.
    pub(super) missing: Vec<Range<u64>>,
}

impl Local {
    /// Opens the file; `None` if it is gone. A file that is shorter than was said was cut afterwards.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn open(&self) -> io::Result<Option<Found>> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len().min(self.size_most);
        let shown = 0..self.base_limit.min(len);
        let missing = if shown.is_empty() { Vec::new() } else { self.dirty.gaps(&shown).collect() };
        Ok(Some(Found { bytes: Bytes::File { file, len }, missing }))
    }
}

impl Bytes {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Text(text) => text.len() as u64,
        }
    }

    /// Copies all of it to an empty file; what is not there of a local file is a hole there too, as far as nothing of the
    /// object was fetched.
    ///
    /// # Errors
    /// The disks'; then not all of it is there.
    pub(super) fn copy_to(&self, to: impl AsFd, stop: &AtomicBool) -> io::Result<()> {
        match self {
            Self::File { file, len } => copy_sparse(file, to, *len, stop),
            Self::Text(text) => {
                let mut written = 0;
                while written < text.len() {
                    match retry_on_intr(|| pwrite(&to, &text.as_bytes()[written..], written as u64))? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        n => written += n,
                    }
                }
                Ok(())
            }
        }
    }

    /// The first bytes of it, at most `most`.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn start(&self, most: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.bytes().take(most).collect()),
            Self::File { file, len } => {
                let mut bytes = vec![0; most.min(*len as usize)];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            }
        }
    }

    /// How much room it takes at most on a disk, in bytes.
    pub(super) fn room(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File { file, len } => file.metadata().map_or(0, |meta| meta.blocks() * 512).min(*len),
        }
    }
}

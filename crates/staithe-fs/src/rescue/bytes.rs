//! The bytes of one thing, ready to be copied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::AtomicBool;

use md5::{Digest as _, Md5};
use rustix::fs::{SeekFrom, seek};
use rustix::io::{pwrite, retry_on_intr};
use staithe_store::ETag;

use super::copy::copy_sparse;
use super::plan::Local;

/// A disk has no smaller blocks than it says, and none smaller than this, in bytes.
const LEAST_BLOCK: u64 = 4096;
/// Read at once, in bytes.
const PIECE: usize = 1 << 20;

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
    /// What only the base is known to have: ascending, disjoint.
    pub(super) missing: Vec<Range<u64>>,
    /// What of that seems to be there.
    pub(super) fetched: Vec<Range<u64>>,
}

impl Local {
    /// Opens the file, which was made from an object with this tag; `None` if it is gone. A file that is shorter than was
    /// said was cut afterwards. Reads it, if the tag tells whether all of the object is there.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn open(&self, base: Option<&ETag>) -> io::Result<Option<Found>> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let (len, block) = (meta.len().min(self.size_most), meta.blksize().max(LEAST_BLOCK));
        let shown = 0..self.base_limit.min(len);
        let mut missing = if shown.is_empty() { Vec::new() } else { self.dirty.gaps(&shown).collect() };
        let lacks_all_of_it = missing.first() == Some(&(0..self.base_size));
        if let Some(base) = base.filter(|_| lacks_all_of_it)
            && is_object(&file, self.base_size, base)?
        {
            missing.clear();
        }
        let mut fetched = Vec::new();
        for gap in &missing {
            fetched.append(&mut filled(&file, gap, block, len)?);
        }
        Ok(Some(Found { bytes: Bytes::File { file, len }, missing, fetched }))
    }
}

/// Whether a file begins with an object of `size` bytes, by its tag; false if the tag is no MD5 sum of it.
fn is_object(file: &File, size: u64, tag: &ETag) -> io::Result<bool> {
    let tag = tag.as_str().trim_matches('"').as_bytes();
    // With a hole in it, it is hardly worth reading.
    if tag.len() != 32 || seek(file, SeekFrom::Hole(0)).unwrap_or(0) < size {
        return Ok(false);
    }
    let (mut sum, mut at, mut piece) = (Md5::new(), 0, vec![0; PIECE]);
    while at < size {
        let piece = &mut piece[..PIECE.min((size - at) as usize)];
        file.read_exact_at(piece, at)?;
        sum.update(&*piece);
        at += piece.len() as u64;
    }
    let digits = sum.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits.zip(tag).all(|(digit, told)| char::from(*told).to_digit(16) == Some(digit.into())))
}

/// Where in a gap between dirty bytes the disk has anything. Of a block in which there are dirty bytes too, only what is not
/// zero: the rest was never written.
fn filled(file: &File, gap: &Range<u64>, block: u64, len: u64) -> io::Result<Vec<Range<u64>>> {
    let (mut filled, mut at) = (Vec::new(), gap.start);
    while at < gap.end {
        let Ok(start) = seek(file, SeekFrom::Data(at)) else { break };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(len).min(gap.end);
        let (mut first, mut last) = (start.max(gap.start), end);
        if first >= end {
            break;
        }
        let inner = first.next_multiple_of(block).min(end);
        if first == gap.start && is_zero(file, first..inner)? {
            first = inner;
        }
        let inner = (last / block * block).max(first);
        if last == gap.end && last < len && is_zero(file, inner..last)? {
            last = inner;
        }
        if first < last {
            filled.push(first..last);
        }
        at = end;
    }
    Ok(filled)
}

/// Whether a part of a block has nothing but zeros.
fn is_zero(file: &File, range: Range<u64>) -> io::Result<bool> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
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
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File { file, len } => file.metadata().map_or(0, |meta| meta.blocks() * 512).min(*len),
        }
    }
}

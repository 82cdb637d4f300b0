//! Writing a manifest, block by block, to anything.

use std::io::{self, Write};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

use super::file::unwritten;
use super::format::{
    BLOCK, BLOCK_TAG, FOOTER, FOOTER_SUMMED, FOOTER_TAG, FRAME, MAGIC, ManifestHeader, VERSION,
};
use super::object::{self, ViewObject, put_number};
use crate::error::{FsError, FsErrorKind};

/// What an object takes in memory beside its key and what is known of it: the length of the key.
pub(super) const KEY_LENGTH: u64 = 2;

/// Writes a manifest. Objects come in the order of their keys' bytes, each key once.
pub(super) struct Encoder<W> {
    out: W,
    whole: Digest,
    prefix: String,
    last: Vec<u8>,
    block: Vec<u8>,
    in_block: u32,
    objects: u64,
    in_memory: u64,
}

/// Why an object cannot be written down.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the store does not list {0:?} in the order of the keys")]
    Disorder(String),
    #[error("{0:?} does not begin with the prefix")]
    Outside(String),
    #[error("the entity tag or version id of {0:?} is longer than any is")]
    TooLong(String),
    #[error("it cannot be written")]
    Io(#[from] io::Error),
}

impl Refused {
    /// The sentence about the file that was to be written.
    pub(super) fn of(self, target: &Path) -> FsError {
        match self {
            Self::Io(error) => unwritten(target, error),
            refused => {
                let what = format!("{} cannot be written", target.display());
                FsError::caused(FsErrorKind::Invalid, what, refused)
            }
        }
    }
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(out: W, header: &ManifestHeader) -> io::Result<Self> {
        let mut encoder = Self {
            out,
            whole: Digest::new(CrcAlgorithm::Crc64Nvme),
            prefix: header.prefix.clone(),
            last: Vec::new(),
            block: Vec::with_capacity(BLOCK + 4096),
            in_block: 0,
            objects: 0,
            in_memory: 0,
        };
        let json = header.to_json();
        let mut begin = Vec::with_capacity(json.len() + 32);
        begin.extend_from_slice(&MAGIC);
        begin.extend_from_slice(&VERSION.to_le_bytes());
        begin.extend_from_slice(&(json.len() as u32).to_le_bytes());
        begin.extend_from_slice(&json);
        begin.extend_from_slice(&crc32_iscsi(&json).to_le_bytes());
        encoder.write(&begin)?;
        Ok(encoder)
    }

    pub(super) fn push(&mut self, object: &ViewObject) -> Result<(), Refused> {
        let key = object.key.as_str();
        if self.objects > 0 && key.as_bytes() <= &*self.last {
            return Err(Refused::Disorder(key.to_owned()));
        }
        if !key.starts_with(&self.prefix) {
            return Err(Refused::Outside(key.to_owned()));
        }
        let is_first = self.in_block == 0;
        let shared = self.last.iter().zip(key.as_bytes()).take_while(|(a, b)| a == b && !is_first).count();
        let rest = &key.as_bytes()[shared..];
        let before = self.block.len();
        put_number(&mut self.block, shared as u64);
        put_number(&mut self.block, rest.len() as u64);
        self.block.extend_from_slice(rest);
        let known_at = self.block.len();
        if object::encode(object, &mut self.block).is_none() {
            self.block.truncate(before);
            return Err(Refused::TooLong(key.to_owned()));
        }
        self.in_memory += KEY_LENGTH + (key.len() + self.block.len() - known_at) as u64;
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.in_block += 1;
        self.objects += 1;
        if self.block.len() >= BLOCK {
            self.close_block()?;
        }
        Ok(())
    }

    /// How many objects were written.
    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    /// Writes what is left, and the footer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.close_block()?;
        let mut footer = Vec::with_capacity(FOOTER);
        footer.push(FOOTER_TAG);
        footer.extend_from_slice(&self.objects.to_le_bytes());
        footer.extend_from_slice(&self.in_memory.to_le_bytes());
        debug_assert_eq!(footer.len(), FOOTER_SUMMED);
        self.whole.update(&footer);
        footer.extend_from_slice(&self.whole.finalize().to_le_bytes());
        footer.extend_from_slice(&crc32_iscsi(&footer).to_le_bytes());
        self.out.write_all(&footer)?;
        Ok(self.out)
    }

    fn close_block(&mut self) -> io::Result<()> {
        if self.in_block == 0 {
            return Ok(());
        }
        let packed = lz4_flex::block::compress(&self.block);
        let mut frame = Vec::with_capacity(FRAME + packed.len() + 4);
        frame.push(BLOCK_TAG);
        frame.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        frame.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        frame.extend_from_slice(&self.in_block.to_le_bytes());
        frame.extend_from_slice(&packed);
        frame.extend_from_slice(&crc32_iscsi(&frame).to_le_bytes());
        self.block.clear();
        self.in_block = 0;
        self.write(&frame)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.out.write_all(bytes)
    }
}

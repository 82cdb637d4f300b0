//! A state on its way out.

use std::io::{self, Write};
use std::mem;

use crc_fast::Digest;

use super::fault::Fault;
use super::format::{self, Format, PIECE};
use crate::{Epoch, Error};

/// Writes one snapshot, in pieces with their checksums. Without [`Writer::finish`] what it has written is torn, and
/// refused.
pub struct Writer<W: Write> {
    out: W,
    digest: Digest,
    /// The piece that is being filled, behind the room for its length.
    piece: Vec<u8>,
    total: u64,
    /// Nothing follows a failed write: part of a piece may be there.
    failed: bool,
}

const LENGTH: usize = 4;

impl<W: Write> Writer<W> {
    /// Begins a snapshot.
    ///
    /// # Errors
    /// [`crate::Kind::Io`].
    pub fn new(mut out: W, format: Format, epoch: Epoch) -> Result<Self, Error> {
        let mut digest = format::digest();
        out.write_all(&format::encode(format, epoch, &mut digest)).map_err(Fault::Write)?;
        Ok(Self { out, digest, piece: empty(), total: 0, failed: false })
    }

    /// Bytes of the state that it was given.
    pub fn written(&self) -> u64 {
        self.total
    }

    /// Ends the snapshot, and gives back what it was written to, flushed. To make it durable is up to the caller.
    ///
    /// # Errors
    /// [`crate::Kind::Io`], also if an earlier write had failed.
    pub fn finish(mut self) -> Result<W, Error> {
        self.end().map_err(Fault::Write)?;
        Ok(self.out)
    }

    fn end(&mut self) -> io::Result<()> {
        self.send()?;
        let mut end = 0_u32.to_le_bytes().to_vec();
        end.extend(self.total.to_le_bytes());
        format::seal(&mut end, &mut self.digest);
        self.put(&end)?;
        self.out.flush()
    }

    /// Writes the piece, if there is anything in it.
    fn send(&mut self) -> io::Result<()> {
        let length = self.piece.len() - LENGTH;
        if length > 0 {
            let mut piece = mem::take(&mut self.piece);
            piece[..LENGTH].copy_from_slice(&(length as u32).to_le_bytes());
            format::seal(&mut piece, &mut self.digest);
            let sent = self.put(&piece);
            piece.truncate(LENGTH);
            self.piece = piece;
            sent?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if mem::replace(&mut self.failed, true) {
            return Err(io::Error::other("an earlier write of this snapshot has failed"));
        }
        self.out.write_all(bytes)?;
        self.failed = false;
        Ok(())
    }
}

fn empty() -> Vec<u8> {
    let mut piece = Vec::with_capacity(LENGTH + PIECE + 8);
    piece.extend([0; LENGTH]);
    piece
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == LENGTH + PIECE {
            self.send()?;
        }
        let taken = bytes.len().min(LENGTH + PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.total += taken as u64;
        Ok(taken)
    }

    /// Does nothing: a piece is written when it is full, or at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A state on its way in.

use std::io::{self, BufRead, Read};

use crc_fast::Digest;

use super::fault::Fault;
use super::format::{self, Format, HEADER, Header, LARGEST};
use crate::Error;

/// Reads one snapshot. It gives out no byte whose checksum was not right; [`Reader::finish`] says whether all of it was.
pub struct Reader<R> {
    input: R,
    header: Header,
    digest: Digest,
    piece: Vec<u8>,
    /// What of the piece is given out.
    given: usize,
    total: u64,
    /// Bytes of the file that were read.
    at: u64,
    end: End,
}

enum End {
    Open,
    /// All of it was there, and right.
    Whole,
    Fault(Fault),
}

impl<R: Read> Reader<R> {
    /// Begins to read a snapshot of this kind, of this version or an older one.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`], [`crate::Kind::Foreign`], [`crate::Kind::Newer`] or [`crate::Kind::Io`].
    pub fn new(input: R, format: Format) -> Result<Self, Error> {
        Ok(Self::begin(input, format)?)
    }

    pub(crate) fn begin(mut input: R, format: Format) -> Result<Self, Fault> {
        let mut digest = format::digest();
        let mut bytes = [0; HEADER];
        let have = fill(&mut input, &mut bytes)?;
        let header = format::decode(&bytes[..have], format, &mut digest)?;
        let at = HEADER as u64;
        Ok(Self { input, header, digest, piece: Vec::new(), given: 0, total: 0, at, end: End::Open })
    }

    /// What the file says of the state in it.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Whether the snapshot was whole and has been read to its end.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`] or [`crate::Kind::Io`]; [`crate::Kind::Invalid`] if bytes of it were left unread.
    pub fn finish(self) -> Result<(), Error> {
        Ok(self.verify()?)
    }

    pub(crate) fn verify(mut self) -> Result<(), Fault> {
        let mut left = 0;
        while matches!(self.end, End::Open) {
            left += (self.piece.len() - self.given) as u64;
            self.advance();
        }
        match self.end {
            End::Fault(fault) => Err(fault),
            End::Open | End::Whole => {
                left += (self.piece.len() - self.given) as u64;
                if left == 0 { Ok(()) } else { Err(Fault::Left { bytes: left }) }
            }
        }
    }

    /// The next piece, or the end.
    fn advance(&mut self) {
        self.given = 0;
        match self.next() {
            Ok(true) => {}
            Ok(false) => {
                self.piece.clear();
                self.end = End::Whole;
            }
            Err(fault) => {
                self.piece.clear();
                self.end = End::Fault(fault);
            }
        }
    }

    /// Whether there is another piece, which is then read and right.
    fn next(&mut self) -> Result<bool, Fault> {
        let mut word = [0; 4];
        self.exactly(&mut word)?;
        self.digest.update(&word);
        let length = u32::from_le_bytes(word) as usize;
        if length > LARGEST {
            return Err(Fault::Checksum { at: self.at });
        }
        if length > 0 {
            self.piece.resize(length, 0);
            let mut piece = std::mem::take(&mut self.piece);
            let read = self.exactly(&mut piece);
            self.piece = piece;
            read?;
            self.digest.update(&self.piece);
            self.total += length as u64;
            self.check()?;
            return Ok(true);
        }
        let mut total = [0; 8];
        self.exactly(&mut total)?;
        self.digest.update(&total);
        self.check()?;
        if u64::from_le_bytes(total) != self.total {
            return Err(Fault::Checksum { at: self.at });
        }
        if fill(&mut self.input, &mut [0])? > 0 {
            return Err(Fault::Trailing { at: self.at });
        }
        Ok(false)
    }

    fn check(&mut self) -> Result<(), Fault> {
        let mut checksum = [0; 8];
        self.exactly(&mut checksum)?;
        if u64::from_le_bytes(checksum) != self.digest.finalize() {
            return Err(Fault::Checksum { at: self.at });
        }
        Ok(())
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        let have = fill(&mut self.input, bytes)?;
        self.at += have as u64;
        if have < bytes.len() { Err(Fault::Torn { at: self.at }) } else { Ok(()) }
    }
}

/// Reads as many as there are.
fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<usize, Fault> {
    let mut have = 0;
    while have < bytes.len() {
        match input.read(&mut bytes[have..]) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Read(error)),
        }
    }
    Ok(have)
}

impl<R: Read> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.given == self.piece.len() && matches!(self.end, End::Open) {
            self.advance();
        }
        match &self.end {
            End::Fault(fault) => Err(io::Error::new(io::ErrorKind::InvalidData, fault.to_string())),
            End::Open | End::Whole => Ok(&self.piece[self.given..]),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.given = self.piece.len().min(self.given + bytes);
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(bytes)?;
        self.consume(read);
        Ok(read)
    }
}

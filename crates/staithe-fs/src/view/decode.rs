//! Reading a manifest, object by object. What it says is to be believed when [`Decoder::advance`] has said that there
//! is no more: only then was the checksum of the whole seen.

use std::io::{self, Read};

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};
use staithe_store::Key;

use super::format::{
    BLOCK_MAX, BLOCK_TAG, FOOTER, FOOTER_SUMMED, FOOTER_TAG, FRAME, Fault, HEADER_MAX, MAGIC, ManifestHeader,
    VERSION,
};
use super::object::{self, ViewObject, take_number};

/// Reads a manifest of anything.
pub(super) struct Decoder<R> {
    input: R,
    whole: Digest,
    header: ManifestHeader,
    block: Vec<u8>,
    at: usize,
    /// Objects of the block that are still to come.
    left: u32,
    objects: u64,
    /// The key of the object before, and of the one that is read.
    key: Vec<u8>,
    is_over: bool,
}

/// An object, and where in its block it is described.
pub(super) struct Decoded<'d> {
    pub(super) object: ViewObject,
    /// What is known of it beside its key, as it is written.
    pub(super) known: &'d [u8],
}

impl<R: Read> Decoder<R> {
    /// Reads the header.
    pub(super) fn new(mut input: R) -> Result<Self, Fault> {
        let mut whole = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut magic = [0; 16];
        let begun = read_up_to(&mut input, &mut magic)?;
        if magic[..begun] != MAGIC[..begun] || begun == 0 {
            return Err(Fault::Foreign);
        }
        if begun < MAGIC.len() {
            return Err(Fault::Truncated);
        }
        whole.update(&magic);
        let mut numbers = [0; 8];
        input.read_exact(&mut numbers)?;
        whole.update(&numbers);
        let (version, len) = (number(&numbers[..4]), number(&numbers[4..]));
        if version > VERSION {
            return Err(Fault::Newer(version));
        }
        if version == 0 || len > HEADER_MAX {
            return Err(Fault::Damaged("the header cannot be read"));
        }
        let mut json = vec![0; len as usize + 4];
        input.read_exact(&mut json)?;
        whole.update(&json);
        let (json, sum) = json.split_at(len as usize);
        if crc32_iscsi(json) != number(sum) {
            return Err(Fault::Damaged("the header does not match its checksum"));
        }
        let header = ManifestHeader::from_json(json).ok_or(Fault::Damaged("the header cannot be read"))?;
        let (block, key) = (Vec::new(), Vec::new());
        Ok(Self { input, whole, header, block, at: 0, left: 0, objects: 0, key, is_over: false })
    }

    pub(super) fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The next object; `None` when there are no more, and all of it was whole.
    pub(super) fn advance(&mut self) -> Result<Option<Decoded<'_>>, Fault> {
        while self.left == 0 {
            if self.is_over || !self.next_block()? {
                return Ok(None);
            }
        }
        const UNREADABLE: Fault = Fault::Damaged("a block holds what is no object");
        let mut rest = &self.block[self.at..];
        let shared = take_number(&mut rest).ok_or(UNREADABLE)? as usize;
        let len = take_number(&mut rest).ok_or(UNREADABLE)? as usize;
        let (tail, rest) = rest.split_at_checked(len).ok_or(UNREADABLE)?;
        if shared > self.key.len() || (shared > 0 && self.at == 0) {
            return Err(UNREADABLE);
        }
        let ascends = self.objects == 0 || *tail > self.key[shared..];
        self.key.truncate(shared);
        self.key.extend_from_slice(tail);
        let text = std::str::from_utf8(&self.key).map_err(|_| UNREADABLE)?;
        if !ascends || !text.starts_with(&self.header.prefix) {
            return Err(Fault::Damaged("its keys are not in order, or not below its prefix"));
        }
        let key = Key::new(text).map_err(|_| UNREADABLE)?;
        let (object, known) = object::decode(key, rest).ok_or(UNREADABLE)?;
        let known_at = self.block.len() - rest.len();
        self.at = known_at + known;
        self.left -= 1;
        self.objects += 1;
        if self.left == 0 && self.at != self.block.len() {
            return Err(UNREADABLE);
        }
        Ok(Some(Decoded { object, known: &self.block[known_at..self.at] }))
    }

    /// Reads a block; false if that was the footer.
    fn next_block(&mut self) -> Result<bool, Fault> {
        let mut tag = [0];
        self.input.read_exact(&mut tag)?;
        match tag[0] {
            BLOCK_TAG => {}
            FOOTER_TAG => return self.footer().map(|()| false),
            _ => return Err(Fault::Damaged("something else stands where a block begins")),
        }
        let mut frame = vec![0; FRAME];
        frame[0] = BLOCK_TAG;
        self.input.read_exact(&mut frame[1..])?;
        let (packed, len, objects) = (number(&frame[1..5]), number(&frame[5..9]), number(&frame[9..]));
        if len > BLOCK_MAX || packed as usize > lz4_flex::block::get_maximum_output_size(len as usize) {
            return Err(Fault::Damaged("a block is longer than any is"));
        }
        frame.resize(FRAME + packed as usize + 4, 0);
        self.input.read_exact(&mut frame[FRAME..])?;
        self.whole.update(&frame);
        let (frame, sum) = frame.split_at(FRAME + packed as usize);
        if crc32_iscsi(frame) != number(sum) {
            return Err(Fault::Damaged("a block does not match its checksum"));
        }
        self.block.resize(len as usize, 0);
        let unpacked = lz4_flex::block::decompress_into(&frame[FRAME..], &mut self.block);
        if unpacked.ok() != Some(len as usize) || objects == 0 {
            return Err(Fault::Damaged("a block cannot be unpacked"));
        }
        (self.at, self.left) = (0, objects);
        Ok(true)
    }

    fn footer(&mut self) -> Result<(), Fault> {
        let mut footer = [0; FOOTER];
        footer[0] = FOOTER_TAG;
        self.input.read_exact(&mut footer[1..])?;
        let (objects, _) =
            footer_counts(&footer).ok_or(Fault::Damaged("its end does not match its checksum"))?;
        self.whole.update(&footer[..FOOTER_SUMMED]);
        if self.whole.finalize() != long(&footer[FOOTER_SUMMED..FOOTER_SUMMED + 8]) {
            return Err(Fault::Damaged("it does not match the checksum of the whole"));
        }
        if objects != self.objects {
            return Err(Fault::Damaged("it has not as many objects as it says"));
        }
        if read_up_to(&mut self.input, &mut [0])? > 0 {
            return Err(Fault::Damaged("something follows its end"));
        }
        self.is_over = true;
        Ok(())
    }
}

/// How many objects a footer says there are, and how many bytes they take in memory; `None` if it is damaged.
pub(super) fn footer_counts(footer: &[u8; FOOTER]) -> Option<(u64, u64)> {
    let (said, sum) = footer.split_at(FOOTER - 4);
    let holds = said[0] == FOOTER_TAG && crc32_iscsi(said) == number(sum);
    holds.then(|| (long(&said[1..9]), long(&said[9..17])))
}

/// Fills as much of the buffer as there is input for.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;

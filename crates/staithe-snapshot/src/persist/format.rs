//! What a file looks like.
//!
//! ```text
//! header   magic (8)  file format u32  version u32  kind (16)  epoch u64  checksum u64
//! piece    length u32 (1 to 1 MiB)  bytes  checksum u64                 any number of them
//! end      0 u32  bytes in all u64  checksum u64                        and the file ends
//! ```
//!
//! Numbers are little-endian. A checksum is the CRC-64/NVME of the file up to it without the checksums in it.

use crc_fast::{CrcAlgorithm, Digest};

use super::fault::Fault;
use crate::Epoch;

/// Not text, and broken by whatever converts line ends.
const MAGIC: [u8; 8] = *b"\x89STSN\r\n\x1a";
/// Of the file, not of the state in it.
const CONTAINER: u32 = 1;
pub(crate) const HEADER: usize = 48;
/// Bytes in a piece, as they are written.
pub(crate) const PIECE: usize = 256 << 10;
/// The most that a reader allocates for one.
pub(crate) const LARGEST: usize = 1 << 20;

/// What a state is, on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Tells one kind of state from others, so that no decoder gets what was not meant for it.
    pub kind: [u8; 16],
    /// The version of its encoding that is written, and the newest that is read.
    pub version: u32,
}

/// What a file says of the state in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version that it was encoded with: the format's, or an older one.
    pub version: u32,
    /// The epoch that it was saved with.
    pub epoch: Epoch,
}

pub(crate) fn digest() -> Digest {
    Digest::new(CrcAlgorithm::Crc64Nvme)
}

pub(crate) fn encode(format: Format, epoch: Epoch, digest: &mut Digest) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend(MAGIC);
    bytes.extend(CONTAINER.to_le_bytes());
    bytes.extend(format.version.to_le_bytes());
    bytes.extend(format.kind);
    bytes.extend(epoch.0.to_le_bytes());
    seal(&mut bytes, digest);
    bytes
}

/// Adds the checksum. It is not part of what later ones are of: a CRC over data and its own CRC is always the same, and
/// would forget what came before.
pub(crate) fn seal(bytes: &mut Vec<u8>, digest: &mut Digest) {
    digest.update(bytes);
    bytes.extend(digest.finalize().to_le_bytes());
}

/// Of the first bytes of a file: as many as a header has, or all there are.
pub(crate) fn decode(bytes: &[u8], format: Format, digest: &mut Digest) -> Result<Header, Fault> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(Fault::Foreign);
    }
    let torn = Fault::Torn { at: bytes.len() as u64 };
    let Some((_, rest)) = bytes.split_first_chunk::<8>() else { return Err(torn) };
    let Some((container, rest)) = rest.split_first_chunk() else { return Err(torn) };
    let Some((version, rest)) = rest.split_first_chunk() else { return Err(torn) };
    let Some((kind, rest)) = rest.split_first_chunk::<16>() else { return Err(torn) };
    let Some((epoch, rest)) = rest.split_first_chunk() else { return Err(torn) };
    let Some((checksum, _)) = rest.split_first_chunk() else { return Err(torn) };
    digest.update(&bytes[..HEADER - 8]);
    if digest.finalize() != u64::from_le_bytes(*checksum) {
        return Err(Fault::Checksum { at: HEADER as u64 });
    }
    let (container, version) = (u32::from_le_bytes(*container), u32::from_le_bytes(*version));
    if container != CONTAINER {
        return Err(Fault::Container { found: container, known: CONTAINER });
    }
    if *kind != format.kind {
        return Err(Fault::OtherKind { found: *kind });
    }
    if version > format.version {
        return Err(Fault::Version { found: version, known: format.version });
    }
    Ok(Header { version, epoch: Epoch(u64::from_le_bytes(*epoch)) })
}

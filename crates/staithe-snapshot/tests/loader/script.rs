//! Any bytes as a snapshot file, and any damage to a good one: refused with a kind, or exactly what was written.

use std::io::{Read as _, Write as _};

use staithe_snapshot::persist::{Format, Reader, Writer};
use staithe_snapshot::{Epoch, Error, Kind};

pub(crate) const FORMAT: Format = Format { kind: *b"example.of.tests", version: 3 };

pub(crate) fn encode(state: &[u8], epoch: Epoch, format: Format) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), format, epoch).unwrap();
    writer.write_all(state).unwrap();
    assert_eq!(writer.written(), state.len() as u64);
    writer.finish().unwrap()
}

/// What is in a file, if it is whole.
pub(crate) fn decode(file: &[u8]) -> Result<(Epoch, u32, Vec<u8>), Error> {
    let mut reader = Reader::new(file, FORMAT)?;
    let header = reader.header();
    let mut state = Vec::new();
    // Where the checksum was wrong, finishing says so too.
    let read = reader.read_to_end(&mut state);
    reader.finish()?;
    read.unwrap();
    Ok((header.epoch, header.version, state))
}

fn refused(error: &Error) {
    let expected = matches!(error.kind(), Kind::Damaged | Kind::Foreign | Kind::Newer);
    assert!(expected && !error.to_string().is_empty(), "{error:?}");
}

/// The first byte chooses: the rest is a file; or the rest is a state, whose file is damaged as its first bytes say.
pub(crate) fn run_bytes(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    if choice % 2 == 0 {
        match decode(rest) {
            // Pieces may have any length, so the file need not be the one that is written; what is in it survives.
            Ok((epoch, version, state)) => {
                let again = decode(&encode(&state, epoch, Format { version, ..FORMAT })).unwrap();
                assert_eq!(again, (epoch, version, state));
            }
            Err(error) => refused(&error),
        }
        return;
    }
    let Some((&[a, b, c, d], state)) = rest.split_first_chunk::<4>() else { return };
    let good = encode(state, Epoch(7), FORMAT);
    assert_eq!(decode(&good).unwrap(), (Epoch(7), 3, state.to_vec()));
    let at = usize::from(u16::from_le_bytes([a, b])) % good.len();
    let mut bad = good.clone();
    match c % 4 {
        0 => bad.truncate(at),
        1 => bad[at] ^= d.max(1),
        2 => bad.insert(at, d),
        _ => drop(bad.remove(at)),
    }
    match decode(&bad) {
        Ok(_) => assert_eq!(bad, good, "damage was not noticed"),
        Err(error) => refused(&error),
    }
}

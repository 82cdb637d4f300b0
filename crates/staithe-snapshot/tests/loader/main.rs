//! The file format: every truncation, every flipped bit, any bytes.
#![cfg(all(feature = "persist", not(loom)))]
#![allow(clippy::unwrap_used)]

mod script;

use std::io::{self, BufRead as _, Read, Write as _};

use proptest::collection::vec;
use proptest::prelude::*;
use script::{FORMAT, decode, encode};
use staithe_snapshot::persist::{Format, Reader, Writer};
use staithe_snapshot::{Epoch, Kind};

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 5 } else { ProptestConfig::default().cases.max(2_000) };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_refused_or_right(bytes in vec(any::<u8>(), 0..200)) {
        script::run_bytes(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_header_are_refused_or_right(bytes in vec(any::<u8>(), 0..100), keep in 0_usize..70) {
        let mut file = encode(b"a state", Epoch(7), FORMAT);
        file.truncate(keep);
        file.extend(bytes);
        script::run_bytes(&[&[0], file.as_slice()].concat());
    }
}

#[test]
fn every_truncation_is_torn() {
    let file = encode(&[7; 300], Epoch(9), FORMAT);
    for end in 0..file.len() {
        let error = decode(&file[..end]).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{end}: {error}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let file = encode(&[7; 100], Epoch(9), FORMAT);
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            let kind = decode(&bad).unwrap_err().kind();
            let expected = if at < 8 { Kind::Foreign } else { Kind::Damaged };
            assert_eq!(kind, expected, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn pieces_that_change_places_are_noticed() {
    let piece = 256 << 10;
    let state: Vec<u8> = (0..3 * piece).map(|at| (at / piece) as u8).collect();
    let file = encode(&state, Epoch(9), FORMAT);
    let (head, framed) = (48, piece + 12);
    let mut bad = file[..head].to_vec();
    bad.extend(&file[head + framed..head + 2 * framed]);
    bad.extend(&file[head..head + framed]);
    bad.extend(&file[head + 2 * framed..]);
    let without = [&file[..head + framed], &file[head + 2 * framed..]].concat();
    for bad in [bad, without, [file.as_slice(), b"x"].concat()] {
        // Not printed: it is long.
        assert_eq!(decode(&bad).map(drop).unwrap_err().kind(), Kind::Damaged);
    }
    assert!(decode(&file).unwrap().2 == state);
}

#[test]
fn foreign_and_newer_files_are_told_apart() {
    assert_eq!(decode(b"{\"json\": true}").unwrap_err().kind(), Kind::Foreign);
    let other = Format { kind: *b"something.else\0\0", ..FORMAT };
    let error = decode(&encode(b"", Epoch(1), other)).unwrap_err();
    assert_eq!(error.kind(), Kind::Foreign);
    assert!(error.to_string().contains("something.else"), "{error}");
    let newer = Format { version: 4, ..FORMAT };
    assert_eq!(decode(&encode(b"", Epoch(1), newer)).unwrap_err().kind(), Kind::Newer);
    let older = Format { version: 2, ..FORMAT };
    assert_eq!(decode(&encode(b"x", Epoch(1), older)).unwrap(), (Epoch(1), 2, b"x".to_vec()));
}

/// A length that a file only claims is not allocated.
#[test]
fn a_claimed_length_is_bounded() {
    let mut file = encode(&[], Epoch(1), FORMAT);
    file.truncate(48);
    file.extend(u32::MAX.to_le_bytes());
    assert_eq!(decode(&file).unwrap_err().kind(), Kind::Damaged);
}

#[test]
fn what_is_left_unread_is_refused() {
    let file = encode(b"one\ntwo\n", Epoch(1), FORMAT);
    let mut reader = Reader::new(&file[..], FORMAT).unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    let error = reader.finish().unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("4 bytes")), (Kind::Invalid, true));
}

#[test]
fn a_file_system_that_fails_is_not_a_damaged_file() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("a bad sector"))
        }
    }
    let file = encode(&[7; 100], Epoch(1), FORMAT);
    let mut reader = Reader::new((&file[..60]).chain(Fails), FORMAT).unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
    assert_eq!(reader.finish().unwrap_err().kind(), Kind::Io);
}

#[test]
fn nothing_follows_a_failed_write() {
    /// Takes so many bytes, fails once, and would go on.
    struct Full(usize, bool);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 && !std::mem::replace(&mut self.1, true) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let taken = if self.1 { bytes.len() } else { bytes.len().min(self.0) };
            self.0 -= taken.min(self.0);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = Writer::new(Full(100, false), FORMAT, Epoch(1)).unwrap();
    assert!(writer.write_all(&vec![7; 1 << 20]).is_err());
    assert_eq!(writer.finish().map(drop).unwrap_err().kind(), Kind::Io);
}

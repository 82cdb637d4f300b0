//! States on local disk, written aside and found again.
//!
//! A [`Directory`] has one file a snapshot, numbered, and `CURRENT`, which names the last one that was saved wholly.
//!
//! 1. Saving writes the next file aside, fsyncs it, gives it its name, fsyncs the directory; then `CURRENT` is written
//!    aside, fsynced, renamed, and the directory fsynced again. A crash at any point leaves the old or the new state.
//! 2. No byte reaches a decoder before its checksum (CRC-64/NVME, running from the first byte of the file, so that
//!    pieces cannot change places) was right; a file without its end is torn, however much of it is there.
//! 3. Loading falls back to the next older file that is whole, and says what it passed over and why. It does not fall
//!    back from a file that a newer version wrote, nor from a failure of the file system: those may be good.
//!
//! State and file are streamed in pieces of 256 KiB: there is no second copy in memory.
//!
//! ```
//! use std::io::{BufRead as _, Write as _};
//! use staithe_snapshot::Epoch;
//! use staithe_snapshot::persist::{Directory, Format};
//!
//! # let dir = tempfile::tempdir()?;
//! let format = Format { kind: *b"example.words\0\0\0", version: 1 };
//! let mut directory = Directory::open(dir.path().join("words"), format)?;
//! directory.save(Epoch(7), |out| ["one", "two"].iter().try_for_each(|word| writeln!(out, "{word}")))?;
//!
//! let loaded = directory.load(|input| input.lines().collect::<Result<Vec<_>, _>>())?;
//! assert_eq!((loaded.epoch, loaded.state), (Epoch(7), vec!["one".to_string(), "two".to_string()]));
//! assert!(loaded.skipped.is_empty()); // else: files that were torn, and what was loaded in their place
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod directory;
mod fault;
mod format;
mod names;
mod reader;
mod writer;

pub use directory::{Directory, Loaded, Saved, Skipped};
pub(crate) use fault::Fault;
pub use format::{Format, Header};
pub use reader::Reader;
pub use writer::Writer;

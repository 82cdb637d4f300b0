//! Looking at what lies in the cache without using it, and taking out what is wrong.
//!
//! Invariants:
//! 1. Looking changes nothing: neither what is believed of a file, nor when it was last used.
//! 2. A block is said to be damaged only if it is so twice, with the same record, in files that are still the cache's:
//!    one that is filled, erased, evicted or given up meanwhile is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, Digest};
use staithe_store::Crc64Nvme;

use super::DiskCache;
use super::blocks::{BLOCK, RECORD, decode, sum};
use super::files::Paths;
use super::identity::{Identity, Name};

/// What a version in the cache looks like.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is gone, or just being made.
    Gone,
    /// Nobody can tell whose bytes these are; where they lie.
    Nameless(PathBuf),
    /// One of its blocks is not what was cached.
    Damaged(Identity),
    /// What is here of it is as it was cached; the checksum of all of it, if all of it is here.
    Right(Identity, Option<Crc64Nvme>),
}

/// A version in the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry(Name);

/// The files of a version, open to be looked at.
struct Open {
    data: File,
    map: File,
}

impl DiskCache {
    /// How many directories the versions lie in.
    pub(crate) const DIRECTORIES: u16 = 256;

    /// What lies in one of the directories. Blocks on the disk.
    pub(crate) fn entries(&self, directory: u16) -> Vec<Entry> {
        let entries = std::fs::read_dir(self.objects.join(format!("{directory:02x}")));
        let names = entries.into_iter().flatten().flatten().filter_map(|entry| {
            let name = entry.file_name();
            let (name, extension) = name.to_str()?.split_once('.')?;
            (extension == "map").then(|| Name::parse(name)).flatten()
        });
        names.map(Entry).collect()
    }

    /// Looks at all of a version; says of each piece how many bytes it has read. Blocks on the disk.
    pub(crate) fn look_at(&self, Entry(name): Entry, read: &dyn Fn(u64)) -> Look {
        let paths = Paths::of(&self.objects, name);
        let Ok(files) = Open::of(&paths) else { return Look::Gone };
        // What is open may just be being made.
        let is_free = !self.index.lock().is_open(name);
        let Ok(Some((identity, records))) = files.map() else {
            let is_nameless = is_free && files.are_still_at(&paths) && matches!(files.map(), Ok(None));
            return if is_nameless { Look::Nameless(paths.map) } else { Look::Gone };
        };
        if identity.name() != name {
            return if is_free { Look::Nameless(paths.map) } else { Look::Gone };
        }
        let (mut whole, mut is_whole) = (Digest::new(CrcAlgorithm::Crc64Nvme), true);
        for (index, at) in (0..identity.size).step_by(BLOCK as usize).enumerate() {
            let Some(expected) = records.get(index).and_then(|record| decode(index, *record)) else {
                is_whole = false;
                continue;
            };
            let block = files.block(&identity, at);
            read(BLOCK.min(identity.size - at));
            match block {
                Ok(bytes) if sum(&bytes) == expected => whole.update(&bytes),
                _ if files.is_damaged(&paths, &identity, index) => return Look::Damaged(identity),
                _ => is_whole = false,
            }
        }
        Look::Right(identity, is_whole.then(|| Crc64Nvme(whole.finalize())))
    }

    /// Takes a version out, and its files off the disk. Who has it open reads on, and asks the store next time. Blocks.
    ///
    /// # Errors
    /// The disk's; it is out of use all the same until the next start.
    pub(crate) fn discard(&self, Entry(name): Entry) -> io::Result<()> {
        // Bound here, lest the index be locked while it is waited for.
        let open = self.index.lock().if_open(name);
        if let Some(file) = open {
            return file.discard();
        }
        self.index.lock().leave(name);
        let removed = Paths::of(&self.objects, name).remove();
        self.index.lock().left(name);
        removed
    }
}

impl Open {
    fn of(paths: &Paths) -> io::Result<Self> {
        Ok(Self { map: File::open(&paths.map)?, data: File::open(&paths.data)? })
    }

    /// Whose bytes these are, and the records; `None` for what is no map.
    fn map(&self) -> io::Result<Option<(Identity, Vec<[u8; RECORD]>)>> {
        let mut bytes = vec![0; self.map.metadata()?.len() as usize];
        self.map.read_exact_at(&mut bytes, 0)?;
        let Some((identity, records)) = Identity::read(&bytes) else { return Ok(None) };
        let (records, _) = records.as_chunks::<RECORD>();
        let records = records.to_vec();
        Ok(Some((identity, records)))
    }

    fn block(&self, identity: &Identity, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK.min(identity.size - at) as usize];
        self.data.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Whether a block is still not what its record says, in files that are still in their places.
    fn is_damaged(&self, paths: &Paths, identity: &Identity, index: usize) -> bool {
        let Ok(Some((_, records))) = self.map() else { return false };
        let Some(expected) = records.get(index).and_then(|record| decode(index, *record)) else {
            return false;
        };
        let is_right = self.block(identity, index as u64 * BLOCK).is_ok_and(|bytes| sum(&bytes) == expected);
        !is_right && self.are_still_at(paths)
    }

    fn are_still_at(&self, paths: &Paths) -> bool {
        let is_at = |file: &File, path: &Path| {
            let (file, path) = (file.metadata(), path.symlink_metadata());
            file.ok()
                .zip(path.ok())
                .is_some_and(|(file, path)| (file.dev(), file.ino()) == (path.dev(), path.ino()))
        };
        is_at(&self.map, &paths.map) && is_at(&self.data, &paths.data)
    }
}

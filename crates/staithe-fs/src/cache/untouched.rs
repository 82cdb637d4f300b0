//! Files that were taken out of the cache to be written to: whether anything was.
//!
//! The map goes along, and lies beside the file until we write to it. A memory map's stores are told to nobody, so it is
//! the checksums that tell: as long as all of them are right, the file is what the store had.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::blocks::{BLOCK, RECORD, decode, sum};
use super::identity::Identity;

/// How the name of a map ends.
const ENDING: &str = "map";

/// Where the map of a file that was taken out of the cache lies.
pub(crate) fn map_beside(file: &Path) -> PathBuf {
    file.with_extension(ENDING)
}

/// Whether this is the name of such a map.
pub(crate) fn is_map(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == ENDING)
}

/// Whether a file has its map beside it, and is as it was taken out of the cache. Reads all of it.
pub(crate) fn is_untouched(file: &Path) -> bool {
    is_as_mapped(file, &map_beside(file)).unwrap_or(false)
}

fn is_as_mapped(file: &Path, map: &Path) -> io::Result<bool> {
    let map = std::fs::read(map)?;
    let Some((identity, records)) = Identity::read(&map) else { return Ok(false) };
    let file = File::open(file)?;
    if file.metadata()?.len() != identity.size {
        return Ok(false);
    }
    let (records, _) = records.as_chunks::<RECORD>();
    let mut block = vec![0; BLOCK as usize];
    for (index, at) in (0..identity.size).step_by(BLOCK as usize).enumerate() {
        let block = &mut block[..(identity.size - at).min(BLOCK) as usize];
        file.read_exact_at(block, at)?;
        if records.get(index).and_then(|record| decode(index, *record)) != Some(sum(block)) {
            return Ok(false);
        }
    }
    Ok(true)
}

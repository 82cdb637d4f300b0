//! What lies in a cache directory at the start: counted, and cleared of halves that are of no use to anybody.

use std::fs::{DirEntry, Metadata, read_dir, remove_file};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::files::Paths;
use super::identity::Name;

/// What earlier processes left, in bytes of the disk.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The files, least recently used first.
    pub(super) files: Vec<(Name, u64)>,
    /// The directories that they lie in, by number, without them.
    pub(super) directories: Vec<(u8, u64)>,
}

/// What a file takes of the disk, in bytes: holes take nothing, and the last block is whole.
pub(super) fn on_disk(file: &Metadata) -> u64 {
    file.blocks() * 512
}

/// What a cache directory takes of the disk beside its files, and the directories that they lie in.
pub(super) fn around(dir: &Path) -> u64 {
    let ours = ["", "objects", "lock", "format"].map(|name| dir.join(name).metadata());
    ours.iter().flatten().map(on_disk).sum()
}

impl Survey {
    /// Looks through the directory, while no file is made in it. Blocks on the disk.
    pub(super) fn of(objects: &Path) -> Self {
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for directory in read_dir(objects).into_iter().flatten().flatten() {
            if let (Some(number), Ok(meta)) = (number(&directory), directory.metadata()) {
                directories.push((number, on_disk(&meta)));
            }
            let entries = read_dir(directory.path()).into_iter().flatten().flatten();
            files.extend(entries.filter_map(|entry| examine(objects, &entry)));
        }
        files.sort_unstable_by_key(|(used, ..)| *used);
        Self { files: files.into_iter().map(|(_, name, bytes)| (name, bytes)).collect(), directories }
    }
}

fn number(directory: &DirEntry) -> Option<u8> {
    directory.file_name().to_str().and_then(|name| u8::from_str_radix(name, 16).ok())
}

/// When a file was last used, its name, and what it takes; by its map, so that it counts once.
fn examine(objects: &Path, entry: &DirEntry) -> Option<((i64, i64), Name, u64)> {
    let file_name = entry.file_name();
    let (name, extension) = file_name.to_str()?.split_once('.')?;
    let name = Name::parse(name)?;
    let paths = Paths::of(objects, name);
    let is_missing = |path: &Path| path.try_exists().is_ok_and(|exists| !exists);
    match extension {
        "map" if is_missing(&paths.data) => remove(&paths.map),
        "map" => {
            let (map, data) = (entry.metadata().ok()?, paths.data.metadata().ok()?);
            return Some(((map.mtime(), map.mtime_nsec()), name, on_disk(&map) + on_disk(&data)));
        }
        // Nobody can tell any more whose bytes these are.
        "data" if is_missing(&paths.map) => remove(&paths.data),
        _ => {}
    }
    None
}

fn remove(half: &Path) {
    if let Err(error) = remove_file(half) {
        tracing::debug!(file = %half.display(), %error, "not removed");
    }
}

//! Inode numbers that outlive a run: what keeps its place and its content keeps its number, so that programs that tell
//! files by number (incremental backups) do not take a mount for new after each start.
//!
//! Invariants:
//! 1. A number of an earlier run is given at most once in a run, and every fresh one is above all of these.
//! 2. It is given to what has the same name in a directory with the same number, and has the same entity tag, or is a
//!    directory, too. What cannot be told so, or was not written down before a kill, gets a fresh number: nothing but a
//!    look by number notices.
//! 3. What cannot be read is never a reason not to start.
//!
//! A directory that moves keeps its number, so what is below need not be written again: a number says of what it is by
//! a hash of the parent's number, the name and the tag. Two that have the same hash (one in 2^64) take each other's
//! number, never the same one.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crc_fast::{CrcAlgorithm, Digest};
use parking_lot::Mutex;
use staithe_snapshot::SnapshotCell;
use staithe_snapshot::persist::{Directory, Format};

use crate::api::{Ino, Kind};
use crate::commit::with_causes;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, State};

/// How many numbers are kept for the next run: of those that have been in memory last. 16 bytes each.
const MOST: usize = 1_000_000;
/// How often they are written down, if they have changed.
const SAVED_EVERY: Duration = Duration::from_mins(5);
/// What the files are.
const FORMAT: Format = Format { kind: *b"staithe numbers\0", version: 1 };
/// The longest name of a volume that is read.
const VOLUME_MOST: u32 = 64 << 10;

/// What an inode is known by in the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity(u64);

/// The numbers that earlier runs gave, and those that this one has taken back.
#[derive(Debug)]
pub(crate) struct Numbers {
    former: SnapshotCell<Former>,
    /// Of inodes that are not in memory any more.
    retired: Mutex<HashMap<Identity, Ino>>,
    /// What was saved last, as one number; `None`: nothing in this run.
    saved: Mutex<Option<u64>>,
    /// `None`: they cannot be kept.
    directory: Option<Mutex<Directory>>,
}

/// What an earlier run wrote down.
#[derive(Debug, Default)]
struct Former {
    /// Zero: given already.
    numbers: HashMap<Identity, AtomicU64>,
    /// Above all of them.
    next: u64,
    volume: String,
}

impl Identity {
    /// Of what is at `link` in `state`. O(length of the name).
    pub(crate) fn of(link: &Link, state: &State) -> Self {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(&link.parent.0.to_le_bytes());
        // A listing does not tell links from files.
        digest.update(&[u8::from(state.meta.kind == Kind::Directory)]);
        digest.update(link.name.as_bytes());
        if let Some(remote) = &state.remote {
            // No name holds a slash.
            digest.update(b"/");
            digest.update(remote.version.etag.as_str().as_bytes());
        }
        Self(digest.finalize())
    }

    fn of_inode(inode: &Inode) -> Option<Self> {
        let state = inode.state();
        state.link.as_ref().map(|link| Self::of(link, &state))
    }
}

impl Numbers {
    /// None from earlier runs, and none for later ones.
    pub(crate) fn none() -> Self {
        let former = SnapshotCell::new(Former::default());
        Self { former, retired: Mutex::default(), saved: Mutex::default(), directory: None }
    }

    /// Those that are kept in `dir`, of files of `volume`; none, if they are another volume's or cannot be read: it
    /// has been said why. Blocks.
    pub(crate) fn open(dir: &Path, volume: &str) -> Self {
        let mut numbers = Self::none();
        let start = Former { volume: volume.to_owned(), ..Former::default() };
        numbers.former = SnapshotCell::new(start);
        let opened = Directory::open(dir, FORMAT);
        let opened = opened.inspect_err(|error| {
            tracing::warn!(dir = %dir.display(), error = with_causes(error), "inode numbers cannot be kept");
        });
        let Ok(mut directory) = opened else { return numbers };
        let load = |_: &_| directory.load(Former::read).map(|loaded| loaded.state);
        match numbers.former.apply(load, |former| former.validate(volume)) {
            Ok(now) => tracing::debug!(names = now.numbers.len(), "inode numbers of the last run"),
            Err(error) => said_why(dir, &error),
        }
        numbers.directory = Some(Mutex::new(directory));
        numbers
    }

    /// The lowest that no inode of an earlier run had, as far as it is known; at least `least`.
    pub(crate) fn first_fresh(&self, least: u64) -> u64 {
        self.former.load().next.max(least)
    }

    /// The number that it had in an earlier run; it is given once.
    pub(crate) fn recall(&self, identity: Identity) -> Option<Ino> {
        let take = |number: &AtomicU64| match number.load(Ordering::Relaxed) {
            0 => 0,
            _ => number.swap(0, Ordering::Relaxed),
        };
        let number = self.former.peek(|former| former.numbers.get(&identity).map(take));
        number.filter(|number| *number != 0).map(Ino)
    }

    /// The inode leaves the memory.
    pub(crate) fn retire(&self, inode: &Inode) {
        if self.directory.is_none() {
            return;
        }
        let Some(identity) = Identity::of_inode(inode) else { return };
        let mut retired = self.retired.lock();
        if retired.len() < MOST || retired.contains_key(&identity) {
            retired.insert(identity, inode.ino);
        }
    }

    /// Keeps the numbers of `live` inodes, of those that have left the memory, and of what nobody asked for since the
    /// earlier run, in this order, as far as there is room; unless all are as they were. `next` is above all of
    /// them, once they are gathered.
    /// Blocks.
    pub(crate) fn save(&self, next: impl FnOnce() -> u64, live: impl Iterator<Item = Arc<Inode>>) {
        let Some(directory) = &self.directory else { return };
        let mut directory = directory.lock();
        let numbers = self.gather(live);
        // In no order.
        let sum = |sum: u64, (identity, number): (&Identity, &u64)| {
            sum.wrapping_add((identity.0 ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        };
        let sum = numbers.iter().fold(numbers.len() as u64, sum);
        if *self.saved.lock() == Some(sum) {
            return;
        }
        let (former, next) = (self.former.load(), next());
        match directory.save(former.epoch(), |out| write(out, &former.volume, next, &numbers)) {
            Ok(saved) => {
                tracing::debug!(names = numbers.len(), bytes = saved.bytes, "inode numbers are kept");
                *self.saved.lock() = Some(sum);
            }
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "inode numbers are not kept for the next run");
            }
        }
    }

    fn gather(&self, live: impl Iterator<Item = Arc<Inode>>) -> HashMap<Identity, u64> {
        let mut numbers = HashMap::new();
        let mut add = |identity, number| {
            if number != 0 && numbers.len() < MOST {
                numbers.entry(identity).or_insert(number);
            }
        };
        for inode in live {
            if let Some(identity) = Identity::of_inode(&inode) {
                add(identity, inode.ino.0);
            }
        }
        for (identity, ino) in &*self.retired.lock() {
            add(*identity, ino.0);
        }
        for (identity, number) in &self.former.load().numbers {
            add(*identity, number.load(Ordering::Relaxed));
        }
        numbers
    }
}

impl Filesystem {
    /// Writes down for the next run which numbers inodes have.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: what has begun comes to its end.
    pub(crate) async fn save_numbers(&self) {
        let Some(fs) = self.me.upgrade() else { return };
        // A panic there has been reported.
        let _ = tokio::task::spawn_blocking(move || fs.inodes.save_numbers()).await;
    }

    /// Does so every now and then, so that a kill costs few of them.
    pub(crate) fn save_numbers_regularly(&self) {
        let me = self.me.clone();
        self.chore("save inode numbers", move || {
            let me = me.clone();
            async move {
                loop {
                    tokio::time::sleep(SAVED_EVERY).await;
                    let Some(fs) = me.upgrade() else { return };
                    fs.save_numbers().await;
                }
            }
        });
    }
}

fn said_why(dir: &Path, error: &staithe_snapshot::Error) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(at) = cause {
        let kind = at.downcast_ref::<staithe_snapshot::Error>().map(staithe_snapshot::Error::kind);
        if kind == Some(staithe_snapshot::Kind::Missing) {
            return;
        }
        cause = at.source();
    }
    tracing::warn!(dir = %dir.display(), error = with_causes(error), "inode numbers begin anew");
}

fn write(out: &mut impl Write, volume: &str, next: u64, numbers: &HashMap<Identity, u64>) -> io::Result<()> {
    let length = u32::try_from(volume.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(volume.as_bytes())?;
    out.write_all(&next.to_le_bytes())?;
    out.write_all(&(numbers.len() as u64).to_le_bytes())?;
    for (identity, number) in numbers {
        out.write_all(&identity.0.to_le_bytes())?;
        out.write_all(&number.to_le_bytes())?;
    }
    Ok(())
}

impl Former {
    /// Reads what `write` wrote.
    fn read(input: &mut impl Read) -> io::Result<Self> {
        fn number(input: &mut impl Read) -> io::Result<u64> {
            let mut bytes = [0; 8];
            input.read_exact(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }
        let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > VOLUME_MOST {
            return Err(wrong("the name of the volume is too long"));
        }
        let mut volume = vec![0; length as usize];
        input.read_exact(&mut volume)?;
        let volume = String::from_utf8(volume).map_err(io::Error::other)?;
        let (next, count) = (number(input)?, number(input)?);
        let count = usize::try_from(count).ok().filter(|count| *count <= MOST);
        let count = count.ok_or_else(|| wrong("there are too many numbers"))?;
        // Room comes with what is read: the count may be a lie.
        let mut numbers = HashMap::with_capacity(count.min(1 << 16));
        for _ in 0..count {
            numbers.insert(Identity(number(input)?), AtomicU64::new(number(input)?));
        }
        Ok(Self { numbers, next, volume })
    }

    /// # Errors
    /// Another volume's; a number that is no inode's, or is there twice.
    fn validate(&self, volume: &str) -> Result<(), String> {
        if self.volume != volume {
            return Err(format!("they are of {}, and this is {volume}", self.volume));
        }
        let mut all: Vec<u64> = self.numbers.values().map(|n| n.load(Ordering::Relaxed)).collect();
        all.sort_unstable();
        let is_outside = |number: &u64| *number <= Ino::ROOT.0 || *number >= self.next;
        if self.next > u64::MAX / 2
            || all.first().is_some_and(is_outside)
            || all.last().is_some_and(is_outside)
        {
            return Err(String::from("a number is out of range"));
        }
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(String::from("a number is there twice"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use staithe_store::{ETag, Key, Version};

    use super::*;
    use crate::inode::Remote;
    use crate::metadata::FileMeta;
    use crate::table::InodeTable;

    const VOLUME: &str = "s3://bucket";

    fn state(parent: Ino, name: &str, etag: Option<&str>) -> State {
        let kind = if etag.is_some() { Kind::File } else { Kind::Directory };
        let link = Link { parent, name: Arc::from(name) };
        let mut state = State::new(Some(link), FileMeta::new(kind, 0o755, 0, 0, SystemTime::UNIX_EPOCH));
        state.remote = etag.map(|etag| Remote {
            key: Key::new(name).unwrap(),
            version: Version { etag: ETag::new(etag), id: None },
            size: 1,
        });
        state
    }

    fn table(dir: &Path, volume: &str) -> InodeTable {
        let mut root = state(Ino::ROOT, "", None);
        root.link = None;
        InodeTable::new(root, Numbers::open(dir, volume))
    }

    #[test]
    fn what_is_as_it_was_has_the_number_that_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let first = table(dir.path(), VOLUME);
        let unused = first.adopt(state(Ino::ROOT, "unused", Some("u"))).ino;
        let below = first.adopt(state(Ino::ROOT, "d", None));
        let same = first.adopt(state(below.ino, "same", Some("a"))).ino;
        let other = first.adopt(state(below.ino, "other", Some("a"))).ino;
        first.save_numbers();
        drop(first);

        for _run in 0..2 {
            drop(table(dir.path(), VOLUME).adopt(state(Ino::ROOT, "unsaved", Some("x"))));
            let second = table(dir.path(), VOLUME);
            let fresh = second.adopt(state(Ino::ROOT, "new", Some("n"))).ino;
            assert!(fresh.0 > other.0, "{fresh:?}");
            assert_eq!(second.adopt(state(Ino::ROOT, "d", None)).ino, below.ino);
            assert_eq!(second.adopt(state(below.ino, "same", Some("a"))).ino, same);
            assert!(second.adopt(state(below.ino, "other", Some("b"))).ino.0 > other.0);
            second.save_numbers();
        }
        assert_eq!(table(dir.path(), VOLUME).adopt(state(Ino::ROOT, "unused", Some("u"))).ino, unused);
    }

    #[test]
    fn a_number_is_given_once_in_a_run_and_kept_of_what_has_left_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let first = table(dir.path(), VOLUME);
        let inode = first.adopt(state(Ino::ROOT, "f", Some("a")));
        first.let_go(&inode);
        let again = first.adopt(state(Ino::ROOT, "f", Some("a")));
        assert!(again.ino.0 > inode.ino.0);
        first.let_go(&again);
        first.save_numbers();
        drop(first);
        let second = table(dir.path(), VOLUME);
        let recalled = second.adopt(state(Ino::ROOT, "f", Some("a")));
        assert_eq!(recalled.ino, again.ino);
        second.let_go(&recalled);
        assert!(second.adopt(state(Ino::ROOT, "f", Some("a"))).ino.0 > recalled.ino.0);
    }

    #[test]
    fn what_is_another_volumes_or_damaged_begins_anew_and_the_last_good_ones_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = table(dir.path(), VOLUME);
        let _room = first.adopt(state(Ino::ROOT, "g", Some("a")));
        let kept = first.adopt(state(Ino::ROOT, "f", Some("a"))).ino;
        first.save_numbers();
        drop(first);
        assert_ne!(table(dir.path(), "s3://other").adopt(state(Ino::ROOT, "f", Some("a"))).ino, kept);

        let second = table(dir.path(), VOLUME);
        second.adopt(state(Ino::ROOT, "h", Some("a")));
        second.save_numbers();
        drop(second);
        let current = fs::read_to_string(dir.path().join("CURRENT")).unwrap();
        let current = dir.path().join(current.lines().next().unwrap().split_whitespace().next().unwrap());
        let bytes = fs::read(&current).unwrap();
        fs::write(&current, &bytes[..bytes.len() - 9]).unwrap();
        assert_eq!(table(dir.path(), VOLUME).adopt(state(Ino::ROOT, "f", Some("a"))).ino, kept);

        for file in fs::read_dir(dir.path()).unwrap() {
            fs::write(file.unwrap().path(), "damage").unwrap();
        }
        let anew = table(dir.path(), VOLUME);
        assert_eq!(anew.adopt(state(Ino::ROOT, "f", Some("a"))).ino, Ino(2));
        anew.save_numbers();
        drop(anew);
        assert_eq!(table(dir.path(), VOLUME).adopt(state(Ino::ROOT, "f", Some("a"))).ino, Ino(2));
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let read = |next: u64, numbers: &[(u64, u64)]| {
            let numbers = numbers.iter().map(|(identity, number)| (Identity(*identity), *number)).collect();
            let mut bytes = Vec::new();
            write(&mut bytes, VOLUME, next, &numbers).unwrap();
            Former::read(&mut bytes.as_slice()).unwrap().validate(VOLUME)
        };
        read(4, &[(7, 2), (8, 3)]).unwrap();
        for (next, numbers) in
            [(3, [(7, 2), (8, 3)]), (9, [(7, 1), (8, 3)]), (9, [(7, 0), (8, 3)]), (9, [(7, 3), (8, 3)])]
        {
            read(next, &numbers).unwrap_err();
        }
        read(u64::MAX, &[]).unwrap_err();
        for cut in [0, 3, 4, 20, 29] {
            let mut bytes = Vec::new();
            write(&mut bytes, VOLUME, 9, &HashMap::from([(Identity(1), 2)])).unwrap();
            Former::read(&mut &bytes[..cut]).unwrap_err();
        }
    }
}

//! The local file of one inode that is being written.
//!
//! A staged file is sparse: it holds what was written here, and of the object that it grew from (its *base*) only
//! what had to be fetched. Everything is said by four values:
//!
//! ```text
//!                    0                      base_limit             size
//!  the base shows    |--- where not present ---|        nothing      |
//!  local bytes hold  |----- where present -----|---- everywhere -----|
//! ```
//!
//! Invariants:
//! 1. The local file is `size` bytes long, and holds zeros wherever nothing was written or fetched.
//! 2. `base_limit <= size`, and it never rises but by a commit: what a truncation has cut stays cut.
//! 3. `dirty` covers every byte that differs from the base, all of `base_limit..size` included, and every dirty
//!    byte is local: it can be read without asking the store.
//! 4. While a commit runs, `since.dirty` covers every byte changed after it began.
//!
//! It knows nothing of stores and keys; who fetches and uploads asks [`Staged::missing`] and [`Staged::dirty`].
//! All calls block on the local disk only.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rangemap::RangeSet;

use crate::cache::map_beside;
use crate::disk_file::DiskFile;
use crate::room::{Room, Share};
use crate::{FsError, FsErrorKind, Result};

mod copy;
mod shared;

pub(crate) use copy::copy_if_lent;
use shared::Shared;
pub(crate) use shared::TakenIn;

/// The largest size of a file: what `off_t` can say.
const SIZE_MAX: u64 = i64::MAX as u64;

/// Zeros are written in pieces of this, where the disk cannot make holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A local sparse file over an optional base object. Dropping it leaves the file for a later start.
#[derive(Debug)]
pub(crate) struct Staged {
    disk: DiskFile,
    size: u64,
    base_size: Option<u64>,
    base_limit: u64,
    present: RangeSet<u64>,
    dirty: RangeSet<u64>,
    generation: u64,
    since: Option<Since>,
    /// Others may write to the file too: what is known of it.
    shared: Option<Shared>,
    /// The map that came along from the disk cache: as long as it is there and nothing in the file is changed, a start
    /// after a crash knows that nothing is lost.
    map: Option<PathBuf>,
    /// What it holds of the room for staging files.
    share: Option<Share>,
}

/// What a later start must know to go on with a staged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedState {
    /// Size in bytes.
    pub(crate) size: u64,
    /// Size of the base object; `None` if there is none.
    pub(crate) base_size: Option<u64>,
    /// How many bytes of the base still show.
    pub(crate) base_limit: u64,
    /// What differs from the base.
    pub(crate) dirty: RangeSet<u64>,
}

/// What changed since the commit of `generation` began.
#[derive(Debug)]
struct Since {
    generation: u64,
    size: u64,
    /// How many bytes of the object that is being stored will still show.
    limit: u64,
    dirty: RangeSet<u64>,
}

impl Staged {
    /// A new, empty file without a base. It is dirty until a commit.
    ///
    /// # Errors
    /// The local disk's; `Io` if the name is taken.
    pub(crate) fn create(dir: &Path, name: &str) -> Result<Self> {
        Self::on_base(dir, name, None)
    }

    /// A new file whose content is that of a base object of `base_size` bytes, none of it fetched yet.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn over(dir: &Path, name: &str, base_size: u64) -> Result<Self> {
        Self::on_base(dir, name, Some(base_size))
    }

    fn on_base(dir: &Path, name: &str, base_size: Option<u64>) -> Result<Self> {
        let disk = DiskFile::create(dir, name)?;
        let size = base_size.unwrap_or(0);
        if size > 0 {
            disk.set_len(size)?;
        }
        Ok(Self {
            disk,
            size,
            base_size,
            base_limit: size,
            present: RangeSet::new(),
            dirty: RangeSet::new(),
            generation: 0,
            since: None,
            shared: None,
            map: None,
            share: None,
        })
    }

    /// A file that was taken out of the disk cache, and holds all `base_size` bytes of its base.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn adopt(dir: &Path, name: &str, base_size: u64) -> Result<Self> {
        let disk = DiskFile::open(dir, name)?;
        disk.set_len(base_size)?;
        let mut present = RangeSet::new();
        insert(&mut present, 0..base_size);
        Ok(Self {
            disk,
            size: base_size,
            base_size: Some(base_size),
            base_limit: base_size,
            present,
            dirty: RangeSet::new(),
            generation: 0,
            since: None,
            shared: None,
            map: Some(map_beside(&dir.join(name))),
            share: None,
        })
    }

    /// From now on it counts in `room`.
    pub(crate) fn counted(mut self, room: &Arc<Room>) -> Self {
        self.share = Some(room.share());
        self.recount();
        self
    }

    /// Takes its blocks on the disk into account.
    fn recount(&mut self) {
        if let (Some(share), Ok(bytes)) = (&mut self.share, self.disk.allocated()) {
            share.set(bytes);
        }
    }

    /// Goes on with the file that an earlier process left, as `state` describes it.
    ///
    /// Bytes past the recorded size are cut off: they were never synced. A file shorter than recorded was cut
    /// after the record was made, and its own length is believed; ask [`size`](Self::size).
    ///
    /// # Errors
    /// The local disk's; `Io` if the file is gone.
    pub(crate) fn reopen(dir: &Path, name: &str, state: &StagedState) -> Result<Self> {
        let disk = DiskFile::open(dir, name)?;
        let size = disk.len()?.min(state.size);
        disk.set_len(size)?;
        let mut staged = Self {
            disk,
            size,
            base_size: state.base_size,
            base_limit: state.base_limit.min(state.base_size.unwrap_or(0)).min(size),
            present: RangeSet::new(),
            dirty: state.dirty.clone(),
            generation: 0,
            since: None,
            shared: None,
            map: None,
            share: None,
        };
        remove(&mut staged.dirty, size..u64::MAX);
        staged.present = staged.dirty.clone();
        insert(&mut staged.dirty, staged.base_limit..size);
        Ok(staged)
    }

    /// What [`reopen`](Self::reopen) needs. O(dirty ranges).
    pub(crate) fn state(&self) -> StagedState {
        StagedState {
            size: self.size,
            base_size: self.base_size,
            base_limit: self.base_limit,
            dirty: self.dirty.clone(),
        }
    }

    /// The same, for one whose base is not to be believed: all that is local counts as different from it. O(ranges).
    pub(crate) fn state_of_all_local(&self) -> StagedState {
        let mut state = self.state();
        state.dirty.extend(self.present.iter().cloned());
        state
    }

    /// Writes at `offset`; a gap behind the end becomes zeros. Returns how many bytes were taken: fewer than given
    /// only if the disk filled up in the middle, and then what was taken counts.
    ///
    /// # Errors
    /// `NoSpace`, `TooLarge`, `Io`: then nothing was taken.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        end_of(offset, data.len() as u64)?;
        let (taken, outcome) = self.disk.write_at(offset, data);
        if taken == 0 {
            outcome?;
        }
        let end = offset + taken as u64;
        insert(&mut self.present, offset..end);
        self.changed(offset.min(self.size)..end);
        self.recount();
        Ok(taken)
    }

    /// Sets the size: what is cut is gone for good, what is added reads as zeros.
    ///
    /// # Errors
    /// `TooLarge` beyond the local disk's limits, `Io`.
    pub(crate) fn truncate(&mut self, size: u64) -> Result<()> {
        if size == self.size {
            return Ok(());
        }
        end_of(size, 0)?;
        self.disk.set_len(size)?;
        self.recount();
        if size > self.size {
            self.changed(self.size..size);
            return Ok(());
        }
        self.map.take().iter().for_each(|map| remove_map(map));
        self.size = size;
        self.base_limit = self.base_limit.min(size);
        remove(&mut self.present, size..u64::MAX);
        remove(&mut self.dirty, size..u64::MAX);
        if let Some(since) = &mut self.since {
            since.limit = since.limit.min(size);
            remove(&mut since.dirty, size..u64::MAX);
        }
        self.generation += 1;
        self.changed_here();
        Ok(())
    }

    /// Reserves disk space for a range; the file grows to its end unless `keep_size`. Content does not change.
    ///
    /// A disk that cannot reserve is not asked for more than the size.
    ///
    /// # Errors
    /// `NoSpace` if there is not as much, `TooLarge`, `Invalid` for an empty range.
    pub(crate) fn allocate(&mut self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let end = nonempty_end(offset, len)?;
        // Without KEEP_SIZE a failure could leave the local file grown and the size not.
        self.disk.reserve(offset, len)?;
        self.recount();
        if !keep_size && end > self.size {
            self.truncate(end)?;
        }
        Ok(())
    }

    /// Makes a range read as zeros without growing the file.
    ///
    /// # Errors
    /// The local disk's; `Invalid` for an empty range.
    pub(crate) fn punch(&mut self, offset: u64, len: u64) -> Result<()> {
        let end = nonempty_end(offset, len)?.min(self.size);
        if offset >= end {
            return Ok(());
        }
        if self.disk.punch(offset, end - offset)? {
            self.recount();
            insert(&mut self.present, offset..end);
            self.changed(offset..end);
            return Ok(());
        }
        self.write_zeros(offset, end)
    }

    /// Makes a range read as zeros; the file grows to its end unless `keep_size`.
    ///
    /// # Errors
    /// As [`punch`](Self::punch); then a part of the range may be zeros already.
    pub(crate) fn zero(&mut self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let end = nonempty_end(offset, len)?;
        self.punch(offset, len)?;
        if !keep_size && end > self.size {
            self.truncate(end)?;
        }
        Ok(())
    }

    fn write_zeros(&mut self, mut offset: u64, end: u64) -> Result<()> {
        while offset < end {
            let piece = (end - offset).min(ZEROS.len() as u64) as usize;
            offset += self.write(offset, &ZEROS[..piece])? as u64;
        }
        Ok(())
    }

    /// Notes a change of `range`, which may reach past the end: then the file has grown.
    fn changed(&mut self, range: Range<u64>) {
        // It may come to look like what the store had, and will not be that.
        self.map.take().iter().for_each(|map| remove_map(map));
        self.size = self.size.max(range.end);
        insert(&mut self.dirty, range.clone());
        if let Some(since) = &mut self.since {
            insert(&mut since.dirty, range);
        }
        self.generation += 1;
        self.changed_here();
    }

    /// What of the base must be fetched and [filled](Self::fill) in before `range` can be read: ascending, disjoint.
    pub(crate) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let shown = range.start..range.end.min(self.base_limit);
        if shown.is_empty() { Vec::new() } else { self.present.gaps(&shown).collect() }
    }

    /// Takes in bytes of the base at `offset`, only where they are still missing: what was written, cut or filled
    /// before stays as it is. No change: the generation stays, nothing becomes dirty.
    ///
    /// # Errors
    /// The local disk's; then those bytes are still missing.
    pub(crate) fn fill(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let end = end_of(offset, data.len() as u64)?;
        for gap in self.missing(offset..end) {
            let slice = &data[(gap.start - offset) as usize..(gap.end - offset) as usize];
            self.disk.write_at(gap.start, slice).1?;
            insert(&mut self.present, gap);
        }
        self.recount();
        Ok(())
    }

    /// Up to `len` bytes from `offset`: short at the end of the file, empty behind it.
    ///
    /// # Errors
    /// `Io` if a byte is [missing](Self::missing), or the local file is broken.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(self.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        if let Some(gap) = self.missing(offset..end).first() {
            let sentence = format!("{} lacks the bytes from {} of its base", self.disk, gap.start);
            return Err(FsError::new(FsErrorKind::Io, sentence));
        }
        self.disk.read_at(offset, (end - offset) as usize)
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Size of the base object; `None` if there is none.
    pub(crate) fn base_size(&self) -> Option<u64> {
        self.base_size
    }

    /// Whether nothing of a base shows in it: every byte is local.
    pub(crate) fn is_all_local(&self) -> bool {
        self.base_limit == 0
    }

    /// Raised by every change of the content; never by a fill or a commit.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// What differs from the base, within the size; everything outside of it equals the base.
    pub(crate) fn dirty(&self) -> &RangeSet<u64> {
        &self.dirty
    }

    /// Begins the commit of the content as it is now and returns its generation. Another commit that was under
    /// way is forgotten.
    ///
    /// Bytes read for the upload after a change may be the newer ones; they count as changed and will be sent again.
    pub(crate) fn begin_commit(&mut self) -> u64 {
        self.since = Some(Since {
            generation: self.generation,
            size: self.size,
            limit: self.size,
            dirty: RangeSet::new(),
        });
        self.generation
    }

    /// Whether a commit is under way.
    pub(crate) fn is_committing(&self) -> bool {
        self.since.is_some()
    }

    /// The commit under way, if any, came to nothing: everything is as dirty as before.
    pub(crate) fn abort_commit(&mut self) {
        self.since = None;
    }

    /// The store now holds the content of `generation`, which becomes the base; dirty is what changed since then.
    ///
    /// Returns false, and changes nothing, if no commit of that generation is under way: a stale answer.
    #[must_use]
    pub(crate) fn committed(&mut self, generation: u64) -> bool {
        let Some(since) = self.since.take_if(|since| since.generation == generation) else {
            return false;
        };
        // What lay behind the old base's bytes is local, and must not be asked for from the new base.
        insert(&mut self.present, self.base_limit..self.size);
        self.base_size = Some(since.size);
        self.base_limit = since.limit;
        self.dirty = since.dirty;
        true
    }

    /// Makes the bytes and the file's name durable (fdatasync). May take long: see
    /// [`disk_file`](Self::disk_file).
    ///
    /// # Errors
    /// The local disk's; then nothing is certain to be durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.disk.sync()
    }

    /// The file alone, to sync, read or pass on while others go on with this value.
    pub(crate) fn disk_file(&self) -> &DiskFile {
        &self.disk
    }

    /// Deletes the file; what is open stays readable and writable until it is dropped. Twice is no error.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn remove(&self) -> Result<()> {
        self.disk.remove()?;
        self.map.iter().for_each(|map| remove_map(map));
        Ok(())
    }
}

/// Removes the map of a file, if it is there.
fn remove_map(map: &Path) {
    match std::fs::remove_file(map) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(map = %map.display(), %error, "not removed");
        }
        _ => {}
    }
}

/// The end of a range, if a file can reach so far.
fn end_of(offset: u64, len: u64) -> Result<u64> {
    let too_far =
        || FsError::new(FsErrorKind::TooLarge, format!("{len} bytes at {offset} are beyond any file"));
    offset.checked_add(len).filter(|end| *end <= SIZE_MAX).ok_or_else(too_far)
}

fn nonempty_end(offset: u64, len: u64) -> Result<u64> {
    if len == 0 {
        return Err(FsError::new(FsErrorKind::Invalid, "an empty range cannot be allocated or zeroed"));
    }
    end_of(offset, len)
}

/// Inserts a range that may be empty.
fn insert(set: &mut RangeSet<u64>, range: Range<u64>) {
    if !range.is_empty() {
        set.insert(range);
    }
}

/// Removes a range that may be empty.
fn remove(set: &mut RangeSet<u64>, range: Range<u64>) {
    if !range.is_empty() {
        set.remove(range);
    }
}

#[cfg(test)]
mod tests;

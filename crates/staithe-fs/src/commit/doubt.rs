//! Objects of ours that the store may have stored wrongly.
//!
//! Invariants:
//! 1. What the store has told wrongly of is never taken for stored: its write id is given up, also in the journal, and
//!    the next try puts the staged bytes in its place, on the condition that it still stands there.
//! 2. What is recognised by its write id, because the answer was lost, is compared first: its length, and its checksum
//!    where the store says one. That costs a request, and only then.
//! 3. Bytes that are not here are never taken from such an object, unless it was seen to be right.

use std::path::Path;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};
use staithe_store::{Crc64Nvme, ErrorKind, HeadRequest, ObjectMeta, PartReceipt, StoreError};

use super::{Job, store_error, with_causes};
use crate::disk_file::DiskFile;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::staging::{Staged, StagedState};
use crate::upload::blocking;

/// How much of a staging file is read at once to sum it up, in bytes.
const PIECE: u64 = 1 << 20;

/// Whether the store spoke wrongly of what a write made.
pub(crate) fn is_told_wrongly(error: &FsError) -> bool {
    store_error(error).is_some_and(|cause| {
        cause.kind() == ErrorKind::Corrupt && matches!(cause.operation(), "put" | "complete_multipart")
    })
}

/// What an object of these parts is as a whole, if the store said what each of them is. O(parts).
pub(crate) fn sum_of_parts(parts: &[PartReceipt]) -> Option<Crc64Nvme> {
    let (first, rest) = parts.split_first()?;
    rest.iter().try_fold(first.crc64?, |Crc64Nvme(sum), part| {
        Some(Crc64Nvme(checksum_combine(CrcAlgorithm::Crc64Nvme, sum, part.crc64?.0, part.size)))
    })
}

impl Filesystem {
    /// After a try that the store spoke wrongly of: the journal is told that its write id says nothing any more.
    pub(super) fn doubt_try(&self, inode: &Inode) {
        let is_kept = {
            let mut state = inode.state();
            state.tries.doubted = true;
            // The next try has another id.
            state.changes += 1;
            state.kept.is_some()
        };
        if is_kept && let Err(error) = self.say(inode) {
            let (ino, error) = (inode.ino.0, with_causes(&error));
            tracing::warn!(ino, error, "the journal does not know that this was stored wrongly");
        }
    }

    /// Compares an object that a try made with what that set out to store.
    ///
    /// # Errors
    /// `Io`, as of a wrong answer, if it is something else.
    pub(crate) async fn compare(&self, inode: &Arc<Inode>, job: &Job, object: &ObjectMeta) -> Result<()> {
        let ours = Ours { size: job.size, generation: job.generation };
        if self.is_right(inode, ours, object).await? {
            return Ok(());
        }
        let text = "the store has other bytes than were sent, under our own write id";
        Err(StoreError::new(ErrorKind::Corrupt, "put", text).with_key(&object.key).into())
    }

    /// Whether an object is the staged file, as far as can be said.
    pub(crate) async fn is_staged(&self, inode: &Arc<Inode>, object: &ObjectMeta) -> Result<bool> {
        let ours = {
            let state = inode.state();
            let Some(staged) = &state.staged else { return Ok(true) };
            Ours { size: staged.size(), generation: staged.generation() }
        };
        self.is_right(inode, ours, object).await
    }

    async fn is_right(&self, inode: &Arc<Inode>, ours: Ours, object: &ObjectMeta) -> Result<bool> {
        if object.size != ours.size {
            return Ok(false);
        }
        let Some(theirs) = self.told_sum(object).await? else { return Ok(true) };
        Ok(self.staged_sum(inode, ours).await?.is_none_or(|sum| sum == theirs))
    }

    /// Whether an object that the store spoke wrongly of is what its try set out to make, though not all of that is
    /// here.
    pub(crate) async fn is_as_expected(&self, inode: &Inode, object: &ObjectMeta) -> Result<bool> {
        let Some(expected) = inode.state().tries.expected else { return Ok(false) };
        Ok(self.told_sum(object).await? == Some(expected))
    }

    /// What the store says an object's bytes are; `None` also where it may not be asked, and of one that is gone.
    pub(crate) async fn told_sum(&self, object: &ObjectMeta) -> Result<Option<Crc64Nvme>> {
        let request = HeadRequest { key: object.key.clone(), version: Some(object.version.clone()) };
        match self.store.checksum(request).await {
            Ok(sum) => Ok(sum),
            Err(error) if error.is_retryable() => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// The checksum of what is staged, if all of it is here and it is still that.
    async fn staged_sum(&self, inode: &Arc<Inode>, ours: Ours) -> Result<Option<Crc64Nvme>> {
        let disk = {
            let state = inode.state();
            let staged = state.staged.as_ref().filter(|staged| staged.generation() == ours.generation);
            let Some(staged) = staged.filter(|staged| is_all_here(staged)) else { return Ok(None) };
            staged.disk_file().clone()
        };
        let sum = blocking(move || sum_up(&disk, ours.size)).await?;
        let now = inode.state().staged.as_ref().map(Staged::generation);
        Ok((now == Some(ours.generation)).then_some(sum))
    }
}

/// What was staged at one moment.
#[derive(Debug, Clone, Copy)]
struct Ours {
    size: u64,
    generation: u64,
}

/// Whether nothing of a staged file would have to be fetched.
pub(crate) fn is_all_here(staged: &Staged) -> bool {
    staged.missing(0..staged.size()).is_empty()
}

/// Whether all bytes of a staged file are in the file, as far as that was noted.
pub(crate) fn is_file_of(state: &StagedState) -> bool {
    let shown = 0..state.base_limit.min(state.size);
    shown.is_empty() || state.dirty.gaps(&shown).next().is_none()
}

/// The checksum of a file in the staging directory that nobody has open; `None` if it is not so long.
pub(crate) async fn sum_of_file(file: &Path, size: u64) -> Result<Option<Crc64Nvme>> {
    let file = file.to_owned();
    blocking(move || {
        let (dir, name) = (file.parent(), file.file_name().and_then(|name| name.to_str()));
        let (Some(dir), Some(name)) = (dir, name) else { return Ok(None) };
        let disk = DiskFile::open(dir, name)?;
        if disk.len()? == size { sum_up(&disk, size).map(Some) } else { Ok(None) }
    })
    .await
}

/// The checksum of a local file.
fn sum_up(disk: &DiskFile, size: u64) -> Result<Crc64Nvme> {
    let (mut sum, mut at) = (Digest::new(CrcAlgorithm::Crc64Nvme), 0);
    while at < size {
        let piece = disk.read_at(at, (size - at).min(PIECE) as usize)?;
        if piece.is_empty() {
            return Err(FsError::new(FsErrorKind::Io, format!("{disk} is shorter than it was")));
        }
        sum.update(&piece);
        at += piece.len() as u64;
    }
    Ok(Crc64Nvme(sum.finalize()))
}

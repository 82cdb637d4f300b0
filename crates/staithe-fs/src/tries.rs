//! Tries to store a file, and how they are told apart afterwards.
//!
//! A request whose answer is lost may have had its effect. So every try carries a write id in the object's metadata:
//! the inode's *series*, a number that is drawn anew after every success, and the inode's count of changes. The same
//! id means the same content; the same series, an earlier try of ours with older content, which counts as our base
//! and not as another client's change.
//!
//! Invariants:
//! 1. `unsure` is set before a request that may make the name's object, and cleared only by an answer that says what
//!    the name's object is.
//! 2. An inode that is `unsure` is never taken for one that the store does not have.
//! 3. An object is taken for a try of ours by its id, and for stored only if it is as long and has the checksum, as far
//!    as the store says one.

use std::sync::Arc;

use staithe_store::{Crc64Nvme, DeleteRequest, ErrorKind, Key, ObjectMeta, StoreError, Version, Written};

use crate::commit::{Job, is_all_here};
use crate::create::new_write_id;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote, State};
use crate::metadata::{FileMeta, write_id};
use crate::staging::Staged;

/// What is remembered of the tries since the last success.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    series: Option<String>,
    /// Whether one of them may have made the object under the inode's name.
    pub(crate) unsure: bool,
    /// The count of changes of the try that an earlier process noted.
    resumed: Option<u64>,
    /// Whether the store spoke wrongly of what one of them made: see `commit::doubt`.
    pub(crate) doubted: bool,
    /// What the last one was to make as a whole, if that is known beforehand.
    pub(crate) expected: Option<Crc64Nvme>,
}

/// How far the counts of two processes are apart: the same id never means two contents.
const GAP: u64 = 1 << 32;

impl Tries {
    /// The write id of a try with the content of `changes`.
    pub(crate) fn id(&mut self, changes: u64) -> String {
        let series = self.series.get_or_insert_with(new_write_id);
        format!("{series}-{changes}")
    }

    /// Goes on with the series of a try that an earlier process noted.
    pub(crate) fn resume(id: &str) -> Self {
        let series = id.rsplit_once('-').map(|(series, _)| series.to_owned());
        Self { series, unsure: true, resumed: Some(changes_of(id).unwrap_or(0)), ..Self::default() }
    }

    /// The count of changes to go on with.
    pub(crate) fn resumed_at(&self) -> u64 {
        self.resumed.unwrap_or(0).saturating_add(GAP)
    }

    fn made(&self, object: &ObjectMeta) -> bool {
        write_id(object).is_some_and(|id| self.has(id))
    }

    /// Whether a write id is of this series.
    pub(crate) fn has(&self, id: &str) -> bool {
        let series = id.rsplit_once('-').map(|(series, _)| series);
        self.series.is_some() && series == self.series.as_deref()
    }

    /// A try has succeeded, and everybody knows.
    pub(crate) fn settle(&mut self) {
        *self = Self::default();
    }
}

/// The count of changes that a write id was made for.
pub(crate) fn changes_of(id: &str) -> Option<u64> {
    id.rsplit_once('-')?.1.parse().ok()
}

impl Filesystem {
    /// Before anything is decided by what the store has of an unstored inode: asks, if an earlier try may have made
    /// the object at `key`. To be called under the lock of its name. No request unless a try has failed.
    pub(crate) async fn know_tries(&self, inode: &Arc<Inode>, key: &Key) -> Result<()> {
        if !inode.state().tries.unsure {
            return Ok(());
        }
        let object = self.head(key.clone()).await?;
        let Some(stored) = object.filter(|o| inode.state().tries.made(o)) else {
            inode.state().tries.unsure = false;
            return Ok(());
        };
        let may_be_all = !inode.is_open() && inode.state().is_all_in(&stored);
        if may_be_all && !self.is_staged(inode, &stored).await? {
            tracing::warn!(%key, "the store has other bytes than were sent; they are sent again");
            inode.state().tries.doubted = true;
        }
        if !self.may_build_on(inode, &stored).await? {
            return Ok(());
        }
        let mut state = inode.state();
        if !inode.is_open() && !state.tries.doubted && state.is_all_in(&stored) {
            state.meta = FileMeta::decode(&stored, &self.defaults());
            let staged = state.settle_on(stored);
            drop(state);
            if let Some(Err(error)) = staged.map(|staged| staged.remove()) {
                tracing::warn!(ino = inode.ino.0, %error, "a staging file was left behind");
            }
        } else {
            state.build_on(stored);
        }
        Ok(())
    }

    /// Whether what an earlier try made may be the base of the next one: not if bytes that are not here would be taken
    /// from it though it may be wrong.
    async fn may_build_on(&self, inode: &Inode, stored: &ObjectMeta) -> Result<bool> {
        let is_all_here = {
            let state = inode.state();
            !state.tries.doubted || state.staged.as_ref().is_none_or(is_all_here)
        };
        Ok(is_all_here || self.is_as_expected(inode, stored).await?)
    }

    /// The answer to a write of the object of `inode`. `None`: refused, because an earlier try of ours stands there;
    /// it is the base of the next one.
    pub(crate) async fn accept(
        &self,
        inode: &Arc<Inode>,
        key: &Key,
        job: &Job,
        answer: Result<Written, StoreError>,
    ) -> Result<Option<Written>> {
        let error = match answer {
            Ok(written) => return Ok(Some(written)),
            Err(error) if !may_be_our_own(error.kind()) => return Err(error.into()),
            Err(error) => error,
        };
        let object = self.head(key.clone()).await?;
        if let Some(this) = object.as_ref().filter(|object| is_of(object, &job.meta)) {
            self.compare(inode, job, this).await?;
            return Ok(Some(Written { version: this.version.clone() }));
        }
        let mut state = inode.state();
        match object {
            Some(earlier) if state.tries.made(&earlier) => {
                state.build_on(earlier);
                Ok(None)
            }
            _ => {
                state.tries.unsure = false;
                Err(error.into())
            }
        }
    }

    /// After a write of `size` bytes that failed: the version, if it had succeeded all the same.
    pub(crate) async fn was_ours(
        &self,
        key: &Key,
        meta: &FileMeta,
        size: u64,
        error: ErrorKind,
    ) -> Result<Option<Version>> {
        if !may_be_our_own(error) {
            return Ok(None);
        }
        let object = self.head(key.clone()).await?;
        Ok(object.filter(|o| is_of(o, meta) && o.size == size).map(|o| o.version))
    }

    /// Removes what a write of a new object made, if the store spoke wrongly of it and nobody has changed it since.
    pub(crate) async fn take_back(&self, key: &Key, meta: &FileMeta, error: &StoreError) -> Result<()> {
        if error.kind() != ErrorKind::Corrupt {
            return Ok(());
        }
        let object = self.head(key.clone()).await?;
        if let Some(wrong) = object.filter(|o| is_of(o, meta))
            // Without a condition it could be another client's that goes: then the wrong one stays.
            && self.store.capabilities().delete_if_match
        {
            let if_match = Some(wrong.version.etag);
            self.store.delete(DeleteRequest { if_match, ..DeleteRequest::latest(key.clone()) }).await?;
        }
        Ok(())
    }
}

impl State {
    /// Whether an object that a try of this made has all of its changes.
    fn is_all_in(&self, stored: &ObjectMeta) -> bool {
        let Some(theirs) = write_id(stored).and_then(changes_of) else { return false };
        // What an earlier process stored has all that it had noted, as long as nothing changed since.
        let is_untouched = self.changes == self.tries.resumed_at();
        theirs == self.changes || self.tries.resumed.is_some_and(|noted| is_untouched && theirs >= noted)
    }

    /// An earlier try, maybe of an earlier process, had stored all of it. The staging file, which is of no more use.
    fn settle_on(&mut self, stored: ObjectMeta) -> Option<Staged> {
        self.build_on(stored);
        self.tries.settle();
        self.content += 1;
        (self.bytes_dirty, self.meta_dirty) = (false, false);
        self.staged.take()
    }

    /// An earlier try of ours is what the store has. What is clean in the staging file is the same in it.
    fn build_on(&mut self, earlier: ObjectMeta) {
        self.tries.unsure = false;
        self.remote = Some(Remote { key: earlier.key, version: earlier.version, size: earlier.size });
    }
}

/// Whether a write that was refused so may have been refused because of its own first try.
fn may_be_our_own(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::VersionMismatch | ErrorKind::AlreadyExists | ErrorKind::NotFound)
}

/// Whether the write with these attributes made the object. A write without an id made none that can be told.
fn is_of(object: &ObjectMeta, meta: &FileMeta) -> bool {
    meta.write_id.is_some() && write_id(object) == meta.write_id.as_deref()
}

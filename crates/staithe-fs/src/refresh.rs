//! Forgetting on demand: what is known of the names and attributes at and below some paths, so that the next look at
//! them asks the store, whatever the time to live.
//!
//! Invariants:
//! 1. What was learned before a refresh is not believed after it, by nobody: a question that was put before it began,
//!    and an answer from memory that was found before, hold for who asked, once; and a change of ours that was under way
//!    is done, and asked about. [`Refreshes`] tells them apart.
//! 2. What the kernel was told before is doubted by it when the refresh returns: each inode by its name, and each
//!    absence that it was told of (see `absences`). Answers that were on their way to it are there by then (see
//!    `answers`).
//! 3. What is not stored yet, what is open, and what is outside of the paths stays as it is; but that the listing of
//!    the directory above a path is not whole any more.
//! 4. The work is proportional to what is in memory at and below the paths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use staithe_dentry::Lookup as Cached;
use tokio::sync::oneshot;

use crate::api::{Fence, Ino, Invalidation};
use crate::commit::with_causes;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::lookup::Dent;
use crate::names::{check_name, topmost};

/// What became of a refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshReport {
    /// Names that were remembered, and are not any more.
    pub names: u64,
    /// Files and directories in memory of which nothing is believed any more.
    pub inodes: u64,
    /// Paths of which nothing was known, and that are not there; and what is no path.
    pub failures: Vec<RefreshFailure>,
}

/// A path that could not be refreshed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshFailure {
    /// From the root.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Counts refreshes, so that what is learned across one is known to be.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// When something was learned, as far as refreshes go: after so many of them, or while one was running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(Option<u64>);

/// A refresh that is running.
struct Running<'r>(&'r Refreshes);

impl Refreshes {
    /// To be taken before memory or the store is asked.
    pub(crate) fn moment(&self) -> Moment {
        let ended = self.ended.load(Ordering::Acquire);
        Moment((self.begun.load(Ordering::Acquire) == ended).then_some(ended))
    }

    /// Whether no refresh has run since. To be asked once everything that was learned is where a refresh that begins
    /// now finds it.
    pub(crate) fn none_since(&self, moment: Moment) -> bool {
        moment.0 == Some(self.begun.load(Ordering::Acquire))
    }

    /// Whether one has begun since, of those that were not under way already.
    pub(crate) fn has_begun_since(&self, moment: Moment) -> bool {
        moment.0.is_some_and(|ended| ended != self.begun.load(Ordering::Acquire))
    }

    fn begin(&self) -> Running<'_> {
        self.begun.fetch_add(1, Ordering::AcqRel);
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

/// What was forgotten at and below one path.
#[derive(Debug, Default)]
struct Forgotten {
    /// Whether anything was known of the path itself.
    was_known: bool,
    names: u64,
    inodes: u64,
    /// What the kernel has not been told of it yet: it is told at the end, when answers are believed again. It may
    /// take its time.
    untold: Vec<Invalidation>,
}

impl Filesystem {
    /// Forgets what is known of the names and attributes at and below `paths`, here and in the kernel, so that the
    /// next look asks the store. Paths are from the root, whose own is empty.
    ///
    /// Open files keep their version, what is not stored yet stays. Nothing is asked of the store, but about a path of
    /// which nothing was known: whether it is there. A path that could not be refreshed is in the report, and holds up
    /// no other. O(names and inodes in memory at and below the paths).
    ///
    /// # Cancel safety
    /// Dropping the future leaves some paths forgotten and some not.
    pub async fn refresh(&self, paths: &[String]) -> RefreshReport {
        let mut report = RefreshReport::default();
        for path in topmost(paths) {
            match self.refresh_path(path).await {
                Ok(forgotten) => {
                    report.names += forgotten.names;
                    report.inodes += forgotten.inodes;
                }
                Err(error) => {
                    let (path, reason) = (path.to_owned(), with_causes(&error));
                    report.failures.push(RefreshFailure { path, reason });
                }
            }
        }
        report
    }

    /// Does `change`, which changes what the store shows or for how long it is believed, and forgets all that is known of
    /// names and attributes. What is learned while it does is believed by nobody afterwards, so that who looks sees the
    /// store as it was before or as it is after, and who looks when this returns, as it is after. Nothing is forgotten if
    /// the change fails. Blocks.
    pub(crate) fn refresh_around<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let running = self.refreshes.begin();
        let done = change()?;
        self.forget_path("")?;
        drop(running);
        Ok(done)
    }

    async fn refresh_path(&self, path: &str) -> Result<Forgotten> {
        let wanted = path.to_owned();
        let forgotten = self.aside(move |fs| fs.forget_path(&wanted)).await?;
        if !forgotten.was_known {
            self.find(path).await?;
        }
        Ok(forgotten)
    }

    /// Forgets what is known at and below a path; returns once the kernel does, too. Blocks.
    fn forget_path(&self, path: &str) -> Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        let running = self.refreshes.begin();
        self.doubt_flat();
        let mut at = self.inodes.get(Ino::ROOT)?;
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            check_name(name)?;
            if !at.is_dir() {
                return Err(no_directory(path));
            }
            let Some(child) = self.inodes.child(at.ino, name) else {
                self.forget_unseen(&at, name, names.peek().is_none(), &mut forgotten);
                self.answers.settled(self.op_deadline());
                drop(running);
                self.tell_all(&mut forgotten.untold);
                return Ok(forgotten);
            };
            at = child;
        }
        forgotten.was_known = true;
        self.forget_tree(at, &mut forgotten);
        self.answers.settled(self.op_deadline());
        drop(running);
        self.tell_all(&mut forgotten.untold);
        Ok(forgotten)
    }

    /// Forgets a name on the way that has no inode, and so nothing below it; unless it is the name of a directory that
    /// the path only leads through.
    fn forget_unseen(&self, dir: &Inode, name: &str, is_last: bool, forgotten: &mut Forgotten) {
        let known = self.names.lookup(dir.ino.0, name, Instant::now());
        if !is_last && matches!(known, Cached::Hit(Dent::Directory { .. }, _)) {
            return;
        }
        forgotten.was_known = is_last && matches!(known, Cached::Hit(..) | Cached::Expired(_));
        self.forget_name(dir.ino, name, forgotten);
    }

    fn forget_name(&self, dir: Ino, name: &str, forgotten: &mut Forgotten) {
        forgotten.names += u64::from(self.names.forget(dir.0, name));
        // No inode has it, so no kernel knows a directory by it.
        let (name, may_be_directory) = (name.to_owned(), false);
        forgotten.untold.push(Invalidation::Doubt { parent: dir, name, may_be_directory });
    }

    /// Forgets what is known of an inode, its name, and what is below it.
    fn forget_tree(&self, top: Arc<Inode>, forgotten: &mut Forgotten) {
        if let Some(link) = top.state().link.clone() {
            forgotten.names += u64::from(self.names.forget(link.parent.0, &link.name));
        }
        let mut rest = vec![top];
        while let Some(inode) = rest.pop() {
            forgotten.inodes += u64::from(inode.doubt());
            // Also of what is not stored yet: for how long it is believed may have changed.
            forgotten.untold.extend(doubts_of(&inode));
            if inode.is_dir() {
                // Before and after its names: who is there now may have lost its name by then, and still be known to
                // the kernel; who comes until then was learned before.
                let before = self.inodes.children(inode.ino);
                self.forget_directory(inode.ino, forgotten);
                let mut below: BTreeMap<_, _> =
                    before.into_iter().map(|(_, child)| (child.ino, child)).collect();
                let after = self.inodes.children(inode.ino);
                below.extend(after.into_iter().map(|(_, child)| (child.ino, child)));
                rest.extend(below.into_values());
            }
        }
    }

    /// Forgets what is known of the names in a directory, wherever it is kept.
    fn forget_directory(&self, dir: Ino, forgotten: &mut Forgotten) {
        forgotten.names += self.names.forget_dir(dir.0) as u64;
        self.forget_ahead(dir);
        let doubt =
            |name: Box<str>| Invalidation::Doubt { parent: dir, name: name.into(), may_be_directory: false };
        forgotten.untold.extend(self.absences.take(dir).map(doubt));
    }

    /// Notes a change of ours of a name, that was begun at `moment`, as [`remember`](Self::remember) does. If a refresh
    /// has run since, the name is asked for again, here and by the kernel.
    pub(crate) fn remember_since(&self, moment: Moment, parent: Ino, name: &str, dent: Option<Dent>) {
        self.remember(parent, name, dent);
        if !self.refreshes.none_since(moment) {
            self.names.forget(parent.0, name);
            let may_be_directory = self.inodes.child(parent, name).is_some_and(|child| child.is_dir());
            self.announce(Invalidation::Doubt { parent, name: name.to_owned(), may_be_directory });
        }
    }

    /// Doubts what a change of ours, that was begun at `moment`, has made of an inode, if a refresh has run since.
    pub(crate) fn doubt_since(&self, moment: Moment, inode: &Inode) {
        if !self.refreshes.none_since(moment) && inode.doubt() {
            self.announce(Invalidation::Attributes { ino: inode.ino });
        }
    }

    /// Tells the kernel, and waits until it has been told; not if there is none. Blocks.
    fn tell_all(&self, untold: &mut Vec<Invalidation>) {
        if self.is_unheard() {
            return untold.clear();
        }
        for invalidation in untold.drain(..) {
            self.announce(invalidation);
        }
        let (told, hears) = oneshot::channel();
        self.announce(Invalidation::Fence(Fence(told)));
        // Nothing is ever sent: this ends when the fence is dropped, also by the end of the session.
        let _ = hears.blocking_recv();
    }
}

impl Inode {
    /// Believes nothing any more of what the store said about this inode, so that the next look asks. False, and
    /// nothing is done, for what the store does not have yet.
    pub(crate) fn doubt(&self) -> bool {
        let mut state = self.state();
        if state.is_dirty() || state.is_local() {
            return false;
        }
        state.validated = None;
        // Who is about to write goes on from the attributes that it opened the file with.
        let is_written = self.writers.load(Ordering::Acquire) > 0 || state.staged.is_some();
        if self.ino != Ino::ROOT && !is_written {
            state.meta_known = false;
        }
        if self.is_dir() && self.ino != Ino::ROOT {
            (state.marker, state.witness) = (Marker::Unknown, None);
        }
        // Asked under the lock: an open that finds the body has counted itself before.
        if !self.is_open() {
            state.body = None;
        }
        true
    }
}

/// What a kernel that knows of an inode believes about it.
fn doubts_of(inode: &Inode) -> impl Iterator<Item = Invalidation> {
    let name = inode.state().link.clone();
    let may_be_directory = inode.is_dir();
    let doubt = name.map(|link| Invalidation::Doubt {
        parent: link.parent,
        name: link.name.to_string(),
        may_be_directory,
    });
    doubt.into_iter().chain([Invalidation::Attributes { ino: inode.ino }])
}

fn no_directory(path: &str) -> FsError {
    FsError::new(FsErrorKind::NotDirectory, format!("{path:?} leads through something that is no directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_before_or_during_a_refresh_is_told_from_what_was_learned_after() {
        let refreshes = Refreshes::default();
        let before = refreshes.moment();
        assert!(refreshes.none_since(before));
        let (first, second) = (refreshes.begin(), refreshes.begin());
        drop(first);
        let during = refreshes.moment();
        assert!(!refreshes.none_since(before) && !refreshes.none_since(during), "one is running");
        drop(second);
        let after = refreshes.moment();
        assert!(refreshes.none_since(after));
        assert!(!refreshes.none_since(before) && !refreshes.none_since(during));
        drop(refreshes.begin());
        assert!(!refreshes.none_since(after));
    }
}

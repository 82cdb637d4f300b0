//! Flat listings: who goes through a tree (find, du, rsync, a backup) is given its directories out of listings of a
//! thousand keys each, whatever directories these lie in, instead of one listing a directory.
//!
//! A walker that is [seen](recognise) to be one gets a [run]: a listing without a delimiter, from the directory
//! on that he lists now, page by page, a little ahead of him. Directories are [put together](rebuild) from it. He
//! who comes to a directory that the run is about to reach waits for its page, and for two more once it has begun; if it
//! is not whole then, or too old, or the run failed, he lists the directory himself, as if there were no runs. So
//! does at once who is no walker, unless the directory is there.
//!
//! Invariants, beside those of [`run`], [`rebuild`] and [`recognise`]:
//! 1. A directory of a flat listing is shown and remembered only if nothing in it was changed here, or learned
//!    otherwise, since its first page was asked for. Who lists it takes a token, then the directory, and then looks
//!    whether the token holds; who changes something tells the [changes] first, and then outdates the tokens. So
//!    either the directory is gone, or the token does not hold. Who learns of a name outdates no token: so the
//!    changes are asked once more when the listing that is remembered has begun.
//! 2. A directory that moved with everything below it is told as a doubt, before its new name is seen: whatever was
//!    asked for earlier goes.
//! 3. What was learned counts from when it was asked for: it is shown and remembered until then plus the time to
//!    live of metadata. Where that is zero, or a listing does not show every name, there are no runs.
//! 4. An error of a run is nobody's error. A store whose keys do not ascend is not asked so again.
//!
//! Lock order: neither of the two locks of this room is held while another lock is taken.

mod changes;
mod drive;
mod rebuild;
mod recognise;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use staithe_dentry::Token;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::api::Ino;
use crate::config::Ttl;
use crate::directory::{Page, is_file};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::lookup::{Dent, deadline};

use rebuild::Rebuilt;
use recognise::Recogniser;
use run::{Found, NoRun, RunId, Runs, Ticket};

/// Pages that are waited for because they may end a directory which has begun.
const OPEN_PAGES: u32 = 2;

/// The walkers that are seen, and the listings that run ahead of them.
#[derive(Debug, Default)]
pub(crate) struct Flat {
    seen: Mutex<Recogniser>,
    runs: Mutex<Runs<AbortOnDropHandle<()>>>,
    /// Whether there is any run: else nobody need know what changes.
    going: AtomicBool,
    /// Somebody waits, or took something.
    wake: Arc<Notify>,
    /// The store's keys do not ascend.
    is_useless: AtomicBool,
}

/// Somebody who waits for a directory.
struct Waiting<'a> {
    fs: &'a Filesystem,
    run: RunId,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.fs.runs(|runs| runs.left(self.run, self.ticket, Instant::now()));
    }
}

impl Filesystem {
    /// A directory that begins to be listed, whole, if a flat listing has it, or is about to.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing but what was held of this directory.
    pub(crate) async fn flat_page(&self, dir: &Inode) -> Option<Page> {
        let prefix = self.prefix_below(&self.inodes.path(dir.ino).ok()?);
        let mut walk = self.note_step(dir);
        let (mut patience, mut pages, mut begun) = (true, 0, None);
        while self.has_use_for_flat() {
            let token = self.names.begin(dir.ino.0);
            let now = Instant::now();
            match self.runs(|runs| runs.find(&prefix, now, |asked| self.is_fresh(Some(asked), now))) {
                Found::Here { rebuilt, is_next } => {
                    if is_next {
                        self.flat.seen.lock().was_of_use();
                    }
                    let page = self.hand_over(dir, token, rebuilt);
                    self.flat.wake.notify_waiters();
                    return page;
                }
                // The run stays: what lies below is probably wanted next.
                Found::Unfit => return None,
                Found::Coming { is_open: true, .. } if pages == OPEN_PAGES => return None,
                _ if walk.is_none() => break,
                Found::Coming { run, is_open, mut page } if is_open || patience => {
                    patience = is_open && patience;
                    pages += u32::from(is_open);
                    let _waiting = self.wait_for(run, &prefix);
                    if page.changed().await.is_err() {
                        // The run failed: another one is not worth the wait.
                        walk = None;
                    }
                }
                Found::Coming { .. } | Found::Nothing if begun.is_none() => {
                    let top = walk?;
                    begun = Some((self.begin_run(top, &prefix)?, top));
                    patience = true;
                }
                Found::Coming { .. } | Found::Nothing => break,
            }
            if let Some(known) = self.known_whole(dir) {
                // A helper of his was faster.
                return Some(known);
            }
        }
        if let Some((run, top)) = begun
            && self.runs(|runs| runs.end(run))
        {
            self.flat.seen.lock().was_useless(top);
        }
        None
    }

    /// Notes a page of a directory, for what may be listed next.
    pub(crate) fn note_listed(&self, dir: &Inode, entries: &[(Arc<str>, Dent)], is_first: bool) {
        if !self.has_use_for_flat() {
            return;
        }
        let above = dir.state().link.as_ref().map(|link| link.parent);
        let subdirectories = entries.iter().filter(|(_, dent)| !is_file(dent)).map(|(name, _)| name.clone());
        self.flat.seen.lock().noted(dir.ino, above, subdirectories, is_first, Instant::now());
    }

    /// Tells flat listings that the names in a directory are not what they were. To be called before the tokens of
    /// the directory are outdated, and after the store has the change.
    pub(crate) fn outdate_flat(&self, dir: Ino) {
        if !self.flat.going.load(Ordering::SeqCst) {
            return;
        }
        match self.inodes.path(dir) {
            Ok(path) => self.outdate_flat_at(&path),
            Err(_) => self.doubt_flat(),
        }
    }

    /// As [`outdate_flat`](Self::outdate_flat), of the directory at a path, whether or not it is in memory.
    pub(crate) fn outdate_flat_at(&self, path: &str) {
        if self.flat.going.load(Ordering::SeqCst) {
            self.runs(|runs| runs.note(self.prefix_below(path)));
        }
    }

    /// Tells flat listings that what they have may be wrong, whatever it is.
    pub(crate) fn doubt_flat(&self) {
        self.runs(Runs::doubt);
    }

    /// Ends all flat listings, for good.
    pub(crate) fn end_runs(&self) {
        self.runs(Runs::close);
        self.flat.wake.notify_waiters();
    }

    fn has_use_for_flat(&self) -> bool {
        self.metadata_ttl() != Ttl::Zero
            && self.store.capabilities().lists_every_name
            && !self.flat.is_useless.load(Ordering::Relaxed)
    }

    fn runs<T>(&self, act: impl FnOnce(&mut Runs<AbortOnDropHandle<()>>) -> T) -> T {
        let mut runs = self.flat.runs.lock();
        let done = act(&mut runs);
        self.flat.going.store(runs.is_any(), Ordering::SeqCst);
        done
    }

    /// Notes that a directory begins to be listed; the topmost directory of the walk that this is part of.
    pub(crate) fn note_step(&self, dir: &Inode) -> Option<Ino> {
        let link = dir.state().link.clone()?;
        self.flat.seen.lock().listed(link.parent, &link.name, Instant::now())
    }

    fn begin_run(&self, top: Ino, prefix: &str) -> Option<RunId> {
        let root = self.prefix_below(&self.inodes.path(top).ok()?);
        if !prefix.starts_with(&root) {
            return None;
        }
        match self.runs(|runs| runs.begin(root, prefix, Instant::now())) {
            Ok(run) => {
                self.send_driver(run, top);
                Some(run)
            }
            Err(NoRun::Useless) => {
                self.flat.seen.lock().was_useless(top);
                None
            }
            Err(NoRun::Busy) => None,
        }
    }

    fn wait_for(&self, run: RunId, prefix: &str) -> Waiting<'_> {
        let ticket = self.runs(|runs| runs.waits(run, prefix));
        self.flat.wake.notify_waiters();
        Waiting { fs: self, run, ticket }
    }

    /// Shows a directory of a flat listing and remembers it, unless a change here overtook it.
    fn hand_over(&self, dir: &Inode, token: Token, rebuilt: Rebuilt) -> Option<Page> {
        let path = self.inodes.path(dir.ino).ok()?;
        if self.prefix_below(&path) != rebuilt.prefix {
            return None;
        }
        let until = deadline(self.metadata_ttl(), rebuilt.asked.at);
        let mut listing = self.names.listing(token, until).ok()?;
        // A name that was looked up since does not outdate the token. From here on the listing spares such names.
        if !self.runs(|runs| runs.holds(&rebuilt)) {
            return None;
        }
        listing.page(rebuilt.entries.iter().cloned()).ok()?;
        // It may be too large to be remembered; it must not be outdated.
        let _ = listing.complete();
        if !self.names.holds(&token) {
            return None;
        }
        if rebuilt.has_marker {
            dir.state().marker = Marker::Present;
        }
        Some(Page { entries: rebuilt.entries, last: None })
    }
}

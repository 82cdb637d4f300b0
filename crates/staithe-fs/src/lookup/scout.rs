//! Who makes files in a directory looks each name up first, and is told that there is none: a HEAD and a LIST a name.
//! After a few such answers the whole directory is listed instead, if a page holds it: one request, which answers for
//! all the names to come.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use staithe_dentry::Lookup as Cached;

use crate::config::Ttl;
use crate::directory::{first_page, merge};
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::lookup::deadline;
use crate::remote::kernel_ttl;

/// Names that were not there, in a row, after which the directory is listed.
const ENOUGH: i32 = 3;
/// How many more of them until it is tried again in a directory that a page did not hold.
const PATIENCE: i32 = 256;

/// How many names of a directory the store was asked for in vain; [`i32::MIN`] and a few while it is being listed for
/// that, below zero after it was listed in vain.
#[derive(Debug, Default)]
pub(crate) struct Misses(AtomicI32);

impl Misses {
    /// The store was asked for a name, and had it or not.
    pub(super) fn note(&self, is_there: bool) {
        let next = |n: i32| if is_there { (n > 0).then_some(n / 2) } else { (n < ENOUGH).then(|| n + 1) };
        // Refused: it stays.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Whether the caller is to list the directory now: nobody else does, and it is likely to be worth it.
    fn take_turn(&self) -> Option<Turn<'_>> {
        // Only who has it makes a turn: one that is dropped leaves its mark.
        let taken = self.0.compare_exchange(ENOUGH, i32::MIN, Ordering::AcqRel, Ordering::Acquire);
        if taken.is_ok() { Some(Turn { misses: self, next: -PATIENCE }) } else { None }
    }
}

/// Lists a directory, alone. Dropped, it leaves when to do so next.
struct Turn<'a> {
    misses: &'a Misses,
    next: i32,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.misses.0.store(self.next, Ordering::Release);
    }
}

impl Filesystem {
    /// Lists a directory if others of its names were asked for in vain and nothing is known of this one. Says whether
    /// the directory is remembered whole now. At most one LIST.
    ///
    /// # Errors
    /// `Stale` when the directory is gone; the store's errors.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the directory as it was.
    pub(super) async fn scout(&self, dir: &Arc<Inode>, name: &str) -> Result<bool> {
        let (now, token) = (Instant::now(), self.names.begin(dir.ino.0));
        let Some(ttl) = self.absence_ttl() else { return Ok(false) };
        if !matches!(self.names.lookup(dir.ino.0, name, now), Cached::Miss | Cached::Expired(_)) {
            return Ok(false);
        }
        let Some(mut turn) = dir.misses.take_turn() else { return Ok(false) };
        self.outdate_flat(dir.ino);
        let until = deadline(ttl, now);
        let Ok(mut listing) = self.names.listing(token, until) else {
            turn.next = ENOUGH;
            return Ok(false);
        };
        let prefix = self.prefix_below(&self.inodes.path(dir.ino)?);
        let page = self.store.list(first_page(&prefix)).await?;
        if page.next.is_some() {
            return Ok(false);
        }
        let is_whole = listing.page(merge(dir, &prefix, &page)).is_ok() && listing.complete().is_ok();
        if is_whole {
            turn.next = ENOUGH;
        }
        Ok(is_whole)
    }

    /// For how long a listing may answer for what it lacks; `None` where it may not.
    fn absence_ttl(&self) -> Option<Ttl> {
        let (names, absences) = (self.metadata_ttl(), self.negative_ttl());
        let shorter = if kernel_ttl(absences) < kernel_ttl(names) { absences } else { names };
        (shorter != Ttl::Zero && self.store.capabilities().lists_every_name).then_some(shorter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lists_at_a_time_and_less_often_when_it_is_in_vain() {
        let misses = Misses::default();
        for _ in 0..ENOUGH {
            assert!(misses.take_turn().is_none());
            misses.note(false);
        }
        misses.note(true);
        assert!(misses.take_turn().is_none(), "names that are there make it less likely");
        (0..ENOUGH).for_each(|_| misses.note(false));
        let mut turn = misses.take_turn().unwrap();
        misses.note(false);
        misses.note(true);
        assert!(misses.take_turn().is_none());
        turn.next = ENOUGH;
        drop(turn);
        drop(misses.take_turn().unwrap());
        for _ in 0..PATIENCE + ENOUGH {
            assert!(misses.take_turn().is_none());
            misses.note(false);
        }
        assert!(misses.take_turn().is_some());
    }
}

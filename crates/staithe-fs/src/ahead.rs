//! Attributes asked for ahead: who looks the names of a listed directory up in their order (`ls -l`, `find`,
//! `cat *`) goes on doing so, and need not wait for one answer of the store after the other.
//!
//! Invariants:
//! 1. Ahead are only names that a complete listing showed and of which nothing is known yet; never more than the
//!    directory's window, which begins at nothing, grows fourfold while the order holds, and ends with it.
//!    A directory entered from its first name while another was gone through in order begins where that one was.
//! 2. An inode made here carries no kernel reference. It is held until it is looked up, but no more than
//!    [`HELD_MOST`] of them: the oldest is let go first.
//! 3. A lookup waits for its own answer, and for those ahead not much longer.
//! 4. A directory in which the order does not hold is looked at ever more rarely, because looking copies its names.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;

use crate::api::{Ino, Lookup};
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::lookup::Dent;

/// How the window grows with every name in order.
const GROWTH: usize = 4;
/// The most names asked for ahead of one.
const WINDOW_MOST: usize = 64;
/// The most inodes held for lookups to come.
const HELD_MOST: usize = 1024;
/// What is asked for ahead may always take this much longer than the name itself.
const LEAST_WAIT: Duration = Duration::from_millis(50);
/// Directories followed at once.
const WALKS_MOST: usize = 8;
/// The most lookups out of order between two looks at the order.
const PAUSE_MOST: u32 = 63;

/// How somebody goes through one directory.
#[derive(Debug)]
struct Walk {
    dir: Ino,
    /// The last name that was asked for, in order or ahead.
    last: String,
    /// How many were asked for ahead of the last one.
    window: usize,
    /// Lookups that pass unseen.
    pause: u32,
    /// How many passed unseen the last time.
    paused: u32,
}

/// The directories that are gone through, and what was learned ahead.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Most recently used first.
    walks: Mutex<VecDeque<Walk>>,
    /// The window that was last earned, in whatever directory.
    lately: AtomicUsize,
    /// Oldest first.
    held: Mutex<VecDeque<Arc<Inode>>>,
}

impl Ahead {
    /// Notes that `name` is asked for; the name asked for before it, if a look at the order is worth it. Before
    /// the first one of a directory comes the empty name.
    fn asked(&self, dir: Ino, name: &str) -> Option<String> {
        let mut walks = self.walks.lock();
        let Some(at) = walks.iter().position(|w| w.dir == dir) else {
            let lately = self.lately.load(Ordering::Relaxed);
            walks.push_front(Walk {
                dir,
                last: name.to_owned(),
                window: lately / GROWTH,
                pause: 0,
                paused: 0,
            });
            walks.truncate(WALKS_MOST);
            return (lately > 0).then(String::new);
        };
        let mut walk = walks.remove(at)?;
        let before = std::mem::replace(&mut walk.last, name.to_owned());
        let worth = walk.pause == 0;
        walk.pause = walk.pause.saturating_sub(1);
        walks.push_front(walk);
        worth.then_some(before)
    }

    /// The order held: how many names to ask for ahead.
    fn onward(&self, dir: Ino) -> usize {
        self.change(dir, |walk| {
            walk.window = (walk.window * GROWTH).clamp(GROWTH, WINDOW_MOST);
            walk.paused = 0;
            self.lately.store(walk.window, Ordering::Relaxed);
            walk.window
        })
    }

    /// The order did not hold.
    fn strayed(&self, dir: Ino) {
        self.lately.store(0, Ordering::Relaxed);
        self.change(dir, |walk| {
            walk.paused = (walk.paused * 2 + 1).min(PAUSE_MOST);
            (walk.window, walk.pause) = (0, walk.paused);
            0
        });
    }

    /// Names up to this one are asked for.
    fn reached(&self, dir: Ino, name: &str) {
        self.change(dir, |walk| {
            name.clone_into(&mut walk.last);
            0
        });
    }

    fn change(&self, dir: Ino, change: impl FnOnce(&mut Walk) -> usize) -> usize {
        self.walks.lock().iter_mut().find(|w| w.dir == dir).map_or(0, change)
    }

    /// Holds an inode; the one whose time is over comes back.
    fn hold(&self, inode: Arc<Inode>) -> Option<Arc<Inode>> {
        let mut held = self.held.lock();
        held.push_back(inode);
        if held.len() > HELD_MOST { held.pop_front() } else { None }
    }
}

impl Filesystem {
    /// While `name`, which a listing showed, is asked for: asks for those that come next.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most a filled cache.
    pub(crate) async fn look_ahead(&self, dir: &Arc<Inode>, name: &str) {
        let token = self.names.begin(dir.ino.0);
        let next = self.next_names(dir, name);
        let mut asked: FuturesUnordered<_> = next
            .iter()
            .map(|(name, dent)| async {
                let path = self.path_in(dir.ino, name).ok()?;
                let answer = self.ask_listed(dir, &path, dent).await.ok()?;
                match self.settle(dir.ino, name, &token, answer, false).ok()?? {
                    Lookup::Found(entry) => Some(entry.attr.ino),
                    Lookup::Absent { .. } => None,
                }
            })
            .collect();
        while let Some(learned) = asked.next().await {
            let Some(inode) = learned.and_then(|ino| self.inodes.get(ino).ok()) else { continue };
            // The reference was counted for a kernel that has not asked yet.
            inode.lookups.fetch_sub(1, Ordering::AcqRel);
            if let Some(oldest) = self.ahead.hold(inode) {
                self.inodes.let_go(&oldest);
            }
        }
    }

    fn next_names(&self, dir: &Arc<Inode>, name: &str) -> Vec<(String, Dent)> {
        let Some(before) = self.ahead.asked(dir.ino, name) else { return Vec::new() };
        let entries = if *before < *name { self.names.entries(dir.ino.0, Instant::now()) } else { None };
        let unknown = |at: &(&str, &Dent)| self.known_child(dir.ino, at.0, at.1).is_none();
        let in_order = entries.as_ref().is_some_and(|entries| {
            let between = entries.after(&before)..entries.after(name).saturating_sub(1);
            !between.filter_map(|n| entries.get(n)).any(|at| unknown(&at))
        });
        let Some(entries) = entries.filter(|_| in_order) else {
            self.ahead.strayed(dir.ino);
            return Vec::new();
        };
        let mut window = self.ahead.onward(dir.ino);
        let bodies = dir.eagerness.load(Ordering::Acquire);
        if bodies > 0 {
            // Bodies come along while they are opened afterwards: no more than have proved worth it.
            window = window.min(bodies as usize);
        }
        let following = (entries.after(name)..entries.len()).filter_map(|n| entries.get(n));
        let next: Vec<_> =
            following.filter(unknown).take(window).map(|(n, d)| (n.to_owned(), d.clone())).collect();
        if let Some((last, _)) = next.last() {
            self.ahead.reached(dir.ino, last);
        }
        next
    }
}

/// Waits for `own`, and for what is asked ahead of it about as long again: a name that the store is slow to answer
/// for must not hold up another one.
///
/// # Cancel safety
/// That of the two futures.
pub(crate) async fn beside<T>(own: impl Future<Output = T>, ahead: impl Future<Output = ()>) -> T {
    let start = Instant::now();
    match select(pin!(own), pin!(ahead)).await {
        Either::Left((answer, ahead)) => {
            // What is not here by then is asked for again when it is looked up.
            let _ = tokio::time::timeout(start.elapsed().max(LEAST_WAIT), ahead).await;
            answer
        }
        Either::Right(((), own)) => own.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Ino = Ino(7);

    #[test]
    fn a_window_grows_while_the_order_holds_and_ends_with_it() {
        let ahead = Ahead::default();
        assert_eq!(ahead.asked(DIR, "a"), None);
        assert_eq!(ahead.asked(DIR, "b").as_deref(), Some("a"));
        assert_eq!([ahead.onward(DIR), ahead.onward(DIR), ahead.onward(DIR)], [4, 16, 64]);
        ahead.reached(DIR, "p");
        assert_eq!(ahead.asked(DIR, "q").as_deref(), Some("p"));
        ahead.strayed(DIR);
        assert_eq!(ahead.asked(DIR, "c"), None, "one passes unseen");
        assert_eq!(ahead.asked(DIR, "d").as_deref(), Some("c"));
        assert_eq!(ahead.onward(DIR), 4);
        assert_eq!((0..9).map(|_| ahead.onward(DIR)).max(), Some(WINDOW_MOST));
    }

    #[test]
    fn the_next_directory_begins_where_the_last_one_was() {
        let ahead = Ahead::default();
        ahead.asked(DIR, "a");
        assert_eq!((0..3).map(|_| ahead.onward(DIR)).last(), Some(WINDOW_MOST));
        let next = Ino(8);
        assert_eq!(ahead.asked(next, "a").as_deref(), Some(""));
        assert_eq!(ahead.onward(next), 64);
        ahead.strayed(next);
        assert_eq!(ahead.asked(Ino(9), "a"), None);
    }

    #[test]
    fn disorder_is_looked_at_ever_more_rarely() {
        let ahead = Ahead::default();
        ahead.asked(DIR, "a");
        let mut looks = 0;
        for _ in 0..1000 {
            if ahead.asked(DIR, "x").is_some() {
                ahead.strayed(DIR);
                looks += 1;
            }
        }
        assert!(looks < 30, "{looks}");
    }

    #[test]
    fn only_so_many_directories_are_followed() {
        let ahead = Ahead::default();
        for n in 0..100 {
            ahead.asked(Ino(n), "a");
        }
        assert_eq!(ahead.walks.lock().len(), WALKS_MOST);
        assert_eq!(ahead.asked(Ino(1), "b"), None, "long forgotten");
    }
}

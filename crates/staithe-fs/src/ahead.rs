//! Asking ahead: who looks up or opens the names of a listed directory in their order (`ls -l`, `find`, `cat *`, a
//! data loader) goes on doing so, and need not wait for one answer of the store after the other.
//!
//! Invariants, beside those of [`walk`]:
//! 1. Asked for ahead are only names that a listing shows at that moment, and only what is not known of them. Who
//!    wants such a name while it is on its way waits for that answer and asks nothing: a name is asked for once.
//! 2. A name asked for ahead is a task of its own. Nobody waits for any but the one whose name he asked for.
//! 3. An inode that came ahead stays in memory by a reference of its walk, counted as a kernel's, which ends when
//!    the walk releases it.
//! 4. A body is of the version that its inode has: it is fetched by that, or comes with the attributes that make
//!    the inode. See `bodies`.
//!
//! Lock order: nothing of this room is locked while another lock is taken.

mod errand;
mod relist;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::Ino;
use crate::bodies::OVERHEAD;
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::lookup::{Dent, SMALL_BODY};

pub(crate) use walk::Event;
use walk::{CHUNK, Coming, IDLE, Met, Next, Released, Walks};

/// How far back the name before another one is looked for, over those that nobody asks for.
const SKIPPED_MOST: usize = 64;

/// A name in a directory.
type Place = (Ino, Arc<str>);

/// What a walk keeps for a name.
#[derive(Debug, Clone)]
enum Catch {
    /// It is on its way.
    Task(AbortHandle),
    /// It is here, with a reference of ours.
    Here(Arc<Inode>),
}

/// The walks, and what is on its way for them.
#[derive(Debug)]
pub(crate) struct Ahead {
    walks: Mutex<Walks<Catch>>,
    /// Whether any walk has found an order: else there is nothing to lock for.
    going: AtomicBool,
    /// The sender goes when the answer is here, or will never be.
    on_their_way: Mutex<HashMap<Place, watch::Receiver<()>>>,
    sweeper: Mutex<Option<AbortHandle>>,
}

impl Ahead {
    /// Bodies that nobody opened yet take at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            walks: Mutex::new(Walks::new(limit)),
            going: AtomicBool::new(false),
            on_their_way: Mutex::default(),
            sweeper: Mutex::default(),
        }
    }
}

impl Filesystem {
    /// Notes that a listed name was looked up or opened, and asks for those that come next if that is worth it.
    /// Waits for nothing.
    pub(crate) fn met(&self, dir: Ino, name: &str, event: Event) {
        if event == Event::Known && !self.ahead.going.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let next = self.walks(|walks| walks.met(dir, name, event, now));
        let wanted = match next {
            Next::Nothing => return,
            Next::Order(recent) => {
                let order = self.order(dir, name, event, &recent);
                let Some((coming, opened)) = order else { return self.walks(|walks| walks.disorder(dir)) };
                self.walks(|walks| walks.begin(dir, coming, event, opened, now))
            }
            Next::Ask { mut wanted, more } => {
                if let Some(last) = more {
                    let coming = self.coming(dir, &last);
                    wanted.extend(self.walks(|walks| walks.extend(dir, coming, now)));
                }
                wanted
            }
        };
        for wanted in wanted {
            self.send_for(dir, wanted);
        }
        self.sweep_later();
    }

    /// As [`met`](Self::met), for an open for reading; then waits for the file's own bytes, if they are on their
    /// way already.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn opened_in_order(&self, inode: &Inode) {
        let Some(link) = inode.state().link.clone() else { return };
        self.met(link.parent, &link.name, Event::Opened);
        self.on_its_way(link.parent, &link.name).await;
    }

    /// Waits for a name that is on its way; false, at once, if it is not.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn on_its_way(&self, dir: Ino, name: &str) -> bool {
        let landing = {
            let on_their_way = self.ahead.on_their_way.lock();
            if on_their_way.is_empty() {
                return false;
            }
            on_their_way.get(&(dir, Arc::from(name))).cloned()
        };
        let Some(mut landing) = landing else { return false };
        // Nothing is ever sent: this ends when the sender goes.
        let _ = landing.changed().await;
        true
    }

    /// Drops whatever was asked for ahead.
    pub(crate) fn end_walks(&self) {
        self.walks(Walks::clear);
        if let Some(sweeper) = self.ahead.sweeper.lock().take() {
            sweeper.abort();
        }
    }

    /// Does something with the walks, and away with what they let go of.
    fn walks<T>(&self, act: impl FnOnce(&mut Walks<Catch>) -> T) -> T {
        let (done, released) = {
            let mut walks = self.ahead.walks.lock();
            let done = act(&mut walks);
            self.ahead.going.store(walks.is_any(), Ordering::Relaxed);
            (done, walks.take_released())
        };
        for released in released {
            match released {
                Released::All(Catch::Task(task)) => task.abort(),
                Released::All(Catch::Here(inode)) => {
                    inode.drop_unopened_body();
                    self.inodes.forget(inode.ino, 1);
                }
                Released::Served(Catch::Here(inode)) => self.inodes.forget(inode.ino, 1),
                Released::Body(Catch::Here(inode)) => inode.drop_unopened_body(),
                // Its answer is still wanted, or its attributes are.
                Released::Served(Catch::Task(_)) | Released::Body(Catch::Task(_)) => {}
            }
        }
        done
    }

    /// Whether `name` comes right after one of `recent` in its listing, but for names that nobody asks for; then
    /// what follows it, and whether the one before it was opened. O(names of the directory).
    fn order(&self, dir: Ino, name: &str, event: Event, recent: &[Met]) -> Option<(Vec<Coming>, bool)> {
        let entries = self.names.entries(dir.0, Instant::now())?;
        let after = entries.after(name);
        let own = after.checked_sub(1)?;
        entries.get(own).filter(|(found, _)| *found == name)?;
        let before = |met: &str| recent.iter().find(|m| m.name == met).map(|m| m.opened);
        for at in (own.saturating_sub(SKIPPED_MOST)..own).rev() {
            let (earlier, dent) = entries.get(at)?;
            if let Some(opened) = before(earlier) {
                return Some((coming(&entries, after), opened));
            }
            let is_skipped = match event {
                Event::Opened => small_body(dent).is_none(),
                _ => self.inodes.child(dir, earlier).is_some(),
            };
            if !is_skipped {
                return None;
            }
        }
        let opened = if own <= SKIPPED_MOST { before("")? } else { return None };
        Some((coming(&entries, after), opened))
    }

    fn coming(&self, dir: Ino, last: &str) -> Vec<Coming> {
        let entries = self.names.entries(dir.0, Instant::now());
        entries.map(|entries| coming(&entries, entries.after(last))).unwrap_or_default()
    }

    /// Sees to it that a walk that nobody goes on with ends.
    fn sweep_later(&self) {
        let mut sweeper = self.ahead.sweeper.lock();
        if !self.ahead.going.load(Ordering::Relaxed) || sweeper.is_some() {
            return;
        }
        let me = self.me.clone();
        let sweeping = async move {
            loop {
                tokio::time::sleep(IDLE).await;
                let Some(fs) = me.upgrade() else { return };
                if !fs.walks(|walks| walks.sweep(Instant::now())) {
                    // A walk that begins right now finds this one gone at its next name.
                    *fs.ahead.sweeper.lock() = None;
                    return;
                }
            }
        };
        *sweeper = Some(self.tasks.spawn_on(sweeping, &self.runtime).abort_handle());
    }
}

impl Inode {
    /// Lets a body go that came ahead of an open which did not come.
    fn drop_unopened_body(&self) {
        let mut state = self.state();
        // Asked under the lock: an open that finds the body has counted itself before.
        if !self.is_open() {
            state.body = None;
        }
    }
}

fn coming(entries: &staithe_dentry::Entries<Dent>, from: usize) -> Vec<Coming> {
    let all = (from..entries.len()).filter_map(|at| entries.get(at)).take(CHUNK);
    all.map(|(name, dent)| Coming { name: name.to_owned(), body: small_body(dent) }).collect()
}

/// What the body of a small file takes in memory.
fn small_body(dent: &Dent) -> Option<u64> {
    match dent {
        Dent::File { size, .. } if (1..=SMALL_BODY).contains(size) => Some(size + OVERHEAD),
        _ => None,
    }
}

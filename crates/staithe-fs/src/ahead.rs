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
mod order;
mod relist;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::{Ino, Kind};
use crate::bodies::OVERHEAD;
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::lookup::{Dent, SMALL_BODY};

use order::Pages;
pub(crate) use walk::Event;
use walk::{IDLE, Next, Released, Walks};

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
    pages: Pages,
    sweeper: Mutex<Option<AbortHandle>>,
}

impl Ahead {
    /// Bodies that nobody opened yet take at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            walks: Mutex::new(Walks::new(limit)),
            going: AtomicBool::new(false),
            on_their_way: Mutex::default(),
            pages: Pages::default(),
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
        let mut next = self.walks(|walks| walks.met(dir, name, event, now));
        if let Next::More(last) = &next {
            let mut following = self.coming(dir, last);
            following.ends |= following.names.is_empty();
            next = self.walks(|walks| {
                walks.append(dir, following);
                walks.met(dir, name, event, now)
            });
        }
        let wanted = match next {
            Next::Nothing | Next::More(_) => return,
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

    /// Waits for a name that is on its way; not at all, if it is not.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn on_its_way(&self, dir: Ino, name: &str) {
        let landing = {
            let on_their_way = self.ahead.on_their_way.lock();
            if on_their_way.is_empty() {
                return;
            }
            on_their_way.get(&(dir, Arc::from(name))).cloned()
        };
        if let Some(mut landing) = landing {
            // Nothing is ever sent: this ends when the sender goes.
            let _ = landing.changed().await;
        }
    }

    /// Drops what was asked for ahead in a directory, and its order.
    pub(crate) fn forget_ahead(&self, dir: Ino) {
        self.walks(|walks| walks.leave(dir));
        self.ahead.forget_pages(dir);
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
    /// Lets a body go that came ahead of an open which did not come. A link's target is never opened.
    fn drop_unopened_body(&self) {
        if self.kind == Kind::Symlink {
            return;
        }
        let mut state = self.state();
        // Asked under the lock: an open that finds the body has counted itself before.
        if !self.is_open() {
            state.body = None;
        }
    }
}

/// What the body of a small file takes in memory.
fn small_body(dent: &Dent) -> Option<u64> {
    match dent {
        Dent::File { size, .. } if (1..=SMALL_BODY).contains(size) => Some(size + OVERHEAD),
        _ => None,
    }
}

//! One name asked for ahead: a task of its own, from the question to the walk that keeps the answer.

use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Instant;

use futures::TryStreamExt;
use staithe_dentry::Lookup as Cached;
use staithe_store::Payload;
use tokio::sync::watch;

use super::walk::{Kept, Wanted};
use super::{Catch, Place, small_body};
use crate::api::{Ino, Kind, Lookup};
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote};
use crate::lookup::{Dent, SMALL_BODY};

/// A name on its way; ends with it.
struct Flight {
    fs: Arc<Filesystem>,
    place: Place,
    _landed: watch::Sender<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.fs.ahead.on_their_way.lock().remove(&self.place);
    }
}

impl Filesystem {
    /// Asks for a name in a task of its own, unless nothing is to be asked.
    pub(super) fn send_for(&self, dir: Ino, wanted: Wanted) {
        let Cached::Hit(dent, _) = self.names.lookup(dir.0, &wanted.name, Instant::now()) else { return };
        let body = wanted.body && small_body(&dent).is_some();
        let is_known = !self.wants_full() || self.has_known_child(dir, &wanted.name, &dent);
        let Some(fs) = self.me.upgrade().filter(|_| body || !is_known) else { return };
        let name: Arc<str> = Arc::from(wanted.name);
        let place = (dir, name.clone());
        let (landed, landing) = watch::channel(());
        match self.ahead.on_their_way.lock().entry(place.clone()) {
            Slot::Occupied(_) => return,
            Slot::Vacant(slot) => slot.insert(landing),
        };
        let flight = Flight { fs, place, _landed: landed };
        let task = async move {
            match flight.fs.fetch_ahead(dir, &flight.place.1, &dent, body).await {
                Ok(Some(inode)) => flight.fs.arrived(dir, &flight.place.1, &inode),
                Ok(None) => {}
                // Who wants the name asks for himself, and is told.
                Err(error) => tracing::debug!(name = &*flight.place.1, %error, "nothing came ahead"),
            }
        };
        let task = self.tasks.spawn_on(task, &self.runtime).abort_handle();
        let kept = self.walks(|walks| walks.keep(dir, &name, Catch::Task(task)));
        if let Kept::Unwanted(Catch::Task(task)) = kept {
            task.abort();
        }
    }

    /// Learns of a name what is not known of it, and fetches its bytes if `body`; the inode, if it is there, with
    /// one reference counted.
    async fn fetch_ahead(&self, dir: Ino, name: &str, dent: &Dent, body: bool) -> Result<Option<Arc<Inode>>> {
        let moment = self.refreshes.moment();
        if !body {
            self.recall(dir, &[(Arc::from(name), dent.clone())]).await;
        }
        let seen = match self.names.lookup(dir.0, name, Instant::now()) {
            Cached::Hit(_, left) => self.seen(left),
            _ => self.seen(staithe_dentry::Ttl::None),
        };
        if let Some(known) = self.known_child(dir, name, dent, seen) {
            let pinned = self.inodes.pin(known);
            if body {
                self.fetch_body(&pinned).await?;
            } else if !self.is_still(dir, name, dent) || !self.refreshes.none_since(moment) {
                // What was recalled is of what the name was seen to be before.
                pinned.doubt();
            }
            self.inodes.reference(&pinned);
            return Ok(Some(pinned.clone()));
        }
        let path = self.path_in(dir, name)?;
        let asked = self.asking(dir);
        let body = body && !self.is_listed_on_disk(&path, dent);
        let answer = self.ask_listed(&path, dent, body).await?;
        match self.settle(dir, name, &asked, answer, false)? {
            // The reference counted for the kernel is ours, until that asks and counts its own.
            Some(Lookup::Found(entry)) => self.inodes.get(entry.attr.ino).map(Some),
            _ => Ok(None),
        }
    }

    fn is_still(&self, dir: Ino, name: &str, dent: &Dent) -> bool {
        matches!(self.names.lookup(dir.0, name, Instant::now()), Cached::Hit(now, _) if now == *dent)
    }

    /// Fetches the bytes of a small file whose attributes are known, unless an open would not ask for them.
    async fn fetch_body(&self, inode: &Arc<Inode>) -> Result<()> {
        let Some(remote) = self.lacks_body(inode) else { return Ok(()) };
        let moment = self.refreshes.moment();
        let answer = self.get_checked(&remote, 0..remote.size).await?;
        let version = answer.meta.version;
        let body = Payload::new(answer.body.try_collect::<Vec<_>>().await?).to_bytes();
        self.learn_version(inode, &version, moment);
        self.bodies.hold(inode, &version.etag, body);
        Ok(())
    }

    fn lacks_body(&self, inode: &Inode) -> Option<Remote> {
        let state = inode.state();
        let is_fresh = self.is_fresh(state.validated, Instant::now());
        // What was read lately is in the kernel's pages, and its open asks nothing.
        let is_here = state.staged.is_some() || (state.was_read || state.body.is_some()) && is_fresh;
        let is_small = |r: &&Remote| inode.kind == Kind::File && (1..=SMALL_BODY).contains(&r.size);
        let remote = state.remote.as_ref().filter(is_small).filter(|_| !is_here).cloned();
        drop(state);
        remote.filter(|r| !self.is_on_disk(&r.key, &r.version.etag, r.size))
    }

    /// What came ahead, with its reference, is kept for who is to come, if anybody still is.
    fn arrived(&self, dir: Ino, name: &str, inode: &Arc<Inode>) {
        match self.walks(|walks| walks.keep(dir, name, Catch::Here(inode.clone()))) {
            Kept::Whole => {}
            Kept::WithoutBody => inode.drop_unopened_body(),
            Kept::Used => self.inodes.forget(inode.ino, 1),
            Kept::Unwanted(_) => {
                inode.drop_unopened_body();
                self.inodes.forget(inode.ino, 1);
            }
        }
    }
}

//! From a name to an inode: what is ours, what is remembered, what the store says.

mod ask;
mod scout;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use staithe_dentry::{Lookup as Cached, Token, Value};
use staithe_store::{ETag, ObjectMeta, ObjectSummary, VersionId};

use crate::ahead::Event;
use crate::api::{Ino, Invalidation, Kind, Lookup};
use crate::config::Ttl;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Marker, Remote, State};
use crate::metadata::FileMeta;
use crate::names::check_name;
use crate::refresh::Moment;
use crate::remote::kernel_ttl;

pub(crate) use ask::Answer;
pub(crate) use scout::Misses;

/// Objects up to this size are fetched whole when their attributes are wanted and an open is likely to follow.
pub(crate) const SMALL_BODY: u64 = 128 << 10;
/// No target of a symbolic link is as long: with its NUL it fits into `PATH_MAX`.
const LINK_END: u64 = 4096;
/// How often a lookup is computed again when a change here overtook it.
const OVERTAKEN_TRIES: u32 = 4;

/// What the dentry cache remembers of a name: as much as a listing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dent {
    /// An object.
    File {
        size: u64,
        etag: ETag,
        /// Of its version, where the listing tells it.
        id: Option<VersionId>,
        modified: SystemTime,
        /// Whether the store said when it was, of the object as it is.
        told: bool,
        /// A listing cannot tell a file from a symbolic link.
        kind: Option<Kind>,
    },
    /// A prefix.
    Directory {
        /// When its marker was stored, where that is known.
        marker: Option<SystemTime>,
    },
}

impl Value for Dent {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { etag: a, .. }, Self::File { etag: b, .. }) => a == b,
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            _ => false,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::File { etag, id, .. } => {
                etag.as_str().len() + id.as_ref().map_or(0, |id| id.as_str().len())
            }
            Self::Directory { .. } => 0,
        }
    }
}

impl From<&ObjectSummary> for Dent {
    fn from(o: &ObjectSummary) -> Self {
        let is_link_sized = (1..LINK_END).contains(&o.size);
        Self::File {
            size: o.size,
            etag: o.etag.clone(),
            id: o.id.clone(),
            modified: o.last_modified,
            told: true,
            kind: (!is_link_sized).then_some(Kind::File),
        }
    }
}

/// When a question about a name was put to the store.
#[derive(Debug)]
pub(crate) struct Asked {
    at: Instant,
    token: Token,
    moment: Moment,
}

impl Filesystem {
    /// To be called before the store is asked about a name in `parent`.
    pub(crate) fn asking(&self, parent: Ino) -> Asked {
        Asked { at: Instant::now(), moment: self.refreshes.moment(), token: self.names.begin(parent.0) }
    }

    /// Looks a name up in memory: what is not stored yet, and what is remembered. `None`: ask
    /// [`lookup`](Self::lookup). Counts one kernel reference when the name is found.
    pub fn try_lookup(&self, parent: Ino, name: &str) -> Option<Result<Lookup>> {
        let answer = self.remembered_answer(parent, name)?;
        if matches!(answer, Ok(Lookup::Found(_))) {
            self.met(parent, name, Event::Known);
        }
        Some(answer)
    }

    fn remembered_answer(&self, parent: Ino, name: &str) -> Option<Result<Lookup>> {
        if let Err(error) = check_name(name).and_then(|()| self.directory(parent).map(drop)) {
            return Some(Err(error));
        }
        let moment = self.refreshes.moment();
        let child = self.inodes.child(parent, name);
        if let Some(inode) = child.as_ref().filter(|c| c.state().is_local()) {
            return Some(Ok(Lookup::Found(self.entry(inode, self.ttl()))));
        }
        match self.names.lookup(parent.0, name, Instant::now()) {
            // Where a listing does not show everything, a name that it lacked need not be free.
            Cached::AbsentByListing(_) if !self.store.capabilities().lists_every_name => None,
            Cached::Negative(left) | Cached::AbsentByListing(left) => {
                let ttl = time_left(left).min(kernel_ttl(self.negative_ttl()));
                Some(Ok(self.absent(parent, name, ttl, moment)))
            }
            Cached::Hit(dent, left) => {
                let inode = self.remembered(parent, name, child, &dent, self.seen(left))?;
                Some(Ok(Lookup::Found(self.entry_of(&inode, time_left(left), moment))))
            }
            _ => None,
        }
    }

    /// When something was asked for of which so much of its time is left.
    pub(crate) fn seen(&self, left: staithe_dentry::Ttl) -> Instant {
        let now = Instant::now();
        let age = match self.metadata_ttl() {
            Ttl::For(time) => time.saturating_sub(left.as_duration()),
            Ttl::Zero | Ttl::Forever => Duration::ZERO,
        };
        now.checked_sub(age).unwrap_or(now)
    }

    /// The inode for a name that was as remembered at `seen`, if nothing need be asked to make it.
    fn remembered(
        &self,
        parent: Ino,
        name: &str,
        child: Option<Arc<Inode>>,
        dent: &Dent,
        seen: Instant,
    ) -> Option<Arc<Inode>> {
        let link = || Link { parent, name: Arc::from(name) };
        let state = match child {
            Some(inode) if is_same(&inode, dent) => {
                if !self.wants_full() {
                    take_listed(&mut inode.state(), dent, seen);
                }
                let known = inode.state().meta_known || !self.wants_full();
                return (known || self.recall_into(&inode, link(), dent, seen)).then_some(inode);
            }
            // What the listing shows may be older.
            Some(_) if self.wants_full() => None,
            None if self.wants_full() => self.recalled(link(), dent, seen),
            _ => self.listed_state(link(), dent, seen),
        };
        Some(self.inodes.adopt(state?))
    }

    /// The inode that a directory stream can show with its attributes, without asking anybody, for a name that was as
    /// listed at `seen`.
    pub(crate) fn known_child(
        &self,
        parent: Ino,
        name: &str,
        dent: &Dent,
        seen: Instant,
    ) -> Option<Arc<Inode>> {
        let child = self.inodes.child(parent, name);
        if let Some(local) = child.as_ref().filter(|c| c.state().is_local()) {
            return Some(local.clone());
        }
        self.remembered(parent, name, child, dent, seen)
    }

    /// Looks a name up. Counts one kernel reference when it is found.
    ///
    /// # Errors
    /// `Stale` when the directory is gone; `NameTooLong`, `Invalid` for what is no name; the store's errors.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most a filled cache.
    pub async fn lookup(&self, parent: Ino, name: &str) -> Result<Lookup> {
        for last in (0..OVERTAKEN_TRIES).rev() {
            // First this, then memory: what lands in between is there.
            self.on_its_way(parent, name).await;
            if let Some(answer) = self.try_lookup(parent, name) {
                return answer;
            }
            let dir = self.directory(parent)?;
            if self.list_on(&dir, name).await?
                && let Some(answer) = self.try_lookup(parent, name)
            {
                return answer;
            }
            if self.scout(&dir, name).await?
                && let Some(answer) = self.try_lookup(parent, name)
            {
                return answer;
            }
            if let Cached::Hit(dent, _) = self.names.lookup(parent.0, name, Instant::now()) {
                self.recall(parent, &[(Arc::from(name), dent)]).await;
                if let Some(answer) = self.try_lookup(parent, name) {
                    return answer;
                }
            }
            let path = self.path_in(parent, name)?;
            let asked = self.asking(parent);
            let known = self.names.lookup(parent.0, name, Instant::now());
            let answer = if let Cached::Hit(dent, _) = known {
                self.met(parent, name, Event::Missed);
                let with_body = self.is_worth_a_body(&dir, &dent) && !self.is_listed_on_disk(&path, &dent);
                self.ask_listed(&path, &dent, with_body).await?
            } else {
                let full = self.wants_full();
                let answer = if full { self.ask(&path).await? } else { self.ask_by_listing(&path).await? };
                dir.misses.note(!matches!(answer, Answer::Absent));
                answer
            };
            if let Some(found) = self.settle(parent, name, &asked, answer, last == 0)? {
                return Ok(found);
            }
        }
        Err(FsError::new(FsErrorKind::Stale, format!("{name:?} changes faster than it can be looked up")))
    }

    /// Makes an answer of the store the answer to the kernel. `None` when a change here overtook it and it
    /// should be asked for again; `last` settles for an answer that nobody caches.
    pub(crate) fn settle(
        &self,
        parent: Ino,
        name: &str,
        asked: &Asked,
        answer: Answer,
        last: bool,
    ) -> Result<Option<Lookup>> {
        self.directory(parent)?;
        let entry = match dent_of(&answer) {
            Some(dent) => staithe_dentry::Entry::Positive(dent),
            None => staithe_dentry::Entry::Negative,
        };
        let ttl = if dent_of(&answer).is_some() { self.metadata_ttl() } else { self.negative_ttl() };
        self.outdate_flat(parent);
        let stale = self.names.insert(&asked.token, name, entry, deadline(ttl, asked.at)).is_err();
        // What was asked in two questions, with a refresh between them, may be what no store has ever held.
        if !last && (stale || self.refreshes.has_begun_since(asked.moment)) {
            return Ok(None);
        }
        let child = self.inodes.child(parent, name);
        if let Some(local) = child.as_ref().filter(|c| stale || c.state().is_local()) {
            return Ok(Some(Lookup::Found(self.entry(local, Duration::ZERO))));
        }
        let left = kernel_ttl(ttl).saturating_sub(asked.at.elapsed());
        let kernel = if stale { Duration::ZERO } else { left };
        let link = Link { parent, name: Arc::from(name) };
        let inode = match answer {
            Answer::Absent => {
                if let Some(gone) = child {
                    // A directory is there as long as something below it is not stored yet.
                    let has_ours = gone.is_dir() && self.inodes.has_local_below(gone.ino);
                    let is_ours = |state: &mut State| {
                        state.replaced = !state.is_local() && !has_ours;
                        state.replaced
                    };
                    if self.inodes.unlink_if(&gone, is_ours).is_none() {
                        return Ok(Some(Lookup::Found(self.entry(&gone, Duration::ZERO))));
                    }
                    if gone.lookups.load(Ordering::Acquire) > 0 {
                        // Who asked need not have been the kernel.
                        self.announce(Invalidation::Entry { parent, name: name.to_owned() });
                    }
                    self.inodes.let_go(&gone);
                }
                return Ok(Some(self.absent(parent, name, kernel, asked.moment)));
            }
            Answer::Object(meta, body) => self.adopt_object(child, link, *meta, body, asked.at),
            Answer::Listed(object) => {
                let dent = Dent::from(&object);
                self.remembered(parent, name, child, &dent, asked.at)
                    .ok_or_else(|| FsError::new(FsErrorKind::Stale, "a listed name without an inode"))?
            }
            Answer::Directory { marker, meta } => self.adopt_directory(child, link, marker, meta.as_deref()),
        };
        Ok(Some(Lookup::Found(self.entry_of(&inode, kernel, asked.moment))))
    }

    /// That a name is absent, as was learned at `moment`, for the kernel: it believes it only if it can be told
    /// otherwise.
    fn absent(&self, parent: Ino, name: &str, ttl: Duration, moment: Moment) -> Lookup {
        let now = Instant::now();
        let until = now.checked_add(ttl).filter(|_| !ttl.is_zero());
        let is_alive = |dir| self.inodes.get(dir).is_ok();
        let is_noted = until.is_some_and(|until| self.absences.note(parent, name, until, now, is_alive));
        let is_believed = is_noted && self.refreshes.none_since(moment);
        Lookup::Absent { ttl: if is_believed { ttl } else { Duration::ZERO } }
    }

    /// The inode for an object: the one in memory if it is this version, else a new one.
    fn adopt_object(
        &self,
        child: Option<Arc<Inode>>,
        link: Link,
        object: ObjectMeta,
        body: Option<Bytes>,
        asked: Instant,
    ) -> Arc<Inode> {
        let meta = FileMeta::decode(&object, &self.defaults());
        let remote = Remote { key: object.key, version: object.version, size: object.size };
        let etag = remote.version.etag.clone();
        let same = child.filter(|c| c.kind == meta.kind && renew(&mut c.state(), &meta, &remote, asked));
        let inode = same.unwrap_or_else(|| {
            let mut state = State::new(Some(link), meta);
            state.remote = Some(remote);
            state.validated = Some(asked);
            self.inodes.adopt(state)
        });
        if let Some(body) = body {
            self.bodies.hold(&inode, &etag, body);
        }
        inode
    }

    fn adopt_directory(
        &self,
        child: Option<Arc<Inode>>,
        link: Link,
        marker: Marker,
        object: Option<&ObjectMeta>,
    ) -> Arc<Inode> {
        if let Some(inode) = child.filter(|c| c.is_dir()) {
            self.take_marker(&mut inode.state(), marker, object);
            return inode;
        }
        let mut state = State::new(Some(link), self.directory_meta(object));
        state.marker = marker;
        self.inodes.adopt(state)
    }

    /// Gives a directory what the store says of its marker.
    pub(crate) fn take_marker(&self, state: &mut State, marker: Marker, object: Option<&ObjectMeta>) {
        let is_told = object.is_some() || marker == Marker::Missing;
        if is_told && !state.meta_known {
            // Doubted: nothing of before holds, also no time.
            state.meta = self.directory_meta(object);
            state.meta_known = true;
        } else if object.is_some() {
            // Times of a directory move with its entries, here and unstored: the later ones hold.
            let meta = self.directory_meta(object);
            let (mtime, ctime) = (state.meta.mtime.max(meta.mtime), state.meta.ctime.max(meta.ctime));
            state.meta = FileMeta { mtime, ctime, ..meta };
        }
        if marker != Marker::Unknown && state.marker != Marker::Pending {
            state.marker = marker;
        }
    }

    /// The attributes of a directory with this marker; without one, the defaults.
    fn directory_meta(&self, object: Option<&ObjectMeta>) -> FileMeta {
        let decode = |o| FileMeta { kind: Kind::Directory, ..FileMeta::decode(o, &self.defaults()) };
        let c = &self.config;
        object.map_or_else(
            || FileMeta::new(Kind::Directory, c.dir_mode, c.uid, c.gid, SystemTime::now()),
            decode,
        )
    }

    /// The state of an inode made from a listing alone.
    fn listed_state(&self, link: Link, dent: &Dent, seen: Instant) -> Option<State> {
        let c = &self.config;
        match dent {
            Dent::Directory { marker } => {
                let at = marker.unwrap_or_else(SystemTime::now);
                let mut state =
                    State::new(Some(link), FileMeta::new(Kind::Directory, c.dir_mode, c.uid, c.gid, at));
                state.marker = if marker.is_some() { Marker::Present } else { Marker::Unknown };
                Some(state)
            }
            Dent::File { size, etag, id, modified, .. } => {
                let path = self.path_in(link.parent, &link.name).ok()?;
                let meta = FileMeta::new(Kind::File, c.file_mode, c.uid, c.gid, *modified);
                let mut state = State::new(Some(link), meta);
                let version = staithe_store::Version { etag: etag.clone(), id: id.clone() };
                state.remote = Some(Remote { key: self.key(&path).ok()?, version, size: *size });
                state.meta_known = false;
                state.validated = Some(seen);
                Some(state)
            }
        }
    }

    /// Notes our own change of a name: outdates every answer that is under way, and remembers the new meaning.
    pub(crate) fn remember(&self, parent: Ino, name: &str, dent: Option<Dent>) {
        let now = Instant::now();
        let ttl = if dent.is_some() { self.metadata_ttl() } else { self.negative_ttl() };
        self.outdate_flat(parent);
        self.names.mutate(parent.0, name, dent, deadline(ttl, now));
    }
}

/// Takes in what the store says of an inode, if that is the version it has; says so.
fn renew(state: &mut State, meta: &FileMeta, remote: &Remote, asked: Instant) -> bool {
    if state.remote.as_ref().is_none_or(|r| r.version.etag != remote.version.etag) {
        return false;
    }
    if !state.is_dirty() {
        state.meta = meta.clone();
        state.meta_known = true;
    }
    state.remote = Some(remote.clone());
    state.validated = Some(asked);
    true
}

/// Takes in what a listing says of an inode that has the same bytes: another client may have stored them again.
/// Not what was listed before the inode was asked about.
fn take_listed(state: &mut State, dent: &Dent, seen: Instant) {
    let Dent::File { id, modified, told: true, .. } = dent else { return };
    let is_older = state.validated.is_some_and(|validated| seen < validated);
    if is_older || state.is_dirty() || state.is_local() {
        return;
    }
    if !state.meta_known {
        (state.meta.atime, state.meta.mtime, state.meta.ctime) = (*modified, *modified, *modified);
    }
    if let (Some(remote), Some(id)) = (state.remote.as_mut(), id) {
        remote.version.id = Some(id.clone());
    }
}

/// Whether a remembered name means this inode.
pub(crate) fn is_same(inode: &Inode, dent: &Dent) -> bool {
    match dent {
        Dent::Directory { .. } => inode.is_dir(),
        Dent::File { etag, .. } => {
            !inode.is_dir() && inode.state().remote.as_ref().is_some_and(|r| r.version.etag == *etag)
        }
    }
}

fn dent_of(answer: &Answer) -> Option<Dent> {
    match answer {
        Answer::Absent => None,
        Answer::Object(o, _) => Some(Dent::File {
            size: o.size,
            etag: o.version.etag.clone(),
            id: o.version.id.clone(),
            modified: o.last_modified,
            told: true,
            kind: None,
        }),
        Answer::Listed(o) => Some(Dent::from(o)),
        Answer::Directory { meta, .. } => {
            Some(Dent::Directory { marker: meta.as_ref().map(|m| m.last_modified) })
        }
    }
}

/// What is left of an answer, as the kernel takes it.
pub(crate) fn time_left(left: staithe_dentry::Ttl) -> Duration {
    left.as_duration().min(kernel_ttl(Ttl::Forever))
}

/// The dentry cache's deadline for what was learned at `now`.
pub(crate) fn deadline(ttl: Ttl, now: Instant) -> staithe_dentry::Deadline {
    let ttl = match ttl {
        Ttl::Zero => staithe_dentry::Ttl::None,
        Ttl::For(time) => staithe_dentry::Ttl::For(time),
        Ttl::Forever => staithe_dentry::Ttl::Forever,
    };
    ttl.deadline(now)
}

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use staithe_dentry::Dentries;
use staithe_lifecycle::Supervisor;
use staithe_parts::Budget;
use staithe_snapshot::SnapshotCell;
use staithe_store::{ObjectStore, Version};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::absences::Absences;
use crate::ahead::Ahead;
use crate::answers::Answers;
use crate::api::{Attr, Attributes, Entry, FsStats, Ino, Invalidation, Kind};
use crate::bodies::SmallBodies;
use crate::cache::{CacheStats, DiskCache};
use crate::commit::OnKept;
use crate::config::{AttributeSource, FsConfig, OnConflict, Ttl};
use crate::error::{FsError, FsErrorKind, Result};
use crate::fate::Fate;
use crate::flat::Flat;
use crate::handles::{DirHandle, FileHandle, Handles};
use crate::identity::{self, Identity};
use crate::inode::{Inode, Link, Marker, State, attr_of};
use crate::journal::Journal;
use crate::keep::Sayings;
use crate::live::Live;
use crate::locks::{PathGuard, PathLocks, Scope};
use crate::lookup::Dent;
use crate::metadata::FileMeta;
use crate::numbers::Numbers;
use crate::pace::Pace;
use crate::patience::{Patient, starting};
use crate::persist::{Jobs, jobs_of};
use crate::recall::Recall;
use crate::refresh::{Moment, Refreshes};
use crate::remote::kernel_ttl;
use crate::reserve::Reserve;
use crate::room::Room;
use crate::state_dir::StateDir;
use crate::table::InodeTable;
use crate::upload::{UPLOAD_PIECES, Uploads};

/// Share of the memory limit that small bodies fetched ahead of their open may hold.
const SMALL_BODIES_SHARE: u64 = 16;

/// Why no file is lent before anybody has said that they may be.
const NOT_ASKED: &str = "nobody asked for them";

/// A filesystem over an object store; every method may be called from any thread.
///
/// Methods whose name begins with `try_` answer from memory or not at all; the others may wait for the store.
pub struct Filesystem {
    pub(crate) me: Weak<Self>,
    /// What stays as it is; of the rest, only what it began with.
    pub(crate) config: FsConfig,
    pub(crate) live: Arc<SnapshotCell<Live>>,
    /// The one that is in force, patiently.
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) inodes: InodeTable,
    pub(crate) names: Dentries<Dent>,
    pub(crate) ahead: Ahead,
    pub(crate) flat: Flat,
    pub(crate) refreshes: Refreshes,
    pub(crate) absences: Absences,
    pub(crate) answers: Answers,
    pub(crate) recall: Arc<Recall>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) locks: PathLocks,
    pub(crate) files: Handles<FileHandle>,
    pub(crate) dirs: Handles<DirHandle>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pace: Pace,
    pub(crate) bodies: SmallBodies,
    pub(crate) cache: Option<Arc<DiskCache>>,
    pub(crate) may_lend: AtomicBool,
    /// Why not.
    pub(crate) lends_not: Mutex<Option<String>>,
    /// The same of new files, for writing.
    pub(crate) may_lend_new: AtomicBool,
    pub(crate) lends_no_new: Mutex<Option<String>>,
    /// The store's volume, by which the disk cache tells it from others.
    pub(crate) volume: Arc<str>,
    pub(crate) state_dir: StateDir,
    pub(crate) journal: Arc<Journal>,
    pub(crate) sayings: Sayings,
    pub(crate) room: Arc<Room>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) upload_room: Semaphore,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) jobs: Jobs,
    pub(crate) tasks: TaskTracker,
    chores: Supervisor,
    pub(crate) on_conflict: Mutex<Option<OnKept>>,
    draining: AtomicBool,
    tell: Mutex<Sender<Invalidation>>,
    told: Mutex<Option<Receiver<Invalidation>>>,
}

/// What a filesystem has on the local disk.
struct Local {
    state_dir: StateDir,
    journal: Journal,
    reserve: Arc<Reserve>,
    cache: Option<Arc<DiskCache>>,
    recall: Recall,
    numbers: Numbers,
    /// Of the volume.
    identity: Identity,
}

impl std::fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filesystem")
            .field("store", &self.store.url())
            .field("inodes", &self.inodes.len())
            .finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Opens a filesystem over `store`: locks the state directory, asks whether the volume is there, and
    /// finishes what an earlier run left in its journal. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The store's verdict on the volume; `Invalid` when the state directory is in use, or holds unfinished files
    /// of another volume, or of an earlier one of the same name; `NoSpace` and `Io` from the state directory.
    pub async fn open(store: Arc<dyn ObjectStore>, config: FsConfig) -> Result<Arc<Self>> {
        let state_dir = StateDir::open(&config.state_dir)?;
        starting(|| store.probe()).await?;
        let cache = config.cache.as_ref().map(DiskCache::open).transpose()?;
        let reserve = Reserve::new(state_dir.path());
        let journal = open_journal(state_dir.journal(), reserve.clone()).await?;
        let has_intents = !journal.pending()?.is_empty();
        state_dir.claim(&store.volume(), has_intents)?;
        let found = identity::find(&*store, &state_dir, has_intents).await?;
        let (volume, accepts_new) = (store.volume(), config.accept_new_volume);
        let is_proven =
            state_dir.check_identity(&volume, found.identity.as_deref(), has_intents, accepts_new)?;
        let identity = Identity::new(found, is_proven);
        reserve.take_over();
        let recall = open_recall(&state_dir, store.volume(), &config).await?;
        let numbers = open_numbers(&state_dir, store.volume()).await?;
        let local = Local { state_dir, journal, reserve, cache, recall, numbers, identity };
        let fs = Arc::new_cyclic(|me| Self::assemble(me, store, config, local));
        fs.admit_no_conditions();
        fs.recover().await?;
        fs.save_numbers_regularly();
        fs.store_after_trouble();
        fs.prove_identity();
        Ok(fs)
    }

    /// What goes on by itself, whoever uses the filesystem.
    pub fn chores(&self) -> &Supervisor {
        &self.chores
    }

    /// Has this done until the end, or until it returns.
    pub(crate) fn chore<F, R>(&self, name: &'static str, task: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        // An error says that the end has begun.
        let _ = self.chores.spawn_until_end(name, task);
    }

    /// Says once what a store without conditional writes means.
    pub(crate) fn admit_no_conditions(&self) {
        let can = self.store.capabilities();
        let is_needed = !self.config.read_only && self.live_config().on_conflict == OnConflict::KeepBoth;
        if is_needed && !(can.put_if_absent && can.put_if_match) {
            tracing::warn!(
                store = self.store.url(),
                "this store ignores conditions of writes: of two clients that write one file, the last one wins"
            );
        }
    }

    fn assemble(me: &Weak<Self>, store: Arc<dyn ObjectStore>, config: FsConfig, local: Local) -> Self {
        let (tell, told) = channel();
        let volume = Arc::from(store.volume());
        let pace = Pace::default();
        let recall = Arc::new(local.recall);
        let live = Arc::new(SnapshotCell::new(Live { config: config.live, store }));
        let fate = Arc::new(Fate::new(config.lifecycle, local.identity));
        let patient = Patient::new(live.clone(), pace.tried_again(), recall.clone(), fate.clone());
        let store: Arc<dyn ObjectStore> = Arc::new(patient);
        let runtime = tokio::runtime::Handle::current();
        let room = Room::new(config.staging_size, &local.state_dir.staging(), local.reserve);
        let now = SystemTime::now();
        let mut root =
            State::new(None, FileMeta::new(Kind::Directory, config.dir_mode, config.uid, config.gid, now));
        root.marker = Marker::Present;
        Self {
            me: me.clone(),
            live,
            store,
            inodes: InodeTable::new(root, local.numbers),
            names: Dentries::new(staithe_dentry::Config::default(), Instant::now()),
            ahead: Ahead::new(config.memory_limit / SMALL_BODIES_SHARE / 2),
            flat: Flat::default(),
            refreshes: Refreshes::default(),
            absences: Absences::default(),
            answers: Answers::default(),
            recall,
            fate,
            locks: PathLocks::default(),
            files: Handles::default(),
            dirs: Handles::default(),
            budget: Budget::new(config.memory_limit),
            pace,
            bodies: SmallBodies::new(config.memory_limit / SMALL_BODIES_SHARE),
            cache: local.cache,
            may_lend: AtomicBool::new(false),
            lends_not: Mutex::new(Some(String::from(NOT_ASKED))),
            may_lend_new: AtomicBool::new(false),
            lends_no_new: Mutex::new(Some(String::from(NOT_ASKED))),
            volume,
            state_dir: local.state_dir,
            journal: Arc::new(local.journal),
            sayings: Sayings::default(),
            room,
            jobs: jobs_of(me.clone(), runtime.clone()),
            chores: Supervisor::new(runtime.clone(), staithe_lifecycle::Budget::default()),
            runtime,
            upload_room: Semaphore::new(UPLOAD_PIECES),
            uploads: Arc::default(),
            tasks: TaskTracker::new(),
            on_conflict: Mutex::default(),
            draining: AtomicBool::new(false),
            tell: Mutex::new(tell),
            told: Mutex::new(Some(told)),
            config,
        }
    }

    /// The stream of what a kernel must forget. There is one; a second call gets a stream that has ended.
    /// To be drained by a thread that serves no requests.
    pub fn invalidations(&self) -> Receiver<Invalidation> {
        self.told.lock().take().unwrap_or_else(|| channel().1)
    }

    /// What an adapter's answers to a kernel are counted by, while they are made and sent.
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// From now on every change of names and every open for writing is refused as read-only; what is open may
    /// still be written and flushed.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The directory with staged bytes and the journal.
    pub fn state_dir(&self) -> &Path {
        self.state_dir.path()
    }

    /// Where fetched bytes are kept on the local disk; `None`: nowhere.
    pub fn cache_dir(&self) -> Option<&Path> {
        self.config.cache.as_ref().map(|cache| cache.dir.as_path())
    }

    /// What the disk cache holds; `None` without one.
    pub(crate) fn cache_stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(|cache| cache.stats())
    }

    /// Capacity figures. An object store has no end: an exbibyte, all of it free.
    pub fn statfs(&self) -> FsStats {
        let blocks = 1 << 48;
        FsStats { block_size: 4096, blocks, blocks_free: blocks, name_max: 255 }
    }

    /// The kernel dropped `count` references to `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// An entry of a directory stream was handed to the kernel, which counts one reference.
    pub fn entry_taken(&self, ino: Ino) {
        if let Ok(inode) = self.inodes.get(ino) {
            self.inodes.reference(&inode);
        }
    }

    /// Fails unless names may be changed here.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.config.read_only {
            return Err(FsError::new(FsErrorKind::ReadOnly, "this mount is read-only"));
        }
        if self.draining.load(Ordering::Acquire) {
            return Err(FsError::new(FsErrorKind::ReadOnly, "this mount is being unmounted"));
        }
        Ok(())
    }

    /// The live directory `ino`.
    ///
    /// # Errors
    /// `Stale` when it is gone, `NotDirectory` when it is something else.
    pub(crate) fn directory(&self, ino: Ino) -> Result<Arc<Inode>> {
        let dir = self.inodes.get(ino)?;
        if !dir.is_dir() {
            return Err(FsError::new(FsErrorKind::NotDirectory, format!("inode {} is no directory", ino.0)));
        }
        if ino != Ino::ROOT && dir.state().link.is_none() {
            return Err(FsError::new(FsErrorKind::Stale, format!("directory {} is gone", ino.0)));
        }
        Ok(dir)
    }

    /// Does what waits for the kernel, or looks at everything that is in memory: nothing for a thread that serves.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: what has begun comes to its end.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gone = || FsError::new(FsErrorKind::ReadOnly, "the filesystem is being closed");
        let fs = self.me.upgrade().ok_or_else(gone)?;
        let working = tokio::task::spawn_blocking(move || work(&fs));
        working.await.map_err(|e| FsError::caused(FsErrorKind::Io, "it was cut off", e))?
    }

    /// Locks the name `name` in `parent` and says its path; whatever is renamed meanwhile, path and lock agree.
    pub(crate) async fn lock_name(&self, parent: Ino, name: &str) -> Result<(PathGuard<'_>, String)> {
        self.lock_path(|| self.path_in(parent, name), Scope::Name).await
    }

    /// Locks what `path` says, as `scope`, until both agree.
    pub(crate) async fn lock_path(
        &self,
        path: impl Fn() -> Result<String>,
        scope: impl Fn(String) -> Scope,
    ) -> Result<(PathGuard<'_>, String)> {
        loop {
            let wanted = path()?;
            let guard = self.locks.acquire(vec![scope(wanted.clone())]).await;
            if path()? == wanted {
                return Ok((guard, wanted));
            }
        }
    }

    /// Tells the kernel, from another thread, that a name changed its meaning.
    pub(crate) fn announce(&self, change: Invalidation) {
        // The receiver is gone once the session has ended; nobody is left to be told.
        let _ = self.tell.lock().send(change);
    }

    /// Whether nobody has taken the stream of what the kernel must forget.
    pub(crate) fn is_unheard(&self) -> bool {
        self.told.lock().is_some()
    }

    /// An entry for the kernel, with one reference counted.
    pub(crate) fn entry(&self, inode: &Arc<Inode>, ttl: Duration) -> Entry {
        self.inodes.reference(inode);
        Entry { attr: inode.attr(), entry_ttl: ttl, attr_ttl: ttl }
    }

    /// As [`entry`](Self::entry), of what was learned at `moment`: if a refresh has run since, it is believed by
    /// nobody.
    pub(crate) fn entry_of(&self, inode: &Arc<Inode>, ttl: Duration, moment: Moment) -> Entry {
        let entry = self.entry(inode, ttl);
        if self.refreshes.none_since(moment) {
            return entry;
        }
        inode.doubt();
        Entry { entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO, ..entry }
    }

    /// For how long the kernel may believe what was just learned or done.
    pub(crate) fn ttl(&self) -> Duration {
        kernel_ttl(self.metadata_ttl())
    }

    /// The attributes, and for how long they may be believed: what came from the store only for the rest of its time.
    pub(crate) fn attributes_of(&self, ino: Ino, state: &State) -> Attributes {
        let attr: Attr = attr_of(ino, state);
        let age = match state.validated {
            Some(seen) if state.meta.kind != Kind::Directory && !state.is_local() => seen.elapsed(),
            _ => Duration::ZERO,
        };
        let ttl = match self.metadata_ttl() {
            // A refresh ran while they were asked for.
            _ if !state.meta_known && self.wants_full() && !state.is_local() => Duration::ZERO,
            Ttl::For(time) => time.saturating_sub(age),
            other => kernel_ttl(other),
        };
        Attributes { attr, ttl }
    }

    /// Whether attributes must come from the object itself.
    pub(crate) fn wants_full(&self) -> bool {
        self.config.attributes == AttributeSource::Full
    }

    /// The store has another version than `seen` under the name, or none: the inode goes on nameless for those
    /// who have it open, and kernel and cache forget the name. False, and nothing is done, if we have changed it
    /// ourselves meanwhile: bytes of ours that are not stored have the name until their commit meets the other
    /// version.
    pub(crate) fn supersede(&self, inode: &Arc<Inode>, seen: &Version) -> bool {
        let link = self.inodes.unlink_if(inode, |state| {
            let is_clean = !state.bytes_dirty;
            let is_it = is_clean && state.remote.as_ref().is_some_and(|r| r.version.etag == seen.etag);
            if is_it {
                (state.replaced, state.meta_dirty) = (true, false);
            }
            is_it
        });
        let Some(link) = link else { return false };
        // Attributes of ours that the former version was to have: no job will strike them out.
        let _ = self.void(&mut inode.state());
        self.lost(inode, &link);
        true
    }

    /// Tells the caches that `inode` has lost its name to another client.
    pub(crate) fn lost(&self, inode: &Arc<Inode>, link: &Link) {
        tracing::info!(parent = link.parent.0, name = &*link.name, ino = inode.ino.0, "changed in the store");
        self.outdate_flat(link.parent);
        self.names.forget(link.parent.0, &link.name);
        self.announce(Invalidation::Entry { parent: link.parent, name: link.name.to_string() });
        self.inodes.let_go(inode);
    }

    /// Notes that the object behind `inode` is what its name means, by a change of ours that began at `moment`.
    pub(crate) fn confirm(&self, inode: &Inode, moment: Moment) {
        let mut state = inode.state();
        state.validated = Some(Instant::now());
        let Some(link) = state.link.clone() else { return };
        let dent = match (&state.remote, inode.kind) {
            (_, Kind::Directory) => Dent::Directory { marker: None },
            (Some(remote), kind) => Dent::File {
                size: remote.size,
                etag: remote.version.etag.clone(),
                id: remote.version.id.clone(),
                modified: state.meta.mtime,
                told: false,
                kind: Some(kind),
            },
            (None, _) => return,
        };
        drop(state);
        self.remember_since(moment, link.parent, &link.name, Some(dent));
        self.doubt_since(moment, inode);
    }
}

/// Opens the journal off the runtime's threads: it reads files.
async fn open_journal(dir: std::path::PathBuf, reserve: Arc<Reserve>) -> Result<Journal> {
    tokio::task::spawn_blocking(move || Journal::open(&dir, reserve))
        .await
        .map_err(|e| FsError::caused(FsErrorKind::Io, "opening the journal failed", e))?
}

/// Opens what is kept of attributes, likewise.
async fn open_recall(state_dir: &StateDir, volume: String, config: &FsConfig) -> Result<Recall> {
    let dir = state_dir.attributes();
    let is_of_use = config.keep_attributes && config.attributes == AttributeSource::Full;
    tokio::task::spawn_blocking(move || Recall::open(&dir, &volume, is_of_use))
        .await
        .map_err(|e| FsError::caused(FsErrorKind::Io, "opening the kept attributes failed", e))
}

/// Opens what is kept of inode numbers, likewise.
async fn open_numbers(state_dir: &StateDir, volume: String) -> Result<Numbers> {
    let dir = state_dir.inodes();
    tokio::task::spawn_blocking(move || Numbers::open(&dir, &volume))
        .await
        .map_err(|e| FsError::caused(FsErrorKind::Io, "opening the kept inode numbers failed", e))
}

//! The records on the local disk, in an embedded database (fjall) of two generations.
//!
//! Eviction: what is kept or recalled goes into the young generation. When that holds half of what may be kept, the old
//! one is dropped, the young one becomes the old one, and a new one begins. So what was used least recently goes first,
//! a generation at a time, and nothing is written down for it.
//!
//! One thread writes, in batches, each in the hands of the operating system when it is done: kill -9 loses what was not
//! written yet. A damaged database is set aside as `attributes.damaged`, in place of an earlier one; that of another
//! volume is removed. Where the disk fails otherwise, nothing is kept in this run, and what is there stays.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};
use staithe_store::{Key, ObjectSummary};
use tokio::sync::oneshot;

use super::record::Record;

/// Records on their way to the disk; what does not find room is not kept.
const QUEUE: usize = 8192;
/// Records written at once.
const BATCH: usize = 1024;
/// Blocks of the database that stay in memory, in bytes.
const CACHE_BYTES: u64 = 8 << 20;
/// How much a generation gathers in memory before it writes a table, in bytes.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// The least that the database takes for its write-ahead logs together, in bytes.
const LOG_BYTES: u64 = 64 << 20;
/// Files that the database keeps open.
const OPEN_FILES: usize = 32;
/// Where it is written down whose objects these are, and in which form.
const ABOUT: &str = "about";
/// What the names of generations begin with; the number follows.
const GENERATION: &str = "generation-";

/// What may be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Records.
    pub(super) records: u64,
    /// Bytes of keys and records.
    pub(super) bytes: u64,
}

impl Limits {
    /// A million objects, 512 MiB.
    pub(super) const DEFAULT: Self = Self { records: 1_000_000, bytes: 512 << 20 };
}

/// The open database, and the thread that writes to it; dropping it ends the thread, once all is written.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    send: Option<Sender<Work>>,
    writer: Option<JoinHandle<()>>,
}

enum Work {
    /// In place of any other of its key.
    Keep(Key, Record),
    /// The old generation had this when it was recalled.
    Renew(Key),
    /// Whoever asks for this finds nothing already.
    Forget(Key),
    /// Everything before it is on the disk when this is dropped.
    Settle(oneshot::Sender<()>),
}

/// What is to become of a key; the last one counts.
enum Change {
    Keep(Record),
    Renew,
    Forget,
}

struct Shared {
    database: Database,
    generations: RwLock<Generations>,
    limits: Limits,
    /// Records in both generations.
    count: AtomicU64,
    /// Records on their way.
    queued: AtomicUsize,
    /// Keys that are forgotten, until the disk says so, too.
    gone: Mutex<HashSet<Key>>,
    /// The disk has failed: nothing more is written.
    failed: AtomicBool,
}

#[derive(Clone)]
struct Generations {
    number: u64,
    young: Keyspace,
    old: Keyspace,
}

/// How much a generation holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    records: u64,
    bytes: u64,
}

impl Disk {
    /// Opens the database in `dir`, which nobody else has open, or begins a new one. `None` if that cannot be: it has
    /// been said why. Blocks.
    pub(super) fn open(dir: &Path, volume: &str, limits: Limits) -> Option<Self> {
        let shared = match Shared::open(dir, volume, limits) {
            Ok(Some(shared)) => Ok(shared),
            Ok(None) => {
                tracing::info!(dir = %dir.display(), "the attributes kept there are of another volume: removed");
                begin_anew(dir, volume, limits)
            }
            Err(error) if is_damage(&error) => {
                tracing::warn!(dir = %dir.display(), %error, "the attributes kept there cannot be read: set aside");
                set_aside(dir).map_err(fjall::Error::from).and_then(|()| begin_anew(dir, volume, limits))
            }
            Err(error) => Err(error),
        };
        let shared = shared.inspect_err(|error| {
            tracing::warn!(dir = %dir.display(), %error, "attributes cannot be kept for the next run");
        });
        let shared = Arc::new(shared.ok()?);
        let (send, work) = channel();
        let writes = shared.clone();
        let writer = thread::Builder::new().name("staithe-recall".to_owned());
        let writer = writer.spawn(move || writes.write_all(&work)).ok()?;
        Some(Self { shared, send: Some(send), writer: Some(writer) })
    }

    /// How many records there are; of what an earlier run kept, as soon as it is counted. O(1).
    pub(super) fn len(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Keeps a record, in place of any other of its key, unless too many are on their way already.
    pub(super) fn keep(&self, key: Key, record: Record) {
        self.queue(Work::Keep(key, record));
    }

    fn queue(&self, work: Work) {
        // Full: it is asked for again in the next run.
        let has_room = self.shared.queued.load(Ordering::Relaxed) < QUEUE;
        if let Some(send) = self.send.as_ref().filter(|_| has_room) {
            self.shared.queued.fetch_add(1, Ordering::Relaxed);
            // The writer ends when this does.
            let _ = send.send(work);
        }
    }

    /// Forgets the record of a key. Never refused: each goes with a change in the store, which takes longer.
    pub(super) fn forget(&self, key: Key) {
        if let Some(send) = &self.send {
            self.shared.gone.lock().insert(key.clone());
            self.shared.queued.fetch_add(1, Ordering::Relaxed);
            let _ = send.send(Work::Forget(key));
        }
    }

    /// The record of a key, if it is the `wanted` one. Blocks on the local disk.
    pub(super) fn recall(&self, key: &Key, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
        if self.shared.gone.lock().contains(key) {
            return None;
        }
        let Generations { young, old, .. } = self.shared.generations.read().clone();
        if let Some(record) = read(&young, key) {
            return Some(record).filter(wanted);
        }
        let record = read(&old, key).filter(wanted)?;
        self.queue(Work::Renew(key.clone()));
        Some(record)
    }

    /// As [`recall`](Self::recall), of a listed object, and it does not count as used. Blocks on the local disk.
    pub(super) fn look_at(&self, listed: &ObjectSummary) -> Option<Record> {
        if self.shared.gone.lock().contains(&listed.key) {
            return None;
        }
        let Generations { young, old, .. } = self.shared.generations.read().clone();
        let record = read(&young, &listed.key).or_else(|| read(&old, &listed.key))?;
        Some(record).filter(|record| record.is_of(&listed.etag, listed.size, listed.last_modified))
    }

    /// Waits until everything that was kept until now is on the disk.
    pub(super) async fn settle(&self) {
        let Some(send) = self.send.clone() else { return };
        let (settle, settled) = oneshot::channel();
        if send.send(Work::Settle(settle)).is_ok() {
            // Nothing is ever sent: this ends when the sender is dropped.
            let _ = settled.await;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.send = None;
        if let Some(writer) = self.writer.take() {
            // A panic there has been reported.
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// `None` for a database of another volume.
    fn open(dir: &Path, volume: &str, limits: Limits) -> fjall::Result<Option<Self>> {
        let database = Database::builder(dir)
            .worker_threads(1)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(LOG_BYTES)
            .open()?;
        let about = keyspace(&database, ABOUT)?;
        match about.get("volume")? {
            None => about.insert("volume", volume)?,
            Some(other) if *other == *volume.as_bytes() => {}
            Some(_) => return Ok(None),
        }
        let mut numbers: Vec<u64> = database
            .list_keyspace_names()
            .iter()
            .filter_map(|name| name.strip_prefix(GENERATION)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let number = numbers.last().copied().unwrap_or(1).max(1);
        // A crash may have left one that was to be dropped.
        for gone in numbers.into_iter().filter(|n| n + 1 < number) {
            database.delete_keyspace(generation(&database, gone)?)?;
        }
        let (young, old) = (generation(&database, number)?, generation(&database, number - 1)?);
        // All will be counted; what is there is of use before.
        let is_any = !young.is_empty()? || !old.is_empty()?;
        let generations = RwLock::new(Generations { number, young, old });
        let (count, failed) = (AtomicU64::new(u64::from(is_any)), AtomicBool::new(false));
        let (queued, gone) = (AtomicUsize::new(0), Mutex::default());
        Ok(Some(Self { database, generations, limits, count, queued, gone, failed }))
    }

    /// Counts what is there, and writes what comes until nobody can send any more.
    fn write_all(&self, work: &Receiver<Work>) {
        let mut held = self.count_all().unwrap_or_default();
        while let Ok(first) = work.recv() {
            let mut changes = HashMap::new();
            let mut settled = Vec::new();
            for work in std::iter::once(first).chain(work.try_iter().take(BATCH - 1)) {
                let (key, change) = match work {
                    Work::Settle(settle) => {
                        settled.push(settle);
                        continue;
                    }
                    Work::Keep(key, record) => (key, Change::Keep(record)),
                    Work::Renew(key) => (key, Change::Renew),
                    Work::Forget(key) => (key, Change::Forget),
                };
                self.queued.fetch_sub(1, Ordering::Relaxed);
                match change {
                    Change::Renew => drop(changes.entry(key).or_insert(Change::Renew)),
                    change => drop(changes.insert(key, change)),
                }
            }
            if !self.failed.load(Ordering::Relaxed)
                && let Err(error) = self.write(changes, &mut held)
            {
                tracing::warn!(%error, "attributes are not kept for the next run any more");
                self.failed.store(true, Ordering::Relaxed);
            }
            drop(settled);
        }
    }

    fn count_all(&self) -> fjall::Result<Held> {
        let Generations { young, old, .. } = self.generations.read().clone();
        let mut held = Held::default();
        for guard in young.iter() {
            let (key, record) = guard.into_inner()?;
            held.records += 1;
            held.bytes += (key.len() + record.len()) as u64;
        }
        self.count.store(held.records + old.len()? as u64, Ordering::Relaxed);
        Ok(held)
    }

    fn write(&self, changes: HashMap<Key, Change>, held: &mut Held) -> fjall::Result<()> {
        let Generations { young, old, .. } = self.generations.read().clone();
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        let mut forgotten = HashSet::new();
        for (key, change) in changes {
            let before = young.get(key.as_str())?;
            let is_new = before.is_none();
            let known = before.as_deref().and_then(Record::decode);
            let record = match change {
                Change::Keep(record) => Some(record).filter(|r| !known.is_some_and(|k| k.says_all_of(r))),
                Change::Renew if is_new => read(&old, &key),
                Change::Renew => None,
                Change::Forget => {
                    let of_old = u64::from(old.contains_key(key.as_str())?);
                    let bytes = before.map_or(0, |before| before.len() + key.as_str().len());
                    held.bytes = held.bytes.saturating_sub(bytes as u64);
                    held.records = held.records.saturating_sub(u64::from(!is_new));
                    self.uncount(of_old + u64::from(!is_new));
                    batch.remove(&young, key.as_str());
                    batch.remove(&old, key.as_str());
                    forgotten.insert(key);
                    continue;
                }
            };
            let Some(bytes) = record.and_then(|record| record.encode()) else { continue };
            held.bytes += bytes.len() as u64;
            if let Some(before) = before {
                held.bytes = held.bytes.saturating_sub(before.len() as u64);
            } else {
                held.records += 1;
                held.bytes += key.as_str().len() as u64;
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            batch.insert(&young, key.as_str(), bytes);
        }
        batch.commit()?;
        self.gone.lock().retain(|key| !forgotten.contains(key));
        if held.records * 2 >= self.limits.records || held.bytes * 2 >= self.limits.bytes {
            self.turn(held.records)?;
            *held = Held::default();
        }
        Ok(())
    }

    fn uncount(&self, records: u64) {
        let _ = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(records)));
    }

    /// Begins a new generation; the old one goes.
    fn turn(&self, young: u64) -> fjall::Result<()> {
        let Generations { number, young: next_old, old } = self.generations.read().clone();
        let next = generation(&self.database, number + 1)?;
        *self.generations.write() = Generations { number: number + 1, young: next, old: next_old };
        self.count.store(young, Ordering::Relaxed);
        self.database.delete_keyspace(old)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("limits", &self.limits)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Removes what is in `dir`.
fn begin_anew(dir: &Path, volume: &str, limits: Limits) -> fjall::Result<Shared> {
    remove(dir)?;
    let other = || fjall::Error::Io(std::io::Error::other("a new database is of another volume"));
    Shared::open(dir, volume, limits)?.ok_or_else(other)
}

/// Keeps a damaged database for whoever wants to look at it, in place of an earlier one.
fn set_aside(dir: &Path) -> std::io::Result<()> {
    let aside = dir.with_extension("damaged");
    remove(&aside)?;
    std::fs::rename(dir, &aside)
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether what was read makes no sense. Anything else may be over by the next run: no room, no descriptor, no right,
/// or that somebody else has it open.
fn is_damage(error: &fjall::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), InvalidData | NotFound | UnexpectedEof);
        }
        next = cause.source();
    }
    !matches!(error, fjall::Error::Locked | fjall::Error::Poisoned)
}

fn keyspace(database: &Database, name: &str) -> fjall::Result<Keyspace> {
    database.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))
}

fn generation(database: &Database, number: u64) -> fjall::Result<Keyspace> {
    keyspace(database, &format!("{GENERATION}{number}"))
}

/// What cannot be read is asked for again.
fn read(generation: &Keyspace, key: &Key) -> Option<Record> {
    generation.get(key.as_str()).ok().flatten().as_deref().and_then(Record::decode)
}

#[cfg(test)]
mod tests;

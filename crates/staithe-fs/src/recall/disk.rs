//! The records on the local disk, in an embedded database (fjall) of two generations.
//!
//! Eviction: what is kept or recalled goes into the young generation. When that holds half of what may be kept, the old
//! one is dropped, the young one becomes the old one, and a new one begins. So what was used least recently goes first,
//! a generation at a time, and nothing is written down for it.
//!
//! One thread writes, in batches, each in the hands of the operating system when it is done: kill -9 loses what was not
//! written yet. A database that cannot be opened, or is of another volume, is set aside as `attributes.damaged`, in
//! place of an earlier one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::RwLock;
use staithe_store::Key;
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
    send: Option<SyncSender<Work>>,
    writer: Option<JoinHandle<()>>,
}

enum Work {
    Keep(Key, Record),
    /// Everything before it is on the disk when this is dropped.
    Settle(oneshot::Sender<()>),
}

struct Shared {
    database: Database,
    generations: RwLock<Generations>,
    limits: Limits,
    /// Records in both generations.
    count: AtomicU64,
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
                tracing::warn!(dir = %dir.display(), "the attributes kept there are of another volume: set aside");
                begin_anew(dir, volume, limits)
            }
            Err(error) if matches!(error, fjall::Error::Locked) => Err(error),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "the attributes kept there cannot be read: set aside");
                begin_anew(dir, volume, limits)
            }
        };
        let shared = shared.inspect_err(|error| {
            tracing::warn!(dir = %dir.display(), %error, "attributes cannot be kept for the next run");
        });
        let shared = Arc::new(shared.ok()?);
        let (send, work) = sync_channel(QUEUE);
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
        if let Some(send) = &self.send {
            // Full: it is asked for again in the next run.
            let _ = send.try_send(Work::Keep(key, record));
        }
    }

    /// The record of a key, if it is the `wanted` one. Blocks on the local disk.
    pub(super) fn recall(&self, key: &Key, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
        let Generations { young, old, .. } = self.shared.generations.read().clone();
        if let Some(record) = read(&young, key) {
            return Some(record).filter(wanted);
        }
        let record = read(&old, key).filter(wanted)?;
        self.keep(key.clone(), record.clone());
        Some(record)
    }

    /// Waits until everything that was kept until now is on the disk.
    pub(super) async fn settle(&self) {
        let Some(send) = self.send.clone() else { return };
        let (settle, settled) = oneshot::channel();
        // The queue may be full for a moment.
        let asking = tokio::task::spawn_blocking(move || send.send(Work::Settle(settle)).is_ok());
        if asking.await.unwrap_or(false) {
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
        Ok(Some(Self { database, generations, limits, count, failed }))
    }

    /// Counts what is there, and writes what comes until nobody can send any more.
    fn write_all(&self, work: &Receiver<Work>) {
        let mut held = self.count_all().unwrap_or_default();
        while let Ok(first) = work.recv() {
            let mut records = HashMap::new();
            let mut settled = Vec::new();
            for work in std::iter::once(first).chain(work.try_iter().take(BATCH - 1)) {
                match work {
                    Work::Keep(key, record) => {
                        records.insert(key, record);
                    }
                    Work::Settle(settle) => settled.push(settle),
                }
            }
            if !self.failed.load(Ordering::Relaxed)
                && let Err(error) = self.write(records, &mut held)
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

    fn write(&self, records: HashMap<Key, Record>, held: &mut Held) -> fjall::Result<()> {
        let young = self.generations.read().young.clone();
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for (key, record) in records {
            let before = young.get(key.as_str())?;
            let is_known =
                before.as_deref().and_then(Record::decode).is_some_and(|before| before.says_all_of(&record));
            let Some(bytes) = record.encode().filter(|_| !is_known) else { continue };
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
        if held.records * 2 >= self.limits.records || held.bytes * 2 >= self.limits.bytes {
            self.turn(held.records)?;
            *held = Held::default();
        }
        Ok(())
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

fn begin_anew(dir: &Path, volume: &str, limits: Limits) -> fjall::Result<Shared> {
    let aside = dir.with_extension("damaged");
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::rename(dir, &aside)?;
    let other = || fjall::Error::Io(std::io::Error::other("a new database is of another volume"));
    Shared::open(dir, volume, limits)?.ok_or_else(other)
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

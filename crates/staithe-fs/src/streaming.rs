//! Uploading while the file is still being written: full parts of a file written from its beginning go to the
//! store at once, so that close waits for the last part only.
//!
//! Invariants:
//! 1. A part counts only while nothing in its range has changed since its bytes were read: a change takes it out
//!    of the table, or spoils it while it is on its way.
//! 2. A part is on its way once at a time: of two, the older bytes could arrive last and stay.
//! 3. Nothing is visible in the store before the commit completes the upload.
//!
//! Lock order: an inode's state, then this table.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use staithe_store::{PartNumber, PartReceipt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::commit::{Job, Outcome};
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, State};
use crate::layout::{PartLayout, WHOLE_BELOW};
use crate::metadata::FileMeta;
use crate::upload::{KnownUpload, PARTS_AT_ONCE};

/// An upload that runs while its file is written.
#[derive(Debug)]
pub(crate) struct Streaming {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// A part of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// On its way.
    Sent,
    /// On its way with bytes that have changed since.
    Spoiled,
    /// There.
    Arrived(PartReceipt),
}

type Table = BTreeMap<PartNumber, Part>;

#[derive(Debug, Default)]
struct Shared {
    parts: Mutex<Parts>,
    wake: Notify,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Parts {
    /// The upload and the attributes that it began with.
    begun: Option<(KnownUpload, FileMeta)>,
    /// Bytes from the start of the file that have been written without a gap.
    written: u64,
    /// Every part below this number is in the table.
    first_open: u16,
    table: Table,
    failed: bool,
}

impl Filesystem {
    /// After a change of `range`: begins an upload when the file has grown large from its beginning, or tells
    /// the one that runs.
    pub(crate) fn stream(&self, inode: &Arc<Inode>, state: &mut State, range: Range<u64>) {
        let Some(staged) = &state.staged else { return };
        let written = staged.dirty().first().filter(|r| r.start == 0).map_or(0, |r| r.end);
        if let Some(streaming) = &state.streaming {
            streaming.shared.changed(&self.layout(), range, written);
            return;
        }
        // Not while a commit runs either: that gives the file a base.
        let is_new = staged.base_size().is_none() && !staged.is_committing();
        let fit = is_new && state.link.is_some() && state.meta_known && !self.writes_back();
        let (true, true, Some(fs)) = (fit, written >= WHOLE_BELOW, self.me.upgrade()) else { return };
        let shared = Arc::new(Shared::default());
        shared.parts.lock().written = written;
        let (inode, running) = (inode.clone(), shared.clone());
        let task = self.runtime.spawn(async move {
            if let Err(error) = fs.run_streaming(&inode, &running).await {
                tracing::debug!(ino = inode.ino.0, %error, "uploading ahead failed; close will upload");
                running.parts.lock().failed = true;
            }
        });
        state.streaming = Some(Streaming { shared, task: Some(task) });
    }

    async fn run_streaming(&self, inode: &Arc<Inode>, shared: &Shared) -> Result<()> {
        let key = self.key(&self.inodes.path(inode.ino)?)?;
        let meta = {
            let mut state = inode.state();
            let changes = state.changes;
            let write_id = Some(state.tries.id(changes));
            FileMeta { write_id, ..state.meta.clone() }
        };
        let known = self.begin_upload(&key, &meta).await?;
        shared.parts.lock().begun = Some((known.clone(), meta));
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < PARTS_AT_ONCE && !shared.stop.load(Ordering::Acquire) {
                let Some((number, range)) = shared.next_part(&self.layout()) else { break };
                let (upload, inode) = (&known.upload, inode);
                under_way.push(self.send_local(inode, upload, number, range));
            }
            if under_way.is_empty() && shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            tokio::select! {
                () = shared.wake.notified() => {}
                Some(sent) = under_way.next(), if !under_way.is_empty() => {
                    shared.arrived(sent?);
                }
            }
        }
    }

    /// Commits a file whose parts were uploaded ahead: sends what is missing, and completes.
    pub(crate) async fn finish_streaming(
        &self,
        inode: &Arc<Inode>,
        streaming: Streaming,
        door: &Door<'_>,
    ) -> Result<Outcome> {
        let shared = streaming.stop().await;
        let begun = {
            let parts = shared.parts.lock();
            parts.begun.clone().filter(|_| !parts.failed)
        };
        let Some((known, sent_meta)) = begun else {
            // Nothing was begun, or it failed: the next try plans an upload of its own.
            self.abandon_shared(&shared).await;
            return Ok(Outcome::Moved);
        };
        let begun = {
            let mut state = inode.state();
            // A commit may have given it a base since, or a truncation taken all of it.
            let fits = state.staged.as_ref().is_some_and(|s| s.base_size().is_none() && s.size() > 0);
            // Under the state's lock: no write is between this and the bytes that the job stands for.
            if fits { Some((self.begin(&mut state)?, shared.parts.lock().table.clone())) } else { None }
        };
        let Some((mut job, present)) = begun else {
            self.abandon_shared(&shared).await;
            return Ok(Outcome::Moved);
        };
        job.meta.write_id.clone_from(&sent_meta.write_id);
        match door.unless_stopped(self.send_missing(inode, &known, &job, &present)).await {
            Ok(receipts) => match self.complete(inode, job, known, &receipts, door).await? {
                Outcome::Stored(done) => Ok(Outcome::Stored(Box::new((done.0, sent_meta)))),
                Outcome::Moved => Ok(Outcome::Moved),
            },
            Err(error) => {
                self.abort_upload(&known).await;
                Err(error)
            }
        }
    }

    async fn send_missing(
        &self,
        inode: &Arc<Inode>,
        known: &KnownUpload,
        job: &Job,
        present: &Table,
    ) -> Result<Vec<PartReceipt>> {
        let layout = self.layout();
        let last = layout.part_of(job.size.saturating_sub(1));
        let last = last.ok_or_else(|| FsError::new(FsErrorKind::TooLarge, "the file has too many parts"))?;
        let numbers = (1..=last.get()).filter_map(PartNumber::new);
        let parts = numbers.map(|number| {
            let whole = layout.range(number);
            let range = whole.start..whole.end.min(job.size);
            let done = match present.get(&number) {
                Some(Part::Arrived(receipt)) if range.end == whole.end => Some(receipt.clone()),
                _ => None,
            };
            async move {
                match done {
                    Some(receipt) => Ok(receipt),
                    None => self.send_local(inode, &known.upload, number, range).await,
                }
            }
        });
        futures::stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await
    }

    /// Gives an upload up, in the background.
    pub(crate) fn abandon(&self, streaming: Streaming) {
        let Some(fs) = self.me.upgrade() else { return };
        self.tasks.spawn_on(
            async move {
                let shared = streaming.stop().await;
                fs.abandon_shared(&shared).await;
            },
            &self.runtime,
        );
    }

    async fn abandon_shared(&self, shared: &Shared) {
        let begun = shared.parts.lock().begun.take();
        if let Some((known, _)) = begun {
            self.abort_upload(&known).await;
        }
    }
}

impl Streaming {
    /// Lets what is under way arrive, and begins nothing more.
    async fn stop(mut self) -> Arc<Shared> {
        self.shared.stop();
        let ended = match self.task.as_mut() {
            Some(task) => task.await,
            None => Ok(()),
        };
        self.task = None;
        if let Err(error) = ended {
            tracing::error!(%error, "an upload ahead ended early");
            self.shared.parts.lock().failed = true;
        }
        self.shared.clone()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(task) = &self.task {
            // The journal knows of the upload; the next start aborts it.
            task.abort();
        }
    }
}

impl Shared {
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn changed(&self, layout: &PartLayout, range: Range<u64>, written: u64) {
        let mut guard = self.parts.lock();
        let parts = &mut *guard;
        parts.written = written;
        let first = layout.part_of(range.start).filter(|_| !range.is_empty());
        let touched: Vec<PartNumber> = match first {
            Some(first) => parts.table.range(first..).map(|(number, _)| *number).collect(),
            None => Vec::new(),
        };
        for number in touched.into_iter().take_while(|n| layout.range(*n).start < range.end) {
            if let Some(part) = parts.table.get_mut(&number).filter(|p| !matches!(p, Part::Arrived(_))) {
                *part = Part::Spoiled;
            } else {
                parts.take_out(number);
            }
        }
        drop(guard);
        self.wake.notify_one();
    }

    /// The first full part that is neither there nor on its way.
    fn next_part(&self, layout: &PartLayout) -> Option<(PartNumber, Range<u64>)> {
        let mut parts = self.parts.lock();
        let numbers = (parts.first_open.max(1)..=PartNumber::MAX).filter_map(PartNumber::new);
        let number = numbers.into_iter().find(|n| !parts.table.contains_key(n))?;
        parts.first_open = number.get();
        let range = layout.range(number);
        if range.end > parts.written {
            return None;
        }
        parts.table.insert(number, Part::Sent);
        Some((number, range))
    }

    fn arrived(&self, receipt: PartReceipt) {
        let mut parts = self.parts.lock();
        let number = receipt.number;
        match parts.table.get(&number) {
            Some(Part::Sent) => drop(parts.table.insert(number, Part::Arrived(receipt))),
            _ => parts.take_out(number),
        }
    }
}

impl Parts {
    fn take_out(&mut self, number: PartNumber) {
        self.table.remove(&number);
        self.first_open = self.first_open.min(number.get());
    }
}

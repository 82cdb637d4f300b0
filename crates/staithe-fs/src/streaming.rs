//! Uploading while the file is still being written: full parts of a file written from its beginning go to the
//! store at once, so that close waits for the last part only.
//!
//! Invariants:
//! 1. A part counts only while nothing in its range has changed since its bytes were read: a change takes it out
//!    of the table, and the answer to an upload of it is then ignored.
//! 2. Nothing is visible in the store before the commit completes the upload.
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
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, State};
use crate::layout::WHOLE_BELOW;
use crate::metadata::FileMeta;
use crate::upload::{KnownUpload, PARTS_AT_ONCE};

/// An upload that runs while its file is written.
#[derive(Debug)]
pub(crate) struct Streaming {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

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
    next_ticket: u64,
    /// A receipt where the part has arrived.
    table: BTreeMap<PartNumber, (u64, Option<PartReceipt>)>,
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
        let fit = staged.base_size().is_none() && state.link.is_some() && state.meta_known;
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
        state.streaming = Some(Streaming { shared, task });
    }

    async fn run_streaming(&self, inode: &Arc<Inode>, shared: &Shared) -> Result<()> {
        let key = self.key(&self.inodes.path(inode.ino)?)?;
        let mut meta = inode.state().meta.clone();
        meta.write_id = Some(crate::create::new_write_id());
        let known = self.begin_upload(&key, &meta).await?;
        shared.parts.lock().begun = Some((known.clone(), meta));
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < PARTS_AT_ONCE && !shared.stop.load(Ordering::Acquire) {
                let Some((number, ticket, range)) = shared.next_part(&self.layout()) else { break };
                let (upload, inode) = (&known.upload, inode);
                under_way.push(async move {
                    let receipt = self.send_local(inode, upload, number, range).await?;
                    Ok::<_, FsError>((ticket, receipt))
                });
            }
            if under_way.is_empty() && shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            tokio::select! {
                () = shared.wake.notified() => {}
                Some(sent) = under_way.next(), if !under_way.is_empty() => {
                    let (ticket, receipt) = sent?;
                    shared.arrived(ticket, receipt);
                }
            }
        }
    }

    /// Commits a file whose parts were uploaded ahead: sends what is missing, and completes.
    pub(crate) async fn finish_streaming(
        &self,
        inode: &Arc<Inode>,
        streaming: Streaming,
    ) -> Result<(Job, Outcome)> {
        let shared = streaming.stop().await;
        // A commit that ran meanwhile has given the file a base, which parts that are all local know not of.
        let has_base = inode.state().staged.as_ref().is_none_or(|s| s.base_size().is_some());
        let begun = {
            let parts = shared.parts.lock();
            parts.begun.clone().filter(|_| !parts.failed && !has_base)
        };
        let Some((known, sent_meta)) = begun else {
            self.abandon_shared(&shared).await;
            // Nothing was begun, or it came to nothing: the next try plans an upload of its own.
            let job = Self::begin(&mut inode.state())?;
            return Ok((job, Outcome::Moved));
        };
        let (mut job, present) = {
            let mut state = inode.state();
            let job = Self::begin(&mut state)?;
            // Under the state's lock: no write is between this and the bytes that the job stands for.
            (job, shared.parts.lock().table.clone())
        };
        let wanted = job.meta.clone();
        job.meta.write_id.clone_from(&sent_meta.write_id);
        if let Some(write_id) = &sent_meta.write_id {
            inode.state().sent_as(write_id);
        }
        match self.send_missing(inode, &known, &job, &present).await {
            Ok(receipts) => {
                let (job, outcome) = self.complete(inode, job, known, &receipts).await?;
                let outcome = match outcome {
                    Outcome::Stored(key, written, _) => {
                        Outcome::Stored(key, written, FileMeta { write_id: wanted.write_id, ..sent_meta })
                    }
                    Outcome::Moved => Outcome::Moved,
                };
                Ok((job, outcome))
            }
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
        present: &BTreeMap<PartNumber, (u64, Option<PartReceipt>)>,
    ) -> Result<Vec<PartReceipt>> {
        let layout = self.layout();
        let last = layout.part_of(job.size - 1);
        let last = last.ok_or_else(|| FsError::new(FsErrorKind::TooLarge, "the file has too many parts"))?;
        let numbers = (1..=last.get()).filter_map(PartNumber::new);
        let parts = numbers.map(|number| {
            let whole = layout.range(number);
            let range = whole.start..whole.end.min(job.size);
            let done = present.get(&number).and_then(|(_, r)| r.clone()).filter(|_| range.end == whole.end);
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
    async fn stop(self) -> Arc<Shared> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "an upload ahead ended early");
            self.shared.parts.lock().failed = true;
        }
        self.shared
    }
}

impl Shared {
    fn changed(&self, layout: &crate::layout::PartLayout, range: Range<u64>, written: u64) {
        let mut parts = self.parts.lock();
        parts.written = written;
        parts.table.retain(|number, _| {
            let part = layout.range(*number);
            part.end <= range.start || range.end <= part.start
        });
        drop(parts);
        self.wake.notify_one();
    }

    /// The first full part that is not on its way.
    fn next_part(&self, layout: &crate::layout::PartLayout) -> Option<(PartNumber, u64, Range<u64>)> {
        let mut parts = self.parts.lock();
        let numbers = (1..=PartNumber::MAX).filter_map(PartNumber::new);
        let number = {
            let table = &parts.table;
            numbers.into_iter().find(|n| !table.contains_key(n))?
        };
        let range = layout.range(number);
        if range.end > parts.written {
            return None;
        }
        let ticket = parts.next_ticket;
        parts.next_ticket += 1;
        parts.table.insert(number, (ticket, None));
        Some((number, ticket, range))
    }

    fn arrived(&self, ticket: u64, receipt: PartReceipt) {
        let mut parts = self.parts.lock();
        if let Some((mine, slot)) = parts.table.get_mut(&receipt.number) {
            if *mine == ticket {
                *slot = Some(receipt);
            }
        }
    }
}

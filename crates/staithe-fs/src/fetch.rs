//! What feeds the part queues: one task a range, pinned to one version, resumed where it broke.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use staithe_parts::{Fetch, PartQueue, PlannerConfig, QueueState, ReadError};
use staithe_snapshot::Epoch;
use staithe_store::{ETag, ErrorKind, GetRequest, GetResponse, StoreError, Version};

use crate::api::ReadData;
use crate::cache::CachedFile;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::handles::FileHandle;
use crate::hedge::Pulse;
use crate::inode::{Inode, Remote};
use crate::patience::Backoff;
use crate::refresh::Moment;

/// The largest object that is held until its checksum, which is for whole objects, has been seen to match.
const CHECKED_WHOLE: u64 = 1 << 20;

/// How much is read from the disk cache at once on its way into a queue, in bytes.
const CACHED_AT_ONCE: u64 = 1 << 20;

/// Where the body of one request goes.
pub(crate) struct Destination<'a> {
    pub(crate) fetch: &'a Fetch<Content, FsError>,
    /// Where the request ends.
    pub(crate) end: u64,
    /// The inode's content that it is of.
    pub(crate) content: u64,
    /// Where it is kept on the local disk.
    pub(crate) cached: Option<&'a Arc<CachedFile>>,
}

/// The bytes of one version on their way to one reader.
pub(crate) type Queue = PartQueue<Content, FsError>;

/// A handle's queue, and since when.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) queue: Arc<Queue>,
    /// What was in force when it was made.
    since: Epoch,
}

impl Reading {
    /// Whether it failed with what may not be in force any more: then it is tried anew with what is.
    fn is_outlived(&self, now: Epoch) -> bool {
        self.since != now && self.queue.stats().state != QueueState::Streaming
    }
}

/// What a part queue calls the version: an inode's content keeps its number when a rename moves it to another
/// key, and there to another entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// The inode's content of this number.
    Ours(u64),
    /// The store answered with something else.
    Foreign(ETag),
}

impl Filesystem {
    /// Reads `len` bytes (not beyond the end) of the stored object, through the handle's queue. `None`: the file was
    /// stored anew meanwhile, and its bytes are elsewhere.
    pub(crate) async fn read_stored(
        &self,
        handle: &FileHandle,
        offset: u64,
        len: u64,
    ) -> Result<Option<ReadData>> {
        loop {
            let (queue, version) = self.queue_of(handle)?;
            let had_failed = queue.stats().state != QueueState::Streaming;
            let spawn = |fetch| self.spawn_fetch(&handle.inode, fetch);
            let error = match queue.read_with(offset, len, spawn).await {
                Ok(slices) => {
                    handle.inode.state().was_read = true;
                    return Ok(Some(ReadData(slices.iter().cloned().collect())));
                }
                Err(error) => error,
            };
            let (is_replaced, is_outlived) = handle.queue.lock().as_ref().map_or((false, false), |reading| {
                let is_replaced = !Arc::ptr_eq(&reading.queue, &queue);
                (is_replaced, is_replaced || reading.is_outlived(self.live.epoch()))
            });
            if Content::Ours(handle.inode.state().content) != queue.version() {
                return Ok(None);
            }
            match error {
                ReadError::Ended if is_replaced => continue,
                ReadError::Source(_) if is_outlived => continue,
                // Of an earlier read, or of what was fetched ahead of this one: the store may be back by now.
                ReadError::Source(ref failure) if had_failed && failure.kind() != FsErrorKind::Stale => {
                    handle.queue.lock().take_if(|reading| Arc::ptr_eq(&reading.queue, &queue));
                    continue;
                }
                _ => {}
            }
            let error = read_error(&handle.inode, error);
            if error.kind() == FsErrorKind::Stale {
                self.supersede(&handle.inode, &version);
            }
            return Err(error);
        }
    }

    /// The handle's queue for the inode's present content, and the version that this is.
    fn queue_of(&self, handle: &FileHandle) -> Result<(Arc<Queue>, Version)> {
        let (size, content, version) = {
            let state = handle.inode.state();
            let remote = state.remote.as_ref();
            let remote = remote
                .ok_or_else(|| FsError::new(FsErrorKind::Stale, "there is no stored object to read"))?;
            (remote.size, Content::Ours(state.content), remote.version.clone())
        };
        let mut slot = handle.queue.lock();
        let since = self.live.epoch();
        let is_it = |reading: &&Reading| reading.queue.version() == content && !reading.is_outlived(since);
        if let Some(reading) = slot.as_ref().filter(is_it) {
            return Ok((reading.queue.clone(), version));
        }
        // The first read, or the first after a write through another handle was stored, or after it failed and a reload.
        let queue = Queue::new(size, content, planner(self.config.memory_limit), &self.budget);
        if let Some(old) = slot.replace(Reading { queue: queue.clone(), since }) {
            old.queue.close();
        }
        Ok((queue, version))
    }

    fn spawn_fetch(&self, inode: &Arc<Inode>, fetch: Fetch<Content, FsError>) {
        let (Some(fs), inode) = (self.me.upgrade(), inode.clone()) else { return };
        self.tasks.spawn_on(async move { fs.fetch(&inode, fetch).await }, &self.runtime);
    }

    /// A first answer, to a question put at `asked`, tells the version id that a listing could not, and that the
    /// version is still there.
    pub(crate) fn learn_version(&self, inode: &Inode, seen: &Version, asked: Moment) {
        let mut state = inode.state();
        let Some(remote) = state.remote.as_mut().filter(|r| r.version.etag == seen.etag) else { return };
        if remote.version.id.is_none() {
            remote.version.id.clone_from(&seen.id);
        }
        if self.refreshes.none_since(asked) {
            state.validated = Some(Instant::now());
        }
    }

    /// Fetches one range: pushes bytes as they arrive, resumes after a break, gives up at the deadline.
    async fn fetch(&self, inode: &Arc<Inode>, fetch: Fetch<Content, FsError>) {
        let mut backoff = Backoff::new(self.op_deadline());
        let mut at = fetch.range().start;
        let mut pulse = Pulse::new(&self.pace);
        while fetch.is_live() && at < fetch.range().end {
            let (remote, content, cached) = {
                let state = inode.state();
                (state.remote.clone(), state.content, state.cached_now())
            };
            let Some(remote) = remote else { break };
            let (end, is_cached) =
                cached.as_ref().map_or((fetch.range().end, false), |c| c.run(at, fetch.range().end));
            if is_cached {
                let piece = at..end.min(at + CACHED_AT_ONCE);
                if let Some(bytes) = self.read_cached(inode, piece.clone()).await {
                    if fetch.push(at, &Content::Ours(content), bytes).is_err() {
                        break;
                    }
                    at = piece.end;
                }
                // If it turned out to be damaged, it is not cached any more.
                continue;
            }
            let to = Destination { fetch: &fetch, end, content, cached: cached.as_ref() };
            let error = match self.stream_into(inode, &remote, &to, &mut at, &mut pulse).await {
                Ok(()) if at < end => break,
                Ok(()) => continue,
                Err(error) => error,
            };
            pulse.failed();
            if let Err(error) = self.after_failure(inode, &remote, error, &mut backoff).await {
                return fetch.fail(error);
            }
        }
        if at >= fetch.range().end {
            pulse.finished();
        }
        fetch.done();
    }

    /// Asks for a range. A small object is asked for whole, because its checksum is of the whole, and held until
    /// that is seen to match.
    pub(crate) async fn get_checked(
        &self,
        remote: &Remote,
        range: Range<u64>,
    ) -> staithe_store::Result<GetResponse> {
        let is_whole = range == (0..remote.size) && remote.size <= CHECKED_WHOLE;
        let request = GetRequest {
            key: remote.key.clone(),
            range: (!is_whole).then_some(range),
            version: Some(remote.version.clone()),
        };
        let mut answer = self.store.get(request).await?;
        if is_whole {
            let chunks: Vec<_> = answer.body.try_collect().await?;
            answer.body = futures::stream::iter(chunks.into_iter().map(Ok)).boxed();
        }
        Ok(answer)
    }
}

/// How far ahead a single reader is read for: sixteen of the largest requests, because a store that gives each
/// connection 100 MiB/s needs as many for a line of 10 Gbit/s; and a quarter of the memory at most.
fn planner(memory_limit: u64) -> PlannerConfig {
    let default = PlannerConfig::default();
    PlannerConfig { max_window: (16 * default.max_part).min(memory_limit / 4), ..default }
}

/// A range that is refused: the object is shorter than it was, and so another version, whatever the tag condition was
/// worth.
pub(crate) fn shrunk(error: StoreError) -> FsError {
    match error.kind() {
        ErrorKind::Invalid => FsError::caused(FsErrorKind::Stale, "the object has shrunk", error),
        _ => error.into(),
    }
}

fn read_error(inode: &Inode, error: ReadError<Content, FsError>) -> FsError {
    match error {
        ReadError::Source(error) => error,
        error @ ReadError::VersionChanged { .. } => FsError::new(FsErrorKind::Stale, error.to_string()),
        error => FsError::new(FsErrorKind::Io, format!("reading inode {}: {error}", inode.ino.0)),
    }
}

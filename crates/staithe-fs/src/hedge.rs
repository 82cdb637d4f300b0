//! A range that stalls is asked for a second time, from where it stands; whoever delivers the next bytes goes on, the
//! other request is dropped.
//!
//! Invariants:
//! 1. There are at most two requests for a range, and both begin at the first byte that is missing: no byte is
//!    delivered twice, and neither waits for the other.
//! 2. Both are for the same version. A request that fails while the other lives is as if it had never been made.

use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use staithe_store::StoreError;

use crate::error::{FsError, Result};
use crate::fetch::{Content, Destination, shrunk};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote};
use crate::pace::Pace;

/// How long until it is asked again what silence is too long, where that could not be told or not be paid for.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// One request for the rest of a range, as its bytes.
type Leg<'a> = BoxStream<'a, Result<(Content, bytes::Bytes)>>;

/// When a range was last heard of, and the longest time that it was not.
#[derive(Debug)]
pub(crate) struct Pulse<'a> {
    pace: &'a Pace,
    heard: Instant,
    longest: Duration,
    tries: u64,
    failed: bool,
}

impl<'a> Pulse<'a> {
    /// A range is asked for now.
    pub(crate) fn new(pace: &'a Pace) -> Self {
        pace.began();
        Self { pace, heard: Instant::now(), longest: Duration::ZERO, tries: pace.tries(), failed: false }
    }

    /// A request for the range failed: its silence says nothing about the store's pace.
    pub(crate) fn failed(&mut self) {
        self.failed = true;
    }

    /// All bytes are here.
    pub(crate) fn finished(self) {
        if !self.failed && self.tries == self.pace.tries() {
            self.pace.came(self.longest, Instant::now());
        }
    }

    /// What was waited for until now was not the store.
    fn resume(&mut self) {
        self.heard = Instant::now();
    }

    fn hear(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.heard);
        self.heard = now;
    }

    fn too_long(&self) -> Duration {
        self.pace.too_long().unwrap_or(ASK_AGAIN)
    }

    /// How much longer to wait before a second request; `None` if now is the time.
    fn wait(&self) -> Option<Duration> {
        let Some(too_long) = self.pace.too_long() else { return Some(ASK_AGAIN) };
        let left = too_long.saturating_sub(self.heard.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        (!self.pace.may_hedge()).then_some(ASK_AGAIN)
    }
}

impl Filesystem {
    /// Pushes a range from `at` on as it arrives, by a second request if the first one stalls.
    pub(crate) async fn stream_into(
        &self,
        inode: &Inode,
        remote: &Remote,
        to: &Destination<'_>,
        at: &mut u64,
        pulse: &mut Pulse<'_>,
    ) -> Result<()> {
        let (content, end) = (to.content, to.end);
        pulse.heard = Instant::now();
        let mut first = self.leg(inode, remote, content, *at..end);
        let mut second: Option<Leg<'_>> = None;
        // A second request met an error that a third one would meet too.
        let mut refused = false;
        let mut alarm = std::pin::pin!(tokio::time::sleep(pulse.too_long()));
        loop {
            let (item, is_second) = tokio::select! {
                item = first.next() => (item, false),
                item = next_of(&mut second) => (item, true),
                () = &mut alarm, if second.is_none() && !refused => {
                    // The alarm is not put back with each chunk: it may find that there is no need for it.
                    match pulse.wait() {
                        Some(wait) => alarm.as_mut().reset(tokio::time::Instant::now() + wait),
                        None => second = Some(self.leg(inode, remote, content, *at..end)),
                    }
                    continue;
                }
            };
            match (item, second.take()) {
                // Nothing came, whoever it was from.
                (Some(Ok((_, chunk))), other) if chunk.is_empty() => second = other,
                (Some(Ok((version, chunk))), other) => {
                    pulse.hear();
                    let len = chunk.len() as u64;
                    if to.fetch.push(*at, &version, chunk.clone()).is_err() {
                        return Ok(());
                    }
                    self.keep_chunk(to, &version, *at, chunk).await;
                    pulse.resume();
                    *at += len;
                    if let Some(other) = other.filter(|_| is_second) {
                        first = other;
                        pulse.pace.won();
                    }
                    if *at >= end {
                        // A body that is met at its end leaves its connection to the next request.
                        let _ = first.next().now_or_never();
                        return Ok(());
                    }
                }
                // One of two failed, or ended early: the other one may still come.
                (failed @ (Some(Err(_)) | None), Some(other)) => {
                    pulse.failed();
                    refused = failed.and_then(Result::err).is_some_and(|error| !is_passing(&error));
                    if !is_second {
                        first = other;
                    }
                }
                (Some(Err(error)), None) => return Err(error),
                (None, None) => return Ok(()),
            }
            if alarm.is_elapsed() {
                alarm.as_mut().reset(tokio::time::Instant::now() + pulse.too_long());
            }
        }
    }

    /// Puts bytes that have just come into the disk cache, if they are of the version that it is for.
    async fn keep_chunk(&self, to: &Destination<'_>, version: &Content, at: u64, chunk: bytes::Bytes) {
        if let (Some(cache), Some(cached), Content::Ours(_)) = (&self.cache, to.cached, version) {
            cache.offer(cached, at, chunk).await;
        }
    }

    fn leg<'a>(
        &'a self,
        inode: &'a Inode,
        remote: &'a Remote,
        content: u64,
        range: std::ops::Range<u64>,
    ) -> Leg<'a> {
        let answer = async move {
            let moment = self.refreshes.moment();
            let answer = self.get_checked(remote, range).await.map_err(shrunk)?;
            self.learn_version(inode, &answer.meta.version, moment);
            let found = answer.meta.version.etag;
            let is_ours = found == remote.version.etag;
            let version = if is_ours { Content::Ours(content) } else { Content::Foreign(found) };
            let chunks = answer.body.map(move |chunk| Ok((version.clone(), chunk?)));
            Ok::<_, FsError>(chunks)
        };
        futures::TryStreamExt::try_flatten(futures::stream::once(answer)).boxed()
    }
}

/// Whether the store may answer otherwise the next time.
fn is_passing(error: &FsError) -> bool {
    let cause = std::error::Error::source(error).and_then(|s| s.downcast_ref::<StoreError>());
    cause.is_some_and(StoreError::is_retryable)
}

/// The next bytes of a request that may not have been made.
async fn next_of(leg: &mut Option<Leg<'_>>) -> Option<Result<(Content, bytes::Bytes)>> {
    match leg {
        Some(leg) => leg.next().await,
        None => std::future::pending().await,
    }
}

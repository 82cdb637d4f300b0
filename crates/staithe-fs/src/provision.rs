//! Whole files into the disk cache, without a reader: what is there already is not fetched again.

use std::ops::Range;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};

use crate::cache::{CachedFile, DiskCache};
use crate::error::{FsError, FsErrorKind, Result};
use crate::fetch::shrunk;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote};
use crate::patience::Backoff;
use crate::read::pieces;

/// The most that is fetched in one request, in bytes.
const AT_ONCE: u64 = 8 << 20;
/// Requests at once for one file.
const SIDE_BY_SIDE: usize = 4;

impl Filesystem {
    /// The disk cache.
    ///
    /// # Errors
    /// `Unsupported` when there is none.
    pub(crate) fn disk_cache(&self) -> Result<&Arc<DiskCache>> {
        let text = "this mount has no cache directory; mount with --cache-dir";
        self.cache.as_ref().ok_or_else(|| FsError::new(FsErrorKind::Unsupported, text))
    }

    /// Brings what is missing of a file's stored bytes into the disk cache; tells `progress` of bytes as they come from
    /// the store. Returns when they are on the disk.
    ///
    /// # Errors
    /// `Unsupported` without a cache; `Stale` when the object was replaced or removed meanwhile; `NoSpace` when the
    /// cache cannot hold all of it; the store's errors. What came until then stays.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing that was fetched.
    pub(crate) async fn provide(&self, inode: &Arc<Inode>, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let cache = self.disk_cache()?;
        let (size, limit) = (inode.state().size(), cache.stats().limit);
        if size > limit {
            let text = format!("{size} bytes do not fit into the disk cache, which may hold {limit}");
            return Err(FsError::new(FsErrorKind::NoSpace, text));
        }
        let Some(cached) = self.cached(inode).await else {
            // Nothing is stored that could be fetched: an empty file, or one whose bytes are all here.
            return Ok(());
        };
        let missing = missing(&cached).into_iter().flat_map(|gap| pieces(gap, AT_ONCE));
        let fetches: Vec<_> =
            missing.map(|piece| self.provide_piece(inode, &cached, piece, progress).boxed()).collect();
        let mut fetches = futures::stream::iter(fetches).buffer_unordered(SIDE_BY_SIDE);
        while let Some(done) = fetches.next().await {
            done?;
        }
        cache.settle().await;
        if cached.is_whole() {
            return Ok(());
        }
        let text = format!("{} bytes do not fit into the disk cache beside what is in use", cached.size());
        Err(FsError::new(FsErrorKind::NoSpace, text))
    }

    /// How many bytes of a file the disk cache lacks.
    pub(crate) async fn not_provided(&self, inode: &Inode) -> u64 {
        let cached = self.cached(inode).await;
        cached.map_or(0, |cached| missing(&cached).iter().map(|gap| gap.end - gap.start).sum())
    }

    async fn provide_piece(
        &self,
        inode: &Arc<Inode>,
        cached: &Arc<CachedFile>,
        piece: Range<u64>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let mut backoff = Backoff::new(self.op_deadline());
        let mut at = piece.start;
        while at < piece.end {
            let Some(remote) = inode.state().remote.clone() else {
                return Err(FsError::new(FsErrorKind::Stale, "the object behind this file is gone"));
            };
            let got = self.provide_range(&remote, cached, &mut at, piece.end, progress).await;
            if let Err(error) = got {
                self.after_failure(inode, &remote, error, &mut backoff).await?;
            }
        }
        Ok(())
    }

    async fn provide_range(
        &self,
        remote: &Remote,
        cached: &Arc<CachedFile>,
        at: &mut u64,
        end: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let cache = self.disk_cache()?;
        let answer = self.get_checked(remote, *at..end).await.map_err(shrunk)?;
        if !cached.is_of(&answer.meta.version.etag, remote.size) {
            return Err(FsError::new(FsErrorKind::Stale, format!("{} was replaced", remote.key)));
        }
        let mut body = answer.body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let len = chunk.len() as u64;
            cache.insist(cached, *at, chunk).await;
            *at += len;
            progress(len);
        }
        if *at < end {
            let text = format!("the body ended {} bytes early", end - *at);
            let short = staithe_store::StoreError::new(staithe_store::ErrorKind::Corrupt, "get", text);
            return Err(short.with_key(&remote.key).into());
        }
        Ok(())
    }
}

/// What the disk cache lacks of a version.
fn missing(cached: &CachedFile) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = 0;
    while at < cached.size() {
        let (end, is_here) = cached.run(at, cached.size());
        if !is_here {
            gaps.push(at..end);
        }
        at = end;
    }
    gaps
}

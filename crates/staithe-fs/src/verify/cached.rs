//! The disk cache: versions whose bytes are not what was cached, or not what the store has.

use std::sync::Arc;

use futures::{StreamExt, stream};
use staithe_store::{Crc64Nvme, HeadRequest, Version};

use super::{DifferenceKind, Repair, Run};
use crate::cache::{DiskCache, Entry, Identity, Look};
use crate::error::{FsError, Result};
use crate::upload::blocking;

/// Versions that are read at once.
const READ_AT_ONCE: usize = 4;

impl Run<'_> {
    pub(super) async fn cached(&self) -> Result<()> {
        let Some(cache) = &self.fs.cache else { return Ok(()) };
        let most = cache.stats().used;
        self.progress.send_modify(|progress| progress.bytes_most = most);
        for directory in 0..DiskCache::DIRECTORIES {
            let listed = cache.clone();
            let entries = blocking(move || Ok(listed.entries(directory))).await?;
            stream::iter(entries)
                .map(|entry| self.version(cache, entry))
                .buffer_unordered(READ_AT_ONCE)
                .for_each(std::future::ready)
                .await;
        }
        Ok(())
    }

    async fn version(&self, cache: &Arc<DiskCache>, entry: Entry) {
        let look = match self.look_at(cache, entry).await {
            Ok(look) => look,
            Err(error) => return self.unknown("the disk cache", &error).await,
        };
        let (identity, detail) = match look {
            Look::Nameless(map) if self.covers_all() => {
                let detail = "cached bytes of which nobody knows whose they are";
                self.compared();
                let place = map.display().to_string();
                return self.differs(place, DifferenceKind::Cache, detail, self.drop_it(cache, entry)).await;
            }
            Look::Gone | Look::Nameless(_) => return,
            Look::Damaged(identity) => (identity, Some("its cached bytes are damaged")),
            Look::Right(identity, sum) => match self.is_as_stored(&identity, sum).await {
                Ok(true) => (identity, None),
                Ok(false) => (identity, Some("its cached bytes are not those of the store")),
                Err(error) => {
                    let path = self.ours(&identity).unwrap_or_default();
                    return self.unknown(&path, &error).await;
                }
            },
        };
        let Some(path) = self.ours(&identity) else { return };
        self.compared();
        if let Some(detail) = detail {
            self.differs(path, DifferenceKind::Cache, detail, self.drop_it(cache, entry)).await;
        }
    }

    async fn look_at(&self, cache: &Arc<DiskCache>, entry: Entry) -> Result<Look> {
        let (cache, progress) = (cache.clone(), self.progress.clone());
        let count = move |bytes| progress.send_modify(|progress| progress.bytes += bytes);
        blocking(move || Ok(cache.look_at(entry, &count))).await
    }

    /// The path of a version that is to be compared.
    fn ours(&self, identity: &Identity) -> Option<String> {
        let path = identity.key.as_str().strip_prefix(&self.fs.config.prefix)?;
        (identity.volume == self.fs.volume && self.covers(path)).then(|| path.to_owned())
    }

    /// Whether the store says the same of a version that is here as a whole. One that it has not any more is right, and
    /// of no use.
    async fn is_as_stored(&self, identity: &Identity, sum: Option<Crc64Nvme>) -> Result<bool> {
        let Some(sum) = sum.filter(|_| self.ours(identity).is_some()) else { return Ok(true) };
        let version = Version { etag: identity.etag.clone(), id: None };
        let request = HeadRequest { key: identity.key.clone(), version: Some(version) };
        match self.fs.store.checksum(request).await {
            Ok(told) => Ok(told.is_none_or(|told| told == sum)),
            Err(error) if error.is_retryable() => Err(error.into()),
            Err(_) => Ok(true),
        }
    }

    async fn drop_it(&self, cache: &Arc<DiskCache>, entry: Entry) -> Result<Repair> {
        let cache = cache.clone();
        let dropping =
            move || cache.discard(entry).map_err(|e| FsError::local("dropping it from the cache", e));
        blocking(dropping).await?;
        Ok(Repair::Done("dropped from the cache"))
    }
}

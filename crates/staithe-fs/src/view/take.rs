//! Taking a view of a store: its listing, or that of its versions, as a manifest.

use std::path::Path;
use std::time::{Duration, SystemTime};

use staithe_store::{ListRequest, ObjectStore, StoreError, Version, VersionEntry};

use super::file::ManifestWriter;
use super::format::ManifestHeader;
use super::object::ViewObject;
use crate::error::{FsError, FsErrorKind, Result};
use crate::patience::Backoff;

/// For how long one page is asked for, again and again.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a manifest came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Objects in it.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Writes what `store` holds below `prefix` into `target`, in bounded memory; `progress` hears after each page.
///
/// Where the bucket keeps versions, their listing is read, and each object has the id of its version; with `as_of`, it is
/// the version that was the latest at that moment. The listing of a busy bucket is not of one moment: each object is as it
/// was when its page was listed, unless `as_of` is in the past.
///
/// # Errors
/// `Invalid` for `as_of` without versions; the store's errors; `NoSpace` and `Io` of the file. Nothing is left of it then.
///
/// # Cancel safety
/// Dropping the future leaves no file.
pub async fn take_manifest(
    store: &dyn ObjectStore,
    prefix: &str,
    as_of: Option<SystemTime>,
    target: &Path,
    mut progress: impl FnMut(Taken),
) -> Result<Taken> {
    let keeps_versions = store.capabilities().versions;
    if as_of.is_some() && !keeps_versions {
        let why = format!(
            "{} keeps no versions, or does not say that it does, so nobody knows what it held then",
            store.url()
        );
        return Err(FsError::new(FsErrorKind::Invalid, why));
    }
    let header = ManifestHeader {
        volume: store.volume(),
        url: store.url(),
        prefix: prefix.to_owned(),
        created: SystemTime::now(),
        as_of,
    };
    let mut taking = Taking { writer: ManifestWriter::create(target, &header)?, taken: Taken::default() };
    if keeps_versions {
        taking.versions(store, prefix, as_of, &mut progress).await?;
    } else {
        taking.objects(store, prefix, &mut progress).await?;
    }
    taking.writer.finish()?;
    Ok(taking.taken)
}

/// A manifest on its way. Writing blocks for no longer than the page cache of the disk takes.
struct Taking {
    writer: ManifestWriter,
    taken: Taken,
}

impl Taking {
    async fn objects(
        &mut self,
        store: &dyn ObjectStore,
        prefix: &str,
        progress: &mut impl FnMut(Taken),
    ) -> Result<()> {
        let mut request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        loop {
            let page = patiently(|| store.list(request.clone())).await?;
            for object in page.objects {
                self.put(&object.into())?;
            }
            progress(self.taken);
            request.token = match page.next {
                Some(next) => Some(next),
                None => return Ok(()),
            };
        }
    }

    async fn versions(
        &mut self,
        store: &dyn ObjectStore,
        prefix: &str,
        as_of: Option<SystemTime>,
        progress: &mut impl FnMut(Taken),
    ) -> Result<()> {
        let (mut latest, mut token) = (Latest { as_of, of_key: None }, None);
        loop {
            let page = patiently(|| store.list_versions(prefix, token.clone())).await?;
            for entry in page.entries {
                if let Some(object) = latest.see(entry) {
                    self.put(&object)?;
                }
            }
            progress(self.taken);
            let Some(next) = page.next else { break };
            token = Some(next);
        }
        if let Some(object) = latest.of_key.and_then(object_of) {
            self.put(&object)?;
        }
        progress(self.taken);
        Ok(())
    }

    fn put(&mut self, object: &ViewObject) -> Result<()> {
        self.writer.push(object)?;
        self.taken.objects += 1;
        self.taken.bytes = self.taken.bytes.saturating_add(object.size);
        Ok(())
    }
}

/// Picks of each key's versions, which come together but in no order that can be relied on where times are whole
/// seconds, the one that was the latest.
struct Latest {
    as_of: Option<SystemTime>,
    of_key: Option<VersionEntry>,
}

impl Latest {
    /// Takes the next entry; gives the object of the key before, if that was the last of it.
    fn see(&mut self, entry: VersionEntry) -> Option<ViewObject> {
        let counts = self.as_of.map_or(entry.is_latest, |as_of| entry.last_modified <= as_of);
        let done = self.of_key.take_if(|best| best.key != entry.key);
        if counts {
            let age = |entry: &VersionEntry| (entry.last_modified, entry.is_latest);
            if self.of_key.as_ref().is_none_or(|best| age(best) < age(&entry)) {
                self.of_key = Some(entry);
            }
        }
        done.and_then(object_of)
    }
}

/// The object that a version is; `None` if it is a delete marker.
fn object_of(entry: VersionEntry) -> Option<ViewObject> {
    if entry.is_delete_marker {
        return None;
    }
    let etag = entry.etag.unwrap_or_else(|| staithe_store::ETag::new(""));
    let version = Version { etag, id: Some(entry.id) };
    Some(ViewObject { key: entry.key, size: entry.size, version, modified: entry.last_modified })
}

/// Asks until there is an answer, or no point any more.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = staithe_store::Result<T, StoreError>>,
{
    let mut backoff = Backoff::new(PATIENCE);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => match backoff.next(&error) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use staithe_store::{ETag, Key, VersionId};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn entry(key: &str, id: &str, seconds: u64, is_latest: bool) -> VersionEntry {
        VersionEntry {
            key: Key::new(key).unwrap(),
            id: VersionId::new(id),
            is_latest,
            is_delete_marker: id.starts_with('D'),
            size: 1,
            etag: Some(ETag::new("e")),
            last_modified: at(seconds),
        }
    }

    fn picked(as_of: Option<u64>) -> String {
        let mut latest = Latest { as_of: as_of.map(at), of_key: None };
        let history = [
            entry("a", "a3", 30, true),
            entry("a", "a2", 20, false),
            entry("a", "a1", 10, false),
            entry("b", "Db", 25, true),
            entry("b", "b1", 20, false),
            entry("c", "c1", 5, false),
            entry("c", "Dc", 7, false),
            entry("c", "c2", 40, true),
            // Of one second, in the order of a listing that has markers last.
            entry("d", "d1", 20, false),
            entry("d", "Dd", 20, true),
        ];
        let mut objects: Vec<_> = history.into_iter().filter_map(|entry| latest.see(entry)).collect();
        objects.extend(latest.of_key.and_then(object_of));
        let ids = objects.into_iter().map(|object| object.version.id.unwrap().as_str().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn of_each_key_the_version_that_was_the_latest() {
        assert_eq!(picked(None), "a3 c2");
        assert_eq!(picked(Some(50)), "a3 c2");
        assert_eq!(picked(Some(24)), "a2 b1");
        assert_eq!(picked(Some(15)), "a1");
        assert_eq!(picked(Some(6)), "c1");
        assert_eq!(picked(Some(4)), "");
    }
}

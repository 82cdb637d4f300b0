//! The buckets of a server, and what S3 keeps beside the objects: checksums and the parts of uploads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use s3s::dto::{Checksum, ChecksumAlgorithm, ChecksumType};
use s3s::{S3Error, S3Result, s3_error};
use staithe_store::{ETag, Key, MemoryStore, Version};

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versioning {
    /// A write replaces, a delete removes.
    #[default]
    Off,
    /// A write adds a version, a delete adds a marker.
    On,
}

/// One bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) versioning: Versioning,
    pub(crate) created: SystemTime,
    checksums: Mutex<HashMap<Key, Vec<(Version, Checksum)>>>,
    uploads: Mutex<HashMap<String, Upload>>,
}

/// What is known of an upload beside the store's own record.
#[derive(Debug, Clone, Default)]
pub(super) struct Upload {
    pub(super) algorithm: Option<ChecksumAlgorithm>,
    pub(super) kind: Option<ChecksumType>,
    pub(super) parts: BTreeMap<u16, Part>,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) etag: ETag,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) checksum: Checksum,
}

impl Bucket {
    pub(crate) fn new(versioning: Versioning) -> Self {
        let store = match versioning {
            Versioning::Off => MemoryStore::default(),
            Versioning::On => MemoryStore::versioned(),
        };
        Self {
            store: Arc::new(store),
            versioning,
            created: SystemTime::now(),
            checksums: Mutex::default(),
            uploads: Mutex::default(),
        }
    }

    /// Keeps the checksum of a version that was just written.
    pub(super) fn remember(&self, key: &Key, version: &Version, checksum: Checksum) {
        let mut checksums = self.checksums.lock();
        let versions = checksums.entry(key.clone()).or_default();
        if self.versioning == Versioning::Off {
            versions.clear();
        }
        versions.push((version.clone(), checksum));
    }

    /// Forgets the checksums of an object that is gone: of one version, or of the whole unversioned object.
    pub(super) fn forget(&self, key: &Key, version_id: Option<&str>) {
        let mut checksums = self.checksums.lock();
        let Some(versions) = checksums.get_mut(key) else { return };
        match version_id {
            Some(id) => versions.retain(|(v, _)| v.id.as_ref().is_none_or(|v| v.as_str() != id)),
            None if self.versioning == Versioning::Off => versions.clear(),
            None => {}
        }
        if versions.is_empty() {
            checksums.remove(key);
        }
    }

    /// The checksum that came with a version, if one did.
    pub(super) fn checksum(&self, key: &Key, version: &Version) -> Option<Checksum> {
        let checksums = self.checksums.lock();
        checksums.get(key)?.iter().rev().find(|(v, _)| v == version).map(|(_, sum)| sum.clone())
    }

    pub(super) fn begin_upload(&self, id: &str, upload: Upload) {
        self.uploads.lock().insert(id.to_owned(), upload);
    }

    pub(super) fn add_part(&self, id: &str, number: u16, part: Part) {
        self.uploads.lock().entry(id.to_owned()).or_default().parts.insert(number, part);
    }

    pub(super) fn upload(&self, id: &str) -> Option<Upload> {
        self.uploads.lock().get(id).cloned()
    }

    pub(super) fn end_upload(&self, id: &str) {
        self.uploads.lock().remove(id);
    }
}

/// All buckets of a server, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets(Arc<RwLock<BTreeMap<String, Arc<Bucket>>>>);

impl Buckets {
    /// Adds an empty bucket; one of that name stays as it is, and the answer is `false`.
    pub(crate) fn create(&self, name: &str, versioning: Versioning) -> bool {
        let mut buckets = self.0.write();
        let is_new = !buckets.contains_key(name);
        if is_new {
            buckets.insert(name.to_owned(), Arc::new(Bucket::new(versioning)));
        }
        is_new
    }

    /// Removes a bucket and all that is in it, also for those that hold its store.
    pub(crate) fn delete(&self, name: &str) -> bool {
        let gone = self.0.write().remove(name);
        if let Some(bucket) = &gone {
            bucket.store.remove_volume();
        }
        gone.is_some()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Bucket>> {
        self.0.read().get(name).cloned()
    }

    pub(super) fn get(&self, name: &str) -> S3Result<Arc<Bucket>> {
        self.find(name).ok_or_else(no_such_bucket)
    }

    pub(super) fn all(&self) -> Vec<(String, Arc<Bucket>)> {
        self.0.read().iter().map(|(name, bucket)| (name.clone(), Arc::clone(bucket))).collect()
    }

    /// Puts an empty bucket of the other kind in the place of an empty one.
    pub(super) fn replace(&self, name: &str, versioning: Versioning) {
        self.0.write().insert(name.to_owned(), Arc::new(Bucket::new(versioning)));
    }
}

fn no_such_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

//! A local directory as a bucket: the key `a/b` is the file `a/b`.
//!
//! - **Atomic.** A put writes a file in the hidden area of the root (`.staithe-tmp`), syncs it, renames it to
//!   its place, and syncs the directory. Missing directories are built aside and appear with their first file.
//! - **Metadata** is kept in one extended attribute; the filesystem must have those.
//! - **Modes.** What others put there shows its own mode and owner as the metadata `mode`, `uid` and `gid` (decimal,
//!   as s3fs writes them); what is written with such metadata gets those permissions before its name appears, and
//!   that owner where the system allows it.
//! - **Markers.** `a/` is an object if the directory `a` is marked (by a put of `a/`, in an attribute) or
//!   holds nothing. A directory that is neither goes with its last object.
//! - **Versions.** The tag is made of inode, length, and the times of write and change, so whatever anybody
//!   does to the file shows. An open body reads one inode to its end; one that is written in place fails it.
//!   (On kernels before 6.13, a write in place within the same tick of the clock, of the same length, escapes.)
//! - **Others.** Conditions hold among all users of the directory that go through this type, in this process
//!   and in others, by locks on its directories. What is put there by other programs is seen at once.
//! - **Refused.** Keys that no path can name are `Invalid` to write and `NotFound` to read. Symbolic links,
//!   FIFOs, sockets, devices and names that are not UTF-8 are not shown, not followed and not replaced: a key
//!   where one of them stands is `Forbidden` to read, to write and to delete.
//! - **After a crash** what was committed is there and nothing else; the hidden area is swept when the
//!   directory is next opened. Without `flock` (some network filesystems) conditions hold in one process only.

mod attributes;
mod blocking;
mod body;
mod commit;
mod copy;
mod entries;
mod errno;
mod locks;
mod multipart;
mod place;
mod remove;
mod root;
mod session;
mod temp;
mod walk;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;

use self::blocking::Cancel;
use self::commit::{Commit, Leaf};
use self::place::Place;
use self::root::{Opened, Root};
use self::temp::TempFile;
use crate::{
    Capabilities, CopyRequest, DeleteFailure, DeleteRequest, ErrorKind, GetRequest, GetResponse, HeadRequest,
    Key, ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken, PartNumber,
    PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage, VolumeInfo,
    Written, checks,
};

/// What a write has reached when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The disk: file and directory are fsynced.
    #[default]
    Synced,
    /// The system's memory: it survives the process, not a power loss.
    Buffered,
}

/// How a [`DirectoryStore`] behaves.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// What a write has reached when it is acknowledged.
    pub durability: Durability,
    /// Most entries in a page of any listing; 1 to 1,000.
    pub page_max: u16,
    /// Largest chunk of a response body, in bytes; at least 1.
    pub chunk_bytes: usize,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self { durability: Durability::Synced, page_max: 1000, chunk_bytes: 256 << 10 }
    }
}

/// A bucket that is a local directory. Methods need a tokio runtime, for its blocking threads.
///
/// What may wait for a disk runs on a blocking thread; what the kernel has in its caches is answered at once.
/// Dropping a future stops its work before its next step, and before its commit.
#[derive(Debug)]
pub struct DirectoryStore {
    root: Arc<Root>,
}

const CAPABILITIES: Capabilities = Capabilities {
    file_beside_prefix: false,
    lists_every_name: false,
    part_size_min: 1,
    part_size_max: i64::MAX as u64,
    object_size_max: i64::MAX as u64,
    ..Capabilities::S3
};

impl DirectoryStore {
    /// Opens a directory, which must exist, and sweeps what killed users left in its hidden area. Blocks.
    ///
    /// # Errors
    /// `VolumeGone` if there is no such directory; `Unsupported` if its filesystem has no user extended
    /// attributes; `Forbidden` if it may not be written.
    pub fn open(path: impl AsRef<Path>, mut options: DirectoryOptions) -> Result<Self> {
        options.page_max = options.page_max.clamp(1, 1000);
        options.chunk_bytes = options.chunk_bytes.max(1);
        Ok(Self { root: Arc::new(Root::open(path.as_ref(), options, CAPABILITIES)?) })
    }

    /// The directory, as an absolute path without links.
    pub fn path(&self) -> PathBuf {
        self.root.path.clone()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Root, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = self.root.clone();
        blocking::run(operation, move |cancel| work(&root, cancel)).await
    }

    /// Opens an object, at once if the kernel knows the way to it.
    async fn open_object(&self, operation: &'static str, place: Place) -> Result<Opened> {
        // A marker may have to wait for a lock.
        if !place.marker
            && let Some(opened) = self.root.open_cached(operation, &place)
        {
            return opened;
        }
        self.blocking(operation, move |root, _| root.open_object(operation, &place)).await
    }

    async fn pinned(&self, operation: &'static str, key: &Key, version: Option<&Version>) -> Result<Opened> {
        let opened = self.open_object(operation, Place::for_read(operation, key)?).await?;
        pinned(operation, key, version, &opened)?;
        Ok(opened)
    }
}

fn pinned(operation: &'static str, key: &Key, version: Option<&Version>, opened: &Opened) -> Result<()> {
    match version {
        Some(Version { id: Some(id), .. }) => {
            let text = format!("there is no version {id}: a directory keeps none");
            Err(checks::fail(ErrorKind::NotFound, operation, key, text))
        }
        Some(version) => checks::tag_matches(operation, key, &version.etag, Some(&opened.meta.version.etag)),
        None => Ok(()),
    }
}

/// Refuses bytes where a directory will stand.
fn marker_is_empty(operation: &'static str, place: &Place, size: u64) -> Result<()> {
    if place.marker && size > 0 {
        let text = "a directory marker holds no bytes here";
        return Err(checks::fail(ErrorKind::Invalid, operation, &place.key, text));
    }
    Ok(())
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    fn url(&self) -> String {
        format!("file://{}", self.root.path.display())
    }

    fn capabilities(&self) -> &Capabilities {
        &self.root.caps
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        self.blocking("probe", |root, _| {
            root.check_alive("probe")?;
            let failed = |errno| errno::error("probe", None, "reading the directory", errno);
            entries::is_empty(&root.fd).map_err(failed)?;
            Ok(VolumeInfo::default())
        })
        .await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.blocking("identity", |root, _| {
            root.check_alive("identity")?;
            Ok(root.birth())
        })
        .await
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        Ok(self.pinned("head", &request.key, request.version.as_ref()).await?.meta)
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        let Opened { fd, stat, meta } = self.pinned("get", &request.key, request.version.as_ref()).await?;
        let range = checks::resolve_range(&request.key, request.range.as_ref(), meta.size)?;
        let chunk = self.root.options.chunk_bytes;
        let body = if range.is_empty() {
            futures::stream::empty().boxed()
        } else {
            body::stream(fd, request.key, &stat, range.clone(), chunk)
        };
        Ok(GetResponse { meta, range, body })
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        self.blocking("list", move |root, _| walk::list(root, &request)).await
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        checks::new_object(&self.root.caps, "put", key, &new, body.len())?;
        attributes::storable("put", key, &new)?;
        let place = Place::for_write("put", key)?;
        marker_is_empty("put", &place, body.len())?;
        self.blocking("put", move |root, cancel| {
            let commit = Commit { root, operation: "put", place: &place, condition: &condition, cancel };
            if place.marker {
                return commit.run(&Leaf::Marker(&new), || Ok(()));
            }
            let mut temp = TempFile::new(root, "put", &place.key)?;
            temp.write(&body, cancel)?;
            temp.seal(&new)?;
            commit.run(&Leaf::File(&temp), || Ok(()))
        })
        .await
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        checks::new_object(&self.root.caps, "create_multipart", key, &new, 0)?;
        attributes::storable("create_multipart", key, &new)?;
        let key = key.clone();
        self.blocking("create_multipart", move |root, cancel| multipart::create(root, &key, &new, cancel))
            .await
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        let upload = upload.clone();
        self.blocking("upload_part", move |root, cancel| {
            multipart::upload_part(root, &upload, number, &body, cancel)
        })
        .await
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        let (upload, from, version) = (upload.clone(), from.clone(), version.clone());
        self.blocking("upload_part_copy", move |root, cancel| {
            multipart::copy_part(root, &upload, number, &from, &version, &range, cancel)
        })
        .await
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        let (upload, parts) = (upload.clone(), parts.to_vec());
        self.blocking("complete_multipart", move |root, cancel| {
            multipart::complete(root, &upload, &parts, &condition, cancel)
        })
        .await
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        let upload = upload.clone();
        self.blocking("abort_multipart", move |root, _| multipart::abort(root, &upload)).await
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        let prefix = prefix.to_owned();
        self.blocking("list_multiparts", move |root, _| multipart::list(root, &prefix, token.as_ref())).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        checks::copy_changes_something(&request)?;
        if let Some(new) = &request.replace {
            checks::new_object(&self.root.caps, "copy", &request.to, new, 0)?;
            attributes::storable("copy", &request.to, new)?;
        }
        self.blocking("copy", move |root, cancel| copy::copy(root, &request, cancel)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        self.blocking("delete", move |root, cancel| remove::delete(root, &request, cancel)).await
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        checks::batch_size(&self.root.caps, keys)?;
        let keys = keys.to_vec();
        self.blocking("delete_batch", move |root, cancel| {
            root.check_alive("delete_batch")?;
            let mut failures = Vec::new();
            for key in keys {
                cancel.check("delete_batch")?;
                if let Err(error) = remove::delete(root, &DeleteRequest::latest(key.clone()), cancel) {
                    failures.push(DeleteFailure { key, error });
                }
            }
            Ok(failures)
        })
        .await
    }

    async fn list_versions(&self, _: &str, _: Option<PageToken>) -> Result<VersionPage> {
        let text = "a directory keeps no versions";
        Err(StoreError::new(ErrorKind::Unsupported, "list_versions", text))
    }
}

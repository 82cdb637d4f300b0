//! Paths and keys, and the small questions that every operation puts to the store.

use std::time::{Duration, Instant};

use staithe_store::{
    ErrorKind, GetRequest, HeadRequest, Key, ListRequest, NewObject, ObjectMeta, Payload, PutCondition,
    StoreError,
};

use crate::api::Ino;
use crate::config::Ttl;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::metadata::{Defaults, FileMeta};

/// Makes "absent" of "not found"; other errors stay.
pub(crate) fn found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A TTL as the kernel takes it.
pub(crate) fn kernel_ttl(ttl: Ttl) -> Duration {
    match ttl {
        Ttl::Zero => Duration::ZERO,
        Ttl::For(time) => time,
        Ttl::Forever => Duration::from_secs(u64::from(u32::MAX)),
    }
}

impl Filesystem {
    pub(crate) fn defaults(&self) -> Defaults {
        let c = &self.config;
        Defaults { uid: c.uid, gid: c.gid, file_mode: c.file_mode, dir_mode: c.dir_mode }
    }

    /// The key of the object at `path`.
    ///
    /// # Errors
    /// `NameTooLong` over 1,024 bytes.
    pub(crate) fn key(&self, path: &str) -> Result<Key> {
        Key::new(format!("{}{path}", self.config.prefix)).map_err(|e| {
            FsError::caused(FsErrorKind::NameTooLong, format!("{path:?} makes no object key"), e)
        })
    }

    /// The key of the marker of the directory at `path`; `None` for the root, which has none.
    pub(crate) fn marker_key(&self, path: &str) -> Result<Option<Key>> {
        if path.is_empty() { Ok(None) } else { self.key(&format!("{path}/")).map(Some) }
    }

    /// The prefix of the keys below the directory at `path`.
    pub(crate) fn prefix_below(&self, path: &str) -> String {
        if path.is_empty() { self.config.prefix.clone() } else { format!("{}{path}/", self.config.prefix) }
    }

    /// The path of a name in a directory.
    ///
    /// # Errors
    /// `Stale` when the directory is gone; `Invalid`, `NameTooLong` for what is no name.
    pub(crate) fn path_in(&self, parent: Ino, name: &str) -> Result<String> {
        let dir = self.inodes.path(parent)?;
        Ok(if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") })
    }

    /// Whether what was seen at `seen` may still be believed at `now`.
    pub(crate) fn is_fresh(&self, seen: Option<Instant>, now: Instant) -> bool {
        match (seen, self.metadata_ttl()) {
            (None, _) | (_, Ttl::Zero) => false,
            (Some(_), Ttl::Forever) => true,
            (Some(seen), Ttl::For(ttl)) => now.saturating_duration_since(seen) < ttl,
        }
    }

    pub(crate) async fn head(&self, key: Key) -> Result<Option<ObjectMeta>, StoreError> {
        let object = found(self.store.head(HeadRequest::latest(key)).await)?;
        if let Some(object) = &object {
            self.keep_attributes(object, None);
        }
        Ok(object)
    }

    /// Fetches a whole small object, its attributes and bytes in one request.
    pub(crate) async fn get_small(&self, key: Key) -> Result<Option<(ObjectMeta, bytes::Bytes)>, StoreError> {
        use futures::TryStreamExt;
        let mut backoff = crate::patience::Backoff::new(self.op_deadline());
        loop {
            let request = GetRequest { key: key.clone(), range: None, version: None };
            let Some(answer) = found(self.store.get(request).await)? else { return Ok(None) };
            match answer.body.try_collect::<Vec<_>>().await {
                Ok(chunks) => {
                    let body = Payload::new(chunks).to_bytes();
                    self.keep_attributes(&answer.meta, Some(&body));
                    return Ok(Some((answer.meta, body)));
                }
                Err(error) => match backoff.next(&error) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
            }
        }
    }

    /// Whether any key lies below the directory at `path`; the first one or two of them.
    pub(crate) async fn first_below(
        &self,
        path: &str,
        max_keys: u16,
    ) -> Result<staithe_store::ListPage, StoreError> {
        let prefix = self.prefix_below(path);
        self.store.list(ListRequest { prefix, max_keys: Some(max_keys), ..ListRequest::default() }).await
    }

    /// Writes the marker of the directory at `path`.
    ///
    /// # Errors
    /// `AlreadyExists` when `condition` asks for a new one.
    pub(crate) async fn put_marker(
        &self,
        path: &str,
        meta: &FileMeta,
        condition: PutCondition,
    ) -> Result<()> {
        let Some(key) = self.marker_key(path)? else { return Ok(()) };
        let meta = FileMeta { write_id: Some(crate::create::new_write_id()), ..meta.clone() };
        let new = self.encode(&meta)?;
        let condition = match condition {
            PutCondition::IfAbsent if !self.store.capabilities().put_if_absent => PutCondition::Always,
            other => other,
        };
        reach(Step::BeforeMarker);
        let stored = self.store.put(&key, Payload::default(), new, condition).await;
        reach(Step::AfterMarker);
        match stored {
            Ok(_) => Ok(()),
            Err(error) => match self.was_ours(&key, &meta, 0, error.kind()).await? {
                Some(_) => Ok(()),
                None => Err(error.into()),
            },
        }
    }

    /// Makes sure that a directory outlives its last child: writes its marker unless there is one.
    pub(crate) async fn keep_directory(&self, dir: &Inode) -> Result<()> {
        if dir.ino == Ino::ROOT || dir.state().marker == Marker::Present {
            return Ok(());
        }
        let path = self.inodes.path(dir.ino)?;
        let meta = dir.state().meta.clone();
        match self.put_marker(&path, &meta, PutCondition::IfAbsent).await {
            Ok(()) => {}
            Err(error) if error.kind() == FsErrorKind::Exists => {}
            Err(error) => return Err(error),
        }
        dir.state().marker = Marker::Present;
        Ok(())
    }

    /// The attributes as an object carries them.
    pub(crate) fn encode(&self, meta: &FileMeta) -> Result<NewObject> {
        meta.encode(self.store.capabilities().metadata_bytes_max)
    }
}

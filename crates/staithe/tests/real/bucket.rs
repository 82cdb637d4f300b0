//! A bucket as another client sees it, past the mount and past the faults of its server.

use std::sync::Arc;

use futures::executor::block_on;
use staithe_store::{
    DeleteRequest, HeadRequest, Key, ListRequest, MemoryStore, Metadata, NewObject, ObjectMeta, ObjectStore,
    PutCondition,
};
use staithe_testkit::S3Server;

/// The bucket of a server of ours.
pub(crate) struct Bucket(Arc<MemoryStore>);

impl Bucket {
    pub(crate) fn of(server: &S3Server) -> Self {
        Self(server.store(super::BUCKET).unwrap())
    }

    pub(crate) fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.put_with(key, bytes, &[]);
    }

    pub(crate) fn put_with(&self, key: &str, bytes: impl Into<Vec<u8>>, metadata: &[(&str, &str)]) {
        let metadata: Metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let new = NewObject { metadata, content_type: None };
        let key = Key::new(key).unwrap();
        block_on(self.0.put(&key, bytes.into().into(), new, PutCondition::Always)).unwrap();
    }

    /// The bytes of an object, if there is one.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        use futures::TryStreamExt as _;
        let request = staithe_store::GetRequest { key: Key::new(key).unwrap(), range: None, version: None };
        let answer = block_on(self.0.get(request)).ok()?;
        let chunks: Vec<_> = block_on(answer.body.try_collect()).unwrap();
        Some(chunks.concat())
    }

    pub(crate) fn meta(&self, key: &str) -> Option<ObjectMeta> {
        block_on(self.0.head(HeadRequest::latest(Key::new(key).unwrap()))).ok()
    }

    pub(crate) fn delete(&self, key: &str) {
        block_on(self.0.delete(DeleteRequest::latest(Key::new(key).unwrap()))).unwrap();
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut request = ListRequest::default();
        let mut keys = Vec::new();
        loop {
            let page = block_on(self.0.list(request.clone())).unwrap();
            keys.extend(page.objects.iter().map(|o| o.key.as_str().to_owned()));
            match page.next {
                Some(next) => request.token = Some(next),
                None => return keys,
            }
        }
    }

    /// Multipart uploads that nobody has completed or aborted.
    pub(crate) fn uploads(&self) -> usize {
        block_on(self.0.list_multiparts("", None)).unwrap().uploads.len()
    }
}

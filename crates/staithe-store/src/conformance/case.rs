//! What a case is, and the few verbs that all cases are written in.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::BoxFuture;

use crate::{
    Capabilities, DeleteRequest, ErrorKind, GetRequest, HeadRequest, Key, ListRequest, NewObject, ObjectMeta,
    ObjectStore, ObjectSummary, Payload, PutCondition, Result, StoreError, Version, Written,
};

/// Why a case failed, in a sentence.
#[derive(Debug)]
pub(super) struct Failure(String);

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(format!("unexpected error: {error} ({:?})", error.kind()))
    }
}

pub(super) type Verdict<T = ()> = std::result::Result<T, Failure>;

/// Why a store with these capabilities cannot run the case, if it cannot.
pub(super) type Need = fn(&Capabilities) -> Option<&'static str>;

pub(super) struct Case {
    name: &'static str,
    need: Need,
    run: Box<dyn Fn(Context) -> BoxFuture<'static, Verdict> + Send>,
}

impl Case {
    pub(super) fn new<F>(name: &'static str, need: Need, run: fn(Context) -> F) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        Self { name, need, run: Box::new(move |context| Box::pin(run(context))) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn reason_to_skip(&self, caps: &Capabilities) -> Option<&'static str> {
        (self.need)(caps)
    }

    pub(super) fn run(&self, context: Context) -> BoxFuture<'static, Verdict> {
        (self.run)(context)
    }
}

/// The store under test and the prefix that belongs to one case.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: String,
}

impl Context {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: prefix.to_owned() }
    }

    pub(super) fn key(&self, name: &str) -> Verdict<Key> {
        Key::new(format!("{}{name}", self.prefix)).map_err(|why| Failure(format!("{name:?}: {why}")))
    }

    pub(super) async fn put(&self, name: &str, body: impl Into<Payload>) -> Verdict<Version> {
        Ok(self.put_if(name, body, PutCondition::Always).await??.version)
    }

    /// A put whose refusal the case wants to see.
    pub(super) async fn put_if(
        &self,
        name: &str,
        body: impl Into<Payload>,
        condition: PutCondition,
    ) -> Verdict<Result<Written>> {
        Ok(self.store.put(&self.key(name)?, body.into(), NewObject::default(), condition).await)
    }

    pub(super) async fn head(&self, name: &str, version: Option<Version>) -> Verdict<Result<ObjectMeta>> {
        Ok(self.store.head(HeadRequest { key: self.key(name)?, version }).await)
    }

    /// A GET whose refusal, also in the middle of the body, the case wants to see.
    pub(super) async fn get(
        &self,
        name: &str,
        range: Option<Range<u64>>,
        version: Option<Version>,
    ) -> Verdict<Result<(ObjectMeta, Bytes)>> {
        let request = GetRequest { key: self.key(name)?, range, version };
        let response = match self.store.get(request).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        let promised = response.range.end - response.range.start;
        let chunks: Vec<Bytes> = match response.body.try_collect().await {
            Ok(chunks) => chunks,
            Err(error) => return Ok(Err(error)),
        };
        expect(chunks.iter().all(|chunk| !chunk.is_empty()), || "a chunk of a body is empty".into())?;
        let body = Payload::new(chunks).to_bytes();
        expect_eq(&(body.len() as u64), &promised, "the length of a body, as promised")?;
        Ok(Ok((response.meta, body)))
    }

    /// Checks that the latest version of an object has this body.
    pub(super) async fn expect_body(&self, name: &str, body: &[u8]) -> Verdict {
        let (meta, found) = self.get(name, None, None).await??;
        expect_eq(&meta.size, &(body.len() as u64), &format!("the size of {name:?}"))?;
        expect(found == body, || format!("the body of {name:?} is not what was stored"))
    }

    pub(super) async fn expect_gone(&self, name: &str) -> Verdict {
        let what = format!("HEAD of the removed object {name:?}");
        expect_kind(&self.head(name, None).await?, ErrorKind::NotFound, &what)
    }

    pub(super) async fn delete(&self, name: &str) -> Verdict {
        Ok(self.store.delete(DeleteRequest::latest(self.key(name)?)).await?)
    }

    /// What a flat listing tells of this case's objects, from as many pages as it takes.
    pub(super) async fn objects(&self) -> Verdict<Vec<ObjectSummary>> {
        let mut objects = Vec::new();
        let mut request = ListRequest { prefix: self.prefix.clone(), ..ListRequest::default() };
        loop {
            let page = self.store.list(request.clone()).await?;
            objects.extend(page.objects);
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(objects),
            }
        }
    }

    /// The names below this case's prefix, flat.
    pub(super) async fn names(&self) -> Verdict<Vec<String>> {
        let objects = self.objects().await?;
        objects.iter().map(|object| self.name_of(object.key.as_str())).collect()
    }

    pub(super) fn name_of(&self, key: &str) -> Verdict<String> {
        let name = key.strip_prefix(&self.prefix);
        name.map(str::to_owned).ok_or_else(|| Failure(format!("{key:?} was listed under {:?}", self.prefix)))
    }

    /// Removes what the case left; a store that fails here has failed a case already.
    pub(super) async fn clean_up(&self) {
        let Ok(names) = self.names().await else { return };
        let keys: Vec<Key> = names.iter().filter_map(|name| self.key(name).ok()).collect();
        for batch in keys.chunks(self.store.capabilities().delete_batch_max.max(1)) {
            let _ = self.store.delete_batch(batch).await;
        }
    }
}

pub(super) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Failure(otherwise())) }
}

pub(super) fn expect_eq<T: PartialEq + fmt::Debug>(found: &T, wanted: &T, what: &str) -> Verdict {
    expect(found == wanted, || format!("{what}: found {found:?}, wanted {wanted:?}"))
}

pub(super) fn expect_kind<T>(result: &Result<T>, kind: ErrorKind, what: &str) -> Verdict {
    match result {
        Ok(_) => Err(Failure(format!("{what} succeeded; it should be {kind:?}"))),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Failure(format!("{what} is {:?} ({error}); it should be {kind:?}", error.kind()))),
    }
}

/// Bytes that differ from one offset to the next, and from one seed to the next.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ seed ^ (i / 251) as u8).collect()
}

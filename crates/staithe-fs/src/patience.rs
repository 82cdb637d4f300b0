//! Riding out trouble: every request of the filesystem is tried again, with full jitter, until its deadline; one
//! that is still under way then is given up, so that an operation of n requests ends after n deadlines at most.
//! Bytes on their way up add to the deadline what a slow line takes for them.
//!
//! Only what [`StoreError::is_retryable`] says is tried again. A conditional write that is tried again may find
//! its own first try in its way; the caller tells that by the write id (see `commit`). One whose answer says that the
//! store has something else than was sent is not made again here: that would be in its way.
//! What raises a suspicion about the volume itself, or about the credentials, is tried again, too, while that is being
//! looked into; once it is confirmed, every request fails at once, and none is made (see `fate`).
//! Whatever becomes of a change of an object, and also if nobody waits for it any more: attributes that are kept of
//! the object are forgotten then (see `recall`).
//! A try ends with the store that it began with; the next one is made of the store that is in force by then (see `live`).
//! Backoff with full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use staithe_snapshot::SnapshotCell;
use staithe_store::{
    Capabilities, CopyRequest, Crc64Nvme, DeleteFailure, DeleteRequest, ErrorKind, GetRequest, GetResponse,
    HeadRequest, Key, ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken,
    PartNumber, PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage,
    VolumeInfo, Written,
};

use crate::fate::{Fate, condemned, is_change, is_suspicion};
use crate::live::Live;
use crate::recall::Recall;

/// For how long a start asks for a volume that does not answer.
const STARTING: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(50);

const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The slowest upload that is waited for, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 << 10;

/// How long a question may go without an answer before that is trouble, and how often it is again.
const SILENCE: Duration = Duration::from_secs(10);
const SILENCE_GOES_ON: Duration = Duration::from_secs(3);

/// When to try again, and when to give up.
#[derive(Debug)]
pub(crate) struct Backoff {
    until: Instant,
    ceiling: Duration,
    /// What the last try met: it says more than that time ran out in the next one.
    met: Option<StoreError>,
    /// Whether one whose answer was wrong must not be made again.
    is_once: bool,
}

impl Backoff {
    /// Gives up `deadline` from now.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self { until: Instant::now() + deadline, ceiling: FIRST_WAIT, met: None, is_once: false }
    }

    /// For a write whose condition does not hold any more once it was carried out, however wrongly: whoever asked finds
    /// out what stands there.
    fn once(self, is_once: bool) -> Self {
        Self { is_once, ..self }
    }

    /// How long to wait before the next try; `None` when the error is final or the deadline too near.
    pub(crate) fn next(&mut self, error: &StoreError) -> Option<Duration> {
        if !error.is_retryable() || (self.is_once && error.kind() == ErrorKind::Corrupt) {
            return None;
        }
        self.again(error)
    }

    /// The same, also after what raises a suspicion about the volume.
    fn next_in_doubt(&mut self, error: &StoreError) -> Option<Duration> {
        if is_suspicion(error.kind()) { self.again(error) } else { self.next(error) }
    }

    fn again(&mut self, error: &StoreError) -> Option<Duration> {
        self.met = Some(error.clone());
        let jittered = self.ceiling.mul_f64(fastrand::f64());
        // A little later than asked, so that not all come at once.
        let asked = error.retry_after().map(|asked| asked.mul_f64(1.0 + fastrand::f64() / 4.0));
        let wait = asked.unwrap_or_default().max(jittered).max(Duration::from_millis(1));
        self.ceiling = (self.ceiling * 2).min(LONGEST_WAIT);
        (Instant::now() + wait < self.until).then_some(wait)
    }

    /// What `request` answers, or that it did not in time.
    async fn bound<T>(&self, operation: &'static str, request: impl Future<Output = Result<T>>) -> Result<T> {
        let until = tokio::time::Instant::from_std(self.until);
        tokio::time::timeout_at(until, request).await.unwrap_or_else(|_| {
            let late = || StoreError::new(ErrorKind::Timeout, operation, "no answer before the deadline");
            Err(self.met.clone().unwrap_or_else(late))
        })
    }
}

/// Asks what a start depends on, again if there may have been a moment's trouble.
pub(crate) async fn starting<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let mut backoff = Backoff::new(STARTING);
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(wait) = backoff.next(&error) else { return Err(error) };
        tokio::time::sleep(wait).await;
    }
}

/// Whether another try may end otherwise.
fn is_passing(error: &StoreError) -> bool {
    error.is_retryable() || is_suspicion(error.kind())
}

/// A store whose requests are tried again until a deadline, each on its own.
#[derive(Debug)]
pub(crate) struct Patient {
    live: Arc<SnapshotCell<Live>>,
    /// Of the volume, however it is reached.
    capabilities: Capabilities,
    tried_again: Arc<AtomicU64>,
    recall: Arc<Recall>,
    fate: Arc<Fate>,
}

macro_rules! patiently {
    ($self:ident, $operation:literal, |$store:ident| $call:expr) => {
        patiently!($self, Backoff::new($self.deadline()), $operation, |$store| $call)
    };
    ($self:ident, $backoff:expr, $operation:literal, |$store:ident| $call:expr) => {{
        let mut backoff = $backoff;
        loop {
            let $store = $self.store();
            match $self.attempt($operation, &backoff, $call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if $self.fate.verdict().is_some() || !$self.pause(&mut backoff, &error).await {
                        return Err(error);
                    }
                }
            }
        }
    }};
}

impl Patient {
    /// `tried_again` counts the requests that were made once more; `recall` forgets what they change; `fate` is told how
    /// each try ends.
    pub(crate) fn new(
        live: Arc<SnapshotCell<Live>>,
        tried_again: Arc<AtomicU64>,
        recall: Arc<Recall>,
        fate: Arc<Fate>,
    ) -> Self {
        let capabilities = live.peek(|live| live.store.capabilities().clone());
        Self { live, capabilities, tried_again, recall, fate }
    }

    /// One try, unless it is known that it would be in vain.
    async fn attempt<T>(
        &self,
        operation: &'static str,
        backoff: &Backoff,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let store = self.store();
        if is_change(operation) && self.fate.is_strange() {
            backoff.bound(operation, self.fate.recognise(&*store)).await?;
        }
        let is_look = matches!(operation, "head" | "get" | "list" | "checksum" | "list_versions");
        let mut request = pin!(backoff.bound(operation, request));
        let mut condemning = pin!(self.fate.condemned());
        let mut silence = SILENCE;
        let ended = loop {
            tokio::select! {
                biased;
                verdict = &mut condemning => return Err(condemned(verdict, operation)),
                ended = &mut request => break ended,
                () = tokio::time::sleep_until((began + silence).into()), if is_look => {
                    self.fate.note_silence(operation, began);
                    silence += SILENCE_GOES_ON;
                }
            }
        };
        // What a view says from memory says nothing of the volume.
        if !store.answers_from_memory(operation) {
            self.fate.note(operation, began, &ended);
        }
        ended
    }

    /// What a HEAD answers. It cannot say whether it is the object that is missing, or the volume: that is asked for, unless
    /// the volume was heard of a moment ago.
    async fn head_or_gone<T>(
        &self,
        store: &dyn ObjectStore,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answer = answer.await;
        let is_missing = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if is_missing && !store.answers_from_memory("head") && !self.fate.was_heard() {
            let began = Instant::now();
            let probed = store.probe().await;
            self.fate.note("probe", began, &probed);
            probed?;
        }
        answer
    }

    async fn try_delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        patiently!(self, "delete_batch", |store| store.delete_batch(keys))
    }

    async fn begin_get(&self, request: &GetRequest) -> Result<GetResponse> {
        patiently!(self, "get", |store| store.get(request.clone()))
    }

    /// The same, of which it is also told how its body breaks off.
    fn watched(&self, began: Instant, response: GetResponse) -> GetResponse {
        if self.store().answers_from_memory("get") {
            return response;
        }
        let fate = Arc::clone(&self.fate);
        let body =
            response.body.inspect_err(move |error| fate.note::<()>("body", began, &Err(error.clone())));
        GetResponse { body: body.boxed(), ..response }
    }

    /// Waits before the next try; false, and at once, if that would be in vain.
    async fn pause(&self, backoff: &mut Backoff, error: &StoreError) -> bool {
        let Some(wait) = backoff.next_in_doubt(error) else { return false };
        tracing::debug!(%error, ?wait, "trying again");
        self.tried_again.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            _ = self.fate.condemned() => {}
            () = tokio::time::sleep(wait) => {}
        }
        true
    }

    /// The store that is in force.
    fn store(&self) -> Arc<dyn ObjectStore> {
        self.live.peek(|live| Arc::clone(&live.store))
    }

    fn deadline(&self) -> Duration {
        self.live.peek(|live| live.config.op_deadline)
    }

    /// The deadline of a request that carries `bytes`.
    fn with_body(&self, bytes: u64) -> Duration {
        self.deadline() + Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST_UPLOAD)
    }
}

#[async_trait]
impl ObjectStore for Patient {
    fn url(&self) -> String {
        self.store().url()
    }

    fn volume(&self) -> String {
        self.store().volume()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        self.store().probe().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.store().identity().await
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        patiently!(self, "head", |store| self.head_or_gone(&*store, store.head(request.clone())))
    }

    async fn checksum(&self, request: HeadRequest) -> Result<Option<Crc64Nvme>> {
        patiently!(self, "checksum", |store| self.head_or_gone(&*store, store.checksum(request.clone())))
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        let began = Instant::now();
        let response = self.begin_get(&request).await?;
        Ok(self.watched(began, response))
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        patiently!(self, "list", |store| store.list(request.clone()))
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        let _changing = self.recall.changing(std::slice::from_ref(key));
        patiently!(
            self,
            Backoff::new(self.with_body(body.len())).once(condition != PutCondition::Always),
            "put",
            |store| store.put(key, body.clone(), new.clone(), condition.clone())
        )
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        patiently!(self, "create_multipart", |store| store.create_multipart(key, new.clone()))
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        patiently!(self, Backoff::new(self.with_body(body.len())), "upload_part", |store| store.upload_part(
            upload,
            number,
            body.clone()
        ))
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        patiently!(self, "upload_part_copy", |store| store.upload_part_copy(
            upload,
            number,
            from,
            version,
            range.clone()
        ))
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        let _changing = self.recall.changing(std::slice::from_ref(&upload.key));
        patiently!(self, Backoff::new(self.deadline()).once(true), "complete_multipart", |store| store
            .complete_multipart(upload, parts, condition.clone()))
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        patiently!(self, "abort_multipart", |store| store.abort_multipart(upload))
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        patiently!(self, "list_multiparts", |store| store.list_multiparts(prefix, token.clone()))
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        let _changing = self.recall.changing(std::slice::from_ref(&request.to));
        patiently!(self, "copy", |store| store.copy(request.clone()))
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        let _changing = self.recall.changing(std::slice::from_ref(&request.key));
        patiently!(self, "delete", |store| store.delete(request.clone()))
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let _changing = self.recall.changing(keys);
        let (mut backoff, mut left, mut failures) =
            (Backoff::new(self.deadline()), keys.to_vec(), Vec::new());
        loop {
            let began = Instant::now();
            let failed = self.try_delete_batch(&left).await?;
            let (again, done): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|failure| is_passing(&failure.error));
            failures.extend(done);
            let Some(first) = again.first().map(|failure| failure.error.clone()) else { return Ok(failures) };
            // The answer as a whole was none of these.
            self.fate.note::<()>("delete_batch", began, &Err(first.clone()));
            if self.fate.verdict().is_some() || !self.pause(&mut backoff, &first).await {
                failures.extend(again);
                return Ok(failures);
            }
            left = again.into_iter().map(|failure| failure.key).collect();
        }
    }

    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage> {
        patiently!(self, "list_versions", |store| store.list_versions(prefix, token.clone()))
    }
}

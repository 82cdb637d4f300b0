//! A store that fails as it is told to.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use super::{Fault, FaultAction, Layer, Request};
use crate::{Body, ErrorKind, ObjectStore, Result, StoreError};

/// Fails requests and bodies of the store within by rules, which may change while it runs.
///
/// The first rule that strikes a request decides. Rules with a probability draw from one generator, seeded at
/// the start: the same requests in the same order meet the same faults.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use staithe_store::decorators::{Fault, FaultAction, Faulty, Operation};
/// use staithe_store::{ErrorKind, HeadRequest, Key, MemoryStore, ObjectStore};
///
/// let store = Faulty::new(Arc::new(MemoryStore::default()), 7);
/// let fault = Fault::new(FaultAction::FailBefore(ErrorKind::Throttled));
/// store.handle().add(fault.on(Operation::Head).times(1));
/// let request = HeadRequest::latest(Key::new("a").unwrap());
/// assert_eq!(store.head(request.clone()).await.unwrap_err().kind(), ErrorKind::Throttled);
/// assert_eq!(store.head(request).await.unwrap_err().kind(), ErrorKind::NotFound);
/// # });
/// ```
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    handle: FaultHandle,
}

/// Changes the rules of a [`Faulty`] store from elsewhere. Clones are the same handle.
#[derive(Debug, Clone)]
pub struct FaultHandle(Arc<Mutex<Rules>>);

#[derive(Debug)]
struct Rules {
    faults: Vec<Fault>,
    random: fastrand::Rng,
    strikes: usize,
}

impl Faulty {
    /// A store without rules around `inner`; `seed` decides what rules with a probability do.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let rules = Rules { faults: Vec::new(), random: fastrand::Rng::with_seed(seed), strikes: 0 };
        Self { inner, handle: FaultHandle(Arc::new(Mutex::new(rules))) }
    }

    /// The handle that changes the rules.
    pub fn handle(&self) -> FaultHandle {
        self.handle.clone()
    }
}

impl FaultHandle {
    /// Adds a rule, after those that are there.
    pub fn add(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Drops all rules; what waits at a gate goes on waiting there.
    pub fn clear(&self) {
        self.0.lock().faults.clear();
    }

    /// How many requests a rule has struck so far.
    pub fn strikes(&self) -> usize {
        self.0.lock().strikes
    }

    fn choose(&self, request: &Request<'_>) -> Option<FaultAction> {
        let rules = &mut *self.0.lock();
        let action = rules.faults.iter_mut().find_map(|fault| fault.strike(request, &mut rules.random))?;
        rules.strikes += 1;
        Some(action)
    }
}

/// The request that a fault struck.
#[derive(Debug)]
#[doc(hidden)]
pub struct Struck {
    operation: &'static str,
    action: Option<FaultAction>,
}

fn injected(kind: ErrorKind, operation: &'static str) -> StoreError {
    StoreError::new(kind, operation, "a fault was injected")
}

#[async_trait]
impl Layer for Faulty {
    type Ticket = Struck;

    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn before(&self, request: &Request<'_>) -> Result<Struck> {
        let struck = Struck { operation: request.operation.as_str(), action: self.handle.choose(request) };
        match &struck.action {
            Some(FaultAction::FailBefore(kind)) => return Err(injected(*kind, struck.operation)),
            Some(FaultAction::Hang) => std::future::pending().await,
            Some(FaultAction::HoldBefore(gate)) => gate.pass().await,
            _ => {}
        }
        Ok(struck)
    }

    async fn after(&self, struck: &Struck, error: Option<&StoreError>) -> Result<()> {
        match &struck.action {
            Some(FaultAction::FailAfter(kind)) if error.is_none() => Err(injected(*kind, struck.operation)),
            Some(FaultAction::HoldAfter(gate)) => {
                gate.pass().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn body(&self, struck: &Struck, body: Body) -> Body {
        match struck.action {
            Some(FaultAction::ShortBody(bytes)) => cut(body, bytes, None),
            Some(FaultAction::BodyError(bytes, kind)) => {
                cut(body, bytes, Some(injected(kind, struck.operation)))
            }
            Some(FaultAction::StallBody(bytes)) => cut(body, bytes, None).chain(stream::pending()).boxed(),
            Some(FaultAction::Corrupt(offset)) => corrupt(body, offset),
            _ => body,
        }
    }
}

/// The first `bytes` of `body`, then `last`, if any.
fn cut(body: Body, bytes: u64, last: Option<StoreError>) -> Body {
    let head = body.scan(bytes, |left, chunk| {
        let kept = (*left > 0).then(|| chunk.map(|bytes| take(left, &bytes)));
        std::future::ready(kept)
    });
    head.chain(stream::iter(last.map(Err))).boxed()
}

fn take(left: &mut u64, chunk: &Bytes) -> Bytes {
    let kept = chunk.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= kept as u64;
    chunk.slice(..kept)
}

fn corrupt(body: Body, at: u64) -> Body {
    let mut offset = 0;
    body.map(move |chunk| {
        let chunk = chunk?;
        let start = offset;
        offset += chunk.len() as u64;
        if !(start..offset).contains(&at) {
            return Ok(chunk);
        }
        let mut changed = BytesMut::from(&chunk[..]);
        if let Some(byte) = changed.get_mut((at - start) as usize) {
            *byte ^= 1;
        }
        Ok(changed.freeze())
    })
    .boxed()
}

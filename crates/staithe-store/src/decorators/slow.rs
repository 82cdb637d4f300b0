//! A store that answers late.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::RwLock;

use super::{Layer, Request};
use crate::{Body, ObjectStore, Result, StoreError};

/// How slow a [`Slow`] store is. The default is not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// From a request to the first byte of its answer.
    pub latency: Duration,
    /// Bytes a second of each body, sent or received; `None` is as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

impl Pace {
    fn time_for(self, bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
    }
}

/// Adds latency to each request and bounds the bandwidth of each body of the store within.
///
/// It waits in tokio's time, so a test that pauses the clock loses none.
#[derive(Debug)]
pub struct Slow {
    inner: Arc<dyn ObjectStore>,
    pace: RwLock<Pace>,
}

impl Slow {
    /// Slows `inner` down to `pace`.
    pub fn new(inner: Arc<dyn ObjectStore>, pace: Pace) -> Self {
        Self { inner, pace: RwLock::new(pace) }
    }

    /// Changes the pace of requests from now on.
    pub fn set_pace(&self, pace: Pace) {
        *self.pace.write() = pace;
    }
}

#[async_trait]
impl Layer for Slow {
    type Ticket = Pace;

    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn before(&self, request: &Request<'_>) -> Result<Pace> {
        let pace = *self.pace.read();
        wait(pace.latency + pace.time_for(request.sent)).await;
        Ok(pace)
    }

    async fn after(&self, _: &Pace, _: Option<&StoreError>) -> Result<()> {
        Ok(())
    }

    fn body(&self, pace: &Pace, body: Body) -> Body {
        let pace = *pace;
        body.then(move |chunk| async move {
            if let Ok(bytes) = &chunk {
                wait(pace.time_for(bytes.len() as u64)).await;
            }
            chunk
        })
        .boxed()
    }
}

/// Waits, without a detour through the timer when there is nothing to wait for.
async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

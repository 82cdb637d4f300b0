use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

/// How a server behaves to everybody, until it is told otherwise. Cheap to clone; changes are effective at once.
#[derive(Debug, Clone, Default)]
pub struct Modes(Arc<RwLock<Behaviour>>);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    pub(crate) latency: Duration,
    pub(crate) bandwidth: Option<u64>,
    pub(crate) ignores_conditions: bool,
}

impl Modes {
    /// Every request waits so long before its effect.
    pub fn set_latency(&self, latency: Duration) {
        self.0.write().latency = latency;
    }

    /// Every connection moves at most so many bytes a second, each way.
    pub fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        self.0.write().bandwidth = bytes_per_second;
    }

    /// Accepts the condition headers of writes (`If-Match`, `If-None-Match`) and does not act on them, as some
    /// S3-compatible stores do. Conditions on reads are honoured all the same.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.0.write().ignores_conditions = ignore;
    }

    pub(crate) fn now(&self) -> Behaviour {
        *self.0.read()
    }
}

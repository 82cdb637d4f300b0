//! One rule of a [`Faulty`](super::Faulty) store: when it strikes, and what it does then.

use std::fmt;

use super::{Gate, Operation, Request};
use crate::ErrorKind;

/// What a fault does to the request that it strikes.
#[derive(Debug, Clone)]
pub enum FaultAction {
    /// Answers with this error and does not make the request.
    FailBefore(ErrorKind),
    /// Makes the request, then answers with this error: the effect is there and the caller does not know.
    FailAfter(ErrorKind),
    /// Ends the body of a GET after so many bytes, without an error: what a careless store would do.
    ShortBody(u64),
    /// Fails the body of a GET with this error after so many bytes.
    BodyError(u64, ErrorKind),
    /// Delivers so many bytes of the body of a GET, then nothing more, and does not end it either.
    StallBody(u64),
    /// Flips a bit of the byte at this offset of the body of a GET.
    Corrupt(u64),
    /// Never answers, and does not make the request.
    Hang,
    /// Waits at the gate, then makes the request.
    HoldBefore(Gate),
    /// Makes the request, then waits at the gate before it answers.
    HoldAfter(Gate),
}

type KeyPredicate = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// A rule: an action, and the requests that it strikes. All conditions must hold.
pub struct Fault {
    action: FaultAction,
    operations: Vec<Operation>,
    key: Option<KeyPredicate>,
    skip: usize,
    times: usize,
    probability: f64,
}

impl Fault {
    /// A rule that strikes every request.
    pub fn new(action: FaultAction) -> Self {
        Self { action, operations: Vec::new(), key: None, skip: 0, times: usize::MAX, probability: 1.0 }
    }

    /// Only this operation; may be called again for more.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Only requests whose key (see [`Request::key`]) satisfies this.
    #[must_use]
    pub fn key(mut self, predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.key = Some(Box::new(predicate));
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// Strikes at most `count` times.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    /// Strikes a matching request with this probability, 0 to 1.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// The action, if this rule strikes this request; keeps the counts.
    pub(super) fn strike(
        &mut self,
        request: &Request<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<FaultAction> {
        let operation_fits = self.operations.is_empty() || self.operations.contains(&request.operation);
        let key_fits = self.key.as_ref().is_none_or(|predicate| predicate(request.key));
        if !operation_fits || !key_fits || self.times == 0 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.probability < 1.0 && random.f64() >= self.probability {
            return None;
        }
        self.times -= 1;
        Some(self.action.clone())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("action", &self.action)
            .field("operations", &self.operations)
            .field("skip", &self.skip)
            .field("times", &self.times)
            .field("probability", &self.probability)
            .finish_non_exhaustive()
    }
}

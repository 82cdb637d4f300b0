use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use crate::Hold;
use crate::body::Cut;
use crate::lie::Lie;
use crate::matcher::{Matcher, When};
use crate::operation::Target;

/// What happens to a request that meets it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Waits before the request has its effect.
    DelayRequest(Duration),
    /// Waits after the effect, before the first byte of the answer: the answer grows old on its way.
    DelayResponse(Duration),
    /// Holds the request before its effect until the test releases it.
    HoldRequest(Hold),
    /// Holds the answer after the effect until the test releases it.
    HoldResponse(Hold),
    /// Limits this exchange to so many bytes a second, each way.
    Bandwidth(u64),
    /// Answers with an error instead; nothing happens to the store.
    Refuse(Refusal),
    /// Resets the connection; nothing has happened to the store.
    ResetBefore,
    /// Resets the connection once the effect has happened; no byte of the answer is sent.
    ResetAfter,
    /// Never answers, and nothing happens to the store; the connection stays open.
    BlackHole,
    /// Promises the whole body, sends its first bytes, and closes the connection.
    CutBody {
        /// How many bytes are sent.
        after: u64,
    },
    /// Promises the whole body, sends its first bytes, and then nothing more; the connection stays open.
    StallBody {
        /// How many bytes are sent.
        after: u64,
    },
    /// Inverts the bits of one byte of the body of the answer.
    CorruptByte {
        /// Its place in the body; beyond the end nothing changes.
        at: u64,
    },
    /// A write has its effect, and its answer says the checksum of other bytes.
    WrongChecksum,
    /// A write has its effect, and its answer says the entity tag of other bytes.
    WrongTag,
    /// A write loses one byte of what came, once that was found to be what the request says; everything that the server
    /// says afterwards is true of the rest.
    LoseByte {
        /// Its place in the body; beyond the end nothing is lost.
        at: u64,
    },
    /// As [`LoseByte`](Self::LoseByte), but it inverts the bits of the byte.
    SpoilByte {
        /// Its place in the body; beyond the end nothing changes.
        at: u64,
    },
}

/// An error answer in S3's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The S3 error code; empty for a page of something that knows nothing of S3.
    pub code: String,
    /// Sent as `Retry-After`, in whole seconds.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// An error answer with this status and S3 error code.
    pub fn new(status: StatusCode, code: impl Into<String>) -> Self {
        Self { status, code: code.into(), retry_after: None }
    }

    /// Adds a `Retry-After` header.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl Fault {
    /// 503 `SlowDown`, with a `Retry-After` when there is one.
    pub fn slow_down(retry_after: Option<Duration>) -> Self {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
        Self::Refuse(Refusal { retry_after, ..refusal })
    }

    /// 500 `InternalError`.
    pub fn internal_error() -> Self {
        Self::Refuse(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
    }

    /// 403 `AccessDenied`.
    pub fn access_denied() -> Self {
        Self::Refuse(Refusal::new(StatusCode::FORBIDDEN, "AccessDenied"))
    }

    /// 400 `ExpiredToken`, as Amazon S3 answers an expired session token.
    pub fn expired_token() -> Self {
        Self::Refuse(Refusal::new(StatusCode::BAD_REQUEST, "ExpiredToken"))
    }

    /// 403 `InvalidAccessKeyId`.
    pub fn unknown_credentials() -> Self {
        Self::Refuse(Refusal::new(StatusCode::FORBIDDEN, "InvalidAccessKeyId"))
    }

    /// 404 `NoSuchBucket`, though the bucket may be there: a lie that a client must not believe at once.
    pub fn no_such_bucket() -> Self {
        Self::Refuse(Refusal::new(StatusCode::NOT_FOUND, "NoSuchBucket"))
    }

    /// 404 with a page of HTML, as a proxy answers that does not know where to send a request.
    pub fn lost_proxy() -> Self {
        Self::Refuse(Refusal::new(StatusCode::NOT_FOUND, ""))
    }
}

#[derive(Debug)]
struct Rule {
    id: u64,
    matcher: Matcher,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Rules {
    next_id: u64,
    list: Vec<Rule>,
}

/// The faults of a server: cheap to clone, effective at once for requests that arrive later.
///
/// A request meets every fault whose [`When`] agrees: delays and holds add up, of two refusals the older wins.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Rules>>);

impl Faults {
    /// Adds a fault. It stays until [`Injected::remove`] or [`Faults::clear`], also when the handle is dropped.
    pub fn inject(&self, when: When, fault: Fault) -> Injected {
        let mut rules = self.0.lock();
        let id = rules.next_id;
        rules.next_id += 1;
        rules.list.push(Rule { id, matcher: Matcher::new(when), fault });
        Injected { faults: self.clone(), id }
    }

    /// Holds matching requests before their effect; release with the handle that is returned.
    pub fn hold_requests(&self, when: When) -> Hold {
        let hold = Hold::new();
        self.inject(when, Fault::HoldRequest(hold.clone()));
        hold
    }

    /// Holds the answers of matching requests after their effect; release with the handle that is returned.
    pub fn hold_responses(&self, when: When) -> Hold {
        let hold = Hold::new();
        self.inject(when, Fault::HoldResponse(hold.clone()));
        hold
    }

    /// Takes every fault away. Requests that already met one are not helped.
    pub fn clear(&self) {
        self.0.lock().list.clear();
    }

    /// All faults that this request meets.
    pub(crate) fn meet(&self, target: &Target) -> Plan {
        let mut plan = Plan::default();
        for rule in &mut self.0.lock().list {
            if rule.matcher.meets(target) {
                plan.add(&rule.fault);
            }
        }
        plan
    }
}

/// One fault that was added.
#[derive(Debug, Clone)]
pub struct Injected {
    faults: Faults,
    id: u64,
}

impl Injected {
    /// How many requests it has met; 0 once it is taken away.
    pub fn hits(&self) -> u64 {
        let rules = self.faults.0.lock();
        rules.list.iter().find(|r| r.id == self.id).map_or(0, |r| r.matcher.hits())
    }

    /// Takes it away.
    pub fn remove(&self) {
        self.faults.0.lock().list.retain(|r| r.id != self.id);
    }
}

/// What is to happen to one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay_request: Duration,
    pub(crate) delay_response: Duration,
    pub(crate) hold_request: Vec<Hold>,
    pub(crate) hold_response: Vec<Hold>,
    pub(crate) bandwidth: Option<u64>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) reset_before: bool,
    pub(crate) reset_after: bool,
    pub(crate) black_hole: bool,
    pub(crate) cut: Cut,
    pub(crate) corrupt_at: Option<u64>,
    pub(crate) lie: Lie,
}

impl Plan {
    fn add(&mut self, fault: &Fault) {
        match fault {
            Fault::DelayRequest(wait) => self.delay_request += *wait,
            Fault::DelayResponse(wait) => self.delay_response += *wait,
            Fault::HoldRequest(hold) => self.hold_request.push(hold.clone()),
            Fault::HoldResponse(hold) => self.hold_response.push(hold.clone()),
            Fault::Bandwidth(rate) => self.bandwidth = Some(self.bandwidth.map_or(*rate, |r| r.min(*rate))),
            Fault::Refuse(refusal) => self.refusal = self.refusal.take().or_else(|| Some(refusal.clone())),
            Fault::ResetBefore => self.reset_before = true,
            Fault::ResetAfter => self.reset_after = true,
            Fault::BlackHole => self.black_hole = true,
            Fault::CutBody { after } => self.cut = Cut::closing(*after),
            Fault::StallBody { after } => self.cut = Cut::stalling(*after),
            Fault::CorruptByte { at } => self.corrupt_at = Some(*at),
            Fault::WrongChecksum => self.lie.checksum = true,
            Fault::WrongTag => self.lie.tag = true,
            Fault::LoseByte { at } => self.lie.lost_byte = Some(*at),
            Fault::SpoilByte { at } => self.lie.spoiled_byte = Some(*at),
        }
    }
}

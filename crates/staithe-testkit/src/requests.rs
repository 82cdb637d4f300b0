use std::collections::{BTreeMap, VecDeque};
use std::ops::{AddAssign, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use http::request::Parts;
use parking_lot::Mutex;

use crate::Operation;
use crate::operation::Target;

/// How many requests are kept with their details; older ones stay in the counters.
const RECORDS_MAX: usize = 100_000;

/// How much was asked and moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests that arrived.
    pub requests: u64,
    /// Answers with a status of 400 or more.
    pub errors: u64,
    /// Bytes of request bodies, as they came over the wire.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
        }
    }
}

/// The traffic of a server up to one moment, by operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Operation, Traffic>);

impl Tally {
    /// What one operation caused.
    pub fn of(&self, operation: Operation) -> Traffic {
        self.0.get(&operation).copied().unwrap_or_default()
    }

    /// What all operations caused.
    pub fn total(&self) -> Traffic {
        let mut total = Traffic::default();
        self.0.values().for_each(|traffic| total += *traffic);
        total
    }

    /// What came after an earlier tally of the same server.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let moved = self.0.iter().map(|(operation, t)| (*operation, *t - earlier.of(*operation)));
        Self(moved.filter(|(_, traffic)| *traffic != Traffic::default()).collect())
    }

    /// Every operation that occurred, with its traffic.
    pub fn iter(&self) -> impl Iterator<Item = (Operation, Traffic)> + '_ {
        self.0.iter().map(|(operation, traffic)| (*operation, *traffic))
    }
}

/// One request, as it arrived and as far as it has been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its place in the order of arrival, from 0.
    pub number: u64,
    /// What it asks.
    pub operation: Operation,
    /// The bucket it is about.
    pub bucket: Option<String>,
    /// The key it is about.
    pub key: Option<String>,
    /// The query, as sent.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
    /// The `If-None-Match` header.
    pub if_none_match: Option<String>,
    /// Which connection brought it, counted from 0.
    pub connection: u64,
    /// When it arrived.
    pub arrived: Instant,
    /// The status of the answer; `None` while there is none.
    pub status: Option<u16>,
    /// Bytes of its body so far.
    pub bytes_in: u64,
    /// Bytes of the answer's body so far.
    pub bytes_out: u64,
}

/// The requests that a server has seen: counters since the start, details of the last 100,000.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Log>);

#[derive(Debug, Default)]
struct Log {
    next: AtomicU64,
    counters: [Counter; Operation::ALL.len()],
    records: Mutex<VecDeque<Arc<Entry>>>,
}

#[derive(Debug, Default)]
struct Counter {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Requests {
    /// The traffic so far.
    pub fn tally(&self) -> Tally {
        let read = |counter: &Counter| Traffic {
            requests: counter.requests.load(Ordering::Relaxed),
            errors: counter.errors.load(Ordering::Relaxed),
            bytes_in: counter.bytes_in.load(Ordering::Relaxed),
            bytes_out: counter.bytes_out.load(Ordering::Relaxed),
        };
        let all = Operation::ALL.into_iter().zip(&self.0.counters).map(|(o, c)| (o, read(c)));
        Tally(all.filter(|(_, traffic)| traffic.requests > 0).collect())
    }

    /// How many requests of one operation have arrived.
    pub fn count(&self, operation: Operation) -> u64 {
        self.tally().of(operation).requests
    }

    /// The last 100,000 requests, oldest first.
    pub fn records(&self) -> Vec<RequestRecord> {
        self.0.records.lock().iter().map(|entry| entry.read()).collect()
    }

    /// Notes a request; the entry follows it to its end.
    pub(crate) fn arrived(&self, target: &Target, request: &Parts, connection: u64) -> Arc<Entry> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let header = |name: &str| Some(request.headers.get(name)?.to_str().ok()?.to_owned());
        let record = RequestRecord {
            number,
            operation: target.operation,
            bucket: target.bucket.clone(),
            key: target.key.clone(),
            query: request.uri.query().unwrap_or("").to_owned(),
            range: header("range"),
            if_match: header("if-match"),
            if_none_match: header("if-none-match"),
            connection,
            arrived: Instant::now(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let entry = Arc::new(Entry {
            record,
            status: AtomicU16::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            log: Arc::clone(&self.0),
        });
        entry.counter().requests.fetch_add(1, Ordering::Relaxed);
        let mut records = self.0.records.lock();
        if records.len() == RECORDS_MAX {
            records.pop_front();
        }
        records.push_back(Arc::clone(&entry));
        entry
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Entry {
    record: RequestRecord,
    status: AtomicU16,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    log: Arc<Log>,
}

impl Entry {
    fn counter(&self) -> &Counter {
        &self.log.counters[self.record.operation as usize]
    }

    fn read(&self) -> RequestRecord {
        let status = self.status.load(Ordering::Relaxed);
        RequestRecord {
            status: (status != 0).then_some(status),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            ..self.record.clone()
        }
    }

    /// A name for the request, sent as `x-amz-request-id`.
    pub(crate) fn request_id(&self) -> String {
        format!("{:016X}", self.record.number)
    }

    pub(crate) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
        if status >= 400 {
            self.counter().errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counter().bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counter().bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

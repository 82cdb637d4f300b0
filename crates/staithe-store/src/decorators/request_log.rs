//! A store that remembers what was asked of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;

use super::{Layer, Operation, Request};
use crate::{Body, ErrorKind, ObjectStore, Result, StoreError};

/// Most records that a [`RequestLog`] keeps until they are taken; counters go on beyond it.
const RECORDS_MAX: usize = 1 << 20;

/// Counts and records every request to the store within, in the order in which they began.
#[derive(Debug)]
pub struct RequestLog {
    inner: Arc<dyn ObjectStore>,
    counts: [AtomicU64; Operation::COUNT],
    sent: AtomicU64,
    received: Arc<AtomicU64>,
    records: Mutex<Vec<Arc<Mutex<Record>>>>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which method.
    pub operation: Operation,
    /// The object, prefix, or first key of a batch; empty for a probe.
    pub key: String,
    /// The byte range, where one was asked for.
    pub range: Option<Range<u64>>,
    /// Bytes of the request body.
    pub sent: u64,
    /// Bytes of the response body that were taken.
    pub received: u64,
    /// How it ended; `None` while it runs, and for one that was cancelled.
    pub outcome: Option<Result<(), ErrorKind>>,
}

/// Records, one a line, with a sum below: what a failing test prints.
#[derive(Debug, Clone)]
pub struct RequestTable(pub Vec<Record>);

impl RequestLog {
    /// Records what is asked of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sent: AtomicU64::new(0),
            received: Arc::new(AtomicU64::new(0)),
            records: Mutex::new(Vec::new()),
        }
    }

    /// How many requests of this operation there were, ever. O(1).
    pub fn count(&self, operation: Operation) -> u64 {
        self.counts[operation as usize].load(Ordering::Relaxed)
    }

    /// How many requests there were, ever.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Bytes sent in request bodies, ever.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes taken from response bodies, ever.
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The records as they stand, oldest first. O(n).
    pub fn table(&self) -> RequestTable {
        RequestTable(self.records.lock().iter().map(|record| record.lock().clone()).collect())
    }

    /// Takes the records out; the counters stay.
    pub fn take(&self) -> Vec<Record> {
        let records = std::mem::take(&mut *self.records.lock());
        records.iter().map(|record| record.lock().clone()).collect()
    }
}

#[async_trait]
impl Layer for RequestLog {
    type Ticket = Arc<Mutex<Record>>;

    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn before(&self, request: &Request<'_>) -> Result<Self::Ticket> {
        self.counts[request.operation as usize].fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(request.sent, Ordering::Relaxed);
        let record = Arc::new(Mutex::new(Record {
            operation: request.operation,
            key: request.key.to_owned(),
            range: request.range.clone(),
            sent: request.sent,
            received: 0,
            outcome: None,
        }));
        let mut records = self.records.lock();
        if records.len() < RECORDS_MAX {
            records.push(record.clone());
        }
        Ok(record)
    }

    async fn after(&self, record: &Self::Ticket, error: Option<&StoreError>) -> Result<()> {
        record.lock().outcome = Some(error.map_or(Ok(()), |error| Err(error.kind())));
        Ok(())
    }

    fn body(&self, record: &Self::Ticket, body: Body) -> Body {
        let (record, total) = (record.clone(), self.received.clone());
        body.inspect(move |chunk| match chunk {
            Ok(bytes) => {
                record.lock().received += bytes.len() as u64;
                total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Err(error) => record.lock().outcome = Some(Err(error.kind())),
        })
        .boxed()
    }
}

impl fmt::Display for RequestTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, record) in self.0.iter().enumerate() {
            write!(f, "{index:>5}  {:<18} {:<40}", record.operation, record.key)?;
            match &record.range {
                Some(range) => write!(f, " {:>12}..{:<12}", range.start, range.end)?,
                None => write!(f, " {:>26}", "")?,
            }
            write!(f, " sent {:>10} received {:>10}  ", record.sent, record.received)?;
            match &record.outcome {
                Some(Ok(())) => writeln!(f, "ok")?,
                Some(Err(kind)) => writeln!(f, "{kind:?}")?,
                None => writeln!(f, "unfinished")?,
            }
        }
        let sent: u64 = self.0.iter().map(|record| record.sent).sum();
        let received: u64 = self.0.iter().map(|record| record.received).sum();
        writeln!(f, "{} requests, {sent} bytes sent, {received} bytes received", self.0.len())
    }
}

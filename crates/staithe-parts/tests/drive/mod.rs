//! Operation sequences, and two drivers that check them: one against an exact naive model, one for the bounds
//! that hold when memory is short. Shared by the property tests and the fuzz target.

pub mod bounded;
pub mod exact;

use bytes::Bytes;
use staithe_parts::{Fetch, PartQueue};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

pub type Queue = Arc<PartQueue<u8, u8>>;
pub type Ticket = Fetch<u8, u8>;

/// The object: small, so that operations meet.
pub const SIZE: u64 = 2048;
pub const RIGHT: u8 = 1;

/// One call on the queue. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Op {
    Read {
        offset: u16,
        len: u16,
    },
    Poll(u8),
    Cancel(u8),
    Take,
    /// A piece at `from` bytes into a ticket's range.
    Push {
        ticket: u8,
        from: u16,
        len: u16,
        version: u8,
    },
    /// The whole rest of a ticket's range.
    Deliver(u8),
    Done(u8),
    Drop(u8),
    FailFetch {
        ticket: u8,
        error: u8,
    },
    Fail(u8),
    Close,
    Reset,
}

impl Op {
    /// Any five bytes are an operation, the destructive ones rare: how the fuzzer speaks.
    #[allow(dead_code)]
    pub fn from_bytes(raw: [u8; 5]) -> Self {
        let [kind, a, b, ..] = raw;
        let (low, high) = (u16::from_le_bytes([raw[1], raw[2]]), u16::from_le_bytes([raw[3], raw[4]]));
        match kind {
            0..=59 => Self::Read { offset: low % 2300, len: high % 600 },
            60..=89 => Self::Poll(a),
            90..=104 => Self::Cancel(a),
            105..=149 => Self::Take,
            150..=189 => Self::Push { ticket: a, from: high % 700, len: u16::from(b) * 2, version: RIGHT },
            190..=219 => Self::Deliver(a),
            220..=231 => Self::Done(a),
            232..=241 => Self::Drop(a),
            242..=245 => Self::Push { ticket: a, from: high % 700, len: u16::from(b), version: 2 },
            246..=248 => Self::FailFetch { ticket: a, error: b },
            249..=250 => Self::Fail(a),
            251 => Self::Close,
            _ => Self::Reset,
        }
    }
}

pub fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(31) >> 2) as u8
}

pub fn body(range: Range<u64>) -> Bytes {
    range.map(byte).collect::<Vec<_>>().into()
}

/// A waker that remembers.
#[derive(Default)]
pub struct Flag(AtomicBool);

impl Flag {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls with a fresh waker.
pub fn poll<F: Future + Unpin>(future: &mut F) -> (Poll<F::Output>, Arc<Flag>) {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    (std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker)), flag)
}

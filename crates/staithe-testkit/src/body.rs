use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::requests::Entry;

/// A request body that is counted on its way in.
pub(crate) struct CountedBody {
    inner: Incoming,
    entry: Arc<Entry>,
}

impl CountedBody {
    pub(crate) fn new(inner: Incoming, entry: Arc<Entry>) -> Self {
        Self { inner, entry }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.entry.received(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body that is counted on its way out, and cut or corrupted where a fault says so.
pub(crate) struct AnswerBody {
    inner: s3s::Body,
    entry: Arc<Entry>,
    place: u64,
    cut: Cut,
    corrupt_at: Option<u64>,
}

/// Where the body ends too early.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Cut {
    #[default]
    Never,
    /// After so many bytes the connection is closed.
    At(u64),
    /// What may be sent was handed on; it is flushed before the connection is closed.
    Flushing,
    Now,
    /// After so many bytes nothing comes any more.
    StallAt(u64),
    Stalled,
}

impl Cut {
    /// The connection is closed after so many bytes.
    pub(crate) fn closing(after: u64) -> Self {
        if after == 0 { Self::Flushing } else { Self::At(after) }
    }

    /// Nothing comes after so many bytes, and the connection stays open.
    pub(crate) fn stalling(after: u64) -> Self {
        if after == 0 { Self::Stalled } else { Self::StallAt(after) }
    }

    /// How many bytes are sent, and what happens then.
    fn next(self) -> Option<(u64, Self)> {
        match self {
            Self::At(end) => Some((end, Self::Flushing)),
            Self::StallAt(end) => Some((end, Self::Stalled)),
            _ => None,
        }
    }
}

impl AnswerBody {
    pub(crate) fn new(inner: s3s::Body, entry: Arc<Entry>) -> Self {
        Self { inner, entry, place: 0, cut: Cut::Never, corrupt_at: None }
    }

    pub(crate) fn with_faults(mut self, cut: Cut, corrupt_at: Option<u64>) -> Self {
        (self.cut, self.corrupt_at) = (cut, corrupt_at);
        self
    }

    fn pass(&mut self, mut data: Bytes) -> Bytes {
        if let Some((end, then)) = self.cut.next() {
            let left = end - self.place;
            if data.len() as u64 >= left {
                data.truncate(left as usize);
                self.cut = then;
            }
        }
        if let Some(offset) = self.corrupt_at.and_then(|at| at.checked_sub(self.place))
            && offset < data.len() as u64
        {
            let mut bytes = BytesMut::from(&data[..]);
            bytes[offset as usize] ^= 0xff;
            data = bytes.freeze();
        }
        self.place += data.len() as u64;
        self.entry.sent(data.len());
        data
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.cut {
            // The server flushes what it has when a body makes it wait.
            Cut::Flushing => {
                self.cut = Cut::Now;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Cut::Now => {
                let end = io::Error::new(io::ErrorKind::UnexpectedEof, "a fault cuts this body");
                return Poll::Ready(Some(Err(end)));
            }
            // Nobody wakes it: the exchange ends when the client goes away.
            Cut::Stalled => return Poll::Pending,
            Cut::Never | Cut::At(_) | Cut::StallAt(_) => {}
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            None => return Poll::Ready(None),
        };
        let frame = match frame.into_data() {
            Ok(data) => Frame::data(self.pass(data)),
            Err(trailers) => trailers,
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.cut == Cut::Never && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

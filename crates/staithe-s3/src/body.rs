//! A response body that ends in time, at the right length, or in an error.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_checksums::body::validate;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::byte_stream::error::Error as StreamError;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use staithe_store::{Body, ErrorKind, Key, Result, StoreError};
use tokio::time::{Instant, Sleep};

use crate::failure::find;

/// Checks a stream: exactly `length` bytes, never `stall` without one, and the checksum that the SDK validates
/// at its end. The last chunk is held back until the end is seen, so that whoever reads only as many bytes as
/// there should be gets no byte of a body that turns out wrong at its end. No bytes are copied.
pub(crate) fn checked(key: Key, source: ByteStream, length: u64, stall: Duration) -> Body {
    let timer = Box::pin(tokio::time::sleep(stall));
    Checked { key, source, left: length, held: None, stall, timer, waiting: false, ended: false }.boxed()
}

struct Checked {
    key: Key,
    source: ByteStream,
    /// Bytes still to come.
    left: u64,
    /// The last chunk, until the end of the source confirms it.
    held: Option<Bytes>,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer runs: it is set anew when a wait begins, so that a ready chunk costs nothing.
    waiting: bool,
    ended: bool,
}

impl Checked {
    fn fault(&self, kind: ErrorKind, message: impl Into<String>) -> StoreError {
        StoreError::new(kind, "get", message).with_key(&self.key)
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Poll::Ready(item) = Pin::new(&mut self.source).poll_next(cx) {
            self.waiting = false;
            return Poll::Ready(item.map(|chunk| chunk.map_err(|error| self.broken(error))));
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.stall);
        }
        ready!(self.timer.as_mut().poll(cx));
        let message = format!("no byte of the body in {:?}, {} still to come", self.stall, self.left);
        Poll::Ready(Some(Err(self.fault(ErrorKind::Timeout, message))))
    }

    fn broken(&self, error: StreamError) -> StoreError {
        if find::<validate::Error>(&error).is_some() {
            return self.fault(ErrorKind::Corrupt, "the body does not match its checksum").with_source(error);
        }
        let message = format!("the connection broke with {} bytes of the body to come", self.left);
        self.fault(ErrorKind::Unavailable, message).with_source(error)
    }

    fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let Some(item) = ready!(self.poll_source(cx)) else {
                if self.left > 0 {
                    let message = format!("the body ended {} bytes early", self.left);
                    return Poll::Ready(Some(Err(self.fault(ErrorKind::Corrupt, message))));
                }
                self.ended = true;
                return Poll::Ready(self.held.take().map(Ok));
            };
            let chunk = item?;
            if chunk.is_empty() {
                continue;
            }
            let size = chunk.len() as u64;
            if size > self.left {
                return Poll::Ready(Some(Err(self.fault(ErrorKind::Corrupt, "the body is too long"))));
            }
            self.left -= size;
            if self.left > 0 {
                return Poll::Ready(Some(Ok(chunk)));
            }
            self.held = Some(chunk);
        }
    }
}

impl Stream for Checked {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.poll_checked(cx));
        if !matches!(item, Some(Ok(_))) {
            self.ended = true;
        }
        Poll::Ready(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Rope;
    use aws_smithy_types::body::SdkBody;

    fn read(chunks: &[&'static str], length: u64) -> Vec<Result<Bytes>> {
        let payload = staithe_store::Payload::new(chunks.iter().map(|c| Bytes::from_static(c.as_bytes())));
        let source = ByteStream::new(SdkBody::from_body_1_x(Rope::new(&payload)));
        let body = || async { checked(Key::new("k").unwrap(), source, length, Duration::from_secs(9)) };
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(async { body().await.collect().await })
    }

    fn kinds(items: &[Result<Bytes>]) -> Vec<Option<ErrorKind>> {
        items.iter().map(|i| i.as_ref().err().map(StoreError::kind)).collect()
    }

    #[test]
    fn whole_bodies_pass() {
        let items = read(&["ab", "cd"], 4);
        assert_eq!(items.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["ab", "cd"]);
        assert!(read(&[], 0).is_empty());
    }

    #[test]
    fn short_and_long_bodies_end_in_one_error() {
        assert_eq!(kinds(&read(&["ab", "cd"], 5)), [None, None, Some(ErrorKind::Corrupt)]);
        assert_eq!(kinds(&read(&["ab", "cd"], 3)), [None, Some(ErrorKind::Corrupt)]);
        // The last chunk was held back, so nothing of a body that runs on is handed out as its end.
        assert_eq!(kinds(&read(&["ab", "cd"], 2)), [Some(ErrorKind::Corrupt)]);
    }

    #[tokio::test]
    async fn a_stalled_body_times_out() {
        let source = ByteStream::new(SdkBody::from_body_1_x(Silent));
        let mut body = checked(Key::new("k").unwrap(), source, 1, Duration::from_millis(5));
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(body.next().await.is_none());
    }

    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }
}

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a request may do to the connection that brought it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Bytes a second, each way; 0 is no limit.
    rate: AtomicU64,
    reset: AtomicBool,
}

impl Line {
    /// Limits the connection from now on; `None` takes the limit away.
    pub(crate) fn limit(&self, rate: Option<u64>) {
        self.rate.store(rate.map_or(0, |r| r.max(1)), Ordering::Relaxed);
    }

    /// Makes the end of the connection a reset (RST), not an orderly close.
    pub(crate) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

/// A connection that keeps to the rate of its [`Line`], and ends as that says.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    line: Arc<Line>,
    reading: Pace,
    writing: Pace,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, line: Arc<Line>) -> Self {
        Self { stream, line, reading: Pace::default(), writing: Pace::default() }
    }

    fn rate(&self) -> Option<u64> {
        Some(self.line.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.line.reset.load(Ordering::Relaxed) {
            // A socket that cannot be told any more is closed already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// One direction: bytes go in slices, and the next slice waits until the last has taken its time. What a late
/// timer loses is made up for, up to [`Pace::CREDIT`].
#[derive(Debug, Default)]
struct Pace {
    free_at: Option<Instant>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Slices are a hundredth of a second long.
    const SLICES_PER_SECOND: u64 = 100;
    const CREDIT: Duration = Duration::from_millis(20);

    fn slice(rate: u64) -> usize {
        (rate / Self::SLICES_PER_SECOND).clamp(1, 1 << 20) as usize
    }

    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(at) = self.free_at
            && at > Instant::now()
        {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(at)));
            ready!(wait.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(())
    }

    fn took(&mut self, bytes: usize, rate: u64) {
        let now = Instant::now();
        let from = self.free_at.map_or(now, |at| at.max(now - Self::CREDIT));
        self.free_at = Some(from + Duration::from_secs_f64(bytes as f64 / rate as f64));
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(rate) = self.rate() else {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        };
        ready!(self.reading.poll_free(cx));
        let mut bytes = [0; 16 << 10];
        let most = bytes.len().min(buf.remaining()).min(Pace::slice(rate));
        let mut slice = ReadBuf::new(&mut bytes[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut slice))?;
        buf.put_slice(slice.filled());
        let bytes = slice.filled().len();
        self.reading.took(bytes, rate);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(rate) = self.rate() else {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        };
        ready!(self.writing.poll_free(cx));
        let slice = &buf[..buf.len().min(Pace::slice(rate))];
        let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, slice))?;
        self.writing.took(bytes, rate);
        Poll::Ready(Ok(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.rate().is_some() {
            let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| &**b);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

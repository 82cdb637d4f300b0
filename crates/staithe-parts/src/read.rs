//! The reader's futures, and a way to wait for them without a runtime.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::core::ReadId;
use crate::error::ReadError;
use crate::fetch::Fetch;
use crate::queue::PartQueue;
use crate::slices::ReadSlices;

/// A read under way; see [`PartQueue::read`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Read<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> {
    queue: Arc<PartQueue<V, E>>,
    offset: u64,
    len: u64,
    id: Option<ReadId>,
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Read<V, E> {
    pub(crate) fn new(queue: Arc<PartQueue<V, E>>, offset: u64, len: u64) -> Self {
        Self { queue, offset, len, id: None }
    }
}

// Nothing in it is address-sensitive.
impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Unpin for Read<V, E> {}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Future for Read<V, E> {
    type Output = Result<ReadSlices, ReadError<V, E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.queue.poll_read(&mut this.id, this.offset, this.len, context)
    }
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Drop for Read<V, E> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.queue.cancel_read(id);
        }
    }
}

/// A read that hands out the fetches it causes; see [`PartQueue::read_with`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ReadWith<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static, S> {
    read: Read<V, E>,
    spawn: S,
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static, S> ReadWith<V, E, S> {
    pub(crate) fn new(read: Read<V, E>, spawn: S) -> Self {
        Self { read, spawn }
    }
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static, S> Unpin for ReadWith<V, E, S> {}

impl<V, E, S> Future for ReadWith<V, E, S>
where
    V: Clone + Eq + Send + 'static,
    E: Clone + Send + 'static,
    S: FnMut(Fetch<V, E>),
{
    type Output = Result<ReadSlices, ReadError<V, E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.read).poll(context);
        this.read.queue.take_fetches().into_iter().for_each(&mut this.spawn);
        polled
    }
}

/// Parks the calling thread until `future` is ready. Needs no runtime, and is safe inside of one.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

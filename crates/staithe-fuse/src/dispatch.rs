//! How a request becomes exactly one reply.
//!
//! A request that memory can answer is answered on the thread that read it. Otherwise its future is polled once
//! there too, because most futures end at the first poll (a hop to a pool halves small reads), and only a
//! pending one moves to the runtime, its reply with it.
//!
//! Invariants:
//! 1. Every reply is sent, within the deadline where there is one: callers of a request cannot be killed.
//! 2. A panic, in the filesystem or in building a reply, is answered as an error of that request; the thread
//!    that serves the session and the runtime go on.
//! 3. What a filesystem says is sent in the poll in which it says so, and counted all the while: who has the kernel
//!    doubt what it was told knows when it has all of it.
//! 4. Nothing here holds a lock while it calls the filesystem or sends.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fuser::Errno;
use futures::FutureExt as _;
use parking_lot::Mutex;
use staithe_fs::{Answers, FsError, FsErrorKind, Result};
use staithe_lifecycle::{Gate, Inside};
use tokio::runtime::Handle;

use crate::errno::{PANICKED, errno};
use crate::incidents::{Incidents, Verdict};
use crate::subject::Subject;

/// The receiver of an answer. Exactly one is sent; dropping it unanswered is the session's EIO.
pub(crate) trait Reply: Send + 'static {
    /// Answers with an error.
    fn fail(self, code: Errno);
}

macro_rules! replies {
    ($($reply:ident),+) => {
        $(impl Reply for fuser::$reply {
            fn fail(self, code: Errno) {
                self.error(code);
            }
        })+
    };
}
replies!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// How long a request may stay unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The mount's own.
    Usual,
    /// Work that grows with what it is about (a directory's rename, the upload of a file); the filesystem bounds
    /// each of its steps.
    OfSteps,
}

/// Operations that only let go of something.
const LETS_GO: [&str; 2] = ["release", "releasedir"];

/// Serves requests; one for a mount.
pub(crate) struct Dispatcher {
    runtime: Handle,
    /// What it is now.
    deadline: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Why nothing is served any more.
    refuses: Box<dyn Fn() -> Result<()> + Send + Sync>,
    incidents: Mutex<Incidents>,
    /// Where requests are that wait on the runtime.
    gate: Gate,
    served: AtomicU64,
    answers: Answers,
}

type Outcome<T> = std::thread::Result<Result<T>>;

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher that gives a request at most what `deadline` says when it comes, and none while `refuses` says why
    /// not; `answers` is the filesystem's.
    pub(crate) fn new(
        runtime: Handle,
        deadline: impl Fn() -> Duration + Send + Sync + 'static,
        refuses: impl Fn() -> Result<()> + Send + Sync + 'static,
        answers: Answers,
    ) -> Self {
        Self {
            runtime,
            deadline: Box::new(deadline),
            refuses: Box::new(refuses),
            incidents: Mutex::default(),
            gate: Gate::new(&[]),
            served: AtomicU64::new(0),
            answers,
        }
    }

    /// How many requests wait on the runtime, by operation.
    pub(crate) fn waiting(&self) -> Vec<(&'static str, u64)> {
        self.gate.inside()
    }

    /// Lets no request wait any more, and returns when those that do are answered.
    ///
    /// # Errors
    /// Who was not, within that time.
    pub(crate) async fn close(&self, within: Duration) -> std::result::Result<(), Inside> {
        self.gate.close();
        self.gate.left_within(within).await
    }

    /// How many requests were answered.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Answers at once with what `work` returns.
    pub(crate) fn now<R: Reply, T>(
        &self,
        subject: &Subject<'_>,
        reply: R,
        work: impl FnOnce() -> Result<T>,
        send: impl FnOnce(R, T),
    ) {
        if let Err(error) = self.admit(subject) {
            return self.refuse(subject, reply, &error);
        }
        let _answering = self.answers.begin();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        self.settle(subject, reply, outcome, send);
    }

    /// Answers at once if `work` can; else gives the reply back.
    pub(crate) fn if_known<R: Reply, T>(
        &self,
        subject: &Subject<'_>,
        reply: R,
        work: impl FnOnce() -> Option<Result<T>>,
        send: impl FnOnce(R, T),
    ) -> Option<R> {
        if let Err(error) = self.admit(subject) {
            self.refuse(subject, reply, &error);
            return None;
        }
        let _answering = self.answers.begin();
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(None) => return Some(reply),
            Ok(Some(result)) => self.settle(subject, reply, Ok(result), send),
            Err(panic) => self.settle(subject, reply, Err(panic), send),
        }
        None
    }

    /// Answers with what `future` returns: at once if it ends at the first poll, else from the runtime.
    pub(crate) fn later<R: Reply, T: Send + 'static>(
        self: &Arc<Self>,
        subject: Subject<'_>,
        reply: R,
        deadline: Deadline,
        future: impl Future<Output = Result<T>> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        if let Err(error) = self.admit(&subject) {
            return self.refuse(&subject, reply, &error);
        }
        let mut future = Box::pin(AssertUnwindSafe(future).catch_unwind());
        {
            let _answering = self.answers.begin();
            let first = {
                let _entered = self.runtime.enter();
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            if let Poll::Ready(outcome) = first {
                return self.settle(&subject, reply, outcome, send);
            }
        }
        let Ok(waiting) = self.gate.enter_owned(self.gate.label(subject.operation)) else {
            return self.refuse(&subject, reply, &closed());
        };
        let subject = subject.into_owned();
        let this = Arc::clone(self);
        let answers = self.answers.clone();
        let patience = (self.deadline)();
        let answer = async move {
            // Until it is answered.
            let _waiting = waiting;
            let outcome = match deadline {
                Deadline::OfSteps => future.await,
                Deadline::Usual => match tokio::time::timeout(patience, future).await {
                    Ok(outcome) => outcome,
                    Err(_) => Ok(Err(overdue(patience))),
                },
            };
            this.settle(&subject, reply, outcome, send);
        };
        // The poll that ends the future also sends, so that no answer lies between the two.
        let mut answer = Box::pin(answer);
        self.runtime.spawn(poll_fn(move |context| {
            let _answering = answers.begin();
            answer.as_mut().poll(context)
        }));
    }

    /// Whether a request is served at all. What only lets go of something always is.
    fn admit(&self, subject: &Subject<'_>) -> Result<()> {
        if LETS_GO.contains(&subject.operation) { Ok(()) } else { (self.refuses)() }
    }

    /// Answers with an error that needs no filesystem.
    pub(crate) fn refuse(&self, subject: &Subject<'_>, reply: impl Reply, error: &FsError) {
        self.report(subject, error);
        reply.fail(errno(error.kind(), subject.address()));
    }

    /// Runs what has no reply, and survives it.
    pub(crate) fn quietly(&self, subject: &Subject<'_>, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.report(subject, &panicked(&*panic));
        }
    }

    fn settle<R: Reply, T>(
        &self,
        subject: &Subject<'_>,
        reply: R,
        outcome: Outcome<T>,
        send: impl FnOnce(R, T),
    ) {
        self.served.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(Ok(value)) => {
                // A panic while sending drops the reply, which answers.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| send(reply, value))) {
                    self.report(subject, &panicked(&*panic));
                }
            }
            Ok(Err(error)) => self.refuse(subject, reply, &error),
            Err(panic) => {
                self.report(subject, &panicked(&*panic));
                reply.fail(PANICKED);
            }
        }
    }

    fn report(&self, subject: &Subject<'_>, error: &FsError) {
        if error.is_ordinary() {
            tracing::trace!(operation = subject.operation, %subject, %error, "refused");
            return;
        }
        let verdict = self.incidents.lock().meet(subject.operation, error.kind(), Instant::now());
        let Verdict::Write { left_out } = verdict else { return };
        let kind = error.kind();
        let operation = subject.operation;
        let chain = chain(error);
        if kind == FsErrorKind::Io {
            tracing::error!(operation, %subject, ?kind, left_out, "{chain}");
        } else {
            tracing::warn!(operation, %subject, ?kind, left_out, "{chain}");
        }
    }
}

fn closed() -> FsError {
    FsError::new(FsErrorKind::VolumeGone, "nothing is waited for any more: the mount ends")
}

fn overdue(patience: Duration) -> FsError {
    let text = format!("the request was not done after {patience:?} and was given up");
    FsError::new(FsErrorKind::TimedOut, text)
}

fn panicked(panic: &(dyn Any + Send)) -> FsError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message");
    FsError::new(FsErrorKind::Io, format!("the request panicked ({text}); only it failed"))
}

/// An error with its causes, in one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;

//! Where old states are freed: never where a reader is.
//!
//! 1. A state is handed over once, by whoever drops the last `Arc` of its snapshot: a push to a channel, which waits for no
//!    destructor.
//! 2. A destructor runs in a worker, in a publisher that needs room, or in whoever asks for it; no lock of this crate is
//!    held meanwhile.
//! 3. Lock order: `freed`, then a ledger. Neither is held while a state is freed or handed over.
//! 4. An epoch leaves the ledger after its state is freed; `outstanding` counts what is handed over and not freed.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::Epoch;
use crate::snapshot::Home;
use crate::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, Receiver, Sender, spawn, unbounded};

/// How long who waits for a free may overlook a state that came after it looked.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A state that nobody holds.
pub(crate) struct Garbage {
    state: Box<dyn Send>,
    epoch: Epoch,
    home: Arc<Home>,
}

impl Garbage {
    pub(crate) fn new(state: Box<dyn Send>, epoch: Epoch, home: Arc<Home>) -> Self {
        Self { state, epoch, home }
    }
}

struct Yard {
    outstanding: AtomicUsize,
    /// There is, or will be, a worker.
    manned: AtomicBool,
    /// Guards no data: it orders a free with the wait for it.
    freed: Mutex<()>,
    bell: Condvar,
}

impl Yard {
    fn free(&self, garbage: Garbage) {
        let Garbage { state, epoch, home } = garbage;
        if catch_unwind(AssertUnwindSafe(|| drop(state))).is_err() {
            tracing::error!(%epoch, "the destructor of an old state panicked; what it had not freed yet is leaked");
        }
        home.ledger.forget(epoch);
        // Before it counts as freed: this may be the last handle, and then the worker's channel ends.
        drop(home);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
        let _order = self.freed.lock();
        self.bell.notify_all();
    }
}

/// Takes old states, of one cell or of many, and has them freed by its [`Worker`]. Clones are handles to the same one.
#[derive(Clone)]
pub struct Reclaimer(Arc<Handle>);

struct Handle {
    sender: Sender<Garbage>,
    /// For publishers that help, and in place of a worker that is gone.
    receiver: Receiver<Garbage>,
    yard: Arc<Yard>,
}

/// Frees what its [`Reclaimer`] takes. While there is one, it alone does, unless a publisher needs room. After it is
/// dropped, each publisher frees what has come, and when its cell is gone too, whoever drops the last of a state.
pub struct Worker {
    receiver: Receiver<Garbage>,
    yard: Arc<Yard>,
}

impl Reclaimer {
    /// A reclaimer with a thread of this name, which ends when the last cell, snapshot and handle are gone and all is
    /// freed. Whoever drops the last of them does not wait for that; [`Reclaimer::settle`] does.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn thread(name: &str) -> io::Result<Self> {
        let (reclaimer, worker) = Self::by_hand();
        spawn(name, move || worker.run())?;
        Ok(reclaimer)
    }

    /// A reclaimer whose worker is the caller's to run.
    pub fn by_hand() -> (Self, Worker) {
        let (sender, receiver) = unbounded();
        let yard = Arc::new(Yard {
            outstanding: AtomicUsize::new(0),
            manned: AtomicBool::new(true),
            freed: Mutex::new(()),
            bell: Condvar::default(),
        });
        let worker = Worker { receiver: receiver.clone(), yard: Arc::clone(&yard) };
        (Self(Arc::new(Handle { sender, receiver, yard })), worker)
    }

    /// How many states are handed over and not freed yet.
    pub fn outstanding(&self) -> usize {
        self.0.yard.outstanding.load(Ordering::Acquire)
    }

    /// Frees what is handed over, here, and waits for what the worker is freeing. It returns when there is nothing left;
    /// call it when publications have ended: at a shutdown, in a test. Not from a destructor of a state.
    pub fn settle(&self) {
        self.help_until(|| false);
    }

    /// Frees what is handed over, here, and waits for what others are freeing, until this is so or nothing is left.
    pub(crate) fn help_until(&self, done: impl Fn() -> bool) -> bool {
        let yard = &self.0.yard;
        loop {
            if done() {
                return true;
            }
            if self.help() > 0 {
                continue;
            }
            if self.outstanding() == 0 {
                return done();
            }
            // A state that is handed over at this moment rings no bell, so as not to slow its reader: look again.
            let mut order = yard.freed.lock();
            let wait = |(): &mut ()| self.outstanding() > 0 && !done();
            yard.bell.wait_while_for(&mut order, wait, LOOK_AGAIN);
        }
    }

    pub(crate) fn hand_over(&self, garbage: Garbage) {
        self.0.yard.outstanding.fetch_add(1, Ordering::AcqRel);
        // It is received by this very handle, if by nobody else: the channel cannot be closed.
        let _sent = self.0.sender.send(garbage);
    }

    /// Frees in this thread what is handed over now; how many.
    pub(crate) fn help(&self) -> usize {
        free_all(&self.0.receiver, &self.0.yard)
    }

    /// What a publisher owes when nobody else frees.
    pub(crate) fn help_if_alone(&self) {
        // In one order with the worker's end and what was handed over: one of the two sees the other's.
        if !self.0.yard.manned.load(Ordering::SeqCst) {
            self.help();
        }
    }
}

fn free_all(receiver: &Receiver<Garbage>, yard: &Yard) -> usize {
    let mut freed = 0;
    while let Ok(garbage) = receiver.try_recv() {
        yard.free(garbage);
        freed += 1;
    }
    freed
}

impl Worker {
    /// Frees until the last cell, snapshot and handle of its reclaimer are gone.
    pub fn run(self) {
        while let Ok(garbage) = self.receiver.recv() {
            self.yard.free(garbage);
        }
    }

    /// Frees what is handed over now; how many states it was.
    pub fn reclaim(&self) -> usize {
        free_all(&self.receiver, &self.yard)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.yard.manned.store(false, Ordering::SeqCst);
        self.reclaim();
    }
}

impl fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reclaimer").field("outstanding", &self.outstanding()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

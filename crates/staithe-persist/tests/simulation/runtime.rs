//! A runtime without threads: time moves when nothing else can, and chance chooses who runs next.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use staithe_persist::Runtime;

/// More polls than any run needs: one that needs them goes round in circles.
const TOO_MANY: u32 = 2_000_000;

#[derive(Clone)]
pub(crate) struct Simulation {
    inside: Arc<Mutex<Inside>>,
    clients: Arc<AtomicUsize>,
}

struct Inside {
    begin: Instant,
    now: Instant,
    random: fastrand::Rng,
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    ready: Vec<u64>,
    sleepers: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

struct Ready {
    simulation: std::sync::Weak<Mutex<Inside>>,
    task: u64,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        if let Some(inside) = self.simulation.upgrade() {
            let ready = &mut inside.lock().unwrap().ready;
            if !ready.contains(&self.task) {
                ready.push(self.task);
            }
        }
    }
}

impl Simulation {
    pub(crate) fn new(seed: u64) -> Self {
        let begin = Instant::now();
        let inside = Inside {
            begin,
            now: begin,
            random: fastrand::Rng::with_seed(seed),
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            sleepers: BTreeMap::new(),
            next: 0,
        };
        Self { inside: Arc::new(Mutex::new(inside)), clients: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    pub(crate) fn dice(&self, sides: u32) -> u32 {
        self.lock().random.u32(..sides)
    }

    pub(crate) fn time(&self) -> Instant {
        self.lock().now
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let inside = self.lock();
        inside.now - inside.begin
    }

    /// Starts a task whose end is waited for.
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.clients.fetch_add(1, Ordering::SeqCst);
        let clients = Arc::clone(&self.clients);
        self.spawn(Box::pin(async move {
            task.await;
            clients.fetch_sub(1, Ordering::SeqCst);
        }));
    }

    pub(crate) fn clients_left(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }

    pub(crate) fn block_on<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let answer = Arc::new(Mutex::new(None));
        let place = Arc::clone(&answer);
        self.start(async move { *place.lock().unwrap() = Some(task.await) });
        self.run();
        let answer = answer.lock().unwrap().take();
        answer.expect("it has ended")
    }

    /// Runs until nothing can move any more.
    pub(crate) fn run(&self) {
        for _ in 0..TOO_MANY {
            if self.lock().ready.is_empty() {
                let Some(((at, _), sleeper)) = self.lock().sleepers.pop_first() else { return };
                let now = self.time().max(at);
                self.lock().now = now;
                sleeper.wake();
                continue;
            }
            let next = {
                let mut inside = self.lock();
                let count = inside.ready.len();
                let at = inside.random.usize(..count);
                let id = inside.ready.swap_remove(at);
                inside.tasks.remove(&id).map(|task| (id, task))
            };
            let Some((id, mut task)) = next else { continue };
            let waker = Waker::from(Arc::new(Ready { simulation: Arc::downgrade(&self.inside), task: id }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.lock().tasks.insert(id, task);
            }
        }
        panic!("the simulation goes round in circles");
    }
}

impl Runtime for Simulation {
    fn now(&self) -> Instant {
        self.time()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut inside = self.lock();
        inside.next += 1;
        let id = inside.next;
        inside.tasks.insert(id, task);
        inside.ready.push(id);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let simulation = self.clone();
        let mut id = None;
        Box::pin(poll_fn(move |context| {
            let mut inside = simulation.lock();
            if inside.now >= at {
                return Poll::Ready(());
            }
            inside.next += 1;
            let id = *id.get_or_insert(inside.next);
            inside.sleepers.insert((at, id), context.waker().clone());
            Poll::Pending
        }))
    }
}

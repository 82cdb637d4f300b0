//! Tasks that are started again when they panic.
//!
//! 1. Every task is among `running` from its start to its end, however it ends: its future has the entry.
//! 2. No task is started once the end has begun.
//! 3. The caller's code (factories, callbacks, tasks and their ends) runs without the lock. The lock of the count is taken
//!    before that of the tasks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::{Clock, SystemClock};
use crate::gate::Closed;
use crate::sync::Mutex;
use crate::text::panicked;

/// Incidents that are kept.
const KEPT: usize = 64;

/// The wait before the first restart, which each further one doubles, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often a task may be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So many times.
    pub restarts: u32,
    /// Within this time.
    pub within: Duration,
}

impl Default for Budget {
    /// Five times in a minute.
    fn default() -> Self {
        Self { restarts: 5, within: Duration::from_mins(1) }
    }
}

/// What happened to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It panicked, and said this.
    Panicked(String),
    /// It has panicked more often than it may, and is not started again.
    GivenUp,
}

/// Something that happened to a supervised task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Which task.
    pub name: Arc<str>,
    /// What.
    pub what: What,
    /// When.
    pub at: SystemTime,
}

type Callback = Box<dyn Fn(&Incident) + Send + Sync>;

struct Shared {
    runtime: Handle,
    budget: Budget,
    callback: OnceLock<Callback>,
    stop: watch::Sender<bool>,
    /// How many run, for who waits for the end.
    count: watch::Sender<usize>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    running: BTreeMap<u64, (Arc<str>, Option<AbortHandle>)>,
    next: u64,
    incidents: VecDeque<Incident>,
    ended: bool,
    aborted: bool,
}

/// Owns tasks: catches their panics, starts them again within a budget, and ends them. Dropped, it drops them where they
/// wait.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Duration;
/// use staithe_lifecycle::{Budget, Supervisor};
///
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// static RUNS: AtomicU32 = AtomicU32::new(0);
/// let supervisor = Supervisor::new(tokio::runtime::Handle::current(), Budget::default());
/// let stopping = supervisor.stopping();
/// supervisor.spawn("notifier", move || {
///     let stopping = stopping.clone();
///     async move {
///         assert!(RUNS.fetch_add(1, Ordering::SeqCst) > 0, "the first run fails");
///         stopping.wait().await;
///     }
/// })?;
/// # while RUNS.load(Ordering::SeqCst) < 2 { tokio::time::sleep(Duration::from_millis(1)).await; }
/// assert_eq!(supervisor.incidents().len(), 1);
/// assert!(supervisor.end(Duration::from_secs(5)).await.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a supervisor that is dropped drops its tasks"]
pub struct Supervisor(Arc<Shared>);

impl Supervisor {
    /// A supervisor of tasks on this runtime. The budget is for each of them.
    pub fn new(runtime: Handle, budget: Budget) -> Self {
        Self(Arc::new(Shared {
            runtime,
            budget,
            callback: OnceLock::new(),
            stop: watch::Sender::new(false),
            count: watch::Sender::new(0),
            tasks: Mutex::new(Tasks::default()),
        }))
    }

    /// The same, which tells of every incident at once, in the task that it happened to. The first callback counts.
    pub fn on_incident(self, callback: impl Fn(&Incident) + Send + Sync + 'static) -> Self {
        let _known = self.0.callback.set(Box::new(callback));
        self
    }

    /// Starts a task, and starts it again with the factory each time it panics. One that returns is over.
    ///
    /// # Errors
    /// [`Closed`]: the end has begun.
    pub fn spawn<F, R>(&self, name: impl Into<Arc<str>>, factory: F) -> Result<(), Closed>
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let entry = self.0.enter(name.into())?;
        let id = entry.id;
        let task = self.0.runtime.spawn(async move { entry.supervise(&factory).await });
        self.0.started(id, task.abort_handle());
        Ok(())
    }

    /// The same of a task that need not be asked to end: it is dropped where it waits once the end begins.
    ///
    /// # Errors
    /// As [`Supervisor::spawn`].
    pub fn spawn_until_end<F, R>(&self, name: impl Into<Arc<str>>, factory: F) -> Result<(), Closed>
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let stopping = self.stopping();
        self.spawn(name, move || {
            let (stopping, task) = (stopping.clone(), factory());
            async move {
                tokio::select! {
                    () = stopping.wait() => {}
                    () = task => {}
                }
            }
        })
    }

    /// For tasks to know when to end.
    pub fn stopping(&self) -> Stopping {
        Stopping(self.0.stop.subscribe())
    }

    /// The last 64 incidents.
    pub fn incidents(&self) -> Vec<Incident> {
        self.0.tasks.lock().incidents.iter().cloned().collect()
    }

    /// The names of the tasks that run, in the order of their starts.
    pub fn running(&self) -> Vec<Arc<str>> {
        self.0.tasks.lock().running.values().map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Ends it: starts nothing any more, says so ([`Supervisor::stopping`]), and waits for the tasks, no longer than
    /// this. Those that are left are dropped where they wait, and named. Within a tokio runtime that has timers.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it stopping; it can be called again.
    pub async fn end(&self, most: Duration) -> Vec<Arc<str>> {
        self.0.tasks.lock().ended = true;
        self.0.stop.send_replace(true);
        let mut count = self.0.count.subscribe();
        if timeout(most, count.wait_for(|count| *count == 0)).await.is_ok() {
            return Vec::new();
        }
        let left = self.0.abort();
        tracing::error!(?left, "tasks did not end in time, and are dropped");
        left
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.tasks.lock().ended = true;
        self.0.stop.send_replace(true);
        self.0.abort();
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// Says when the tasks of a supervisor are to end.
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Whether they are.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until they are.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait(&self) {
        // An error says that the supervisor is gone, and so are its tasks.
        drop(self.0.clone().wait_for(|stop| *stop).await);
    }
}

impl Shared {
    fn enter(self: &Arc<Self>, name: Arc<str>) -> Result<Entry, Closed> {
        let id = {
            let mut tasks = self.tasks.lock();
            if tasks.ended {
                return Err(Closed);
            }
            tasks.next += 1;
            let id = tasks.next;
            tasks.running.insert(id, (Arc::clone(&name), None));
            id
        };
        self.recount();
        Ok(Entry { shared: Arc::clone(self), id, name })
    }

    /// The task of this entry runs, if it is not over already. One that was started beside the end is dropped with the
    /// others.
    fn started(&self, id: u64, handle: AbortHandle) {
        let mut tasks = self.tasks.lock();
        if tasks.aborted {
            drop(tasks);
            handle.abort();
        } else if let Some((_, task)) = tasks.running.get_mut(&id) {
            *task = Some(handle);
        }
    }

    /// Tells who waits how many run. The last to tell has looked last.
    fn recount(&self) {
        self.count.send_if_modified(|count| {
            let now = self.tasks.lock().running.len();
            std::mem::replace(count, now) != now
        });
    }

    fn abort(&self) -> Vec<Arc<str>> {
        let running: Vec<_> = {
            let mut tasks = self.tasks.lock();
            tasks.aborted = true;
            tasks.running.values().cloned().collect()
        };
        let abort = |(name, task): (Arc<str>, Option<AbortHandle>)| {
            if let Some(task) = task {
                task.abort();
            }
            name
        };
        running.into_iter().map(abort).collect()
    }

    fn tell(&self, name: &Arc<str>, what: What) {
        tracing::error!(task = &**name, ?what, "a supervised task has failed");
        let incident = Incident { name: Arc::clone(name), what, at: SystemClock.wall() };
        {
            let incidents = &mut self.tasks.lock().incidents;
            if incidents.len() == KEPT {
                incidents.pop_front();
            }
            incidents.push_back(incident.clone());
        }
        if let Some(callback) = self.callback.get()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(&incident)))
        {
            tracing::error!(what = panicked(&*panic), "the callback for incidents panicked");
        }
    }
}

/// A task's place among those that run.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
    name: Arc<str>,
}

impl Entry {
    async fn supervise<F, R>(&self, factory: &F)
    where
        F: Fn() -> R,
        R: Future<Output = ()>,
    {
        let stopping = Stopping(self.shared.stop.subscribe());
        let mut restarts = VecDeque::new();
        loop {
            let run = async { factory().await };
            let Err(panic) = AssertUnwindSafe(run).catch_unwind().await else { return };
            self.shared.tell(&self.name, What::Panicked(panicked(&*panic).to_owned()));
            drop(panic);
            if stopping.is_stopping() {
                return;
            }
            let now = Instant::now();
            restarts.retain(|at| now.duration_since(*at) < self.shared.budget.within);
            if restarts.len() >= self.shared.budget.restarts as usize {
                self.shared.tell(&self.name, What::GivenUp);
                return;
            }
            let wait = FIRST_WAIT.saturating_mul(1 << restarts.len().min(16)).min(LONGEST_WAIT);
            restarts.push_back(now);
            tokio::select! {
                () = stopping.wait() => return,
                () = sleep(wait) => {}
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.tasks.lock().running.remove(&self.id);
        self.shared.recount();
    }
}

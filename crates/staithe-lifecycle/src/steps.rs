//! A shutdown in steps, each with a deadline of its own.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use crate::text::panicked;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It was done.
    Done,
    /// It failed, and said this.
    Failed(String),
    /// Its time was over: it was passed by.
    Overrun,
    /// It panicked, and said this.
    Panicked(String),
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// Which.
    pub name: Arc<str>,
    /// How long it was waited for.
    pub took: Duration,
    /// How it ended.
    pub end: StepEnd,
}

struct Step {
    name: Arc<str>,
    most: Duration,
    detached: bool,
    work: BoxFuture<'static, Result<(), String>>,
}

/// Steps of a shutdown, in order. Whatever becomes of one, the next is begun.
///
/// ```
/// use std::time::Duration;
/// use staithe_lifecycle::{StepEnd, Steps};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let second = Duration::from_secs(1);
/// let reports = Steps::new()
///     .step("streams", second, async { Ok::<(), String>(()) })
///     .step("uploads", Duration::from_millis(5), std::future::pending::<Result<(), String>>())
///     .step("audit", second, async { Err("the disk is full") })
///     .run()
///     .await;
/// let ends: Vec<_> = reports.iter().map(|report| (&*report.name, &report.end)).collect();
/// assert_eq!(ends[0], ("streams", &StepEnd::Done));
/// assert_eq!(ends[1], ("uploads", &StepEnd::Overrun));
/// assert_eq!(ends[2], ("audit", &StepEnd::Failed("the disk is full".into())));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
#[must_use = "steps are taken by `run`"]
pub struct Steps(Vec<Step>);

impl Steps {
    /// No steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Then this one, for so long at most. One that overruns is dropped where it waits.
    pub fn step<F, E>(self, name: impl Into<Arc<str>>, most: Duration, work: F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.then(name.into(), most, false, work)
    }

    /// The same in a task of its own, which is left running if it overruns: for what must not be dropped in the middle.
    pub fn step_detached<F, E>(self, name: impl Into<Arc<str>>, most: Duration, work: F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.then(name.into(), most, true, work)
    }

    /// The same on a thread that may block, which is left running if it overruns: for what waits for a disk. A runtime whose
    /// only thread blocked would see no deadline.
    pub fn step_blocking<E>(
        self,
        name: impl Into<Arc<str>>,
        most: Duration,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Self
    where
        E: fmt::Display,
    {
        let work = async move {
            let working = tokio::task::spawn_blocking(|| work().map_err(|error| error.to_string()));
            match working.await {
                Ok(done) => done,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                Err(ended) => Err(ended.to_string()),
            }
        };
        self.then(name.into(), most, false, work)
    }

    fn then<F, E>(mut self, name: Arc<str>, most: Duration, detached: bool, work: F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let work = async move { work.await.map_err(|error| error.to_string()) };
        self.0.push(Step { name, most, detached, work: Box::pin(work) });
        self
    }

    /// Takes the steps, one after the other, and says what became of each. An end that is not [`StepEnd::Done`] is traced
    /// with the step's name. Takes no longer than all deadlines together, unless a step blocks its thread that is not one that may.
    /// Within a tokio runtime that has timers.
    ///
    /// # Cancel safety
    /// Dropping the future drops the step under way where it waits, unless it is detached, and those to come: none of them
    /// is begun.
    pub async fn run(self) -> Vec<StepReport> {
        let mut reports = Vec::with_capacity(self.0.len());
        for step in self.0 {
            let begun = Instant::now();
            let name = Arc::clone(&step.name);
            tracing::debug!(step = &*name, "a step of the shutdown begins");
            let end = step.take().await;
            let took = begun.elapsed();
            match &end {
                StepEnd::Done => tracing::debug!(step = &*name, ?took, "a step of the shutdown is done"),
                end => tracing::error!(step = &*name, ?took, ?end, "a step of the shutdown was not done"),
            }
            reports.push(StepReport { name, took, end });
        }
        reports
    }
}

impl Step {
    async fn take(self) -> StepEnd {
        let work = AssertUnwindSafe(self.work).catch_unwind();
        let ended = if self.detached {
            match timeout(self.most, tokio::spawn(work)).await {
                Ok(Ok(ended)) => ended,
                Ok(Err(gone)) => return StepEnd::Failed(gone.to_string()),
                Err(_) => return StepEnd::Overrun,
            }
        } else {
            match timeout(self.most, work).await {
                Ok(ended) => ended,
                Err(_) => return StepEnd::Overrun,
            }
        };
        match ended {
            Ok(Ok(())) => StepEnd::Done,
            Ok(Err(error)) => StepEnd::Failed(error),
            Err(panic) => StepEnd::Panicked(panicked(&*panic).to_owned()),
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|step| (&step.name, step.most))).finish()
    }
}

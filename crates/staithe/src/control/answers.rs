//! What the daemon answers.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use staithe_fs::{
    Difference, Filesystem, FsStatus, PinnedStore, SyncProgress, VerifyProgress, VerifyRequest, WarmReport,
    WarmRequest,
};
use staithe_lifecycle::Supervisor;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};

use super::lines::line_of;
use super::protocol::{
    Cache, JobList, Memory, Paths, Refresh, Refreshed, Reload, Reloading, Reply, Request, Running, Staging,
    Status, Swap, Synced, Syncing, Verify, VerifyNews, Verifying, View, Warm, Warming,
};
use crate::failure::{USAGE, chain};
use crate::live::Live;

/// Differences on their way to a client.
const DIFFERENCES_AHEAD: usize = 64;
/// How often a client hears how far its request has come.
const NEWS_EVERY: Duration = Duration::from_millis(200);

/// The mount that requests are about.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) fs: Arc<Filesystem>,
    /// The view that is shown; `None`: what the bucket holds.
    pub(crate) view: Option<Arc<PinnedStore>>,
    pub(crate) live: Arc<Live>,
    pub(crate) source: String,
    pub(crate) mountpoint: PathBuf,
    /// Where the audit log is.
    pub(crate) audit: String,
    /// What goes on beside serving.
    pub(crate) tasks: Arc<Supervisor>,
    pub(crate) started: Instant,
}

/// Where a handler says how far it has come.
#[derive(Debug)]
pub(crate) struct News(pub(super) mpsc::Sender<Vec<u8>>);

impl News {
    /// Tells, unless the client has not read what it was told before.
    pub(crate) fn tell(&self, news: &impl Serialize) {
        let line = serde_json::to_value(news).and_then(|news| line_of(&Reply::News(news)));
        if let Ok(line) = line {
            // Full, or nobody reads: later news says it again.
            let _ = self.0.try_send(line);
        }
    }

    /// Says what is not said again: waits until there is room for it.
    async fn say(&self, news: &impl Serialize) {
        let line = serde_json::to_value(news).and_then(|news| line_of(&Reply::News(news)));
        if let Ok(line) = line {
            // Nobody is there any more: then whoever waits here is about to be dropped.
            let _ = self.0.send(line).await;
        }
    }
}

/// Answers a request. Dropped when the client is gone, wherever it waits: what must come to an end all the same
/// belongs into a task.
///
/// # Errors
/// One sentence for the client.
pub(crate) async fn answer(served: &Arc<Served>, request: Request, news: News) -> Result<Value, String> {
    match request {
        Request::Status {} => json(&status(served).await?),
        Request::Warm(wanted) => json(&warm(served, wanted, &news).await?),
        Request::Refresh(wanted) => json(&refresh(served, &wanted, &news).await),
        Request::Swap(wanted) => json(&swap(served, wanted, &news).await?),
        Request::Sync {} => json(&sync(served, &news).await),
        Request::Jobs(wanted) => json(&jobs(served, wanted, &news).await?),
        Request::RetryJobs(wanted) => {
            let retrying = aside(served, move |fs| fs.retry_jobs(Some(&wanted.paths)));
            json(&meanwhile(retrying, || news.tell(&Value::Null)).await?)
        }
        Request::CancelJobs(wanted) => {
            let cancelling = served.fs.cancel_jobs(&wanted.paths);
            json(&meanwhile(cancelling, || news.tell(&Value::Null)).await)
        }
        Request::Verify(wanted) => json(&verify(served, wanted, &news).await?),
        Request::Reload(wanted) => json(&reload(served, &wanted, &news).await?),
    }
}

fn json(value: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|e| format!("the answer cannot be written down: {e}"))
}

/// Does what looks at every inode, so not on a thread that serves.
async fn aside<T: Send + 'static>(
    served: &Served,
    look: impl FnOnce(&Filesystem) -> T + Send + 'static,
) -> Result<T, String> {
    let fs = Arc::clone(&served.fs);
    let looking = tokio::task::spawn_blocking(move || look(&fs));
    looking.await.map_err(|e| format!("it cannot be found out: {e}"))
}

/// Does `work`, and tells all the while.
async fn meanwhile<T>(work: impl Future<Output = T>, tell: impl Fn()) -> T {
    let mut work = pin!(work);
    let mut tick = interval(NEWS_EVERY);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = tick.tick() => tell(),
        }
    }
}

async fn status(served: &Served) -> Result<Status, String> {
    let figures: FsStatus = aside(served, Filesystem::status).await?;
    Ok(Status {
        mountpoint: served.mountpoint.to_string_lossy().into_owned(),
        source: served.source.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: served.started.elapsed().as_secs(),
        state_dir: served.fs.state_dir().to_string_lossy().into_owned(),
        read_only: figures.read_only,
        write_mode: if figures.writes_back { "back" } else { "through" }.to_owned(),
        open_files: figures.open_files,
        dirty_files: figures.dirty_files,
        dirty_bytes: figures.dirty_bytes,
        jobs: figures.jobs.into(),
        staging: Staging {
            used_bytes: figures.staging_used,
            limit_bytes: figures.staging_limit,
            passthrough: figures.lends_no_new.is_none(),
            no_passthrough_because: figures.lends_no_new.clone(),
        },
        attributes_kept: figures.attributes_kept,
        inodes: figures.inodes,
        memory: Memory {
            limit_bytes: figures.read.memory_limit,
            used_bytes: figures.read.memory_used,
            peak_bytes: figures.read.memory_peak,
        },
        hedges_asked: figures.read.hedges_asked,
        hedges_won: figures.read.hedges_won,
        cache: cache(served, &figures),
        view: served.view.as_ref().map(|view| view.status().into()),
        settings: Some(served.live.told()),
        health: Some(served.fs.watcher().status().into()),
        requests: figures.requests.into_iter().map(Into::into).collect(),
        resident_bytes: crate::metrics::resident_bytes(),
        audit_log: Some(served.audit.clone()),
        tasks: Running::of(&[&served.tasks, served.fs.chores()]),
    })
}

fn cache(served: &Served, figures: &FsStatus) -> Option<Cache> {
    let (cache, dir) = (figures.cache?, served.fs.cache_dir()?);
    Some(Cache {
        dir: dir.to_string_lossy().into_owned(),
        limit_bytes: cache.limit,
        used_bytes: cache.used,
        files: cache.files,
        damaged_blocks: cache.damaged,
        evicted_files: cache.evicted,
        passthrough: figures.lends_not.is_none(),
        no_passthrough_because: figures.lends_not.clone(),
    })
}

async fn warm(served: &Served, wanted: Warm, news: &News) -> Result<Warming, String> {
    let request = WarmRequest { paths: wanted.paths, jobs: wanted.jobs };
    let progress = watch::Sender::new(WarmReport::default());
    let tell = || news.tell(&Warming::from(&*progress.borrow()));
    let report = meanwhile(served.fs.warm(&request, &progress), tell).await;
    report.map(|report| Warming::from(&report)).map_err(|error| chain(&error))
}

async fn refresh(served: &Served, wanted: &Refresh, news: &News) -> Refreshed {
    meanwhile(served.fs.refresh(&wanted.paths), || news.tell(&Value::Null)).await.into()
}

async fn swap(served: &Served, wanted: Swap, news: &News) -> Result<View, String> {
    let view =
        served.view.as_ref().ok_or("this mount was not given a --snapshot, so there is none to swap")?;
    let swapping = served.fs.swap_view(view, wanted.file.into());
    let swapped = meanwhile(swapping, || news.tell(&Value::Null)).await;
    swapped.map(View::from).map_err(|error| chain(&error))
}

async fn sync(served: &Served, news: &News) -> Synced {
    let progress = watch::Sender::new(SyncProgress::default());
    let tell = || news.tell(&Syncing::from(*progress.borrow()));
    meanwhile(served.fs.sync(&progress), tell).await.into()
}

async fn verify(served: &Served, wanted: Verify, news: &News) -> Result<Verifying, String> {
    let Verify { path, repair } = wanted;
    let (request, progress) = (VerifyRequest { path, repair }, watch::Sender::new(VerifyProgress::default()));
    let (tell, mut told) = mpsc::channel::<Difference>(DIFFERENCES_AHEAD);
    let (request, progress) = (&request, &progress);
    // It ends when the sender is dropped, with the work.
    let comparing = async move { served.fs.verify(request, progress, &tell).await };
    let passing_on = async {
        while let Some(difference) = told.recv().await {
            news.say(&VerifyNews::Difference(difference.into())).await;
        }
    };
    let both = async { tokio::join!(comparing, passing_on).0 };
    let tell = || news.tell(&VerifyNews::Progress(Verifying::from(*progress.borrow())));
    meanwhile(both, tell).await.map(Verifying::from).map_err(|error| chain(&error))
}

async fn reload(served: &Served, wanted: &Reload, news: &News) -> Result<Reloading, String> {
    match meanwhile(served.live.reload(&wanted.options), || news.tell(&Value::Null)).await {
        Ok(reloaded) => Ok(Reloading::Done(reloaded)),
        Err(refused) if refused.code == USAGE => Ok(Reloading::Refused(refused.sentence)),
        Err(failed) => Err(failed.sentence),
    }
}

async fn jobs(served: &Served, wanted: Paths, news: &News) -> Result<JobList, String> {
    let list = move |fs: &Filesystem| {
        let mut jobs = fs.jobs();
        jobs.retain(|job| wanted.paths.iter().any(|path| is_at(&job.path, path)));
        JobList::from(jobs)
    };
    meanwhile(aside(served, list), || news.tell(&Value::Null)).await
}

/// Whether `path` is `above`, or below it.
fn is_at(path: &str, above: &str) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

//! What the daemon answers.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use staithe_fs::{Filesystem, FsStatus, WarmReport, WarmRequest};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};

use super::lines::line_of;
use super::protocol::{Cache, Memory, Refresh, Refreshed, Reply, Request, Status, Warm, Warming};
use crate::failure::chain;

/// How often a client hears how far its request has come.
const NEWS_EVERY: Duration = Duration::from_millis(200);

/// The mount that requests are about.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) fs: Arc<Filesystem>,
    pub(crate) source: String,
    pub(crate) mountpoint: PathBuf,
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
    }
}

fn json(value: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|e| format!("the answer cannot be written down: {e}"))
}

async fn status(served: &Arc<Served>) -> Result<Status, String> {
    // Looks at every inode, so not on a thread that serves.
    let asked = Arc::clone(served);
    let figures: FsStatus = tokio::task::spawn_blocking(move || asked.fs.status())
        .await
        .map_err(|e| format!("the figures cannot be had: {e}"))?;
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
    let mut warming = pin!(served.fs.warm(&request, &progress));
    let mut tick = interval(NEWS_EVERY);
    loop {
        tokio::select! {
            biased;
            report = &mut warming => {
                return report.map(|report| Warming::from(&report)).map_err(|error| chain(&error));
            }
            _ = tick.tick() => {
                let so_far = Warming::from(&*progress.borrow());
                news.tell(&so_far);
            }
        }
    }
}

async fn refresh(served: &Served, wanted: &Refresh, news: &News) -> Refreshed {
    let mut refreshing = pin!(served.fs.refresh(&wanted.paths));
    let mut tick = interval(NEWS_EVERY);
    loop {
        tokio::select! {
            biased;
            report = &mut refreshing => return report.into(),
            _ = tick.tick() => news.tell(&Value::Null),
        }
    }
}

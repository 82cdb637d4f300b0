//! `--metrics ADDR`: the figures of `staithe status`, for Prometheus.
//!
//! They are looked at every few seconds, not at each scrape: looking costs time that grows with the inodes in memory.

use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use staithe_fs::{Filesystem, FsStatus};
use staithe_lifecycle::Phase;

use crate::failure::Failure;

/// How old the figures may be.
const EVERY: Duration = Duration::from_secs(5);
const PHASES: [Phase; 7] = [
    Phase::Starting,
    Phase::Healthy,
    Phase::Degraded,
    Phase::Suspect,
    Phase::Condemned,
    Phase::Draining,
    Phase::Exited,
];

/// Serves them over HTTP from now on. Must run inside a runtime.
///
/// # Errors
/// One sentence: the address cannot be listened on.
pub(crate) fn serve(address: SocketAddr) -> Result<(), Failure> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::caused(format!("--metrics {address} cannot be listened on"), error)
    };
    let (recorder, exporter) =
        PrometheusBuilder::new().with_http_listener(address).build().map_err(|e| cannot(&e))?;
    metrics::set_global_recorder(recorder).map_err(|e| cannot(&e))?;
    describe();
    tokio::spawn(async move {
        if exporter.await.is_err() {
            tracing::error!(%address, "metrics are not served any more");
        }
    });
    Ok(())
}

/// Looks at the figures of a filesystem, again and again, until it is gone.
pub(crate) async fn watch(fs: Weak<Filesystem>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let Some(fs) = fs.upgrade() else { return };
        // It looks at every inode.
        let looked = tokio::task::spawn_blocking(move || show(&fs));
        if looked.await.is_err() {
            tracing::warn!("the metrics could not be looked at");
        }
    }
}

fn describe() {
    for (name, text) in [
        ("staithe_phase", "1 for the phase that the mount is in, 0 for all others"),
        ("staithe_open_files", "Open files"),
        ("staithe_inodes", "Inodes in memory"),
        ("staithe_dirty_files", "Files and directories of which something is not in the store"),
        ("staithe_dirty_bytes", "Their bytes that are not in the store"),
        ("staithe_jobs", "Files that are to be stored, by what is being done about it"),
        ("staithe_staging_bytes", "What staging files take of their disk"),
        ("staithe_memory_bytes", "Memory that parts of files take"),
        ("staithe_memory_limit_bytes", "The most that it may be"),
        ("staithe_resident_bytes", "Memory of the process"),
        ("staithe_cache_bytes", "What the disk cache holds"),
        ("staithe_cache_limit_bytes", "The most that it may hold"),
        ("staithe_attributes_kept", "Objects whose attributes are kept for later runs"),
    ] {
        describe_gauge!(name, text);
    }
    for (name, text) in [
        ("staithe_requests_total", "Requests to the store, tries counted one by one"),
        ("staithe_phase_changes_total", "How often the phase has changed"),
        ("staithe_hedges_total", "Ranges that were asked for a second time"),
        ("staithe_cache_evicted_files_total", "Versions that went from the disk cache for others"),
        (
            "staithe_cache_damaged_blocks_total",
            "Blocks of the disk cache that were damaged, and fetched again",
        ),
    ] {
        describe_counter!(name, text);
    }
}

fn show(fs: &Filesystem) {
    let phase = fs.watcher().phase();
    for each in PHASES {
        gauge!("staithe_phase", "phase" => each.to_string()).set(f64::from(u8::from(each == phase)));
    }
    counter!("staithe_phase_changes_total").absolute(fs.watcher().status().moves);
    show_figures(&fs.status());
    if let Some(resident) = resident_bytes() {
        gauge!("staithe_resident_bytes").set(resident as f64);
    }
}

fn show_figures(status: &FsStatus) {
    for (name, value) in [
        ("staithe_open_files", status.open_files),
        ("staithe_inodes", status.inodes),
        ("staithe_dirty_files", status.dirty_files),
        ("staithe_dirty_bytes", status.dirty_bytes),
        ("staithe_staging_bytes", status.staging_used),
        ("staithe_memory_bytes", status.read.memory_used),
        ("staithe_memory_limit_bytes", status.read.memory_limit),
        ("staithe_attributes_kept", status.attributes_kept.unwrap_or(0)),
    ] {
        gauge!(name).set(value as f64);
    }
    let jobs = status.jobs;
    for (state, count) in [
        ("waiting", jobs.waiting),
        ("running", jobs.running),
        ("retrying", jobs.retrying),
        ("failed", jobs.failed),
    ] {
        gauge!("staithe_jobs", "state" => state).set(count as f64);
    }
    for request in &status.requests {
        let labels = [("operation", request.operation), ("outcome", request.outcome)];
        counter!("staithe_requests_total", &labels).absolute(request.count);
    }
    counter!("staithe_hedges_total").absolute(status.read.hedges_asked);
    if let Some(cache) = &status.cache {
        gauge!("staithe_cache_bytes").set(cache.used as f64);
        gauge!("staithe_cache_limit_bytes").set(cache.limit as f64);
        counter!("staithe_cache_evicted_files_total").absolute(cache.evicted);
        counter!("staithe_cache_damaged_blocks_total").absolute(cache.damaged);
    }
}

/// The memory of this process, in bytes; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

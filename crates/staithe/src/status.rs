//! `staithe status`: what a mount's daemon says of itself.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::Value;
use staithe_fuse::MountEntry;

use crate::control::{
    Conversation, Counts, Health, InForce, Mishap, Reply, Request, Requests, Running, Staging, Status,
    Suspicion, wait_for,
};
use crate::failure::{DONE, Failure};
use crate::locate::locate;
use crate::options::StatusOptions;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon, and prints what it says.
///
/// # Errors
/// One sentence: nothing of ours is mounted there, or its daemon does not answer.
pub(crate) fn run(options: &StatusOptions) -> Result<u8, Failure> {
    let place = locate(&options.mountpoint)?;
    let value = ask(&place.mount)?;
    if options.json {
        // As it came: a newer daemon may say more than we know of.
        say(&value);
        return Ok(DONE);
    }
    let status: Status = serde_json::from_value(value)
        .map_err(|e| Failure::caused("the daemon's status cannot be understood; try --json", &e))?;
    print(&status);
    Ok(DONE)
}

/// What the daemon of a mount says of itself, as it came.
///
/// # Errors
/// One sentence: it does not answer.
pub(crate) fn ask(mount: &MountEntry) -> Result<Value, Failure> {
    let reply = wait_for(async {
        let mut conversation = Conversation::begin(mount, &Request::Status {}).await?;
        conversation.next(PATIENCE).await
    })?;
    match reply {
        Reply::Done(value) => Ok(value),
        Reply::Error(sentence) => Err(Failure::failed(sentence)),
        Reply::News(_) => Err(Failure::failed("the daemon answered something else than its status")),
    }
}

fn print(status: &Status) {
    let line = |what: &str, value: &dyn Display| say(&format_args!("{what:<16}{value}"));
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let Status { memory, .. } = status;
    line("mount point", &status.mountpoint);
    line("source", &status.source);
    line("process", &status.pid);
    line("version", &status.version);
    if let Some(health) = &status.health {
        print_health(health, line);
    }
    line("up for", &humantime::format_duration(Duration::from_secs(status.uptime_seconds)));
    line("state directory", &status.state_dir);
    line("access", &if status.read_only { "read-only" } else { "read and write" });
    line("write mode", &status.write_mode);
    if let Some(view) = &status.view {
        let (epoch, objects, memory) = (view.epoch, view.objects, size(view.memory_bytes));
        line("view", &format_args!("{}, of {}", view.file, view.shows));
        line(
            "",
            &format_args!(
                "epoch {epoch}, {objects} objects, {memory}; {} earlier in memory",
                view.old_epochs
            ),
        );
    }
    if let Some(settings) = &status.settings {
        let each: Vec<_> = settings.each().iter().map(|(name, value)| format!("{name} {value}")).collect();
        line("settings", &each.join(", "));
        line("reloaded", &reloaded(settings));
    }
    line("open files", &status.open_files);
    line("dirty files", &format_args!("{}, {}", status.dirty_files, size(status.dirty_bytes)));
    let Counts { failed, retrying, running, waiting } = status.jobs;
    line("jobs", &format_args!("{failed} failed, {retrying} retrying, {running} running, {waiting} waiting"));
    print_staging(&status.staging, line);
    if let Some(kept) = status.attributes_kept {
        line("attributes", &format_args!("of {kept} objects are kept for later runs"));
    }
    print_tasks(&status.tasks, line);

    line("inodes", &status.inodes);
    line("requests", &requests(&status.requests));
    line(
        "memory",
        &format_args!(
            "{} of {} in use, {} at most",
            size(memory.used_bytes),
            size(memory.limit_bytes),
            size(memory.peak_bytes)
        ),
    );
    let (asked, won) = (status.hedges_asked, status.hedges_won);
    line("stalled reads", &format_args!("{asked} asked for again, of which {won} came first"));
    let Some(cache) = &status.cache else {
        return line("cache directory", &"none");
    };
    line("cache directory", &cache.dir);
    let (used, limit) = (size(cache.used_bytes), size(cache.limit_bytes));
    line("cache", &format_args!("{used} of {limit} in use, {} files", cache.files));
    if cache.damaged_blocks > 0 {
        line("", &format_args!("{} blocks were damaged, and fetched again", cache.damaged_blocks));
    }
    match &cache.no_passthrough_because {
        None => line("passthrough", &"on: the kernel reads whole cached files by itself"),
        Some(reason) => line("passthrough", &format_args!("off: {reason}")),
    }
}

fn print_staging(staging: &Staging, line: impl Fn(&str, &dyn Display)) {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let used = size(staging.used_bytes);
    match staging.limit_bytes {
        Some(limit) => line("staging", &format_args!("{used} of {} in use", size(limit))),
        None => line("staging", &format_args!("{used} in use")),
    }
    if staging.passthrough {
        line("", &"passthrough on: the kernel writes new files by itself");
    } else if let Some(reason) = &staging.no_passthrough_because {
        line("", &format_args!("passthrough off: {reason}"));
    }
}

fn print_health(health: &Health, line: impl Fn(&str, &dyn Display)) {
    let ago = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    line("phase", &format_args!("{}, for {}: {}", health.phase, ago(health.since_seconds), health.reason));
    if let Some(Suspicion { of, agreeing, needed }) = &health.suspicion {
        line("", &format_args!("suspected: {of}; {agreeing} of {needed} answers say so"));
    }
    if let Some(silent) = health.silent_seconds {
        line("", &format_args!("nothing has succeeded for {}", ago(silent)));
    }
}

fn print_tasks(tasks: &Running, line: impl Fn(&str, &dyn Display)) {
    line("tasks", &tasks.running.join(", "));
    for Mishap { task, time, panicked } in &tasks.incidents {
        match panicked {
            Some(said) => line("", &format_args!("{time}: {task} panicked: {said}")),
            None => line("", &format_args!("{time}: {task} is not started again")),
        }
    }
}

/// All requests, and the errors among them by kind.
fn requests(all: &[Requests]) -> String {
    let mut by_outcome = std::collections::BTreeMap::new();
    for request in all {
        *by_outcome.entry(request.outcome.as_str()).or_insert(0) += request.count;
    }
    let total: u64 = by_outcome.values().sum();
    let others = by_outcome.into_iter().filter(|(outcome, _)| *outcome != "ok");
    let others: Vec<_> =
        others.map(|(outcome, count)| format!("{count} {}", outcome.replace('_', " "))).collect();
    if others.is_empty() { total.to_string() } else { format!("{total}, of which {}", others.join(", ")) }
}

fn reloaded(settings: &InForce) -> String {
    let ago = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    match settings.reloaded_seconds_ago {
        None => "never".to_owned(),
        Some(seconds) => format!("last {} ago, {} in all", ago(seconds), settings.reloads),
    }
}

fn say(what: &dyn Display) {
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{what}");
}

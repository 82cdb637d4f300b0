//! `staithe jobs`: what a mount has to store, and what is being done about it.

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use staithe_fuse::MountEntry;

use crate::control::{Counts, JobLine, JobList, Paths, Request, ask, understand, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::{Place, key_path, locate};
use crate::options::JobsOptions;

/// Lists jobs, or says what is to become of them.
///
/// # Errors
/// One sentence: nothing of ours is mounted there, its daemon does not answer, or a path is in another mount.
pub(crate) fn run(options: &JobsOptions) -> Result<u8, Failure> {
    let place = locate(&options.mountpoint)?;
    let here = key_path(&options.mountpoint, &place)?;
    if let Some(paths) = &options.cancel {
        let request = Request::CancelJobs(Paths { paths: in_mount(paths, &place)? });
        let count: u64 = tell(&place.mount, &request)?;
        say(&format_args!(
            "{count} cancelled; what they were to store is kept here, also across restarts, until it changes again, or \
             `staithe jobs --retry`, `staithe sync` or the end of the mount stores it"
        ));
        return Ok(DONE);
    }
    if let Some(paths) = &options.retry {
        let paths = if paths.is_empty() { vec![here] } else { in_mount(paths, &place)? };
        let count: u64 = tell(&place.mount, &Request::RetryJobs(Paths { paths }))?;
        say(&format_args!("{count} are tried again"));
        return Ok(DONE);
    }
    let told: serde_json::Value = tell(&place.mount, &Request::Jobs(Paths { paths: vec![here] }))?;
    if options.json {
        // As it came: a newer daemon may say more than we know of.
        say(&told);
        return Ok(DONE);
    }
    print(&understand(told)?);
    Ok(DONE)
}

fn tell<T: serde::de::DeserializeOwned>(mount: &MountEntry, request: &Request) -> Result<T, Failure> {
    wait_for(ask(mount, request, |_| Ok(())))
}

/// The paths from the root of the mount, which must be one.
fn in_mount(paths: &[PathBuf], mounted: &Place) -> Result<Vec<String>, Failure> {
    let below = |path: &PathBuf| {
        let place = locate(path)?;
        if place.mount.minor != mounted.mount.minor {
            let mountpoint = mounted.mount.mountpoint.display();
            return Err(Failure::usage(format!("{} is not in {mountpoint}", path.display())));
        }
        key_path(path, &place)
    };
    paths.iter().map(below).collect()
}

fn print(jobs: &JobList) {
    let Counts { failed, retrying, running, waiting } = jobs.counts;
    if !jobs.jobs.is_empty() {
        say(&row(["STATE", "SIZE", "SENT", "TRIES", "AGE", "NEXT TRY"].map(str::to_owned), "PATH"));
    }
    for job in &jobs.jobs {
        say(&line(job));
    }
    say(&format_args!("{failed} failed, {retrying} retrying, {running} running, {waiting} waiting"));
    if jobs.left_out > 0 {
        say(&format_args!("{} of them are not shown; name a path to see what is below it", jobs.left_out));
    }
}

fn line(job: &JobLine) -> String {
    let seconds = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let sent = (job.done_bytes * 100).checked_div(job.size_bytes);
    let columns = [
        job.state.clone(),
        ByteSize::b(job.size_bytes).display().iec().to_string(),
        sent.filter(|_| job.state == "running").map_or("-".to_owned(), |sent| format!("{sent}%")),
        job.tries.to_string(),
        seconds(job.age_seconds),
        job.next_try_seconds.map_or("-".to_owned(), |next| format!("in {}", seconds(next))),
    ];
    // Names may hold anything, also what a terminal would obey.
    let path = format!("{:?}", job.path);
    match &job.failure {
        Some(why) => row(columns, &format!("{path}: {}", why.replace(char::is_control, " "))),
        None => row(columns, &path),
    }
}

fn row([state, size, sent, tries, age, next]: [String; 6], path: &str) -> String {
    format!("{state:<8}  {size:>10}  {sent:>4}  {tries:>5}  {age:>12}  {next:>12}  {path}")
}

fn say(what: &dyn Display) {
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{what}");
}

//! `staithe warm`: fetch files into the cache before somebody reads them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use staithe_fuse::MountEntry;

use crate::bar::Bar;
use crate::control::{Conversation, Request, Warm, Warming, ask, understand, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::{key_path, locate};
use crate::options::WarmOptions;

/// How long a daemon may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);

/// Warms; 0 if every file is wholly in the cache.
///
/// # Errors
/// One sentence; what could not be warmed is on standard error already.
pub(crate) fn run(options: &WarmOptions) -> Result<u8, Failure> {
    let (mount, _) = in_one_mount(&options.paths)?;
    // A daemon that does not answer would hold up every question to its mount: so ask it first.
    wait_for(async { Conversation::begin(&mount, &Request::Status {}).await?.next(ANSWER).await })?;
    let real: Vec<_> = options.paths.iter().map(|path| real_path(path)).collect::<Result<_, _>>()?;
    let (mount, paths) = in_one_mount(&real)?;
    let request = Request::Warm(Warm { paths, jobs: options.jobs.into() });
    match wait_for(watch(&mount, &request))? {
        End::Done(warming) => judge(&warming),
        End::Stopped(warming) => Err(Failure::failed(format!(
            "stopped at {}; what is in the cache stays there",
            summary(&warming)
        ))),
    }
}

/// How the work ended.
enum End {
    Done(Warming),
    /// By Ctrl-C; what was last heard.
    Stopped(Warming),
}

/// The mount that all paths belong to, and the paths from its root.
fn in_one_mount(paths: &[PathBuf]) -> Result<(MountEntry, Vec<String>), Failure> {
    let mut mount: Option<MountEntry> = None;
    let mut below = Vec::with_capacity(paths.len());
    for path in paths {
        let place = locate(path)?;
        below.push(key_path(path, &place)?);
        match &mount {
            None => mount = Some(place.mount),
            Some(first) if first.minor == place.mount.minor => {}
            Some(first) => {
                return Err(Failure::usage(format!(
                    "{} and {} are two mounts; warm one at a time",
                    first.mountpoint.display(),
                    place.mount.mountpoint.display()
                )));
            }
        }
    }
    let mount = mount.ok_or_else(|| Failure::usage("there is nothing to warm; name a path"))?;
    Ok((mount, below))
}

/// The path without links.
fn real_path(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|e| Failure::caused(format!("{} cannot be warmed", path.display()), &e))
}

/// Follows the work to its end, or to Ctrl-C, which ends it.
async fn watch(mount: &MountEntry, request: &Request) -> Result<End, Failure> {
    let (bar, mut last) = (Bar::new(), Warming::default());
    let hear = |news| {
        last = understand(news)?;
        show(&bar, &last);
        Ok(())
    };
    tokio::select! {
        biased;
        done = ask(mount, request, hear) => return Ok(End::Done(done?)),
        // Hanging up ends the work.
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
    Ok(End::Stopped(last))
}

fn show(bar: &Bar, warming: &Warming) {
    let mut message = format!("{} of {} files", warming.files_done, warming.files_found);
    if warming.failed > 0 {
        // Writing to a string does not fail.
        let _ = write!(message, ", {} failed", warming.failed);
    }
    bar.show(warming.bytes_done, warming.bytes_wanted, message);
}

fn judge(warming: &Warming) -> Result<u8, Failure> {
    if warming.failed == 0 && warming.files_done == warming.files_found {
        // A closed standard output is no reason to fail.
        let _ = writeln!(std::io::stdout(), "{}", summary(warming));
        return Ok(DONE);
    }
    for failed in &warming.failures {
        // Names may hold anything, also what a terminal would obey.
        eprintln!("staithe: {:?}: {}", failed.path, failed.reason.replace(char::is_control, " "));
    }
    Err(Failure::failed(format!("{}, {} failed", summary(warming), warming.failed)))
}

fn summary(warming: &Warming) -> String {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    format!(
        "{} of {} files, {} of {} are in the cache ({} fetched)",
        warming.files_done,
        warming.files_found,
        size(warming.bytes_done),
        size(warming.bytes_wanted),
        size(warming.bytes_fetched)
    )
}

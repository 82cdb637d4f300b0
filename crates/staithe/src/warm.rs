//! `staithe warm`: fetch files into the cache before somebody reads them.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use staithe_fuse::MountEntry;

use crate::control::{Conversation, Reply, Request, Warm, Warming};
use crate::failure::{DONE, Failure};
use crate::locate::{key_path, locate};
use crate::options::WarmOptions;

/// How long a daemon may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long a daemon at work may say nothing; it has something to say several times a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Warms; 0 if every file is wholly in the cache.
///
/// # Errors
/// One sentence; what could not be warmed is on standard error already.
pub(crate) fn run(options: &WarmOptions) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::caused("the runtime cannot start", &e))?;
    let (mount, _) = in_one_mount(&options.paths)?;
    // A daemon that does not answer would hold up every question to its mount: so ask it first.
    runtime.block_on(async { Conversation::begin(&mount, &Request::Status {}).await?.next(ANSWER).await })?;
    let real: Vec<_> = options.paths.iter().map(|path| real_path(path)).collect::<Result<_, _>>()?;
    let (mount, paths) = in_one_mount(&real)?;
    let request = Request::Warm(Warm { paths, jobs: options.jobs.into() });
    match runtime.block_on(watch(&mount, &request))? {
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
    let mut conversation = Conversation::begin(mount, request).await?;
    let bar = Bar::new();
    let mut last = Warming::default();
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let reply = tokio::select! {
            biased;
            reply = conversation.next(PATIENCE) => reply?,
            // Hanging up ends the work.
            Ok(()) = &mut interrupted => return Ok(End::Stopped(last)),
        };
        match reply {
            Reply::News(news) => {
                last = understand(news)?;
                bar.show(&last);
            }
            Reply::Done(done) => return Ok(End::Done(understand(done)?)),
            Reply::Error(sentence) => return Err(Failure::failed(sentence)),
        }
    }
}

fn understand(value: serde_json::Value) -> Result<Warming, Failure> {
    serde_json::from_value(value).map_err(|e| Failure::caused("the daemon's answer cannot be understood", &e))
}

/// A progress bar, where somebody sees it.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(0);
        let template = "[{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            // Plain characters: a line that is measured as too long would be cleared with the one above it.
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Some(bar))
    }

    fn show(&self, warming: &Warming) {
        let Some(bar) = &self.0 else { return };
        let mut message = format!("{} of {} files", warming.files_done, warming.files_found);
        if warming.failed > 0 {
            // Writing to a string does not fail.
            let _ = write!(message, ", {} failed", warming.failed);
        }
        bar.set_message(message);
        bar.set_length(warming.bytes_wanted);
        bar.set_position(warming.bytes_done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
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

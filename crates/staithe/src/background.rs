//! `--background`: the same program again, detached, with a pipe on which it says that it is ready.
//!
//! A fork of a process with threads is unsafe, so the daemon is a new process. Its standard output is the pipe and
//! carries one line: `ready: ...`, or the sentence it failed with. Its log goes into the state directory; what it
//! warned of until it was ready is said on our standard error too.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{DONE, FAILED, Failure};
use crate::settings::Settings;
use crate::{daemon, places};

const LOG: &str = "daemon.log";

/// Starts the daemon, and returns when it is ready.
///
/// # Errors
/// The daemon's own sentence and exit code, if it could not start.
pub(crate) fn start(settings: &Settings, arguments: &[OsString]) -> Result<u8, Failure> {
    let dir = &settings.fs.state_dir;
    let unusable = |e| Failure::caused(format!("the state directory {} cannot be used", dir.display()), &e);
    places::create_private(dir).map_err(unusable)?;
    let log =
        OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(LOG)).map_err(unusable)?;
    let logged = log.metadata().map_or(0, |log| log.len());
    let program = std::env::current_exe().map_err(|e| Failure::caused("this program cannot be found", &e))?;
    let mut daemon = Command::new(program)
        // By whatever name this one was called.
        .arg0("staithe")
        .args(detached(arguments))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| Failure::caused("the daemon cannot be started", &e))?;
    let mut line = String::new();
    if let Some(output) = daemon.stdout.take() {
        let read = BufReader::new(output).read_line(&mut line);
        read.map_err(|e| Failure::caused("the daemon cannot be heard", &e))?;
    }
    let line = line.trim_end();
    if line.starts_with("ready: ") {
        pass_warnings_on(&dir.join(LOG), logged);
        // Nobody may be listening; the mount is there all the same.
        let _ = writeln!(std::io::stdout(), "{line}");
        return Ok(DONE);
    }
    let status = daemon.wait().map_err(|e| Failure::caused("the daemon cannot be awaited", &e))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != DONE);
    let sentence = match line.strip_prefix("staithe: ") {
        Some(sentence) => sentence.to_owned(),
        None => format!("the daemon ended ({status}) before it was ready; see {}", dir.join(LOG).display()),
    };
    Err(Failure { code: code.unwrap_or(FAILED), sentence })
}

/// The arguments of the daemon: ours, as one that is detached.
fn detached(arguments: &[OsString]) -> Vec<OsString> {
    let mut ours = arguments.iter().skip(1).filter(|argument| *argument != "--background").cloned();
    // Options come before what ends them.
    ours.next().into_iter().chain([OsString::from("--detached")]).chain(ours).collect()
}

/// Says on standard error what the daemon has logged from `start` on of warnings and errors: its log is not what
/// whoever starts it looks at.
fn pass_warnings_on(log: &Path, start: u64) {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut log| {
        log.seek(SeekFrom::Start(start))?;
        log.read_to_end(&mut text)
    });
    if let Err(error) = read {
        eprintln!("staithe: warnings may be in {}, which cannot be read: {error}", log.display());
    }
    for line in String::from_utf8_lossy(&text).lines().filter(|line| is_warning(line)) {
        eprintln!("{line}");
    }
}

/// Whether a line of the log, in either format, is a warning or an error.
fn is_warning(line: &str) -> bool {
    let in_text = line.split_whitespace().nth(1).is_some_and(|level| matches!(level, "WARN" | "ERROR"));
    in_text || [r#""level":"WARN""#, r#""level":"ERROR""#].iter().any(|level| line.contains(level))
}

/// Leaves the terminal and the working directory of who started us, and runs.
///
/// # Errors
/// As [`daemon::run`]; the sentence has been sent to the parent too.
pub(crate) fn be_detached(settings: Settings) -> Result<u8, Failure> {
    // Fails only for the leader of a process group, which a child is not.
    let _ = rustix::process::setsid();
    let outcome = std::env::set_current_dir("/")
        .map_err(|e| Failure::caused("the working directory cannot be left", &e))
        .and_then(|()| daemon::run(settings));
    if let Err(failure) = &outcome {
        // The parent may have been ended meanwhile.
        let _ = writeln!(std::io::stdout(), "{failure}");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_from_other_lines() {
        for line in [
            r#"2026-11-21T07:16:39.7Z  WARN staithe_fs::recovery: cannot be finished yet; kept intent="store a""#,
            "2026-11-21T07:16:39.7Z ERROR staithe::daemon: cannot unmount",
            r#"{"timestamp":"2026-11-21T07:16:39.7Z","level":"WARN","fields":{}}"#,
        ] {
            assert!(is_warning(line), "{line}");
        }
        for line in
            ["2026-11-21T07:16:39.7Z  INFO staithe::daemon: ready WARN", r#"{"level":"INFO"}"#, "", "WARN"]
        {
            assert!(!is_warning(line), "{line}");
        }
    }
}

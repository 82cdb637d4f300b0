//! `staithe sync`: wait until the store has everything.

use std::io::Write as _;

use bytesize::ByteSize;
use staithe_fuse::MountEntry;

use crate::bar::Bar;
use crate::control::{Request, Synced, Syncing, ask, understand, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::locate;
use crate::options::SyncOptions;

/// Syncs; 0 if the store has everything that it lacked.
///
/// # Errors
/// As [`store_all`].
pub(crate) fn run(options: &SyncOptions) -> Result<u8, Failure> {
    let place = locate(&options.mountpoint)?;
    let stored = store_all(&place.mount)?;
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{stored} files and directories were stored");
    Ok(DONE)
}

/// Waits until the store has everything that it lacks now, or until Ctrl-C, which ends nothing but the waiting. How
/// many files and directories that were.
///
/// # Errors
/// One sentence; what could not be stored is on standard error already.
pub(crate) fn store_all(mount: &MountEntry) -> Result<u64, Failure> {
    let synced = wait_for(watch(mount))?;
    if synced.failed == 0 {
        return Ok(synced.stored);
    }
    for failed in &synced.failures {
        // Names may hold anything, also what a terminal would obey.
        eprintln!("staithe: {:?}: {}", failed.path, failed.reason.replace(char::is_control, " "));
    }
    let (failed, mountpoint) = (synced.failed, mount.mountpoint.display());
    Err(Failure::failed(format!(
        "{failed} of {} could not be stored and are kept here; see `staithe jobs {mountpoint}`",
        failed + synced.stored
    )))
}

async fn watch(mount: &MountEntry) -> Result<Synced, Failure> {
    let (bar, mut last) = (Bar::new(), Syncing::default());
    let hear = |news| {
        last = understand(news)?;
        let Syncing { files, files_left, bytes, bytes_left } = last;
        bar.show(bytes - bytes_left.min(bytes), bytes, format!("{files_left} of {files} files left"));
        Ok(())
    };
    tokio::select! {
        biased;
        synced = ask(mount, &Request::Sync {}, hear) => return synced,
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
    let Syncing { files, files_left, bytes_left, .. } = last;
    let left = ByteSize::b(bytes_left).display().iec();
    Err(Failure::failed(format!(
        "stopped waiting when {files_left} of {files} files ({left}) were left; they are kept here and stored later"
    )))
}

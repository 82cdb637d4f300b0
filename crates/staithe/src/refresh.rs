//! `staithe refresh`: make mounts forget names and attributes, so that they ask the store.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use staithe_fuse::MountEntry;

use crate::control::{Failed, Refresh, Refreshed, Request, ask, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::{key_path, locate};
use crate::options::RefreshOptions;

/// The paths in one mount, from its root.
struct Wanted {
    mount: MountEntry,
    paths: Vec<String>,
}

/// Refreshes; 0 if every path was. One mount that cannot be reached holds up no other.
///
/// # Errors
/// One sentence; what else could not be refreshed is on standard error already. A path that is in no mount of ours is
/// told before anything is done.
pub(crate) fn run(options: &RefreshOptions) -> Result<u8, Failure> {
    let wanted = by_mount(&options.paths)?;
    let (mut done, mut failures) = (Refreshed::default(), Vec::new());
    for Wanted { mount, paths } in wanted {
        let request = Request::Refresh(Refresh { paths });
        match wait_for(ask::<Refreshed>(&mount, &request, |_| Ok(()))) {
            Ok(refreshed) => {
                done.names += refreshed.names;
                done.inodes += refreshed.inodes;
                failures.extend(refreshed.failures.iter().map(|failed| refused(&mount.mountpoint, failed)));
            }
            Err(failure) => failures.push(failure),
        }
    }
    let Some(last) = failures.pop() else {
        // A closed standard output is no reason to fail.
        let _ = writeln!(std::io::stdout(), "{} names, {} files and directories", done.names, done.inodes);
        return Ok(DONE);
    };
    for failure in failures {
        failure.tell();
    }
    Err(last)
}

/// The paths by the mounts that they belong to, both in the order in which they were given.
fn by_mount(paths: &[PathBuf]) -> Result<Vec<Wanted>, Failure> {
    let mut all: Vec<Wanted> = Vec::new();
    for path in paths {
        let place = locate(path)?;
        let below = key_path(path, &place)?;
        match all.iter_mut().find(|wanted| wanted.mount.minor == place.mount.minor) {
            Some(wanted) => wanted.paths.push(below),
            None => all.push(Wanted { mount: place.mount, paths: vec![below] }),
        }
    }
    Ok(all)
}

/// Names may hold anything, also what a terminal would obey.
fn refused(mountpoint: &Path, failed: &Failed) -> Failure {
    let path = mountpoint.join(&failed.path).display().to_string();
    let reason = failed.reason.replace(char::is_control, " ");
    Failure::failed(format!("{path:?}: {reason}"))
}

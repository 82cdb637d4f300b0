//! `staithe umount`: unmount, and wait until the daemon has stored everything.

use std::path::Path;

use staithe_fuse::MountEntry;

use crate::failure::{Failure, KEPT, chain};
use crate::options::UmountOptions;
use crate::places;
use crate::registry::{End, Found};
use crate::sync::store_all;

/// Unmounts; returns the daemon's exit code.
///
/// # Errors
/// One sentence: nothing of ours is mounted there, it is in use, or not everything could be stored first where that was
/// asked for.
pub(crate) fn run(options: &UmountOptions) -> Result<u8, Failure> {
    let path = places::full_path(&options.mountpoint);
    let mounted = find(&path)?;
    if options.flush {
        store_all(&mounted).map_err(|failure| Failure {
            sentence: format!("{} stays mounted: {}", path.display(), failure.sentence),
            ..failure
        })?;
    }
    let daemon = Found::of(&mounted);
    staithe_fuse::unmount(&path).map_err(|e| Failure::failed(chain(&e)))?;
    let Some(daemon) = daemon else {
        return Err(Failure::failed(format!(
            "{} is unmounted, but its daemon cannot be found, so it may still be storing files",
            path.display()
        )));
    };
    match daemon.wait().map_err(|e| Failure::caused("the daemon cannot be awaited", &e))? {
        End::Exit(KEPT) => Err(Failure {
            code: KEPT,
            sentence: format!(
                "{} is unmounted, but not everything could be stored; mount {} there again to finish",
                path.display(),
                mounted.source
            ),
        }),
        End::Exit(code) => Ok(code),
        End::Died(state_dir) => Err(Failure {
            code: KEPT,
            sentence: format!(
                "{} is unmounted, but its daemon had died; mount {} there again to finish what is in {}",
                path.display(),
                mounted.source,
                state_dir.display()
            ),
        }),
    }
}

fn find(path: &Path) -> Result<MountEntry, Failure> {
    let mounts = staithe_fuse::mounts().map_err(|e| Failure::caused("the mount table cannot be read", &e))?;
    let visible = mounts.into_iter().rfind(|m| m.mountpoint == path);
    visible
        .filter(MountEntry::is_staithe)
        .ok_or_else(|| Failure::failed(format!("nothing of staithe is mounted on {}", path.display())))
}

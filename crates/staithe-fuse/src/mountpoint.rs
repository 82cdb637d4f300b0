//! Whether a directory may be mounted on; and what a dead daemon left there is cleared away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::device;
use crate::error::{MountError, MountErrorKind};
use crate::mounts::{MountEntry, visible_at};

/// How long a mounted filesystem may take to answer a statfs before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks a mount point, and returns its one true path.
///
/// # Errors
/// [`MountError`] with a sentence that says what to do.
pub fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let path = canonical(path)?;
    let unreadable = |e| MountError::caused(MountErrorKind::Kernel, "the mount table cannot be read", e);
    if let Some(mounted) = visible_at(&path).map_err(unreadable)?.filter(MountEntry::is_staithe) {
        replace_if_dead(&path, &mounted)?;
    }
    let metadata = path.metadata().map_err(|e| describe(&path, e))?;
    if !metadata.is_dir() {
        return Err(MountError::mount_point(&path, "is not a directory; name an empty one"));
    }
    let mut entries = path.read_dir().map_err(|e| describe(&path, e))?;
    if entries.next().is_some() {
        return Err(MountError::mount_point(&path, "is not empty; name an empty directory"));
    }
    Ok(path)
}

/// The path without links. The last part is not asked when it is a mount that answers nobody.
fn canonical(path: &Path) -> Result<PathBuf, MountError> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            let absolute = std::path::absolute(path).map_err(|e| describe(path, e))?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Err(describe(path, error));
            };
            Ok(parent.canonicalize().map_err(|e| describe(path, e))?.join(name))
        }
        other => other.map_err(|e| describe(path, e)),
    }
}

fn replace_if_dead(path: &Path, mounted: &MountEntry) -> Result<(), MountError> {
    match answers(path) {
        Some(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
            tracing::info!(mountpoint = %path.display(), source = mounted.source, "replacing a dead mount");
            device::detach(path)
        }
        Some(_) => {
            let what =
                format!("has {} mounted already; unmount it first with `staithe umount`", mounted.source);
            Err(MountError::mount_point(path, &what))
        }
        None => {
            let what = format!("has {} mounted, which does not answer; end its daemon first", mounted.source);
            Err(MountError::mount_point(path, &what))
        }
    }
}

/// What statfs says, which no cache of the kernel answers, or `None` if it says nothing in time. The thread that waits for a stuck mount is left
/// behind: nothing can end it.
fn answers(path: &Path) -> Option<io::Result<()>> {
    let (tell, told) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || {
        // Nobody listens any more once the patience is over.
        let _ = tell.send(rustix::fs::statfs(&path).map(drop).map_err(io::Error::from));
    });
    told.recv_timeout(PATIENCE).ok()
}

fn describe(path: &Path, error: io::Error) -> MountError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "does not exist; create it with `mkdir -p`",
        io::ErrorKind::NotADirectory => "leads through a file; name an empty directory",
        io::ErrorKind::PermissionDenied => "may not be entered by this user; choose another one",
        _ => "cannot be used",
    };
    let message = format!("the mount point {} {what}", path.display());
    MountError::caused(MountErrorKind::MountPoint, message, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        let error = prepare(path).unwrap_err();
        assert_eq!(error.kind(), MountErrorKind::MountPoint);
        error.to_string()
    }

    #[test]
    fn each_wrong_mount_point_has_its_sentence() {
        let base = tempfile::tempdir().unwrap();
        assert!(refusal(&base.path().join("missing")).contains("mkdir -p"));
        let file = base.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(refusal(&file).contains("not a directory"));
        assert!(refusal(&file.join("below")).contains("through a file"));
        assert!(refusal(base.path()).contains("not empty"));
    }

    #[test]
    fn an_empty_directory_is_good_and_its_links_are_followed() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(prepare(&link).unwrap(), real.canonicalize().unwrap());
    }
}

//! Mounting and unmounting, in the kernel's own calls, with `fusermount3` where they are not permitted.
//!
//! `fuser` can mount too, but its session unmounts again when it ends, whatever is mounted there by then: an
//! `umount` from outside would take the filesystem below along (observed with 0.18). So the session gets a
//! device that is mounted already.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{getegid, geteuid};

use crate::config::FuseConfig;
use crate::error::{MountError, MountErrorKind};
use crate::fusermount;
use crate::mounts::FS_TYPE;

const DEVICE: &str = "/dev/fuse";

/// Mounts at `path`, and returns the device that its requests come from.
pub(crate) fn mount(path: &Path, config: &FuseConfig) -> Result<OwnedFd, MountError> {
    match mount_directly(path, config) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fusermount::mount(path, config),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::caused(
            MountErrorKind::NoFuse,
            format!("{DEVICE} is missing; load the `fuse` module, or hand the device to the container"),
            error,
        )),
        other => other.map_err(|e| {
            MountError::caused(MountErrorKind::Kernel, format!("{} cannot be mounted", path.display()), e)
        }),
    }
}

fn mount_directly(path: &Path, config: &FuseConfig) -> io::Result<OwnedFd> {
    let device = OwnedFd::from(OpenOptions::new().read(true).write(true).open(DEVICE)?);
    let mut options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw(),
    );
    if config.allow_other {
        options.push_str(",allow_other");
    }
    let options = CString::new(options)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, config.read_only);
    rustix::mount::mount(config.source.as_str(), path, FS_TYPE, flags, options.as_c_str())?;
    Ok(device)
}

/// Unmounts, if nothing uses the mount.
///
/// # Errors
/// [`MountErrorKind::Busy`] if something does; not permitted, or not mounted.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    take_down(path, UnmountFlags::empty())
}

/// Takes the mount out of the tree at once; it goes when nothing uses it any more.
pub(crate) fn detach(path: &Path) -> Result<(), MountError> {
    take_down(path, UnmountFlags::DETACH)
}

fn take_down(path: &Path, how: UnmountFlags) -> Result<(), MountError> {
    let Err(error) = rustix::mount::unmount(path, how | UnmountFlags::NOFOLLOW) else { return Ok(()) };
    let error = io::Error::from(error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => fusermount::unmount(path, how.contains(UnmountFlags::DETACH)),
        io::ErrorKind::ResourceBusy => {
            let message = format!("{} is in use; close what uses it and try again", path.display());
            Err(MountError::caused(MountErrorKind::Busy, message, error))
        }
        _ => {
            let message = format!("{} cannot be unmounted", path.display());
            Err(MountError::caused(MountErrorKind::Kernel, message, error))
        }
    }
}

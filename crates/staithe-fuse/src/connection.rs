//! The kernel's side of one mount: settings and the emergency exit, in sysfs.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Sets what the kernel reads ahead. INIT can only lower it.
pub(crate) fn set_read_ahead(minor: u32, kib: u32) {
    let path = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, kib.to_string()) {
        tracing::debug!(path, %error, "the kernel's read-ahead stays as it is");
    }
}

/// Ends a connection: every request in it fails, and its session ends.
pub(crate) fn abort(minor: u32) -> io::Result<()> {
    let path = control(minor);
    if !path.exists() && rustix::process::geteuid().is_root() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("fusectl", CONNECTIONS, "fusectl", flags, None)?;
    }
    std::fs::write(path, "1")
}

fn control(minor: u32) -> PathBuf {
    Path::new(CONNECTIONS).join(minor.to_string()).join("abort")
}

//! Mounting without privileges, through the set-user-id program `fusermount3` (see its manual page): it mounts,
//! and sends the device back through a socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::config::FuseConfig;
use crate::error::{MountError, MountErrorKind};

const PROGRAM: &str = "fusermount3";
/// Where the program looks for the number of its socket.
const SOCKET: &str = "_FUSE_COMMFD";

/// Mounts at `path`, and returns the device that its requests come from.
pub(crate) fn mount(path: &Path, config: &FuseConfig) -> Result<OwnedFd, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| failed("a socket cannot be made", e))?;
    let child = Command::new(PROGRAM)
        .arg("-o")
        .arg(options(config))
        .arg("--")
        .arg(path)
        // The socket is handed over as standard input: that needs no file descriptor to be made inheritable.
        .env(SOCKET, "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let received = receive(&ours);
    let output = child.wait_with_output().map_err(|e| failed("fusermount3 cannot be awaited", e))?;
    match received {
        Ok(Some(device)) if output.status.success() => Ok(device),
        Ok(_) => Err(refused(&output)),
        Err(error) => Err(failed("fusermount3 sent no device", error)),
    }
}

/// Unmounts at `path`; lazily, or only if it is not in use.
pub(crate) fn unmount(path: &Path, lazily: bool) -> Result<(), MountError> {
    let flags: &[&str] = if lazily { &["-u", "-z"] } else { &["-u"] };
    let output = Command::new(PROGRAM).args(flags).arg("--").arg(path).output().map_err(missing)?;
    if output.status.success() { Ok(()) } else { Err(refused(&output)) }
}

fn options(config: &FuseConfig) -> String {
    let source = config.source.replace('\\', "\\\\").replace(',', "\\,");
    let access = if config.read_only { "ro" } else { "rw" };
    let mut options = format!("{access},nosuid,nodev,default_permissions,subtype=staithe,fsname={source}");
    if config.allow_other {
        options.push_str(",allow_other");
    }
    options
}

/// The file descriptor that comes with the one byte that is sent.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags))?;
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}

fn missing(error: io::Error) -> MountError {
    let message = "fusermount3 cannot be run; install the package `fuse3`, or mount as root";
    MountError::caused(MountErrorKind::NotPermitted, message, error)
}

fn failed(message: &str, error: io::Error) -> MountError {
    MountError::caused(MountErrorKind::Kernel, message, error)
}

fn refused(output: &Output) -> MountError {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("fusermount3: ");
    let (kind, hint) = if said.contains("user_allow_other") {
        (
            MountErrorKind::NotPermitted,
            "; add `user_allow_other` to /etc/fuse.conf or leave --allow-other out",
        )
    } else if said.contains("busy") {
        (MountErrorKind::Busy, "; close what uses it and try again")
    } else {
        (MountErrorKind::NotPermitted, "")
    };
    let said = if said.is_empty() { "no reason given" } else { said };
    MountError::new(kind, format!("fusermount3 refused: {said}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_source_is_no_option() {
        let mut config = FuseConfig::new("/mnt", "file:///a,suid");
        config.allow_other = true;
        let options = options(&config);
        assert!(options.ends_with(r"fsname=file:///a\,suid,allow_other"), "{options}");
        assert!(options.starts_with("rw,nosuid,nodev,default_permissions"), "{options}");
    }
}

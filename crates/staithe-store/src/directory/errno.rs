//! What an error of the local filesystem means to a user of the port.

use rustix::io::Errno;

use crate::{ErrorKind, Key, StoreError};

/// Classifies an error that a system call gave while `what` was done.
pub(super) fn error(operation: &'static str, key: Option<&Key>, what: &str, errno: Errno) -> StoreError {
    let (kind, hint) = classify(errno);
    let error = StoreError::new(kind, operation, format!("{what}: {hint}")).with_source(errno);
    match key {
        Some(key) => error.with_key(key),
        None => error,
    }
}

fn classify(errno: Errno) -> (ErrorKind, &'static str) {
    match errno {
        Errno::NOENT => (ErrorKind::NotFound, "it is not there"),
        Errno::ACCESS | Errno::PERM => (ErrorKind::Forbidden, "the file's owner or mode forbids it"),
        Errno::ROFS => (ErrorKind::Forbidden, "the filesystem is read-only"),
        Errno::NOSPC => (ErrorKind::OutOfSpace, "the filesystem is full; make room"),
        Errno::DQUOT => (ErrorKind::OutOfSpace, "the disk quota is used up; make room"),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            (ErrorKind::Throttled, "the system is out of files or memory")
        }
        Errno::NOTDIR => (ErrorKind::Invalid, "a part of the path is a file"),
        Errno::ISDIR => (ErrorKind::Invalid, "a directory stands there"),
        Errno::LOOP => (ErrorKind::Invalid, "a part of the path is a symbolic link, which is not followed"),
        Errno::XDEV => (ErrorKind::Invalid, "it lies on another filesystem"),
        Errno::NAMETOOLONG => (ErrorKind::Invalid, "the name is too long for this filesystem"),
        Errno::FBIG => (ErrorKind::Invalid, "the file is too large for this filesystem"),
        Errno::OPNOTSUPP | Errno::NOSYS => (ErrorKind::Unsupported, "the filesystem cannot do that"),
        Errno::TIMEDOUT => (ErrorKind::Timeout, "the filesystem did not answer"),
        _ => (ErrorKind::Unavailable, "the filesystem failed"),
    }
}

//! What an error becomes: the only place that knows the kernel's error codes.

use fuser::Errno;
use staithe_fs::FsErrorKind;

/// How a request names what it is about. A name that is gone is an ordinary answer to a request by name;
/// to a request by inode it would make `open(O_CREAT)` fail, where a stale inode makes the kernel look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// By parent directory and name.
    Name,
    /// By inode or handle.
    Inode,
}

/// The answer to a request whose code panicked.
pub(crate) const PANICKED: Errno = Errno::EIO;

/// The answer to getxattr and listxattr when the caller's buffer is too small.
pub(crate) const BUFFER_TOO_SMALL: Errno = Errno::ERANGE;

/// What a reply that was sent another way is finished with; the kernel drops it.
pub(crate) const ALREADY_ANSWERED: Errno = Errno::EALREADY;

/// The code for a situation.
pub(crate) fn errno(kind: FsErrorKind, address: Address) -> Errno {
    use FsErrorKind as K;
    match kind {
        K::NotFound if address == Address::Inode => Errno::ESTALE,
        K::NotFound => Errno::ENOENT,
        K::Stale => Errno::ESTALE,
        K::Exists => Errno::EEXIST,
        K::NotDirectory => Errno::ENOTDIR,
        K::IsDirectory => Errno::EISDIR,
        K::NotEmpty => Errno::ENOTEMPTY,
        K::NameTooLong => Errno::ENAMETOOLONG,
        K::NameNotUtf8 => Errno::EILSEQ,
        K::Invalid => Errno::EINVAL,
        K::ReadOnly => Errno::EROFS,
        K::NotPermitted => Errno::EPERM,
        K::Unsupported => Errno::EOPNOTSUPP,
        K::NoSpace => Errno::ENOSPC,
        K::TooLarge => Errno::EFBIG,
        K::Forbidden => Errno::EACCES,
        K::CredentialsExpired => Errno::from_i32(libc::EKEYEXPIRED),
        K::CredentialsRefused => Errno::from_i32(libc::EKEYREJECTED),
        K::TimedOut => Errno::ETIMEDOUT,
        K::Throttled => Errno::EBUSY,
        K::VolumeGone => Errno::ENODEV,
        K::NoAttribute => Errno::ENODATA,
        K::AttributeTooLarge => Errno::E2BIG,
        K::BadHandle => Errno::EBADF,
        // `Io`, and any situation that is not told apart yet.
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        use FsErrorKind as K;
        let table = [
            (K::NotFound, libc::ENOENT),
            (K::Stale, libc::ESTALE),
            (K::Exists, libc::EEXIST),
            (K::NotDirectory, libc::ENOTDIR),
            (K::IsDirectory, libc::EISDIR),
            (K::NotEmpty, libc::ENOTEMPTY),
            (K::NameTooLong, libc::ENAMETOOLONG),
            (K::NameNotUtf8, libc::EILSEQ),
            (K::Invalid, libc::EINVAL),
            (K::ReadOnly, libc::EROFS),
            (K::NotPermitted, libc::EPERM),
            (K::Unsupported, libc::EOPNOTSUPP),
            (K::NoSpace, libc::ENOSPC),
            (K::TooLarge, libc::EFBIG),
            (K::Forbidden, libc::EACCES),
            (K::CredentialsExpired, libc::EKEYEXPIRED),
            (K::CredentialsRefused, libc::EKEYREJECTED),
            (K::TimedOut, libc::ETIMEDOUT),
            (K::Throttled, libc::EBUSY),
            (K::VolumeGone, libc::ENODEV),
            (K::Io, libc::EIO),
            (K::NoAttribute, libc::ENODATA),
            (K::AttributeTooLarge, libc::E2BIG),
            (K::BadHandle, libc::EBADF),
        ];
        for (kind, code) in table {
            assert_eq!(errno(kind, Address::Name).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn an_inode_whose_name_is_gone_is_stale() {
        assert_eq!(errno(FsErrorKind::NotFound, Address::Inode), Errno::ESTALE);
        assert_eq!(errno(FsErrorKind::Exists, Address::Inode), Errno::EEXIST);
    }
}

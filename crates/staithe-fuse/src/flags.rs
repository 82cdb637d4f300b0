//! The kernel's flags as the filesystem's words. What has no word is refused, never ignored.

use fuser::{FopenFlags, InitFlags, OpenFlags, RenameFlags, TimeOrNow};
use staithe_fs::{Allocate, FsError, FsErrorKind, OpenMode, Opened, RenameMode, Result, SetTime, XattrMode};

/// What is asked of the kernel at INIT, each only where it has it.
///
/// `ATOMIC_O_TRUNC`: truncation on open arrives with the open. `HANDLE_KILLPRIV_V2`: the kernel stops asking for
/// `security.capability` before every write (measured: 24 against 43 microseconds a 4 KiB write), and we clear
/// set-id bits ourselves, see [`privileges`](crate::privileges). Not asked for: `READDIRPLUS_AUTO` (slower cold),
/// `POSIX_LOCKS` and `FLOCK_LOCKS` (locks stay the kernel's), `ABORT_ERROR` and `FUSE_OVER_IO_URING` (the
/// session cannot serve them).
pub(crate) const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

fn refuse<T>(kind: FsErrorKind, what: &str, bits: i64) -> Result<T> {
    Err(FsError::new(kind, format!("{what} flags {bits:#x} have no meaning here")))
}

/// The flags of open and create.
pub(crate) fn open_mode(flags: OpenFlags) -> OpenMode {
    let access = flags.0 & libc::O_ACCMODE;
    OpenMode {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        truncate: flags.0 & libc::O_TRUNC != 0,
        direct: flags.0 & libc::O_DIRECT != 0,
        append: flags.0 & libc::O_APPEND != 0,
        // One bit of it is `O_DSYNC`.
        sync: flags.0 & libc::O_SYNC != 0,
    }
}

/// What open and create answer.
pub(crate) fn opened(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

/// The flags of renameat2.
pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode> {
    match flags {
        f if f.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        other => refuse(FsErrorKind::Invalid, "rename", i64::from(other.bits())),
    }
}

/// The flags of setxattr.
pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        other => refuse(FsErrorKind::Invalid, "setxattr", i64::from(other)),
    }
}

/// The mode of fallocate.
pub(crate) fn allocate(mode: i32) -> Result<Allocate> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(Allocate::Extend),
        KEEP => Ok(Allocate::KeepSize),
        PUNCH => Ok(Allocate::PunchHole),
        ZERO => Ok(Allocate::ZeroRange { keep_size: false }),
        ZERO_KEEP => Ok(Allocate::ZeroRange { keep_size: true }),
        other => refuse(FsErrorKind::Unsupported, "fallocate", i64::from(other)),
    }
}

/// A time of setattr.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(time),
    }
}

/// Whether mknod is for a regular file, the only kind that a store can keep.
pub(crate) fn regular_file(mode: u32) -> Result<()> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(()),
        _ => {
            Err(FsError::new(FsErrorKind::NotPermitted, "an object store keeps no devices, pipes or sockets"))
        }
    }
}

/// How extended attributes of a namespace are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `user.*`: kept with the object.
    Kept,
    /// `security.*`: never there, and asked for so often that the store must not hear of it.
    NeverThere,
    /// The rest (`system.posix_acl_*`, `trusted.*`): not supported.
    Unsupported,
}

/// The namespace of an extended attribute.
pub(crate) fn namespace(name: &str) -> Namespace {
    match name.split_once('.') {
        Some(("user", rest)) if !rest.is_empty() => Namespace::Kept,
        Some(("security", _)) => Namespace::NeverThere,
        _ => Namespace::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use staithe_fs::HandleId;

    use super::*;

    #[test]
    fn open_flags() {
        let mode = open_mode(OpenFlags(libc::O_RDONLY));
        assert_eq!(mode, OpenMode { read: true, ..OpenMode::default() });
        let mode = open_mode(OpenFlags(libc::O_WRONLY | libc::O_TRUNC));
        assert_eq!(mode, OpenMode { write: true, truncate: true, ..OpenMode::default() });
        let mode = open_mode(OpenFlags(libc::O_RDWR | libc::O_DIRECT | libc::O_APPEND));
        let (both, none) = (OpenMode { read: true, write: true, ..OpenMode::default() }, OpenMode::default());
        assert_eq!(mode, OpenMode { direct: true, append: true, ..both });
        for flag in [libc::O_SYNC, libc::O_DSYNC] {
            assert_eq!(
                open_mode(OpenFlags(libc::O_WRONLY | flag)),
                OpenMode { write: true, sync: true, ..none }
            );
        }
    }

    #[test]
    fn open_answers() {
        let answer = |keep_cache, no_flush, direct| {
            opened(&Opened { handle: HandleId(1), keep_cache, no_flush, local: None, direct })
        };
        assert_eq!(answer(false, false, false), FopenFlags::empty());
        assert_eq!(answer(true, false, false), FopenFlags::FOPEN_KEEP_CACHE);
        assert_eq!(answer(false, true, false), FopenFlags::FOPEN_NOFLUSH);
        assert_eq!(answer(false, false, true), FopenFlags::FOPEN_DIRECT_IO);
    }

    #[test]
    fn rename_flags_are_honoured_or_refused() {
        assert_eq!(rename_mode(RenameFlags::empty()).unwrap(), RenameMode::Replace);
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE).unwrap(), RenameMode::NoReplace);
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE).unwrap(), RenameMode::Exchange);
        let both = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        for refused in [both, RenameFlags::RENAME_WHITEOUT, RenameFlags::from_bits_retain(1 << 9)] {
            assert_eq!(rename_mode(refused).unwrap_err().kind(), FsErrorKind::Invalid);
        }
    }

    #[test]
    fn xattr_flags() {
        assert_eq!(xattr_mode(0).unwrap(), XattrMode::Set);
        assert_eq!(xattr_mode(libc::XATTR_CREATE).unwrap(), XattrMode::Create);
        assert_eq!(xattr_mode(libc::XATTR_REPLACE).unwrap(), XattrMode::Replace);
        assert_eq!(xattr_mode(3).unwrap_err().kind(), FsErrorKind::Invalid);
    }

    #[test]
    fn fallocate_modes() {
        assert_eq!(allocate(0).unwrap(), Allocate::Extend);
        assert_eq!(allocate(1).unwrap(), Allocate::KeepSize);
        assert_eq!(allocate(3).unwrap(), Allocate::PunchHole);
        assert_eq!(allocate(0x10).unwrap(), Allocate::ZeroRange { keep_size: false });
        assert_eq!(allocate(0x11).unwrap(), Allocate::ZeroRange { keep_size: true });
        for refused in [2, 8, 0x20, 0x40] {
            assert_eq!(allocate(refused).unwrap_err().kind(), FsErrorKind::Unsupported);
        }
    }

    #[test]
    fn only_regular_files_are_made() {
        assert!(regular_file(libc::S_IFREG | 0o644).is_ok());
        assert!(regular_file(0o644).is_ok());
        for kind in [libc::S_IFIFO, libc::S_IFCHR, libc::S_IFBLK, libc::S_IFSOCK] {
            assert_eq!(regular_file(kind).unwrap_err().kind(), FsErrorKind::NotPermitted);
        }
    }

    #[test]
    fn namespaces() {
        assert_eq!(namespace("user.colour"), Namespace::Kept);
        assert_eq!(namespace("user."), Namespace::Unsupported);
        assert_eq!(namespace("security.capability"), Namespace::NeverThere);
        assert_eq!(namespace("system.posix_acl_access"), Namespace::Unsupported);
        assert_eq!(namespace("plain"), Namespace::Unsupported);
    }
}

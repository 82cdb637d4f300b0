//! When the set-user-id and set-group-id bits of a file fall.
//!
//! With `HANDLE_KILLPRIV_V2` the kernel leaves this to the filesystem, and says so in flags of which `fuser` shows
//! only the one of WRITE. The others follow from the requests themselves (observed on Linux 6.18): a chown
//! always clears; a truncation clears unless the caller may keep them; and a SETATTR that sets nothing is sent
//! for nothing else than to clear them, before the first write, on fallocate and on `chown(-1, -1)`.

use std::sync::Arc;

use staithe_fs::{Attr, Attributes, Filesystem, HandleId, Ino, Kind, OpenMode, Opened, Result, SetAttr};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

/// Whether the caller keeps the bits on write and truncation. The kernel asks for `CAP_FSETID`, which a request
/// does not carry; it is root's.
pub(crate) fn keeps(uid: u32) -> bool {
    uid == 0
}

/// Whether a SETATTR of `uid` that changes this must clear the bits.
pub(crate) fn falls_on(set: &SetAttr, uid: u32) -> bool {
    if set.mode.is_some() {
        return false;
    }
    let chown = set.uid.is_some() || set.gid.is_some();
    let truncation = set.size.is_some() && !keeps(uid);
    chown || truncation || *set == SetAttr::default()
}

/// The mode that is left, where that is another one: set-group-id without group-execute is a lock mark and stays.
pub(crate) fn without(attr: &Attr) -> Option<u32> {
    if attr.kind == Kind::Directory {
        return None;
    }
    let mut mode = attr.mode & !SET_UID;
    if mode & GROUP_EXECUTE != 0 {
        mode &= !SET_GID;
    }
    (mode != attr.mode).then_some(u32::from(mode))
}

/// Changes attributes, and the mode with them where the bits fall.
pub(crate) async fn change(
    fs: Arc<Filesystem>,
    ino: Ino,
    handle: Option<HandleId>,
    mut set: SetAttr,
    uid: u32,
) -> Result<Attributes> {
    if falls_on(&set, uid) {
        let known = fs.getattr(ino, handle).await?;
        set.mode = without(&known.attr);
        if set == SetAttr::default() {
            return Ok(known);
        }
    }
    fs.setattr(ino, handle, set).await
}

/// Opens a file; tells too whether bits were cleared. An open that truncates is a write by the caller, of which
/// the kernel leaves the bits to us.
pub(crate) async fn open(fs: Arc<Filesystem>, ino: Ino, mode: OpenMode, uid: u32) -> Result<(Opened, bool)> {
    let opened = fs.open_file(ino, mode).await?;
    if !mode.truncate || keeps(uid) {
        return Ok((opened, false));
    }
    match clear(&fs, ino, opened.handle).await {
        Ok(cleared) => Ok((opened, cleared)),
        Err(error) => {
            fs.release(opened.handle);
            Err(error)
        }
    }
}

/// Whether memory knows that there is nothing to clear.
pub(crate) fn are_known_clear(fs: &Filesystem, ino: Ino, handle: HandleId) -> bool {
    fs.try_getattr(ino, Some(handle))
        .is_some_and(|known| known.is_ok_and(|known| without(&known.attr).is_none()))
}

/// Clears the bits before a write; tells whether there were any.
pub(crate) async fn clear(fs: &Filesystem, ino: Ino, handle: HandleId) -> Result<bool> {
    let known = fs.getattr(ino, Some(handle)).await?;
    let Some(mode) = without(&known.attr) else { return Ok(false) };
    fs.setattr(ino, Some(handle), SetAttr { mode: Some(mode), ..SetAttr::default() }).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use staithe_fs::{Ino, SetTime};

    use super::*;

    fn attr(kind: Kind, mode: u16) -> Attr {
        let never = SystemTime::UNIX_EPOCH;
        Attr {
            ino: Ino(2),
            kind,
            size: 0,
            mode,
            uid: 0,
            gid: 0,
            nlink: 1,
            atime: never,
            mtime: never,
            ctime: never,
        }
    }

    #[test]
    fn bits_that_fall() {
        assert_eq!(without(&attr(Kind::File, 0o6777)), Some(0o777));
        assert_eq!(without(&attr(Kind::File, 0o2767)), None);
        assert_eq!(without(&attr(Kind::File, 0o6767)), Some(0o2767));
        assert_eq!(without(&attr(Kind::File, 0o1777)), None);
        assert_eq!(without(&attr(Kind::Directory, 0o6777)), None);
    }

    #[test]
    fn requests_that_make_them_fall() {
        let nothing = SetAttr::default();
        assert!(falls_on(&nothing, 0));
        assert!(falls_on(&SetAttr { uid: Some(1), ..nothing }, 0));
        assert!(falls_on(&SetAttr { size: Some(0), ..nothing }, 1000));
        assert!(!falls_on(&SetAttr { size: Some(0), ..nothing }, 0));
        assert!(!falls_on(&SetAttr { mode: Some(0o4755), ..nothing }, 1000));
        assert!(!falls_on(&SetAttr { mtime: Some(SetTime::Now), ..nothing }, 1000));
    }
}

//! How an object disappears, and with it every directory that was only its prefix.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::blocking::Cancel;
use super::commit::split;
use super::place::{Place, parent_of};
use super::root::{Current, Root, open_beneath, stranger};
use super::{entries, errno};
use crate::{DeleteRequest, ETag, ErrorKind, Key, Result, StoreError, checks};

const OP: &str = "delete";

/// How often a delete looks anew because the directories around it changed.
const TRIES: usize = 100;

/// Deletes one object, if the condition holds.
pub(super) fn delete(root: &Root, request: &DeleteRequest, cancel: &Cancel) -> Result<()> {
    root.check_alive(OP)?;
    if request.version_id.is_some() {
        let text = "a directory keeps no versions";
        return Err(checks::fail(ErrorKind::Unsupported, OP, &request.key, text));
    }
    let wanted = request.if_match.as_ref();
    let Some(place) = Place::find(&request.key) else { return condition(&request.key, wanted, None) };
    for _ in 0..TRIES {
        let prunable = prunable(root, &place).map_err(|errno| failed(&place, errno))?;
        // The directory above the last one too: two deletes may each take one of its last two entries.
        let survivor = prunable.last().map_or(place.parent(), |top| parent_of(top));
        let around = prunable.iter().map(String::as_str).chain([survivor, place.parent(), place.path()]);
        let held = root.lock(OP, &place.key, around)?;
        cancel.check(OP)?;
        if self::prunable(root, &place).map_err(|errno| failed(&place, errno))? != prunable {
            continue;
        }
        let changed = remove(root, &place, wanted, &prunable)?;
        drop(held);
        return changed.map_or(Ok(()), |directory| sync(root, &place, directory));
    }
    let text = "the directories around the object do not stop changing";
    Err(checks::fail(ErrorKind::Unavailable, OP, &place.key, text))
}

fn failed(place: &Place, errno: Errno) -> StoreError {
    errno::error(OP, Some(&place.key), "removing the object", errno)
}

fn condition(key: &Key, wanted: Option<&ETag>, found: Option<&ETag>) -> Result<()> {
    wanted.map_or(Ok(()), |wanted| checks::tag_matches(OP, key, wanted, found))
}

/// The directories, deepest first, that hold nothing but the object and are not marked.
fn prunable(root: &Root, place: &Place) -> Result<Vec<String>, Errno> {
    let mut prunable = Vec::new();
    let mut child = place.path();
    loop {
        let (parent, name) = split(child);
        if parent.is_empty() {
            return Ok(prunable);
        }
        let dir = match open_beneath(&root.fd, parent, OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        if Attributes::read(&dir)?.is_some() || !entries::has_only(&dir, name)? {
            return Ok(prunable);
        }
        prunable.push(parent.to_owned());
        child = parent;
    }
}

/// Removes the object and then the directories; gives the directory whose entries changed, if one did.
fn remove<'p>(
    root: &Root,
    place: &'p Place,
    wanted: Option<&ETag>,
    prunable: &'p [String],
) -> Result<Option<&'p str>> {
    let failed = |errno| failed(place, errno);
    let parent = match open_beneath(&root.fd, place.parent(), OFlags::DIRECTORY) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            condition(&place.key, wanted, None)?;
            return Ok(None);
        }
        Err(errno) => return Err(failed(errno)),
    };
    let current = root.current(&parent, place).map_err(failed)?;
    if let Current::Stranger(what) = current {
        return Err(stranger(OP, place, what));
    }
    condition(&place.key, wanted, current.tag())?;
    let flags = match current {
        Current::Nothing | Current::Other | Current::Stranger(_) => return Ok(None),
        Current::Directory { fd, empty: false, .. } => {
            Attributes::remove(&fd).map_err(failed)?;
            return Ok(Some(place.path()));
        }
        Current::Directory { .. } => AtFlags::REMOVEDIR,
        Current::File(_) => AtFlags::empty(),
    };
    let note = match prunable {
        [] => None,
        directories => Some(root.session.note_prune(directories).map_err(failed)?),
    };
    unlink(&parent, place, flags)?;
    for directory in prunable {
        match rustix::fs::unlinkat(&root.fd, directory.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => break, // another process put something there
            Err(errno) => return Err(failed(errno)),
        }
    }
    drop(note);
    Ok(Some(prunable.last().map_or(place.parent(), |top| parent_of(top))))
}

fn unlink(parent: &OwnedFd, place: &Place, flags: AtFlags) -> Result<()> {
    match rustix::fs::unlinkat(parent, place.name(), flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let text = "the directory holds entries that are no objects (links, devices, odd names)";
            Err(checks::fail(ErrorKind::Invalid, OP, &place.key, text))
        }
        Err(errno) => Err(failed(place, errno)),
    }
}

fn sync(root: &Root, place: &Place, directory: &str) -> Result<()> {
    if !root.synced() {
        return Ok(());
    }
    match open_beneath(&root.fd, directory, OFlags::DIRECTORY).and_then(rustix::fs::fsync) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(failed(place, errno)),
    }
}

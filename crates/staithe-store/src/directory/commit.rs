//! How something new appears in the tree: in one rename, with every directory that it needs.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, Ownership, file_tag, marker_tag};
use super::blocking::Cancel;
use super::place::{Place, name_of, parent_of};
use super::root::{Current, Root, open_beneath, stranger};
use super::temp::TempFile;
use super::{entries, errno};
use crate::{ETag, ErrorKind, NewObject, PutCondition, Result, StoreError, Version, Written, checks};

/// How often a commit starts over because somebody changed the directories around it.
const TRIES: usize = 100;

/// One commit: what is to appear where, and when it may.
pub(super) struct Commit<'c> {
    pub(super) root: &'c Root,
    pub(super) operation: &'static str,
    pub(super) place: &'c Place,
    pub(super) condition: &'c PutCondition,
    pub(super) cancel: &'c Cancel,
}

/// What appears.
pub(super) enum Leaf<'c> {
    File(&'c TempFile<'c>),
    Marker(&'c NewObject),
}

/// How one try ended.
enum Tried {
    Done(ETag),
    /// A directory came or went meanwhile.
    Again,
}

impl Commit<'_> {
    /// Makes the object appear, if the condition holds and `still_wanted` agrees; both are asked under the lock.
    pub(super) fn run(&self, leaf: &Leaf<'_>, still_wanted: impl Fn() -> Result<()>) -> Result<Written> {
        self.root.check_alive(self.operation)?;
        for _ in 0..TRIES {
            let base = self.deepest_existing()?;
            let locked = [base.as_str(), self.place.parent(), self.place.path()];
            let held = self.root.lock(self.operation, &self.place.key, locked)?;
            self.cancel.check(self.operation)?;
            still_wanted()?;
            let tried = if base == self.place.parent() {
                self.in_directory(leaf)?
            } else {
                self.with_directories(leaf, &base)?
            };
            drop(held);
            if let Tried::Done(etag) = tried {
                self.sync_directory(&base)?;
                return Ok(Written { version: Version { etag, id: None } });
            }
        }
        let text = "the directories around the object do not stop changing";
        Err(checks::fail(ErrorKind::Unavailable, self.operation, &self.place.key, text))
    }

    fn failed(&self, what: &str, errno: Errno) -> StoreError {
        errno::error(self.operation, Some(&self.place.key), what, errno)
    }

    fn open_dir(&self, path: &str) -> Result<OwnedFd, Errno> {
        open_beneath(&self.root.fd, path, OFlags::DIRECTORY)
    }

    /// The path of the deepest directory on the way to the object that exists.
    fn deepest_existing(&self) -> Result<String> {
        let mut path = self.place.parent();
        loop {
            match self.open_dir(path) {
                Ok(_) => return Ok(path.to_owned()),
                Err(Errno::NOENT) if !path.is_empty() => path = parent_of(path),
                Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => {
                    let text = format!("{path:?} is not a directory, so nothing can be stored below it");
                    let error = checks::fail(ErrorKind::Invalid, self.operation, &self.place.key, text);
                    return Err(error.with_source(errno));
                }
                Err(errno) => return Err(self.failed("opening the directory", errno)),
            }
        }
    }

    /// The directory is there: moves the leaf into it, or marks the one that is the leaf.
    fn in_directory(&self, leaf: &Leaf<'_>) -> Result<Tried> {
        let parent = match self.open_dir(self.place.parent()) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Tried::Again),
            Err(errno) => return Err(self.failed("opening the directory", errno)),
        };
        let current = self.root.current(&parent, self.place);
        let current = current.map_err(|errno| self.failed("looking at what is there", errno))?;
        if let Current::Stranger(what) = current {
            return Err(stranger(self.operation, self.place, what));
        }
        checks::condition_holds(self.operation, &self.place.key, self.condition, current.tag())?;
        match (leaf, current) {
            (_, Current::Other | Current::Stranger(_)) => Err(self.in_the_way()),
            (Leaf::Marker(new), Current::Directory { fd, tag, .. }) => {
                self.own_directory(&fd, new, tag.is_some())?;
                self.mark(&fd, new).map(Tried::Done)
            }
            (Leaf::Marker(_), _) => self.with_directories(leaf, self.place.parent()),
            (Leaf::File(temp), _) => {
                self.keep_empty_directory(self.place.parent(), &parent)?;
                let moved =
                    rustix::fs::renameat(&self.root.session.dir, &temp.name, &parent, self.place.name());
                match moved {
                    Ok(()) => Ok(Tried::Done(file_tag(&temp.stat()?))),
                    Err(Errno::NOENT) => Ok(Tried::Again),
                    Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => Err(self.in_the_way()),
                    Err(errno) => Err(self.failed("moving the file to its place", errno)),
                }
            }
        }
    }

    fn in_the_way(&self) -> StoreError {
        let text = format!("{:?} exists and is not what this key could replace", self.place.path());
        checks::fail(ErrorKind::Invalid, self.operation, &self.place.key, text)
    }

    /// Gives a directory the mode and owner that its marker names. One that was no object before may be somebody's
    /// whose mode nobody here was told of, so it is only made narrower.
    fn own_directory(&self, directory: &OwnedFd, new: &NewObject, was_object: bool) -> Result<()> {
        let ownership = Ownership::of(&new.metadata, FileType::Directory);
        let done = if was_object {
            ownership.apply(directory, Mode::RWXU)
        } else {
            rustix::fs::fstat(directory).and_then(|now| ownership.narrow(directory, &now))
        };
        done.map_err(|errno| self.failed("setting the mode of the directory", errno))
    }

    fn mark(&self, directory: &OwnedFd, new: &NewObject) -> Result<ETag> {
        let mark = Attributes { stamp: self.root.stamp().unsigned_abs(), new: new.clone() };
        mark.write(directory).map_err(|errno| self.failed("marking the directory", errno))?;
        let stat =
            rustix::fs::fstat(directory).map_err(|errno| self.failed("looking at the directory", errno))?;
        if self.root.synced() {
            rustix::fs::fsync(directory).map_err(|errno| self.failed("syncing the directory", errno))?;
        }
        Ok(marker_tag(&stat, Some(&mark)))
    }

    /// An empty directory is an object. Before it gets its first child it is marked, to stay one.
    fn keep_empty_directory(&self, path: &str, directory: &OwnedFd) -> Result<()> {
        let foreign = || -> Result<Option<Attributes>, Errno> {
            let is_object =
                !path.is_empty() && entries::is_empty(directory)? && Attributes::read(directory)?.is_none();
            if !is_object {
                return Ok(None);
            }
            rustix::fs::fstat(directory).map(|stat| Some(Attributes::foreign(&stat)))
        };
        if let Some(own) = foreign().map_err(|errno| self.failed("looking at the directory", errno))? {
            self.mark(directory, &own.new)?;
        }
        Ok(())
    }

    /// Directories are missing below `base`: builds them aside, with the leaf in them, and moves the topmost.
    /// So none of them is ever seen empty, as that would make it an object.
    fn with_directories(&self, leaf: &Leaf<'_>, base: &str) -> Result<Tried> {
        checks::condition_holds(self.operation, &self.place.key, self.condition, None)?;
        let parent = match self.open_dir(base) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Tried::Again),
            Err(errno) => return Err(self.failed("opening the directory", errno)),
        };
        let last = match leaf {
            Leaf::File(_) => self.place.parent(),
            Leaf::Marker(_) => self.place.path(),
        };
        let missing: Vec<&str> = last.get(base.len()..).unwrap_or_default().split('/').collect();
        let missing: Vec<&str> = missing.into_iter().filter(|name| !name.is_empty()).collect();
        let Some(top) = missing.first() else { return Ok(Tried::Again) };
        let tower = Tower { root: self.root, name: self.root.session.fresh("dirs-") };
        let (path, bottom) = tower
            .build(missing.get(1..).unwrap_or_default())
            .map_err(|errno| self.failed("making the directories", errno))?;
        let etag = match leaf {
            Leaf::Marker(new) => {
                self.own_directory(&bottom, new, true)?;
                Some(self.mark(&bottom, new)?)
            }
            Leaf::File(temp) => {
                rustix::fs::renameat(&self.root.session.dir, &temp.name, &bottom, self.place.name())
                    .map_err(|errno| self.failed("moving the file into its directory", errno))?;
                None
            }
        };
        self.keep_empty_directory(base, &parent)?;
        tower.sync(&path).map_err(|errno| self.failed("syncing the directories", errno))?;
        match (move_new(&self.root.session.dir, &tower.name, &parent, top), leaf) {
            (Ok(()), Leaf::File(temp)) => Ok(Tried::Done(etag.unwrap_or(file_tag(&temp.stat()?)))),
            (Ok(()), Leaf::Marker(_)) => Ok(etag.map_or(Tried::Again, Tried::Done)),
            (Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::NOENT), leaf) => {
                if let Leaf::File(temp) = leaf {
                    rustix::fs::renameat(&bottom, self.place.name(), &self.root.session.dir, &temp.name)
                        .map_err(|errno| self.failed("taking the file back", errno))?;
                }
                Ok(Tried::Again)
            }
            (Err(errno), _) => Err(self.failed("moving the directory to its place", errno)),
        }
    }

    /// Makes the new name itself durable.
    fn sync_directory(&self, base: &str) -> Result<()> {
        if !self.root.synced() {
            return Ok(());
        }
        match self.open_dir(base).and_then(rustix::fs::fsync) {
            // Removed again by somebody else: then there is no name to keep.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(self.failed("syncing the directory", errno)),
        }
    }
}

/// Moves, but never over anything.
fn move_new(from: &OwnedFd, name: &str, to: &OwnedFd, new_name: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        // Not every filesystem knows the flag; a directory moved over a file or over one with entries fails anyway.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(from, name, to, new_name),
        result => result,
    }
}

/// Directories one in the other, in the hidden area; dropping it removes what is still there.
struct Tower<'r> {
    root: &'r Root,
    name: String,
}

impl Tower<'_> {
    /// Makes the tower of the given floors; gives the path of the lowest below the session, and that open.
    fn build(&self, floors: &[&str]) -> Result<(Vec<String>, OwnedFd), Errno> {
        let mode = Mode::from_raw_mode(0o777);
        let mut path = vec![self.name.clone()];
        rustix::fs::mkdirat(&self.root.session.dir, &self.name, mode)?;
        let mut fd = open_beneath(&self.root.session.dir, &self.name, OFlags::DIRECTORY)?;
        for floor in floors {
            rustix::fs::mkdirat(&fd, *floor, mode)?;
            fd = open_beneath(&fd, floor, OFlags::DIRECTORY)?;
            path.push((*floor).to_owned());
        }
        Ok((path, fd))
    }

    fn sync(&self, path: &[String]) -> Result<(), Errno> {
        if !self.root.synced() {
            return Ok(());
        }
        for depth in 1..=path.len() {
            let floor = path.get(..depth).unwrap_or_default().join("/");
            rustix::fs::fsync(open_beneath(&self.root.session.dir, &floor, OFlags::DIRECTORY)?)?;
        }
        Ok(())
    }
}

impl Drop for Tower<'_> {
    fn drop(&mut self) {
        // Moved to its place in the usual case, so that there is nothing to remove.
        let there = rustix::fs::statat(&self.root.session.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok() {
            let _ = std::fs::remove_dir_all(self.root.session.path_of(&self.name));
        }
    }
}

/// A path as the directory that holds it and the name there.
pub(super) fn split(path: &str) -> (&str, &str) {
    (parent_of(path), name_of(path))
}

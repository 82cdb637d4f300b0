//! The keys of the tree in the order of their bytes, from any position, in bounded memory.
//!
//! A directory sorts as its name with a slash: `a-b`, then `a/`, then `a0`. Of each directory on the way down
//! only so many of the next entries are kept as a page can hold; if that was not enough it is read again from
//! there on. One that is large is thereby read once a page, and costs O(n log page).

use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, file_tag, modified_ns, time_of};
use super::place::{HIDDEN, Place, is_path};
use super::root::{Root, marker_meta, open_beneath};
use super::{entries, errno};
use crate::listing::{self, Entry};
use crate::{Key, ListPage, ListRequest, ObjectSummary, Result, StoreError};

const OP: &str = "list";

/// One page of a listing.
pub(super) fn list(root: &Root, request: &ListRequest) -> Result<ListPage> {
    root.check_alive(OP)?;
    let mut walk = Walk::new(root, request);
    listing::page(request, root.options.page_max, |from| walk.next(from))
}

struct Walk<'r> {
    root: &'r Root,
    /// What is below this is rolled up at the first slash, where the request says so.
    rolled_up_below: Option<&'r str>,
    /// Names of a directory that are kept at once.
    window: usize,
    /// The directory that all keys of the prefix lie in; taken at the first step.
    start: Option<String>,
    levels: Vec<Level>,
}

/// A directory on the way down.
struct Level {
    fd: OwnedFd,
    /// Its path with a slash at the end; empty for the root.
    path: String,
    /// The next entries, in order; a directory's ends in a slash.
    names: VecDeque<String>,
    /// The last name of a full window: there may be more after it.
    more_after: Option<String>,
}

impl<'r> Walk<'r> {
    fn new(root: &'r Root, request: &'r ListRequest) -> Self {
        let rolled_up_below = (request.delimiter == Some('/')).then_some(request.prefix.as_str());
        let page = request.max_keys.unwrap_or(root.options.page_max).min(root.options.page_max);
        let directory = request.prefix.rfind('/').and_then(|slash| request.prefix.get(..=slash));
        let start = Some(directory.unwrap_or_default().to_owned());
        Self { root, rolled_up_below, window: usize::from(page) + 1, start, levels: Vec::new() }
    }

    /// The first key at or after `from`, which never moves back.
    fn next(&mut self, from: &str) -> Result<Option<Entry>> {
        if let Some(path) = self.start.take() {
            let named = path.is_empty() || path.strip_suffix('/').is_some_and(is_path);
            if named && let Some(entry) = self.descend(path, from)? {
                return Ok(Some(entry));
            }
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.pop_front() else {
                match level.more_after.take() {
                    Some(last) => level.fill(&listing::past_key(&last), self.window)?,
                    None => drop(self.levels.pop()),
                }
                continue;
            };
            let full = format!("{}{name}", level.path);
            if !name.ends_with('/') {
                if full.as_str() >= from
                    && let Some(summary) = level.file(&name, full)?
                {
                    return Ok(Some(Entry::Object(summary)));
                }
                continue;
            }
            let before = full.as_str() < from;
            if before && !from.starts_with(&full) {
                continue;
            }
            let rolled_up = self
                .rolled_up_below
                .is_some_and(|prefix| full.len() > prefix.len() && full.starts_with(prefix));
            if rolled_up && !before {
                return Ok(Some(Entry::Prefix(full)));
            }
            if let Some(entry) = self.descend(full, from)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Goes on below a directory; gives its own object, if it is one and not before `from`.
    fn descend(&mut self, path: String, from: &str) -> Result<Option<Entry>> {
        let fd = match open_beneath(&self.root.fd, path.trim_end_matches('/'), OFlags::DIRECTORY) {
            Ok(fd) => fd,
            // Gone meanwhile, or a link, or a file where the prefix wants a directory.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(failed(&path, errno)),
        };
        let own = if path.is_empty() || path.as_str() < from { None } else { self.marker(&path, &fd)? };
        let mut level = Level { fd, path, names: VecDeque::new(), more_after: None };
        let first = from.strip_prefix(&level.path).unwrap_or_default().to_owned();
        level.fill(&first, self.window)?;
        self.levels.push(level);
        Ok(own.map(Entry::Object))
    }

    fn marker(&self, path: &str, fd: &OwnedFd) -> Result<Option<ObjectSummary>> {
        let Some(place) = Key::new(path).ok().and_then(|key| Place::find(&key)) else { return Ok(None) };
        let mark = Attributes::read(fd).map_err(|errno| failed(path, errno))?;
        if mark.is_none() && !self.root.is_empty_object(OP, &place, fd)? {
            return Ok(None);
        }
        let stat = rustix::fs::fstat(fd).map_err(|errno| failed(path, errno))?;
        let meta = marker_meta(&place.key, &stat, mark);
        Ok(Some(ObjectSummary {
            key: meta.key,
            size: 0,
            etag: meta.version.etag,
            id: None,
            last_modified: meta.last_modified,
        }))
    }
}

impl Level {
    /// Reads the directory for the `window` least names that are `first` or greater, or lead to it.
    fn fill(&mut self, first: &str, window: usize) -> Result<()> {
        let is_root = self.path.is_empty();
        let mut least: BinaryHeap<String> = BinaryHeap::with_capacity(window + 1);
        let mut full = false;
        entries::for_each(&self.fd, |entry| {
            if is_root && entry.name == HIDDEN {
                return true;
            }
            let slash = if entry.is_dir { "/" } else { "" };
            let name = format!("{}{slash}", entry.name);
            let wanted = name.as_str() >= first || (entry.is_dir && first.starts_with(&name));
            if !wanted || (full && least.peek().is_some_and(|greatest| name >= *greatest)) {
                return true;
            }
            least.push(name);
            if least.len() > window {
                least.pop();
                full = true;
            }
            true
        })
        .map_err(|errno| failed(&self.path, errno))?;
        self.names = least.into_sorted_vec().into();
        self.more_after = if full { self.names.back().cloned() } else { None };
        Ok(())
    }

    /// A file as listed; `None` if it is gone, or cannot be a key.
    fn file(&self, name: &str, full: String) -> Result<Option<ObjectSummary>> {
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(&full, errno)),
        };
        let Ok(key) = Key::new(full) else { return Ok(None) };
        let summary = ObjectSummary {
            key,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            etag: file_tag(&stat),
            id: None,
            last_modified: time_of(modified_ns(&stat)),
        };
        Ok((FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(summary))
    }
}

fn failed(path: &str, errno: Errno) -> StoreError {
    errno::error(OP, None, &format!("reading the directory {path:?}"), errno)
}

//! Attributes that outlive a run: what the store told of an object's metadata is kept in the state directory, by key,
//! entity tag and time of storing, so that a listing that shows the same of a key needs no question to the object.
//!
//! Invariants:
//! 1. What is kept is a copy of the store's word, and believed only of the object that a listing shows now: with the
//!    same tag, stored at the same time. Other metadata over the same bytes has another time.
//! 2. Where times are told in whole seconds, as on S3, nothing is kept of an object before its second is over: within
//!    it, it might get other metadata and look the same.
//! 3. Nothing waits for what is to be kept: it goes to a thread (`disk`), and is lost if that is far behind, or killed.
//!    Whatever is wrong with the disk, the store is asked instead.
//! 4. The disk is read off the threads that serve: a page of a listing at once, and a name alone where its object would
//!    be asked about otherwise.

mod disk;
mod record;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use staithe_store::{Key, ObjectMeta, Version};

use crate::api::{Ino, Kind};
use crate::config::AttributeSource;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Remote, State};
use crate::lookup::{Dent, is_same};
use crate::metadata::FileMeta;
use disk::Disk;
pub(crate) use disk::Limits;
use record::Record;

/// Pages of listings whose attributes are in memory, of a thousand names each.
const PAGES_MOST: usize = 16;
/// The longest target of a symbolic link that is kept, in bytes (`PATH_MAX`).
const TARGET_MOST: usize = 4096;
/// How far clocks may be apart: what was stored longer ago than a second and this is in a second that is over.
const SLACK: Duration = Duration::from_secs(1);

/// The attributes that are kept.
#[derive(Debug)]
pub(crate) struct Recall {
    /// `None`: nothing is kept.
    disk: Option<Arc<Disk>>,
    /// What the disk had of what was listed or looked up last, newest first.
    pages: Mutex<VecDeque<Page>>,
}

/// What the disk had of some names of a directory.
#[derive(Debug)]
struct Page {
    dir: Ino,
    records: HashMap<Arc<str>, Record>,
}

impl Recall {
    /// Opens what is kept in `dir` of the objects of `volume`, if attributes come from the objects. Blocks.
    pub(crate) fn open(dir: &Path, volume: &str, attributes: AttributeSource) -> Self {
        let is_of_use = attributes == AttributeSource::Full;
        let disk = is_of_use.then(|| Disk::open(dir, volume, Limits::DEFAULT)).flatten().map(Arc::new);
        Self { disk, pages: Mutex::default() }
    }

    /// How many objects' attributes are kept; `None`: nothing is. O(1).
    pub(crate) fn kept(&self) -> Option<u64> {
        self.disk.as_ref().map(|disk| disk.len())
    }

    /// Waits until everything that was told until now is on the disk.
    pub(crate) async fn settle(&self) {
        if let Some(disk) = &self.disk {
            disk.settle().await;
        }
    }

    fn is_here(&self, dir: Ino, name: &str, dent: &Dent) -> bool {
        self.here(dir, name, dent).is_some()
    }

    /// What is in memory of a listed name.
    fn here(&self, dir: Ino, name: &str, dent: &Dent) -> Option<Record> {
        let Dent::File { etag, modified, told: true, .. } = dent else { return None };
        let pages = self.pages.lock();
        let records = pages.iter().filter(|page| page.dir == dir).filter_map(|page| page.records.get(name));
        records.into_iter().find(|record| record.is_of(etag, *modified)).cloned()
    }

    fn take_in(&self, dir: Ino, records: HashMap<Arc<str>, Record>) {
        let mut pages = self.pages.lock();
        match pages.iter_mut().find(|page| page.dir == dir && records.len() == 1 && page.records.len() < 1000)
        {
            Some(page) => page.records.extend(records),
            None => pages.push_front(Page { dir, records }),
        }
        pages.truncate(PAGES_MOST);
    }
}

impl Filesystem {
    /// Keeps what the store has just told of an object, and the bytes of a symbolic link if they came along.
    pub(crate) fn keep_attributes(&self, object: &ObjectMeta, body: Option<&Bytes>) {
        let Some(disk) = &self.recall.disk else { return };
        if object.key.is_marker() || !is_settled(object.last_modified, SystemTime::now()) {
            return;
        }
        let is_link = || FileMeta::decode(object, &self.defaults()).kind == Kind::Symlink;
        let target = body.filter(|body| body.len() <= TARGET_MOST && is_link());
        let target = target.and_then(|body| String::from_utf8(body.to_vec()).ok());
        disk.keep(object.key.clone(), Record::of(object, target));
    }

    /// Fetches from the disk what is kept of listed names, for [`recalled`](Self::recalled). Asks the store nothing.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn recall(&self, dir: Ino, names: &[(Arc<str>, Dent)]) {
        let Some(disk) = self.recall.disk.clone().filter(|disk| disk.len() > 0) else { return };
        let Ok(path) = self.inodes.path(dir) else { return };
        let prefix = self.prefix_below(&path);
        let unknown = |(name, dent): &&(Arc<str>, Dent)| {
            matches!(dent, Dent::File { told: true, .. })
                && !self.has_known_child(dir, name, dent)
                && !self.recall.is_here(dir, name, dent)
        };
        let wanted: Vec<_> = names.iter().filter(unknown).cloned().collect();
        if wanted.is_empty() {
            return;
        }
        let look = move || {
            let record = |(name, dent): (Arc<str>, Dent)| {
                let Dent::File { etag, modified, .. } = dent else { return None };
                let key = Key::new(format!("{prefix}{name}")).ok()?;
                disk.recall(&key, |record| record.is_of(&etag, modified)).map(|record| (name, record))
            };
            wanted.into_iter().filter_map(record).collect::<HashMap<_, _>>()
        };
        let found = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        if !found.is_empty() {
            self.recall.take_in(dir, found);
        }
    }

    /// Whether nothing need be asked, nor made, to show a listed name with its attributes.
    pub(crate) fn has_known_child(&self, parent: Ino, name: &str, dent: &Dent) -> bool {
        let child = self.inodes.child(parent, name);
        child.is_some_and(|child| {
            child.state().is_local()
                || (is_same(&child, dent) && (child.state().meta_known || !self.wants_full()))
        })
    }

    /// The state of an inode that a listing shows and whose attributes are kept.
    pub(crate) fn recalled(&self, link: Link, dent: &Dent, seen: Instant) -> Option<State> {
        let Dent::File { size, etag, modified, .. } = dent else { return None };
        let record = self.recall.here(link.parent, &link.name, dent)?;
        let key = self.key(&self.path_in(link.parent, &link.name).ok()?).ok()?;
        let target = record.target.clone();
        let version = Version { etag: etag.clone(), id: None };
        let object = record.object(key.clone(), *size, version.clone(), *modified);
        let meta = FileMeta::decode(&object, &self.defaults());
        if meta.kind == Kind::Directory {
            return None;
        }
        let mut state = State::new(Some(link), meta);
        state.body = target.filter(|target| target.len() as u64 == *size).map(Bytes::from);
        state.remote = Some(Remote { key, version, size: *size });
        state.validated = Some(seen);
        Some(state)
    }

    /// Gives an inode that is as listed its attributes, if they are kept; says so.
    pub(crate) fn recall_into(&self, inode: &Inode, link: Link, dent: &Dent, seen: Instant) -> bool {
        let Some(recalled) = self.recalled(link, dent, seen) else { return false };
        let mut state = inode.state();
        if recalled.meta.kind != inode.kind || state.is_dirty() {
            return false;
        }
        (state.meta, state.meta_known, state.validated) = (recalled.meta, true, recalled.validated);
        if state.body.is_none() {
            state.body = recalled.body;
        }
        true
    }
}

/// Whether what an object has now can be told, by its time of storing, from what it may get later.
fn is_settled(stored: SystemTime, now: SystemTime) -> bool {
    let is_precise =
        stored.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.subsec_nanos() != 0);
    is_precise || now.duration_since(stored).is_ok_and(|age| age >= Duration::from_secs(1) + SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_within_its_second_is_not_kept() {
        let stored = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(!is_settled(stored, stored));
        assert!(!is_settled(stored, stored + Duration::from_millis(1999)));
        assert!(is_settled(stored, stored + Duration::from_secs(2)));
        assert!(!is_settled(stored, stored - Duration::from_mins(1)), "clocks that are apart");
        let precise = stored + Duration::from_millis(1);
        assert!(is_settled(precise, precise));
    }
}

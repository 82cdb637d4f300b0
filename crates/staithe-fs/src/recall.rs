//! Attributes that outlive a run: what the store told of an object's metadata is kept in the state directory, by key,
//! entity tag and time of storing, so that a listing that shows the same of a key needs no question to the object.
//!
//! Invariants:
//! 1. What is kept is a copy of the store's word, and believed only of the object that a listing shows now: with the
//!    same tag and size, stored at the same time. Other metadata over the same bytes has another time. Nothing is kept
//!    of an object without a tag or a time. What we change of an object ourselves is forgotten of it.
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
use staithe_store::{Key, ObjectMeta, ObjectSummary, Version};

use crate::api::{Ino, Kind};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Remote, State};
use crate::lookup::{Dent, is_same};
use crate::metadata::FileMeta;
use disk::Disk;
pub(crate) use disk::Limits;
use record::Record;

/// Pages of listings whose attributes are in memory, of a thousand names each.
const PAGES_MOST: usize = 16;
/// How much memory they take together, about, in bytes.
const BYTES_MOST: usize = 16 << 20;
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

/// What the disk had of some objects of a directory.
#[derive(Debug)]
struct Page {
    dir: Ino,
    records: HashMap<Key, Record>,
    /// What the records take, about; those that were forgotten included.
    bytes: usize,
}

/// Objects that are being changed; when it is dropped, what is kept of them is forgotten.
#[derive(Debug)]
pub(crate) struct Changing<'r> {
    recall: &'r Recall,
    keys: &'r [Key],
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for key in self.keys {
            self.recall.forget(key);
        }
    }
}

impl Recall {
    /// Opens what is kept in `dir` of the objects of `volume`, if it `is_of_use`. Blocks.
    pub(crate) fn open(dir: &Path, volume: &str, is_of_use: bool) -> Self {
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

    /// To be held while objects are changed.
    pub(crate) fn changing<'r>(&'r self, keys: &'r [Key]) -> Changing<'r> {
        Changing { recall: self, keys }
    }

    /// Those of listed objects whose attributes are kept, and would be believed.
    pub(crate) async fn would_believe(&self, listed: Vec<ObjectSummary>) -> Vec<ObjectSummary> {
        let Some(disk) = self.disk.clone() else { return Vec::new() };
        let look = move || {
            let is_kept = |object: &ObjectSummary| disk.look_at(object).is_some();
            listed.into_iter().filter(is_kept).collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// Whether what is kept of a listed object says what the store says `now`; also if nothing is kept of it any more, or
    /// would be believed of that.
    pub(crate) async fn would_tell(&self, listed: &ObjectSummary, now: &ObjectMeta) -> bool {
        let (Some(disk), listed) = (self.disk.clone(), listed.clone()) else { return true };
        let kept = tokio::task::spawn_blocking(move || disk.look_at(&listed)).await.ok().flatten();
        kept.is_none_or(|kept| {
            !kept.is_of(&now.version.etag, now.size, now.last_modified)
                || (kept.metadata == now.metadata && kept.content_type == now.content_type)
        })
    }

    /// What is kept of an object is not believed any more.
    pub(crate) fn forget(&self, key: &Key) {
        if let Some(disk) = &self.disk {
            for page in self.pages.lock().iter_mut() {
                page.records.remove(key);
            }
            disk.forget(key.clone());
        }
    }

    /// What is in memory of a listed object.
    fn here(&self, dir: Ino, key: &Key, dent: &Dent) -> Option<Record> {
        let Dent::File { size, etag, modified, told: true, .. } = dent else { return None };
        let pages = self.pages.lock();
        let mut records =
            pages.iter().filter(|page| page.dir == dir).filter_map(|page| page.records.get(key));
        records.find(|record| record.is_of(etag, *size, *modified)).cloned()
    }

    fn take_in(&self, dir: Ino, records: HashMap<Key, Record>) {
        let bytes: usize = records.iter().map(|(key, record)| weight(key, record)).sum();
        let mut pages = self.pages.lock();
        match pages.iter_mut().find(|page| page.dir == dir && records.len() == 1 && page.records.len() < 1000)
        {
            Some(page) => {
                page.records.extend(records);
                page.bytes += bytes;
            }
            None => pages.push_front(Page { dir, records, bytes }),
        }
        pages.truncate(PAGES_MOST);
        let mut held: usize = pages.iter().map(|page| page.bytes).sum();
        while held > BYTES_MOST
            && let Some(oldest) = pages.pop_back()
        {
            held -= oldest.bytes;
        }
    }
}

impl Filesystem {
    /// Keeps what the store has just told of an object, and the bytes of a symbolic link if they came along.
    pub(crate) fn keep_attributes(&self, object: &ObjectMeta, body: Option<&Bytes>) {
        let Some(disk) = &self.recall.disk else { return };
        if object.key.is_marker() || !is_told_apart(object) {
            return;
        }
        let is_link = || FileMeta::decode(object, &self.defaults()).kind == Kind::Symlink;
        let target = body.filter(|body| body.len() <= TARGET_MOST && is_link());
        let target = target.and_then(|body| String::from_utf8(body.to_vec()).ok());
        let record = Record::of(object, target);
        for page in self.recall.pages.lock().iter_mut() {
            if let Some(held) = page.records.get_mut(&object.key).filter(|held| !held.says_all_of(&record)) {
                page.bytes += record.weight();
                held.clone_from(&record);
            }
        }
        disk.keep(object.key.clone(), record);
    }

    /// Fetches from the disk what is kept of listed names, for [`recalled`](Self::recalled). Asks the store nothing.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn recall(&self, dir: Ino, names: &[(Arc<str>, Dent)]) {
        let Some(disk) = self.recall.disk.clone().filter(|disk| disk.len() > 0) else { return };
        let Ok(path) = self.inodes.path(dir) else { return };
        let prefix = self.prefix_below(&path);
        let unknown = |(name, dent): &(Arc<str>, Dent)| {
            let is_told = matches!(dent, Dent::File { told: true, .. });
            if !is_told || self.has_known_child(dir, name, dent) {
                return None;
            }
            let key = Key::new(format!("{prefix}{name}")).ok()?;
            self.recall.here(dir, &key, dent).is_none().then(|| (key, dent.clone()))
        };
        let wanted: Vec<_> = names.iter().filter_map(unknown).collect();
        if wanted.is_empty() {
            return;
        }
        let look = move || {
            let record = |(key, dent): (Key, Dent)| {
                let Dent::File { size, etag, modified, .. } = dent else { return None };
                disk.recall(&key, |record| record.is_of(&etag, size, modified)).map(|record| (key, record))
            };
            let mut room = BYTES_MOST;
            let mut fits = |(key, record): &(Key, Record)| match room.checked_sub(weight(key, record)) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            };
            wanted.into_iter().filter_map(record).take_while(|found| fits(found)).collect::<HashMap<_, _>>()
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
        let Dent::File { size, etag, modified, told: true, .. } = dent else { return None };
        let key = self.key(&self.path_in(link.parent, &link.name).ok()?).ok()?;
        let record = self.recall.here(link.parent, &key, dent)?;
        let target = record.target.clone();
        let version = Version { etag: etag.clone(), id: None };
        let object = record.object(key.clone(), version.clone(), *modified);
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

/// What a record takes in memory, about, in bytes.
fn weight(key: &Key, record: &Record) -> usize {
    size_of::<Key>() + key.as_str().len() + record.weight()
}

/// Whether the object, as it is, can be told from what it may become.
fn is_told_apart(object: &ObjectMeta) -> bool {
    !object.version.etag.as_str().is_empty()
        && object.last_modified != SystemTime::UNIX_EPOCH
        && is_settled(object.last_modified, SystemTime::now())
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

    fn object(etag: &str, stored: SystemTime) -> ObjectMeta {
        ObjectMeta {
            key: Key::new("k").unwrap(),
            size: 1,
            version: Version { etag: staithe_store::ETag::new(etag), id: None },
            last_modified: stored,
            metadata: staithe_store::Metadata::default(),
            content_type: None,
        }
    }

    #[test]
    fn what_has_no_tag_or_no_time_is_not_kept() {
        let stored = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(is_told_apart(&object("a", stored)));
        assert!(!is_told_apart(&object("", stored)));
        assert!(!is_told_apart(&object("a", SystemTime::UNIX_EPOCH)));
    }

    #[test]
    fn what_is_in_memory_is_bounded_in_bytes_and_the_newest_stays() {
        let recall = Recall { disk: None, pages: Mutex::default() };
        let mut large = object("a", SystemTime::UNIX_EPOCH);
        large.metadata.insert("m".to_owned(), "m".repeat(BYTES_MOST / 4));
        for dir in 0..PAGES_MOST as u64 {
            recall.take_in(Ino(dir), HashMap::from([(large.key.clone(), Record::of(&large, None))]));
            let pages = recall.pages.lock();
            assert_eq!(pages.front().map(|page| page.dir), Some(Ino(dir)));
            assert!(pages.iter().map(|page| page.bytes).sum::<usize>() <= BYTES_MOST);
        }
    }
}

//! Directory streams: a listing page by page, merged with what is not stored yet.
//!
//! A stream numbers its entries as it meets them, so an offset means the same entry for the stream's whole life.
//!
//! On a read-only mount a stream that a refresh overtakes goes on as what it was: it shows what was listed, and nothing
//! else that was learned since, and gives nobody anything to believe. Where a store goes on with the listings that it
//! has begun (see `view`), that is one view from its first entry to its last.

mod shown;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use staithe_dentry::{Listing, Lookup as Cached, Token};
use staithe_store::{ListPage, ListRequest, PageToken, StoreError};
use tokio_util::task::AbortOnDropHandle;

use crate::api::{DirItem, Entry, HandleId, Ino, Kind};
use crate::config::Ttl;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::handles::DirHandle;
use crate::inode::{Inode, Marker};
use crate::lookup::{Dent, deadline, time_left};
use crate::names::check_name;
use crate::refresh::Moment;

pub(crate) use shown::Final;
use shown::Shown;

/// Offsets 0 and 1 are `.` and `..`.
const DOTS: u64 = 2;
/// So near the end of what was listed, the next page is asked for.
const ASK_WITHIN: usize = 500;

/// Where a reader stands in the listing of a directory.
#[derive(Default)]
pub(crate) enum Progress {
    /// Nothing asked yet.
    #[default]
    Start,
    /// More pages follow.
    More(Following, Option<Listing<Dent>>),
    /// There are no more pages.
    Done,
}

/// The page after the last one that was read.
pub(crate) struct Following {
    token: PageToken,
    /// Where it was listed: a directory that is gone meanwhile is listed to its end on a read-only mount.
    prefix: String,
    ahead: Option<PageAhead>,
}

/// A page that was asked for while the one before it is read; not, once this is dropped.
struct PageAhead {
    prefix: String,
    since: Token,
    answer: AbortOnDropHandle<Result<ListPage, StoreError>>,
}

/// A page of a directory's listing.
pub(crate) struct Page {
    /// What has a name that a path may carry, in the order of names; no name twice.
    pub(crate) entries: Vec<(Arc<str>, Dent)>,
    /// If more pages follow: the last thing listed, whether or not it is an entry. What follows sorts behind it.
    pub(crate) last: Option<String>,
}

/// A directory stream.
#[derive(Default)]
pub(crate) struct Stream {
    shown: Shown,
    listed: Final,
    progress: Progress,
    /// When it was begun.
    began: Option<Moment>,
    /// What was not stored when the listing began.
    unstored: Vec<(Arc<str>, Arc<Inode>)>,
    /// Inodes shown with attributes by the last answer; those that the kernel did not take are let go.
    offered: Vec<Arc<Inode>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("left", &self.shown.left(0)).finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Opens a directory stream.
    ///
    /// # Errors
    /// `Stale`, `NotDirectory`.
    #[expect(clippy::unused_async, reason = "part of the border: a later check of the store may wait")]
    pub async fn opendir(&self, ino: Ino) -> Result<HandleId> {
        let inode = self.directory(ino)?;
        Ok(self.dirs.insert(DirHandle { inode, stream: tokio::sync::Mutex::default() }))
    }

    /// Up to `max` entries from `offset`: 0, or the `next` of an earlier entry of this stream. Offset 0 lists
    /// afresh. Empty at the end. One LIST per thousand entries, none if the directory is remembered whole, or comes
    /// out of a listing of the tree that is being walked; the next page is asked for while one is read.
    ///
    /// # Errors
    /// `BadHandle`, `Stale`, the store's errors.
    ///
    /// # Cancel safety
    /// Dropping the future may lose the place in the listing; the next call lists afresh from its page.
    pub async fn readdir(&self, handle: HandleId, offset: u64, max: usize) -> Result<Vec<DirItem>> {
        let handle = self.dirs.get(handle)?;
        let mut stream = handle.stream.lock().await;
        for unused in stream.offered.drain(..) {
            self.inodes.let_go(&unused);
        }
        if offset == 0 {
            *stream = Stream::default();
        }
        let mut items = dots(&handle.inode, offset, max);
        let mut at = offset.max(DOTS);
        let began = *stream.began.get_or_insert_with(|| self.refreshes.moment());
        if stream.shown.is_gone(at - DOTS) {
            self.list_again(&handle.inode, &mut stream).await?;
        }
        while items.len() < max {
            let Some((position, name, dent)) = stream.shown.at(at - DOTS).cloned() else {
                if !self.load_more(&handle.inode, &mut stream).await? {
                    break;
                }
                continue;
            };
            at = position + DOTS + 1;
            // Before, as an old entry must not take its name from an inode that was learned of since; and afterwards, as
            // the item may be made of that.
            let item = if self.is_past(began) {
                None
            } else {
                self.item(&handle.inode, &name, &dent, at, &mut stream.offered)
            };
            if self.is_past(began) {
                items.push(past_item(&handle.inode, &name, &dent, at));
            } else {
                items.extend(item);
            }
        }
        stream.shown.pass(at - DOTS);
        if stream.shown.left(at - DOTS) <= ASK_WITHIN {
            self.ask_ahead(&handle.inode, &mut stream.progress);
        }
        Ok(items)
    }

    /// Whether a listing that began then goes on as what it was, whatever is there now.
    fn is_past(&self, began: Moment) -> bool {
        self.config.read_only && !self.refreshes.none_since(began)
    }

    /// Closes a directory stream.
    pub fn releasedir(&self, handle: HandleId) {
        let Some(handle) = self.dirs.remove(handle) else { return };
        // A stream that is being read goes on with its own reference, and offers nothing that stays.
        if let Ok(mut stream) = handle.stream.try_lock() {
            for unused in stream.offered.drain(..) {
                self.inodes.let_go(&unused);
            }
        }
    }

    /// One entry as it is now; `None` if its name has gone since the listing.
    fn item(
        &self,
        dir: &Inode,
        name: &str,
        dent: &Dent,
        next: u64,
        offered: &mut Vec<Arc<Inode>>,
    ) -> Option<DirItem> {
        let moment = self.refreshes.moment();
        let now = Instant::now();
        // Asked first: what is stored in between is remembered before it ceases to be local.
        let is_local = self.inodes.child(dir.ino, name).is_some_and(|c| c.state().is_local());
        let (dent, ttl, seen) = match self.names.lookup(dir.ino.0, name, now) {
            Cached::Negative(_) | Cached::AbsentByListing(_) if !is_local => return None,
            Cached::Negative(_) | Cached::AbsentByListing(_) => (dent.clone(), self.ttl(), now),
            Cached::Hit(newer, left) => (newer, time_left(left), self.seen(left)),
            // As old as it may be: nobody knows when its page came.
            _ => (dent.clone(), Duration::ZERO, self.seen(staithe_dentry::Ttl::None)),
        };
        let inode = self.known_child(dir.ino, name, &dent, seen);
        let is_believed = self.refreshes.none_since(moment);
        if let Some(inode) = inode.as_ref().filter(|_| !is_believed) {
            inode.doubt();
        }
        let ttl = if is_believed { ttl } else { Duration::ZERO };
        let kind = match (&inode, &dent) {
            (Some(inode), _) => Some(inode.kind),
            (None, Dent::Directory { .. }) => Some(Kind::Directory),
            (None, Dent::File { kind, .. }) => *kind,
        };
        let ino = inode.as_ref().map_or_else(|| show_number(dir.ino, next), |i| i.ino.0);
        let entry = inode.map(|inode| {
            let entry = Entry { attr: inode.attr(), entry_ttl: ttl, attr_ttl: ttl };
            offered.push(inode);
            entry
        });
        Some(DirItem { name: name.to_owned(), ino, kind, next, entry })
    }

    /// Reads the next page into the stream. False when there is no more.
    async fn load_more(&self, dir: &Inode, stream: &mut Stream) -> Result<bool> {
        if matches!(stream.progress, Progress::Start) && !stream.shown.is_empty() {
            self.list_again(dir, stream).await?;
            return Ok(true);
        }
        if matches!(stream.progress, Progress::Start) {
            stream.unstored = self.unstored_in(dir);
        }
        let Some(page) = self.next_page(dir, &mut stream.progress).await? else { return Ok(false) };
        stream.shown.extend(stream.listed.page(page));
        if matches!(stream.progress, Progress::Done) {
            self.add_local(dir, stream);
        }
        Ok(true)
    }

    /// Reads all of the directory once more, for a reader who goes back, or after a page that could not be had.
    ///
    /// # Errors
    /// `Stale` if it goes on as what it was: that cannot be had again.
    async fn list_again(&self, dir: &Inode, stream: &mut Stream) -> Result<()> {
        let is_past = |stream: &Stream| stream.began.is_some_and(|began| self.is_past(began));
        let changed = || FsError::new(FsErrorKind::Stale, "what is listed here has changed; begin again");
        if is_past(stream) {
            return Err(changed());
        }
        let (mut listed, mut entries) = (Final::default(), Vec::new());
        stream.progress = Progress::Start;
        stream.unstored = self.unstored_in(dir);
        while let Some(page) = self.next_page(dir, &mut stream.progress).await? {
            entries.extend(listed.page(page));
        }
        if is_past(stream) {
            stream.progress = Progress::Start;
            return Err(changed());
        }
        stream.shown.list_again(entries);
        self.add_local(dir, stream);
        Ok(())
    }

    /// The next page of a directory's listing; all of it at once if it is remembered whole. `None` at the end. What
    /// is not stored yet is not in it. After an error, or when the future was dropped, the next one is the first.
    pub(crate) async fn next_page(&self, dir: &Inode, progress: &mut Progress) -> Result<Option<Page>> {
        let (following, listing) = match std::mem::take(progress) {
            Progress::Done => {
                *progress = Progress::Done;
                return Ok(None);
            }
            Progress::Start => {
                if let Some(whole) = self.whole_page(dir).await {
                    *progress = Progress::Done;
                    return Ok(Some(whole));
                }
                // What a flat listing has of it is older than what comes now.
                self.outdate_flat(dir.ino);
                let token = self.names.begin(dir.ino.0);
                let until = deadline(self.metadata_ttl(), Instant::now());
                (None, self.names.listing(token, until).ok())
            }
            Progress::More(following, listing) => (Some(following), listing),
        };
        let prefix = match (self.inodes.path(dir.ino), &following) {
            (Ok(path), _) => self.prefix_below(&path),
            (Err(_), Some(following)) if self.config.read_only => following.prefix.clone(),
            (Err(gone), _) => return Err(gone),
        };
        let is_first = following.is_none();
        let page = self.list_page(&prefix, following).await?;
        let entries = merge(dir, &prefix, &page);
        let listing = listing.and_then(|mut l| l.page(entries.iter().cloned()).is_ok().then_some(l));
        self.ahead.note_page(dir.ino, &entries, is_first);
        self.note_listed(dir, &entries, is_first);
        self.recall(dir.ino, &entries).await;
        let last = page.next.is_some().then(|| last_listed(&prefix, &page));
        if let Some(token) = page.next {
            *progress = Progress::More(Following { token, prefix, ahead: None }, listing);
        } else {
            *progress = Progress::Done;
            if let Some(listing) = listing {
                // Refused when a change here overtook it: then the directory is just not remembered whole.
                let _ = listing.complete();
            }
        }
        Ok(Some(Page { entries, last }))
    }

    /// All of a directory, from memory or out of a listing of a tree.
    async fn whole_page(&self, dir: &Inode) -> Option<Page> {
        let moment = self.refreshes.moment();
        // While what is shown changes, what is remembered may be of before and of after.
        if let Some(known) = self.known_whole(dir).filter(|_| !self.is_past(moment)) {
            self.note_step(dir);
            self.note_listed(dir, &known.entries, true);
            return Some(known);
        }
        let page = self.flat_page(dir).await?;
        self.ahead.note_page(dir.ino, &page.entries, true);
        self.note_listed(dir, &page.entries, true);
        self.recall(dir.ino, &page.entries).await;
        Some(page)
    }

    /// All of a directory, if it is remembered.
    pub(crate) fn known_whole(&self, dir: &Inode) -> Option<Page> {
        let known = self.names.entries(dir.ino.0, Instant::now())?;
        let entries = known.iter().map(|(name, dent)| (Arc::from(name), dent.clone())).collect();
        Some(Page { entries, last: None })
    }

    /// Asks for the page that follows, if that was not done yet. Waits for nothing.
    fn ask_ahead(&self, dir: &Inode, progress: &mut Progress) {
        let Progress::More(following @ Following { ahead: None, .. }, _) = progress else { return };
        let Ok(path) = self.inodes.path(dir.ino) else { return };
        if self.metadata_ttl() == Ttl::Zero || self.tasks.is_closed() {
            return;
        }
        let prefix = self.prefix_below(&path);
        let request = page_request(&prefix, Some(following.token.clone()));
        let since = self.names.begin(dir.ino.0);
        let store = self.store.clone();
        // Nothing waits for it but its reader: a drain does not.
        let answer = self.runtime.spawn(async move { store.list(request).await });
        following.ahead = Some(PageAhead { prefix, since, answer: AbortOnDropHandle::new(answer) });
    }

    /// The page that was asked for ahead, if nothing was changed here since; else that page, or the first one, as it
    /// is now. However long it lay: a stream is a listing of when it began, and what is remembered of it counts from
    /// then.
    async fn list_page(&self, prefix: &str, following: Option<Following>) -> Result<ListPage> {
        let (token, ahead) = following.map_or((None, None), |f| (Some(f.token), f.ahead));
        let holds = |ahead: &PageAhead| ahead.prefix == prefix && self.names.holds(&ahead.since);
        if let Some(mut ahead) = ahead.filter(holds)
            && let Ok(Ok(page)) = (&mut ahead.answer).await
            && self.names.holds(&ahead.since)
        {
            return Ok(page);
        }
        Ok(self.store.list(page_request(prefix, token)).await?)
    }

    /// What the store does not have yet of a directory.
    fn unstored_in(&self, dir: &Inode) -> Vec<(Arc<str>, Arc<Inode>)> {
        let mut children = self.inodes.children(dir.ino);
        children.retain(|(_, inode)| inode.state().is_local());
        children
    }

    /// Adds what is not stored yet, and what was not when the listing began: it may have been stored too late for that.
    fn add_local(&self, dir: &Inode, stream: &mut Stream) {
        let is_there = |(name, inode): &(Arc<str>, Arc<Inode>)| {
            let state = inode.state();
            state.link.as_ref().is_some_and(|link| link.parent == dir.ino && link.name == *name)
        };
        let before = std::mem::take(&mut stream.unstored).into_iter().filter(is_there);
        let mut local: Vec<_> = before.collect();
        local.extend(self.unstored_in(dir));
        let entry = |(name, inode): (Arc<str>, Arc<Inode>)| {
            if inode.is_dir() {
                return (name, Dent::Directory { marker: None });
            }
            let (size, kind) = (inode.state().size(), Some(inode.kind));
            let etag = staithe_store::ETag::new("");
            (name, Dent::File { size, etag, id: None, modified: SystemTime::now(), told: false, kind })
        };
        let missing = stream.shown.missing(local);
        stream.shown.extend(missing.into_iter().map(entry));
    }
}

/// An entry as it was listed, of which nobody knows any more whether it is there.
fn past_item(dir: &Inode, name: &str, dent: &Dent, next: u64) -> DirItem {
    let kind = match dent {
        Dent::Directory { .. } => Some(Kind::Directory),
        Dent::File { kind, .. } => *kind,
    };
    DirItem { name: name.to_owned(), ino: show_number(dir.ino, next), kind, next, entry: None }
}

/// The entries that every directory has.
fn dots(dir: &Inode, offset: u64, max: usize) -> Vec<DirItem> {
    let parent = dir.state().link.as_ref().map_or(Ino::ROOT, |l| l.parent);
    let dots = [(".", dir.ino), ("..", parent)];
    let item = |(i, (name, ino)): (usize, (&str, Ino))| DirItem {
        name: name.to_owned(),
        ino: ino.0,
        kind: Some(Kind::Directory),
        next: i as u64 + 1,
        entry: None,
    };
    dots.into_iter().enumerate().skip(offset as usize).take(max).map(item).collect()
}

/// The entries of a page in the order of their names; a directory hides a file of the same name.
pub(crate) fn merge(dir: &Inode, prefix: &str, page: &ListPage) -> Vec<(Arc<str>, Dent)> {
    let mut entries: Vec<(Arc<str>, Dent)> = Vec::with_capacity(page.objects.len() + page.prefixes.len());
    for object in &page.objects {
        let Some(name) = object.key.as_str().strip_prefix(prefix) else { continue };
        if name.is_empty() {
            let mut state = dir.state();
            if state.marker != Marker::Pending {
                state.marker = Marker::Present;
            }
        } else if check_name(name).is_ok() {
            entries.push((Arc::from(name), Dent::from(object)));
        }
    }
    for below in &page.prefixes {
        let Some(name) = below.strip_prefix(prefix).and_then(|n| n.strip_suffix('/')) else { continue };
        if check_name(name).is_ok() {
            entries.push((Arc::from(name), Dent::Directory { marker: None }));
        }
    }
    in_order(entries)
}

/// Entries in the order of their names, each once.
pub(crate) fn in_order(mut entries: Vec<(Arc<str>, Dent)>) -> Vec<(Arc<str>, Dent)> {
    // Stable, and directories first among equals, so that dedup keeps them.
    entries.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| is_file(&a.1).cmp(&is_file(&b.1))));
    entries.dedup_by(|later, first| later.0 == first.0);
    entries
}

/// The request for the first page of what is directly below a prefix.
pub(crate) fn first_page(prefix: &str) -> ListRequest {
    page_request(prefix, None)
}

fn page_request(prefix: &str, token: Option<PageToken>) -> ListRequest {
    ListRequest { prefix: prefix.to_owned(), delimiter: Some('/'), token, ..ListRequest::default() }
}

/// The greatest of what a page lists, below the prefix.
fn last_listed(prefix: &str, page: &ListPage) -> String {
    let object = page.objects.last().map_or("", |o| o.key.as_str());
    let below = page.prefixes.last().map_or("", String::as_str);
    object.max(below).strip_prefix(prefix).unwrap_or_default().to_owned()
}

/// Appends a page. A directory whose file of the same name stood on an earlier page takes its place: in the order
/// of keys only names that begin with it lie between `x` and `x/`.
fn extend(entries: &mut Vec<(Arc<str>, Dent)>, page: Vec<(Arc<str>, Dent)>) {
    let earlier = entries.len();
    for (name, dent) in page {
        let before = entries[..earlier].iter_mut().rev().take_while(|(e, _)| e.starts_with(&*name));
        match before.into_iter().find(|(e, _)| *e == name) {
            Some(twin) => twin.1 = dent,
            None => entries.push((name, dent)),
        }
    }
}

pub(crate) fn is_file(dent: &Dent) -> bool {
    matches!(dent, Dent::File { .. })
}

/// A number to show for an entry that has no inode yet: out of the way of real ones, and in the order of the
/// listing. Who sorts by it, as cp and tar do, then asks in that order, in which what comes next is foreseen.
fn show_number(dir: Ino, position: u64) -> u64 {
    const BITS: u32 = 40;
    1 << 63 | (dir.0 << BITS) & (u64::MAX >> 1) | position & ((1 << BITS) - 1)
}

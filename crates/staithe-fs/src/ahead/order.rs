//! Which name comes after which: by the whole listing of a directory, or by the pages of one that is still being read
//! (`ls -l` asks for the attributes of what it has of a large directory before it has all).
//!
//! The order is only a hint: what is asked for is asked about as it is then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use staithe_dentry::Entries;

use super::walk::{CHUNK, Coming, Event, Following, Met};
use super::{Ahead, small_body};
use crate::api::Ino;
use crate::filesystem::Filesystem;
use crate::lookup::Dent;

/// How far back the name before another one is looked for, over those that nobody asks for.
const SKIPPED_MOST: usize = 64;
/// Pages of listings that are remembered, of a thousand names each.
const PAGES_MOST: usize = 16;

/// The pages that were listed last, in whatever directories.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<VecDeque<Arc<Page>>>);

/// Names that follow each other in a listing.
#[derive(Debug)]
struct Page {
    dir: Ino,
    is_first: bool,
    names: Vec<Coming>,
}

/// Where a name stands: those before it, nearest last, and those after it.
struct Surroundings {
    /// Whether nothing stands before the first of `before`.
    is_start: bool,
    before: Vec<Coming>,
    after: Following,
}

impl Ahead {
    /// A page of a listing came in.
    pub(crate) fn note_page(&self, dir: Ino, names: &[(Arc<str>, Dent)], is_first: bool) {
        let coming =
            |(name, dent): &(Arc<str>, Dent)| Coming { name: name.to_string(), body: small_body(dent) };
        let page = Arc::new(Page { dir, is_first, names: names.iter().map(coming).collect() });
        let mut pages = self.pages.0.lock();
        if is_first {
            pages.retain(|page| page.dir != dir);
        }
        pages.push_front(page);
        pages.truncate(PAGES_MOST);
    }

    /// The pages of a directory are out of date.
    pub(super) fn forget_pages(&self, dir: Ino) {
        self.pages.0.lock().retain(|page| page.dir != dir);
    }

    /// The page of a directory that shows what is around or after a name.
    fn page(&self, dir: Ino, holds: impl Fn(&Page) -> bool) -> Option<Arc<Page>> {
        self.pages.0.lock().iter().find(|page| page.dir == dir && holds(page)).cloned()
    }
}

impl Filesystem {
    /// Whether `name` comes right after one of `recent` in its listing, but for names that nobody asks for; then
    /// what follows it, and whether the one before it was opened. O(names of the directory).
    pub(super) fn order(
        &self,
        dir: Ino,
        name: &str,
        event: Event,
        recent: &[Met],
    ) -> Option<(Following, bool)> {
        let Surroundings { is_start, before, after } = self.around(dir, name)?;
        let met = |name: &str| recent.iter().find(|m| m.name == name).map(|m| m.opened);
        for earlier in before.iter().rev() {
            if let Some(opened) = met(&earlier.name) {
                return Some((after, opened));
            }
            let is_skipped = match event {
                Event::Opened => earlier.body.is_none(),
                _ => self.inodes.child(dir, &earlier.name).is_some(),
            };
            if !is_skipped {
                return None;
            }
        }
        let opened = if is_start { met("")? } else { return None };
        Some((after, opened))
    }

    fn around(&self, dir: Ino, name: &str) -> Option<Surroundings> {
        if let Some(entries) = self.names.entries(dir.0, Instant::now()) {
            let after = entries.after(name);
            let own = after.checked_sub(1).filter(|at| entries.get(*at).is_some_and(|e| e.0 == name))?;
            let from = own.saturating_sub(SKIPPED_MOST);
            let before = coming(&entries, from, own);
            return Some(Surroundings { is_start: from == 0, before, after: following(&entries, after) });
        }
        let place = |page: &Page| page.names.binary_search_by(|c| c.name.as_str().cmp(name)).ok();
        let page = self.ahead.page(dir, |page| place(page).is_some())?;
        let own = place(&page)?;
        let from = own.saturating_sub(SKIPPED_MOST);
        Some(Surroundings {
            is_start: from == 0 && page.is_first,
            before: page.names[from..own].to_vec(),
            after: Following { names: page.names[own + 1..].to_vec(), ends: false },
        })
    }

    /// What comes after a name; nothing if no listing tells.
    pub(super) fn coming(&self, dir: Ino, last: &str) -> Following {
        if let Some(entries) = self.names.entries(dir.0, Instant::now()) {
            return following(&entries, entries.after(last));
        }
        let pages = self.ahead.pages.0.lock();
        let rest = |page: &'_ Arc<Page>| {
            let after = page.names.partition_point(|c| c.name.as_str() <= last);
            // Before the first name of the first page is nothing that it could come after.
            (page.dir == dir && (after > 0 || !page.is_first)).then(|| page.names[after..].to_vec())
        };
        let rests = pages.iter().filter_map(rest).filter(|rest| !rest.is_empty());
        let names = rests.min_by(|a, b| a[0].name.cmp(&b[0].name)).unwrap_or_default();
        Following { names, ends: false }
    }
}

fn following(entries: &Entries<Dent>, from: usize) -> Following {
    Following { names: coming(entries, from, from + CHUNK), ends: from + CHUNK >= entries.len() }
}

fn coming(entries: &Entries<Dent>, from: usize, to: usize) -> Vec<Coming> {
    let all = (from..to.min(entries.len())).filter_map(|at| entries.get(at));
    all.map(|(name, dent)| Coming { name: name.to_owned(), body: small_body(dent) }).collect()
}

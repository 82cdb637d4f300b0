//! Directories out of a listing without a delimiter: the pure part.
//!
//! All keys below a directory follow each other in the order of keys, and so do those of each directory within. A
//! directory is whole once a key beyond its prefix was seen, if the listing began before its prefix. The names in it
//! are what follows its prefix: up to the next slash, a directory; without one, a file; nothing, its marker.
//!
//! Invariants:
//! 1. A directory that is given out has what a listing of it with the delimiter has, at the time of its first page
//!    or later.
//! 2. At most [`LARGE`] entries of a directory are gathered, and [`OPEN_MOST`] over all that have begun: of one
//!    that has more, nothing is given out. A page of nothing but files of such a one makes the listing skip it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use staithe_store::{ListPage, PageToken};

use super::changes::Stamp;
use crate::directory::in_order;
use crate::lookup::Dent;
use crate::names::check_name;

/// The most entries of a directory that is rebuilt.
pub(super) const LARGE: usize = 2000;
/// Directories that were found to be larger and are remembered.
const LARGE_MOST: usize = 64;
/// The most entries of directories that have begun and not ended, once a page was taken in.
const OPEN_MOST: usize = 4 * LARGE;
/// Sorts behind every other character, as UTF-8 too.
const LAST_CHARACTER: char = char::MAX;

/// When a page was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) stamp: Stamp,
}

/// A directory as its flat listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// Of its keys.
    pub(super) prefix: String,
    /// As a page of its own listing has them.
    pub(super) entries: Vec<(Arc<str>, Dent)>,
    /// Whether its marker was listed.
    pub(super) has_marker: bool,
    /// For the first of the pages that it was on.
    pub(super) asked: Asked,
}

/// How the listing goes on after a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// On the next page.
    Page(PageToken),
    /// Behind this key.
    After(String),
    /// Not at all.
    End,
}

/// A page that does not come behind the ones before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disorder;

/// A directory whose end was not seen yet.
#[derive(Debug)]
struct Open {
    /// Of its prefix.
    len: usize,
    entries: Vec<(Arc<str>, Dent)>,
    has_marker: bool,
    asked: Asked,
    /// Whether a path names it.
    nameable: bool,
    /// Whether it can still be given out.
    whole: bool,
}

/// Directories in the making.
#[derive(Debug)]
pub(super) struct Rebuild {
    /// What is listed begins with this.
    root: String,
    /// Nothing up to here comes any more.
    front: String,
    /// What the listing began behind.
    after: String,
    /// The prefix of the innermost open directory; those of the others are beginnings of it.
    prefix: String,
    open: Vec<Open>,
    /// The last ones that were too large.
    large: VecDeque<String>,
}

/// What sorts right before all keys that begin with `prefix`, which ends in a slash.
pub(super) fn before(prefix: &str) -> String {
    let mut text = prefix.strip_suffix('/').unwrap_or(prefix).to_owned();
    // A full stop is what comes before a slash.
    text.extend(['.', LAST_CHARACTER]);
    text
}

impl Rebuild {
    /// For a listing of what begins with `root`, from behind the key `after` on.
    pub(super) fn new(root: String, after: String) -> Self {
        let (prefix, open, large) = (String::new(), Vec::new(), VecDeque::new());
        Self { front: after.clone(), root, after, prefix, open, large }
    }

    /// Takes the next page in; whole directories go to `done`. O(page).
    ///
    /// # Errors
    /// [`Disorder`] if the keys do not ascend.
    pub(super) fn take_in(
        &mut self,
        page: &ListPage,
        asked: Asked,
        mut done: impl FnMut(Rebuilt),
    ) -> Result<Next, Disorder> {
        if self.open.is_empty() {
            self.prefix.clone_from(&self.root);
            self.begin(asked, true);
        }
        for object in &page.objects {
            let key = object.key.as_str();
            if *key <= *self.front || !key.starts_with(&self.root) {
                return Err(Disorder);
            }
            key.clone_into(&mut self.front);
            while !key.starts_with(&self.prefix) {
                self.end(&mut done);
            }
            while let Some(slash) = key[self.prefix.len()..].find('/') {
                let from = self.prefix.len();
                let name = &key[from..from + slash];
                self.add(name, || Dent::Directory { marker: None });
                self.prefix.push_str(&key[from..=from + slash]);
                self.begin(asked, check_name(name).is_ok());
            }
            let name = &key[self.prefix.len()..];
            if name.is_empty() {
                self.open.last_mut().into_iter().for_each(|dir| dir.has_marker = true);
            } else {
                self.add(name, || Dent::from(object));
            }
        }
        Ok(match &page.next {
            None => {
                while !self.open.is_empty() {
                    self.end(&mut done);
                }
                Next::End
            }
            Some(token) => {
                self.bound();
                self.skip(page).unwrap_or_else(|| Next::Page(token.clone()))
            }
        })
    }

    /// Whether the directory of this prefix is still to come.
    pub(super) fn is_coming(&self, prefix: &str) -> bool {
        prefix.starts_with(&self.root) && *prefix > *self.front
    }

    /// When the first page was asked for of the directory of this prefix, if it has begun and will be given out
    /// unless it is too large.
    pub(super) fn opened(&self, prefix: &str) -> Option<Asked> {
        let dir = self.open.iter().find(|dir| dir.len == prefix.len()).filter(|dir| dir.whole)?;
        self.prefix.starts_with(prefix).then_some(dir.asked)
    }

    /// Whether the directory of this prefix was found too large to be given out.
    pub(super) fn is_large(&self, prefix: &str) -> bool {
        self.large.iter().any(|large| large == prefix)
    }

    /// Whether the listing has been at or beyond this prefix.
    pub(super) fn has_passed(&self, prefix: &str) -> bool {
        prefix.starts_with(&self.root) && *prefix > *self.after && *prefix <= *self.front
    }

    fn begin(&mut self, asked: Asked, is_name: bool) {
        let nameable = is_name && self.open.last().is_none_or(|above| above.nameable);
        let whole = nameable && *self.prefix > *self.after;
        let len = self.prefix.len();
        self.open.push(Open { len, entries: Vec::new(), has_marker: false, asked, nameable, whole });
    }

    /// Adds a name to the innermost directory.
    fn add(&mut self, name: &str, dent: impl FnOnce() -> Dent) {
        let Some(dir) = self.open.last_mut().filter(|dir| dir.whole) else { return };
        if check_name(name).is_err() {
            return;
        }
        if dir.entries.len() < LARGE {
            dir.entries.push((Arc::from(name), dent()));
        } else if let Some(innermost) = self.open.len().checked_sub(1) {
            self.give_up(innermost);
        }
    }

    fn give_up(&mut self, at: usize) {
        let dir = &mut self.open[at];
        (dir.whole, dir.entries) = (false, Vec::new());
        self.large.push_back(self.prefix[..dir.len].to_owned());
        if self.large.len() > LARGE_MOST {
            self.large.pop_front();
        }
    }

    fn end(&mut self, done: &mut impl FnMut(Rebuilt)) {
        let Some(dir) = self.open.pop() else { return };
        if dir.whole {
            let Open { entries, has_marker, asked, .. } = dir;
            done(Rebuilt { prefix: self.prefix.clone(), entries: in_order(entries), has_marker, asked });
        }
        self.prefix.truncate(self.open.last().map_or(0, |above| above.len));
    }

    /// Gives up the outermost directories, if those that are open have become too much.
    fn bound(&mut self) {
        let mut gathered: usize = self.open.iter().map(|dir| dir.entries.len()).sum();
        for at in 0..self.open.len() {
            if gathered <= OPEN_MOST {
                return;
            }
            let here = self.open[at].entries.len();
            if here > 0 {
                gathered -= here;
                self.give_up(at);
            }
        }
    }

    /// Beyond the innermost directory, if there is nothing to be had from it: it is not given out, and the page had
    /// no other directories.
    fn skip(&mut self, page: &ListPage) -> Option<Next> {
        let dir = self.open.last().filter(|dir| !dir.whole)?;
        let is_file = |key: &str| key.strip_prefix(&self.prefix).is_some_and(|name| !name.contains('/'));
        if page.objects.is_empty() || !page.objects.iter().all(|o| is_file(o.key.as_str())) {
            return None;
        }
        if dir.len == self.root.len() {
            return Some(Next::End);
        }
        self.front = format!("{}{LAST_CHARACTER}", self.prefix);
        Some(Next::After(self.front.clone()))
    }
}

#[cfg(test)]
mod tests;

//! Which views are still being listed: a listing that began in a view ends in it, also when there is a newer one.
//!
//! Invariants:
//! 1. A page token names the epoch of its view, and that view is held here from the page that gave the token on: until
//!    the listing has ended, or nobody went on with it for [`PAUSE`].
//! 2. No more than [`VIEWS`] views are held, the newest; a listing of another one ends with an error, never in a
//!    view that it did not begin in.
//!
//! Its lock is held for a few map operations, and no other is taken under it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use staithe_snapshot::{Epoch, Snapshot};
use staithe_store::PageToken;

use super::manifest::Manifest;

/// For how long a listing may pause between two pages: programs that work on each entry ask for the next one late.
const PAUSE: Duration = Duration::from_mins(15);
/// How long a view is held whose listings have all ended: the last page may be asked for once more.
const GRACE: Duration = Duration::from_secs(2);
/// Views at once.
const VIEWS: usize = 8;
/// Listings of one view that may be under way; of more, the oldest are taken to be given up.
const LISTINGS: usize = 1 << 16;

/// A published view.
pub(super) type View = Arc<Snapshot<Manifest>>;

/// Where a listing goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark<'t> {
    pub(super) epoch: Epoch,
    /// Which page of which listing, to us.
    serial: u64,
    /// Where in the manifest.
    pub(super) rest: &'t str,
}

impl<'t> Mark<'t> {
    /// Reads a token; `None` if it is none of ours.
    pub(super) fn parse(token: &'t PageToken) -> Option<Self> {
        let mut parts = token.as_str().splitn(3, ':');
        let mut number = || parts.next()?.parse().ok();
        let (epoch, serial) = (Epoch(number()?), number()?);
        Some(Self { epoch, serial, rest: parts.next()? })
    }
}

/// The views that are being listed.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    views: BTreeMap<Epoch, Listed>,
    next: u64,
    /// Whether somebody looks after what nobody goes on with.
    is_swept: bool,
}

struct Listed {
    view: View,
    /// The tokens that nobody came back with, by their serial numbers, and so in the order of time.
    open: BTreeMap<u64, Instant>,
    used: Instant,
}

impl Listed {
    fn ends(&self) -> Instant {
        if self.open.is_empty() { self.used + GRACE } else { self.used + PAUSE }
    }
}

impl Streams {
    /// The view of a listing that goes on.
    pub(super) fn view(&self, epoch: Epoch) -> Option<View> {
        self.0.lock().views.get(&epoch).map(|listed| Arc::clone(&listed.view))
    }

    /// Notes a page of `view`, which a listing was led to by `from`, and which goes on at `rest`; the token for that.
    pub(super) fn note(
        &self,
        view: &View,
        from: Option<&Mark<'_>>,
        rest: Option<&PageToken>,
        now: Instant,
    ) -> Option<PageToken> {
        let mut held = self.0.lock();
        held.next += 1;
        let (serial, epoch) = (held.next, view.epoch());
        if rest.is_some() {
            let new = || Listed { view: Arc::clone(view), open: BTreeMap::new(), used: now };
            let listed = held.views.entry(epoch).or_insert_with(new);
            listed.open.insert(serial, now);
            if listed.open.len() > LISTINGS {
                listed.open.pop_first();
            }
        }
        if let Some(listed) = held.views.get_mut(&epoch) {
            listed.used = now;
            if let Some(from) = from {
                listed.open.remove(&from.serial);
            }
        }
        while held.views.len() > VIEWS {
            held.views.pop_first();
        }
        if !held.views.is_empty() && !std::mem::replace(&mut held.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
        rest.map(|rest| PageToken::new(format!("{}:{serial}:{rest}", epoch.0)))
    }
}

/// Lets go of views that nobody lists any more, until none is left, or nobody asks.
async fn sweep(held: Weak<Mutex<Held>>) {
    loop {
        let next = {
            let Some(held) = held.upgrade() else { return };
            let mut held = held.lock();
            let next = held.let_go(Instant::now());
            held.is_swept = next.is_some();
            next
        };
        match next {
            Some(next) => tokio::time::sleep_until(next.into()).await,
            None => return,
        }
    }
}

impl Held {
    /// Lets go of what is over, and says when there may be more.
    fn let_go(&mut self, now: Instant) -> Option<Instant> {
        for listed in self.views.values_mut() {
            // Given up, however busy other listings of the view are.
            let given_up = |at: &Instant| now.saturating_duration_since(*at) >= PAUSE;
            while listed.open.first_entry().is_some_and(|first| given_up(first.get())) {
                listed.open.pop_first();
            }
        }
        self.views.retain(|_, listed| listed.ends() > now);
        self.views.values().map(Listed::ends).min()
    }
}

#[cfg(test)]
mod tests {
    use staithe_snapshot::SnapshotCell;

    use super::*;

    fn rest() -> PageToken {
        PageToken::new("from:a:b")
    }

    #[tokio::test]
    async fn a_view_is_held_while_it_is_listed_and_a_moment_longer() {
        let (streams, cell, now) = (Streams::default(), SnapshotCell::new(Manifest::empty()), Instant::now());
        let old = cell.load();
        let first = streams.note(&old, None, Some(&rest()), now).unwrap();
        let mark = Mark::parse(&first).unwrap();
        assert_eq!((mark.epoch, mark.rest), (old.epoch(), "from:a:b"));
        cell.publish(Manifest::empty()).unwrap();
        assert!(Arc::ptr_eq(&streams.view(mark.epoch).unwrap(), &old));
        let second = streams.note(&old, Some(&mark), Some(&rest()), now + PAUSE / 2).unwrap();
        let held = |at: Instant| {
            streams.0.lock().let_go(at);
            streams.view(old.epoch()).is_some()
        };
        assert!(held(now + PAUSE), "used since");
        let end = now + PAUSE;
        assert_eq!(streams.note(&old, Some(&Mark::parse(&second).unwrap()), None, end), None);
        assert!(held(end + GRACE / 2), "the last page may be asked for again");
        assert!(!held(end + GRACE));
    }

    #[tokio::test]
    async fn a_listing_that_nobody_goes_on_with_holds_no_view_for_ever_and_only_so_many_are_held() {
        let (streams, cell, now) = (Streams::default(), SnapshotCell::new(Manifest::empty()), Instant::now());
        let mut epochs = vec![];
        for _ in 0..VIEWS + 3 {
            let view = cell.load();
            streams.note(&view, None, Some(&rest()), now);
            epochs.push(view.epoch());
            cell.publish(Manifest::empty()).unwrap();
        }
        let held: Vec<_> = epochs.iter().filter(|epoch| streams.view(**epoch).is_some()).collect();
        assert_eq!(held, epochs[3..].iter().collect::<Vec<_>>());
        assert_eq!(streams.0.lock().let_go(now), Some(now + PAUSE));
        assert_eq!(streams.0.lock().let_go(now + PAUSE), None);
        assert!(epochs.iter().all(|epoch| streams.view(*epoch).is_none()));
    }

    #[test]
    fn foreign_tokens_are_none() {
        for text in ["", "from:a", "1", "1:2", "x:1:r", "1:-1:r"] {
            assert_eq!(Mark::parse(&PageToken::new(text)), None, "{text}");
        }
    }
}

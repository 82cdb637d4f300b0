//! Flat listings that run ahead of walkers, and what they hold for them: the pure part. Times are arguments; the
//! handle of who drives a run is a value of the caller's, dropped with the run.
//!
//! Invariants:
//! 1. A directory is given out at most once, and only if nothing that is noted of it, and no doubt, came after its
//!    first page was asked for.
//! 2. A page is asked for while somebody waits for it, or while less than [`AHEAD`] entries are held and walkers
//!    have taken directories of this run before: one page at a time. What is held never exceeds [`COST_MOST`].
//! 3. A page costs as much as what was taken must have saved: a run that is not worth it asks for no more.
//! 4. A run that nobody takes from for [`IDLE`] ends, and what it holds goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use staithe_store::{ListPage, ListRequest, PageToken};
use tokio::sync::watch;

use super::changes::Changes;
use super::rebuild::{Asked, Disorder, Next, Rebuild, Rebuilt, before};
use crate::lookup::Dent;

/// So many entries are held when the next page is asked for ahead of who needs it.
const AHEAD: usize = 1000;
/// What a run may hold, in bytes, as they are reckoned here.
pub(super) const COST_MOST: usize = 2 << 20;
/// Runs at once.
const RUNS_MOST: usize = 4;
/// So long a run waits for somebody who takes.
pub(super) const IDLE: Duration = Duration::from_secs(5);
/// Directories that are taken before anything is asked for ahead.
const TAKEN_LEAST: u32 = 2;
/// Pages that may turn out useless at first, and the most that may later.
const CREDIT: u32 = 3;
const CREDIT_MOST: u32 = 16;
/// Entries that a page of a plain listing has.
const PAGE: usize = 1000;

/// Names a run, by a number that is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId(u64);

/// Names somebody who waits.
pub(super) type Ticket = u64;

/// What there is of a directory.
#[derive(Debug)]
pub(super) enum Found {
    /// It is taken out; `is_next`, if it is not the first that was taken of its run.
    Here {
        rebuilt: Rebuilt,
        is_next: bool,
    },
    /// A run is on the way to it, or already in it (`is_open`): the receiver learns of its next page.
    Coming {
        run: RunId,
        is_open: bool,
        page: watch::Receiver<()>,
    },
    /// A run has found it to be large.
    Large,
    Nothing,
}

/// What a driver is to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// Ask this, and tell.
    Ask(ListRequest),
    /// Wait for somebody to need more, at most so long.
    Rest(Duration),
    /// The run is over.
    Over,
}

/// One listing.
#[derive(Debug)]
struct Run<H> {
    id: RunId,
    root: String,
    rebuild: Rebuild,
    /// Where the next page begins; `None` at the end.
    next: Option<From>,
    asked: Option<Asked>,
    held: BTreeMap<String, Rebuilt>,
    entries: usize,
    cost: usize,
    waiting: Vec<(Ticket, String)>,
    taken: u32,
    credit: u32,
    used_at: Instant,
    page: watch::Sender<()>,
    /// Lives as long as its run.
    driver: Option<H>,
}

#[derive(Debug, Clone)]
enum From {
    After(String),
    Page(PageToken),
}

/// All runs.
#[derive(Debug)]
pub(super) struct Runs<H> {
    /// Used last at the end.
    all: Vec<Run<H>>,
    changes: Changes,
    latest: u64,
}

impl<H> Default for Runs<H> {
    fn default() -> Self {
        Self { all: Vec::new(), changes: Changes::default(), latest: 0 }
    }
}

impl<H> Runs<H> {
    /// Begins a run below `root`, from the directory of `prefix` on. One that has been there before ends; if next
    /// to nothing was taken of that, another one would be as useless, and none begins.
    pub(super) fn begin(&mut self, root: String, prefix: &str, now: Instant) -> Option<RunId> {
        let has_passed = |run: &Run<H>| run.root == root && run.rebuild.has_passed(prefix);
        let was_useless = self.all.iter().any(|run| has_passed(run) && run.taken < TAKEN_LEAST);
        self.all.retain(|run| !has_passed(run));
        if was_useless {
            return None;
        }
        if self.all.len() >= RUNS_MOST {
            self.all.remove(0);
        }
        self.latest += 1;
        let id = RunId(self.latest);
        let after = before(prefix);
        self.all.push(Run {
            id,
            rebuild: Rebuild::new(root.clone(), after.clone()),
            root,
            next: Some(From::After(after)),
            asked: None,
            held: BTreeMap::new(),
            entries: 0,
            cost: 0,
            waiting: Vec::new(),
            taken: 0,
            credit: CREDIT,
            used_at: now,
            page: watch::Sender::new(()),
            driver: None,
        });
        Some(id)
    }

    /// Who drives a run; dropped with it.
    pub(super) fn driven(&mut self, id: RunId, driver: H) {
        if let Some(run) = self.run(id) {
            run.driver = Some(driver);
        }
    }

    /// Takes a directory out, if it is here and `is_fresh` of when it was asked for.
    pub(super) fn find(&mut self, prefix: &str, now: Instant, is_fresh: impl Fn(Instant) -> bool) -> Found {
        for at in 0..self.all.len() {
            let Some(rebuilt) = self.all[at].take(prefix) else { continue };
            if self.changes.overtook(prefix, rebuilt.asked.stamp) || !is_fresh(rebuilt.asked.at) {
                continue;
            }
            let mut run = self.all.remove(at);
            run.used_at = now;
            run.taken += 1;
            let saved = 1 + rebuilt.entries.len() / PAGE;
            run.credit = CREDIT_MOST.min(run.credit + saved as u32);
            let is_next = run.taken >= TAKEN_LEAST;
            self.all.push(run);
            return Found::Here { rebuilt, is_next };
        }
        if self.all.iter().any(|run| run.rebuild.is_large(prefix)) {
            return Found::Large;
        }
        let coming = |run: &&Run<H>| run.is_on_the_way(prefix);
        self.all.iter().rev().find(coming).map_or(Found::Nothing, |run| Found::Coming {
            run: run.id,
            is_open: run.rebuild.is_open(prefix),
            page: run.page.subscribe(),
        })
    }

    /// Somebody waits for the directory of `prefix`: until a page came on which it did not begin, or has ended, or
    /// until [`left`](Self::left).
    pub(super) fn waits(&mut self, id: RunId, prefix: &str) -> Ticket {
        self.latest += 1;
        let ticket = self.latest;
        if let Some(run) = self.run(id) {
            run.waiting.push((ticket, prefix.to_owned()));
        }
        ticket
    }

    /// He waits no longer.
    pub(super) fn left(&mut self, id: RunId, ticket: Ticket, now: Instant) {
        if let Some(run) = self.run(id) {
            run.used_at = now;
            run.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    /// What the driver of a run is to do now. A run that is over is gone.
    pub(super) fn turn(&mut self, id: RunId, now: Instant) -> Turn {
        let stamp = self.changes.stamp();
        let Some(run) = self.run(id) else { return Turn::Over };
        if let Some(request) = run.request() {
            run.asked = Some(Asked { at: now, stamp });
            run.credit = run.credit.saturating_sub(1);
            return Turn::Ask(request);
        }
        let idle = now.saturating_duration_since(run.used_at);
        let is_done = run.next.is_none() && run.held.is_empty();
        if is_done || run.waiting.is_empty() && idle >= IDLE {
            self.end(id);
            return Turn::Over;
        }
        Turn::Rest(IDLE.saturating_sub(idle).max(Duration::from_millis(1)))
    }

    /// The page that was asked for is here.
    ///
    /// # Errors
    /// [`Disorder`]: this store's listings cannot be used, and the run is gone.
    pub(super) fn answered(&mut self, id: RunId, page: &ListPage) -> Result<(), Disorder> {
        let Some(at) = self.all.iter().position(|run| run.id == id) else { return Ok(()) };
        let taken_in = self.all[at].take_in(page, &self.changes);
        if taken_in.is_err() {
            self.all.remove(at);
        }
        taken_in
    }

    /// Ends a run: what it holds goes, and who waits for it asks for himself.
    pub(super) fn end(&mut self, id: RunId) {
        self.all.retain(|run| run.id != id);
        if self.all.is_empty() {
            // Stamps go on; no question is under way whose answer is still wanted.
            self.changes.forget();
        }
    }

    /// Ends all runs.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.changes.forget();
    }

    pub(super) fn is_any(&self) -> bool {
        !self.all.is_empty()
    }

    /// See [`Changes::note`]: what is held of the directory goes.
    pub(super) fn note(&mut self, prefix: String) {
        for run in &mut self.all {
            run.take(&prefix);
        }
        self.changes.note(prefix);
    }

    /// See [`Changes::doubt`]: whatever is held goes.
    pub(super) fn doubt(&mut self) {
        for run in &mut self.all {
            (run.entries, run.cost) = (0, 0);
            run.held.clear();
        }
        self.changes.doubt();
    }

    fn run(&mut self, id: RunId) -> Option<&mut Run<H>> {
        self.all.iter_mut().find(|run| run.id == id)
    }
}

impl<H> Run<H> {
    fn is_on_the_way(&self, prefix: &str) -> bool {
        let is_going = self.asked.is_some() || self.next.is_some() && self.credit > 0;
        is_going && (self.rebuild.is_coming(prefix) || self.rebuild.is_open(prefix))
    }

    /// The next question, if it is time for it.
    fn request(&self) -> Option<ListRequest> {
        let from = self.next.as_ref().filter(|_| self.asked.is_none() && self.credit > 0)?;
        let is_ahead = self.entries < AHEAD && self.cost < COST_MOST && self.taken >= TAKEN_LEAST;
        if self.waiting.is_empty() && !is_ahead {
            return None;
        }
        let (start_after, token) = match from.clone() {
            From::After(key) => (Some(key), None),
            From::Page(token) => (None, Some(token)),
        };
        Some(ListRequest { prefix: self.root.clone(), start_after, token, ..ListRequest::default() })
    }

    fn take_in(&mut self, page: &ListPage, changes: &Changes) -> Result<(), Disorder> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let mut done = Vec::new();
        let next = self.rebuild.take_in(page, asked, |rebuilt| done.push(rebuilt))?;
        self.next = match next {
            Next::Page(token) => Some(From::Page(token)),
            Next::After(key) => Some(From::After(key)),
            Next::End => None,
        };
        self.forget_passed();
        for rebuilt in done {
            if !changes.overtook(&rebuilt.prefix, rebuilt.asked.stamp) {
                self.hold(rebuilt);
            }
        }
        // Who sees now that his is not here waits again, or asks for himself.
        self.waiting.retain(|(_, prefix)| self.rebuild.is_open(prefix));
        self.page.send_replace(());
        Ok(())
    }

    /// Who waits for a directory has left those before it behind.
    fn forget_passed(&mut self) {
        let Some(first) = self.waiting.iter().map(|(_, prefix)| prefix).min() else { return };
        if self.entries < AHEAD && self.cost < COST_MOST / 2 {
            return;
        }
        self.held = self.held.split_off(first);
        self.entries = self.held.values().map(|rebuilt| rebuilt.entries.len()).sum();
        self.cost = self.held.values().map(cost).sum();
    }

    /// Keeps a directory, unless that is too much; but one that is waited for.
    fn hold(&mut self, rebuilt: Rebuilt) {
        let cost = cost(&rebuilt);
        if self.cost + cost > COST_MOST && !self.waiting.iter().any(|(_, prefix)| *prefix == rebuilt.prefix) {
            return;
        }
        self.cost += cost;
        self.entries += rebuilt.entries.len();
        self.held.insert(rebuilt.prefix.clone(), rebuilt);
    }

    fn take(&mut self, prefix: &str) -> Option<Rebuilt> {
        let rebuilt = self.held.remove(prefix)?;
        self.cost -= cost(&rebuilt);
        self.entries -= rebuilt.entries.len();
        Some(rebuilt)
    }
}

/// About what a directory takes in memory, in bytes.
fn cost(rebuilt: &Rebuilt) -> usize {
    const ENTRY: usize = size_of::<(Arc<str>, Dent)>() + 64;
    let names: usize = rebuilt.entries.iter().map(|(name, _)| name.len() + ENTRY).sum();
    2 * rebuilt.prefix.len() + size_of::<Rebuilt>() + names
}

#[cfg(test)]
mod tests;

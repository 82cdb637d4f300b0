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
    /// A run has it, but will not give it out: it is large, or what is gathered of it holds no more, or its end
    /// would take more pages than the run is worth.
    Unfit,
    Nothing,
}

/// Why no run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRun {
    /// Next to nothing was taken of the one before, or it was not worth its pages: another one would be no better.
    Useless,
    /// There are as many as there may be, or one that might yet come there, or all is over.
    Busy,
}

/// What a driver is to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// Ask this, and tell.
    Ask(ListRequest),
    /// Wait for somebody to need more, at most so long.
    Rest(Duration),
    /// The run is over. It was worth it, unless it had no pages left that it may ask for.
    Over { was_worth_it: bool },
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
    is_closed: bool,
}

impl<H> Default for Runs<H> {
    fn default() -> Self {
        Self { all: Vec::new(), changes: Changes::default(), latest: 0, is_closed: false }
    }
}

impl<H> Runs<H> {
    /// Begins a run below `root`, from the directory of `prefix` on. One that has been there before ends, and hands
    /// on what pages it may still ask for. The one that was used longest ago gives way if there are too many.
    ///
    /// # Errors
    /// [`NoRun`].
    pub(super) fn begin(&mut self, root: String, prefix: &str, now: Instant) -> Result<RunId, NoRun> {
        if self.is_closed || self.all.iter().any(|run| run.root == root && run.stands_before(prefix)) {
            return Err(NoRun::Busy);
        }
        let credit = self.end_passed(&root, prefix)?;
        if self.all.len() >= RUNS_MOST {
            let idle = self.all.iter().position(|run| !run.is_busy()).ok_or(NoRun::Busy)?;
            self.all.remove(idle);
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
            credit,
            used_at: now,
            page: watch::Sender::new(()),
            driver: None,
        });
        Ok(id)
    }

    /// Ends the runs below `root` that have been at `prefix`; pages that one in their place may ask for.
    fn end_passed(&mut self, root: &str, prefix: &str) -> Result<u32, NoRun> {
        let has_passed = |run: &mut Run<H>| run.root == root && run.rebuild.has_passed(prefix);
        let passed: Vec<_> = self.all.extract_if(.., has_passed).collect();
        let credit = passed.iter().map(|run| run.credit).max().unwrap_or(CREDIT);
        if credit == 0 || passed.iter().any(|run| run.taken < TAKEN_LEAST) {
            self.rest_if_none();
            return Err(NoRun::Useless);
        }
        Ok(credit)
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
            return Found::Unfit;
        }
        let holds = |asked: Asked| !self.changes.overtook(prefix, asked.stamp) && is_fresh(asked.at);
        let mut is_unfit = false;
        for run in self.all.iter().rev() {
            let opened = run.rebuild.opened(prefix);
            let is_coming = opened.map_or_else(|| run.rebuild.is_coming(prefix), holds);
            if run.is_going() && is_coming {
                return Found::Coming { run: run.id, is_open: opened.is_some(), page: run.page.subscribe() };
            }
            is_unfit |= opened.is_some();
        }
        if is_unfit { Found::Unfit } else { Found::Nothing }
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
        let Some(run) = self.run(id) else { return Turn::Over { was_worth_it: true } };
        if let Some(request) = run.request() {
            run.asked = Some(Asked { at: now, stamp });
            run.credit = run.credit.saturating_sub(1);
            return Turn::Ask(request);
        }
        let idle = now.saturating_duration_since(run.used_at);
        let is_done = run.next.is_none() && run.held.is_empty();
        if is_done || run.waiting.is_empty() && idle >= IDLE {
            let was_worth_it = run.next.is_none() || run.credit > 0;
            self.end(id);
            return Turn::Over { was_worth_it };
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
            self.rest_if_none();
        }
        taken_in
    }

    /// Ends a run: what it holds goes, and who waits for it asks for himself. Whether there was one.
    pub(super) fn end(&mut self, id: RunId) -> bool {
        let before = self.all.len();
        self.all.retain(|run| run.id != id);
        self.rest_if_none();
        self.all.len() < before
    }

    /// Ends all runs, for good: none begins any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.all.clear();
        self.rest_if_none();
    }

    /// While there is no run nobody notes what changes: nothing that was asked for before is known to hold.
    fn rest_if_none(&mut self) {
        if self.all.is_empty() {
            self.changes.doubt();
        }
    }

    /// Whether what was taken out still holds.
    pub(super) fn holds(&self, rebuilt: &Rebuilt) -> bool {
        !self.changes.overtook(&rebuilt.prefix, rebuilt.asked.stamp)
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
    fn is_going(&self) -> bool {
        self.asked.is_some() || self.next.is_some() && self.credit > 0
    }

    fn is_busy(&self) -> bool {
        self.asked.is_some() || !self.waiting.is_empty()
    }

    /// Whether the directory of `prefix` is still to come, but no page is to be asked for.
    fn stands_before(&self, prefix: &str) -> bool {
        self.next.is_some() && !self.is_going() && self.rebuild.is_coming(prefix)
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
        let is_open = |prefix: &str| {
            let opened = self.rebuild.opened(prefix);
            opened.is_some_and(|asked| !changes.overtook(prefix, asked.stamp))
        };
        self.waiting.retain(|(_, prefix)| is_open(prefix));
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

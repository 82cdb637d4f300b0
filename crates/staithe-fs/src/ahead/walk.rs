//! How somebody goes through listed directories: the pure part of reading ahead. Times are arguments; what the
//! asking yields is a value of the caller's, kept with its name.
//!
//! Invariants:
//! 1. Names are asked for ahead only after one was met right behind another in the order of the listing; at most
//!    the walk's window of them, which grows fourfold each time half of it has been gone through.
//! 2. Bodies are asked for only as long as files are opened, and all that were asked for and not opened yet take
//!    at most `limit` bytes, over all walks.
//! 3. What is kept for a name comes back by [`Walks::take_released`] once it is not wanted any more: the walk
//!    ended, nobody opened the file though the walk is far past it, or files are not opened any more.
//! 4. A directory in which the order does not hold is looked at ever more rarely, because looking copies its names.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::api::Ino;

/// The most names asked for ahead of one.
pub(super) const WINDOW_MOST: usize = 64;
/// Names of a listing that a walk remembers at once.
pub(super) const CHUNK: usize = 1024;
/// A walk that nobody went on with for so long has ended.
pub(super) const IDLE: Duration = Duration::from_secs(5);
/// How the window grows.
const GROWTH: usize = 4;
/// Readers in parallel do not come in strict order: so far behind the foremost one belongs to the walk.
const BEHIND_MOST: usize = 64;
/// So many names passed without an open are looked at, not read.
const UNOPENED_MOST: u32 = 8;
/// So many out of order, with none in order between, end a walk.
const STRAYS_MOST: u32 = 8;
/// Names out of order that the next one may be the successor of.
const RECENT_MOST: usize = 8;
/// Directories followed at once.
const WALKS_MOST: usize = 8;
/// The most names out of order between two looks at the order.
const PAUSE_MOST: u32 = 63;

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Looked up, and answered from memory.
    Known,
    /// Looked up, and the store must be asked.
    Missed,
    /// Opened for reading.
    Opened,
}

/// A name that was met, and whether it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) name: String,
    pub(super) opened: bool,
}

/// A name to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coming {
    pub(super) name: String,
    /// What its body takes in memory, if that may be asked for ahead.
    pub(super) body: Option<u64>,
}

/// What comes after a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Following {
    pub(super) names: Vec<Coming>,
    /// Nothing comes after these.
    pub(super) ends: bool,
}

/// A name to ask for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// Whether its bytes, too.
    pub(super) body: bool,
}

/// What to do about an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// See whether the name comes right after one of these, where the empty name is before the first, and
    /// answer with [`Walks::begin`] or [`Walks::disorder`].
    Order(Vec<Met>),
    /// Give [`Walks::append`] what comes after this name, and then this event again.
    More(String),
    /// Ask for these. If `more` is a name, also give [`Walks::extend`] what comes after it.
    Ask {
        wanted: Vec<Wanted>,
        more: Option<String>,
    },
}

/// What is no longer wanted of something kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Released<H> {
    /// The bytes only.
    Body(H),
    /// All of it.
    All(H),
    /// It served: the file was opened.
    Served(H),
}

/// Where something given to [`Walks::keep`] went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept<H> {
    /// With the name, until it comes back by [`Walks::take_released`].
    Whole,
    /// Kept, but of the file only the attributes are wanted by now.
    WithoutBody,
    /// Who wanted the file has it already.
    Used,
    /// Nobody waits for it any more.
    Unwanted(H),
}

#[derive(Debug)]
struct Step<H> {
    coming: Coming,
    asked: bool,
    used: bool,
    /// Bytes that its body was granted.
    granted: u64,
    kept: Vec<H>,
}

#[derive(Debug)]
struct Walk<H> {
    dir: Ino,
    /// In the order of the listing, what lies a little behind included; empty while no order was found.
    steps: VecDeque<Step<H>>,
    /// The position behind the foremost name that was met.
    reached: usize,
    /// The steps end where the listing does.
    ends: bool,
    window: usize,
    /// Files are opened, not merely looked at.
    opens: bool,
    /// Names passed since the last open.
    unopened: u32,
    strays: u32,
    /// Met out of order, newest last.
    recent: VecDeque<Met>,
    /// Names that pass unseen before the next look at the order, and how many did the last time.
    pause: u32,
    paused: u32,
    used_at: Instant,
}

/// The directories that are gone through.
#[derive(Debug)]
pub(super) struct Walks<H> {
    /// Most recently used first.
    recent: VecDeque<Walk<H>>,
    limit: u64,
    granted: u64,
    /// The window and manner last earned, in whatever directory, and when.
    lately: Option<(usize, bool, Instant)>,
    released: Vec<Released<H>>,
}

impl<H: Clone> Walks<H> {
    /// Bodies that are not opened yet take at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { recent: VecDeque::new(), limit, granted: 0, lately: None, released: Vec::new() }
    }

    /// Notes what happened to a name. O(log names), and O(window) where names are asked for.
    pub(super) fn met(&mut self, dir: Ino, name: &str, event: Event, now: Instant) -> Next {
        let Some(at) = self.recent.iter().position(|w| w.dir == dir) else {
            return if event == Event::Known { Next::Nothing } else { self.enter(dir, name, event, now) };
        };
        let Some(mut walk) = self.recent.remove(at) else { return Next::Nothing };
        let next = self.go(&mut walk, name, event, now);
        self.recent.push_front(walk);
        next
    }

    /// A directory that nobody goes through yet: begins where the last one was, if that was lately.
    fn enter(&mut self, dir: Ino, name: &str, event: Event, now: Instant) -> Next {
        let opened = event == Event::Opened;
        let mut walk = Walk::new(dir, now);
        walk.recent.push_back(Met { name: name.to_owned(), opened });
        let lately = self.lately.filter(|lately| now.saturating_duration_since(lately.2) < IDLE);
        if let Some((window, opens, _)) = lately {
            // Bodies must be earned in each directory anew.
            walk.window = if opens { 0 } else { window / GROWTH };
        }
        self.recent.push_front(walk);
        while self.recent.len() > WALKS_MOST {
            let Some(mut oldest) = self.recent.pop_back() else { break };
            self.end(&mut oldest);
        }
        lately.map_or(Next::Nothing, |(_, opened, _)| Next::Order(vec![Met { name: String::new(), opened }]))
    }

    fn go(&mut self, walk: &mut Walk<H>, name: &str, event: Event, now: Instant) -> Next {
        if now.saturating_duration_since(walk.used_at) >= IDLE {
            self.end(walk);
        }
        if let Ok(at) = walk.steps.binary_search_by(|step| step.coming.name.as_str().cmp(name))
            && (at < walk.reached || walk.is_next(at, event))
        {
            (walk.used_at, walk.strays) = (now, 0);
            self.apply(walk, at, event);
            // An open of a name that was looked up before makes room for other bodies.
            let moves = at >= walk.reached || event == Event::Opened;
            return if moves { self.advance(walk, walk.reached.max(at + 1), now) } else { Next::Nothing };
        }
        if let Some(last) = walk.steps.back().filter(|_| walk.reached == walk.steps.len() && !walk.ends)
            && last.coming.name.as_str() < name
        {
            return Next::More(last.coming.name.clone());
        }
        if event == Event::Known { Next::Nothing } else { self.stray(walk, name, event, now) }
    }

    /// The foremost name is the one before `reached`.
    fn advance(&mut self, walk: &mut Walk<H>, reached: usize, now: Instant) -> Next {
        walk.reached = reached;
        while walk.reached > BEHIND_MOST {
            let Some(step) = walk.steps.pop_front() else { break };
            walk.reached -= 1;
            self.drop_step(step);
        }
        let wanted = self.top_up(walk, now);
        let is_short = !walk.ends && walk.steps.len() - walk.reached < WINDOW_MOST;
        let more = if is_short { walk.steps.back().map(|s| s.coming.name.clone()) } else { None };
        Next::Ask { wanted, more }
    }

    fn apply(&mut self, walk: &mut Walk<H>, at: usize, event: Event) {
        let is_new = at >= walk.reached;
        let Some(step) = walk.steps.get_mut(at) else { return };
        if event == Event::Opened {
            (walk.opens, walk.unopened) = (true, 0);
            step.used = true;
            self.released.extend(step.kept.drain(..).map(Released::Served));
            self.granted -= std::mem::take(&mut step.granted);
        } else if is_new {
            walk.unopened += 1;
            if walk.opens && walk.unopened > UNOPENED_MOST {
                walk.opens = false;
                self.drop_bodies(walk);
            }
        }
    }

    /// Names to ask for, once half of what was asked for is gone through.
    fn top_up(&mut self, walk: &mut Walk<H>, now: Instant) -> Vec<Wanted> {
        let reached = walk.reached;
        let ahead = walk.steps.iter().skip(reached).take_while(|s| s.asked).count();
        if ahead * 2 > walk.window {
            return Vec::new();
        }
        walk.window = (walk.window * GROWTH).clamp(GROWTH, WINDOW_MOST);
        self.lately = Some((walk.window, walk.opens, now));
        let mut wanted = Vec::new();
        for step in walk.steps.iter_mut().skip(reached).take(walk.window).filter(|s| !s.asked) {
            let body = step.coming.body.filter(|_| walk.opens);
            if let Some(bytes) = body {
                if self.granted + bytes > self.limit {
                    break;
                }
                (step.granted, self.granted) = (bytes, self.granted + bytes);
            }
            step.asked = true;
            wanted.push(Wanted { name: step.coming.name.clone(), body: body.is_some() });
        }
        wanted
    }

    fn stray(&mut self, walk: &mut Walk<H>, name: &str, event: Event, now: Instant) -> Next {
        let opened = event == Event::Opened;
        if opened && let Some(met) = walk.recent.iter_mut().find(|met| met.name == name) {
            // Looked up a moment ago.
            met.opened = true;
            return Next::Nothing;
        }
        let recent: Vec<_> = walk.recent.iter().cloned().collect();
        walk.recent.push_back(Met { name: name.to_owned(), opened });
        if walk.recent.len() > RECENT_MOST {
            walk.recent.pop_front();
        }
        if !walk.steps.is_empty() {
            walk.strays += 1;
            let is_over = walk.ends && walk.reached == walk.steps.len();
            if walk.strays < STRAYS_MOST && !is_over {
                return Next::Nothing;
            }
            self.lately = None;
            self.end(walk);
        }
        walk.used_at = now;
        if walk.pause > 0 || recent.is_empty() {
            walk.pause = walk.pause.saturating_sub(1);
            return Next::Nothing;
        }
        Next::Order(recent)
    }

    /// `event`'s name was in order: these come after it. `opened` says whether the one before it was opened.
    /// Answers with what to ask for.
    pub(super) fn begin(
        &mut self,
        dir: Ino,
        following: Following,
        event: Event,
        opened: bool,
        now: Instant,
    ) -> Vec<Wanted> {
        let Some(at) = self.recent.iter().position(|w| w.dir == dir) else { return Vec::new() };
        let Some(mut walk) = self.recent.remove(at) else { return Vec::new() };
        self.drop_steps(&mut walk);
        walk.recent.clear();
        (walk.pause, walk.paused, walk.strays) = (0, 0, 0);
        walk.opens = opened || event == Event::Opened;
        walk.unopened = u32::from(event != Event::Opened);
        walk.add(following);
        let wanted = self.top_up(&mut walk, now);
        self.recent.push_front(walk);
        wanted
    }

    /// What follows the names that a walk has; what it should ask for with them.
    pub(super) fn extend(&mut self, dir: Ino, following: Following, now: Instant) -> Vec<Wanted> {
        let Some(at) = self.recent.iter().position(|w| w.dir == dir) else { return Vec::new() };
        let Some(mut walk) = self.recent.remove(at) else { return Vec::new() };
        walk.add(following);
        let wanted = self.top_up(&mut walk, now);
        self.recent.push_front(walk);
        wanted
    }

    /// As [`extend`](Self::extend), and asks for nothing yet: the next name is about to be met.
    pub(super) fn append(&mut self, dir: Ino, following: Following) {
        if let Some(walk) = self.recent.iter_mut().find(|w| w.dir == dir) {
            walk.add(following);
        }
    }

    /// If `name` is what a walk comes to next: the name before it.
    pub(super) fn before_next(&self, dir: Ino, name: &str) -> Option<&str> {
        let walk = self.recent.iter().find(|w| w.dir == dir)?;
        let before = walk.steps.get(walk.reached.checked_sub(1)?)?.coming.name.as_str();
        let is_next = match walk.steps.get(walk.reached) {
            Some(next) => next.coming.name == name,
            None => before < name,
        };
        is_next.then_some(before)
    }

    /// A new listing says what comes from the next name on.
    pub(super) fn listed(&mut self, dir: Ino, following: Following) {
        let Some(walk) = self.recent.iter_mut().find(|w| w.dir == dir) else { return };
        let reached = walk.reached;
        for step in walk.steps.iter_mut().skip(reached).filter(|s| s.kept.is_empty()) {
            // The last listing was out of date by the time this would have been asked for.
            step.asked = false;
            self.granted -= std::mem::take(&mut step.granted);
        }
        walk.add(following);
    }

    /// The order did not hold.
    pub(super) fn disorder(&mut self, dir: Ino) {
        self.lately = None;
        if let Some(walk) = self.recent.iter_mut().find(|w| w.dir == dir) {
            walk.window = 0;
            walk.paused = (walk.paused * 2 + 1).min(PAUSE_MOST);
            walk.pause = walk.paused;
        }
    }

    /// Keeps something with a name that was asked for.
    pub(super) fn keep(&mut self, dir: Ino, name: &str, what: H) -> Kept<H> {
        let walk = self.recent.iter_mut().find(|w| w.dir == dir);
        let step = walk.and_then(|w| {
            let at = w.steps.binary_search_by(|step| step.coming.name.as_str().cmp(name)).ok()?;
            w.steps.get_mut(at)
        });
        match step {
            Some(step) if step.used => Kept::Used,
            Some(step) if step.asked => {
                step.kept.push(what);
                if step.granted > 0 { Kept::Whole } else { Kept::WithoutBody }
            }
            _ => Kept::Unwanted(what),
        }
    }

    /// Ends the walks that nobody went on with; whether any is left that keeps something.
    pub(super) fn sweep(&mut self, now: Instant) -> bool {
        let (idle, going): (VecDeque<_>, _) = std::mem::take(&mut self.recent)
            .into_iter()
            .partition(|w| now.saturating_duration_since(w.used_at) >= IDLE);
        self.recent = going;
        for mut walk in idle {
            self.end(&mut walk);
        }
        self.recent.iter().any(|w| !w.steps.is_empty())
    }

    /// Ends the walk of a directory, if there is one.
    pub(super) fn leave(&mut self, dir: Ino) {
        let Some(at) = self.recent.iter().position(|w| w.dir == dir) else { return };
        if let Some(mut walk) = self.recent.remove(at) {
            self.end(&mut walk);
        }
    }

    /// Ends all walks.
    pub(super) fn clear(&mut self) {
        for mut walk in std::mem::take(&mut self.recent) {
            self.end(&mut walk);
        }
    }

    /// Whether any walk has found an order.
    pub(super) fn is_any(&self) -> bool {
        self.recent.iter().any(|w| !w.steps.is_empty())
    }

    /// What is not wanted any more, since the last call.
    pub(super) fn take_released(&mut self) -> Vec<Released<H>> {
        std::mem::take(&mut self.released)
    }

    fn end(&mut self, walk: &mut Walk<H>) {
        self.drop_steps(walk);
        (walk.window, walk.opens, walk.unopened, walk.strays) = (0, false, 0, 0);
    }

    fn drop_steps(&mut self, walk: &mut Walk<H>) {
        for step in std::mem::take(&mut walk.steps) {
            self.drop_step(step);
        }
        (walk.reached, walk.ends) = (0, false);
    }

    fn drop_step(&mut self, step: Step<H>) {
        self.granted -= step.granted;
        self.released.extend(step.kept.into_iter().map(Released::All));
    }

    /// The bytes of files to come are not wanted any more; their attributes are.
    fn drop_bodies(&mut self, walk: &mut Walk<H>) {
        for step in walk.steps.iter_mut().filter(|s| s.granted > 0) {
            self.granted -= std::mem::take(&mut step.granted);
            self.released.extend(step.kept.iter().cloned().map(Released::Body));
        }
    }
}

impl<H> Walk<H> {
    fn new(dir: Ino, now: Instant) -> Self {
        Self {
            dir,
            steps: VecDeque::new(),
            reached: 0,
            ends: false,
            window: 0,
            opens: false,
            unopened: 0,
            strays: 0,
            recent: VecDeque::new(),
            pause: 0,
            paused: 0,
            used_at: now,
        }
    }

    /// Whether a name ahead is in order: all between were asked for, or nobody opens them.
    fn is_next(&self, at: usize, event: Event) -> bool {
        let is_passed = |s: &Step<H>| s.asked || (event == Event::Opened && s.coming.body.is_none());
        self.steps.range(self.reached..at).all(is_passed)
    }

    fn add(&mut self, following: Following) {
        self.ends = following.ends;
        let last = self.steps.back().map(|s| s.coming.name.clone()).unwrap_or_default();
        let new = following.names.into_iter().filter(|coming| coming.name > last);
        let step = |coming| Step { coming, asked: false, used: false, granted: 0, kept: Vec::new() };
        self.steps.extend(new.map(step));
    }
}

#[cfg(test)]
mod tests;

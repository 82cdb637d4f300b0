//! Whether somebody goes through a tree: the pure part. Times are arguments.
//!
//! Who walks lists a directory, and shortly after it its subdirectories in their order, or at least without leaving
//! many out: depth first or breadth first, alone or with helpers. Each such step counts, also for the directories
//! below; a walk is seen after [`STEPS`] of them, one of which went from a directory to the next one beside it.
//!
//! Invariants:
//! 1. A directory that is listed long after the one above it, or by itself, is no step.
//! 2. A jump within a directory begins the count anew there.
//! 3. Directories, and the names of each, are remembered up to a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Ino;

/// Steps that make a walk.
const STEPS: u32 = 3;
/// The most steps that are asked for after walks that were not worth it.
const STEPS_MOST: u32 = 192;
/// So long after a step comes the next one.
const SOON: Duration = Duration::from_secs(5);
/// Subdirectories that may be left out, or be with a helper who is slower.
const LEFT_OUT: usize = 8;
/// Directories with subdirectories that are remembered.
const LEVELS_MOST: usize = 32;
/// Subdirectories of one that are remembered.
const NAMES_MOST: usize = 2048;

/// A directory that was listed, and has subdirectories.
#[derive(Debug)]
struct Level {
    dir: Ino,
    above: Option<Ino>,
    /// In their order.
    names: Vec<Arc<str>>,
    /// There are more behind those.
    is_cut: bool,
    /// Behind the foremost one that was listed.
    reached: usize,
    /// The foremost one, once it lies behind the names that are remembered.
    foremost: Option<Arc<str>>,
    /// Steps on the way to here, and here.
    inherited: u32,
    steps: u32,
    /// A walk was seen here.
    is_walked: bool,
    touched: Instant,
}

impl Level {
    fn total(&self) -> u32 {
        self.inherited + self.steps
    }

    /// Notes that a subdirectory is listed; whether it went on from one beside it.
    fn step(&mut self, name: &str) -> bool {
        let at = match self.names.binary_search_by(|n| (**n).cmp(name)) {
            Ok(at) => at,
            Err(at) if self.is_cut && at == self.names.len() => {
                let goes_on = self.reached > 0 && self.foremost.as_deref().is_none_or(|f| f < name);
                self.reached = at;
                self.steps += u32::from(goes_on);
                self.foremost = Some(Arc::from(name));
                return goes_on;
            }
            Err(_) => return false,
        };
        let (is_first, is_behind) = (self.reached == 0, at < self.reached);
        if is_behind {
            return false;
        }
        let is_near = at < self.reached + LEFT_OUT;
        self.reached = at + 1;
        if is_near {
            self.steps += 1;
            return !is_first;
        }
        (self.steps, self.inherited, self.is_walked) = (0, 0, false);
        false
    }
}

/// The directories that were listed lately.
#[derive(Debug)]
pub(super) struct Recogniser {
    /// Touched last at the end.
    levels: VecDeque<Level>,
    /// Steps that make a walk, by what the last ones were worth.
    needed: u32,
}

impl Default for Recogniser {
    fn default() -> Self {
        Self { levels: VecDeque::new(), needed: STEPS }
    }
}

impl Recogniser {
    /// The directory `name` in `above` begins to be listed. If that is part of a walk: the topmost directory of it.
    /// O(levels + log names).
    pub(super) fn listed(&mut self, above: Ino, name: &str, now: Instant) -> Option<Ino> {
        self.levels.retain(|level| now.saturating_duration_since(level.touched) <= SOON);
        let at = self.find(above)?;
        let level = &mut self.levels[at];
        let goes_on = level.step(name);
        if goes_on && level.total() >= self.needed {
            level.is_walked = true;
        }
        let is_walked = level.is_walked;
        let top = self.touch_upwards(at, is_walked, now);
        is_walked.then_some(top)
    }

    /// A page of a directory came in, with these subdirectories in their order. O(names).
    pub(super) fn noted(
        &mut self,
        dir: Ino,
        above: Option<Ino>,
        names: impl Iterator<Item = Arc<str>>,
        is_first: bool,
        now: Instant,
    ) {
        if is_first {
            self.levels.retain(|level| level.dir != dir);
        }
        let mut names = names.peekable();
        if names.peek().is_none() {
            return;
        }
        let at = self.find(dir).unwrap_or_else(|| {
            let from = above.and_then(|above| self.find(above)).map(|at| &self.levels[at]);
            let (inherited, is_walked) = from.map_or((0, false), |from| (from.total(), from.is_walked));
            let level = Level {
                dir,
                above,
                names: Vec::new(),
                is_cut: false,
                reached: 0,
                foremost: None,
                inherited,
                steps: 0,
                is_walked,
                touched: now,
            };
            self.levels.push_back(level);
            if self.levels.len() > LEVELS_MOST {
                self.levels.pop_front();
            }
            self.levels.len() - 1
        });
        let level = &mut self.levels[at];
        level.touched = now;
        level.names.extend(names.by_ref().take(NAMES_MOST.saturating_sub(level.names.len())));
        level.is_cut |= names.next().is_some();
    }

    /// A walk was worth the pages that were asked for it.
    pub(super) fn was_of_use(&mut self) {
        self.needed = STEPS;
    }

    /// The walk below `top` was not worth the pages that were asked for it: it is none, until it is seen again.
    pub(super) fn was_useless(&mut self, top: Ino) {
        self.needed = (self.needed * 2).min(STEPS_MOST);
        for at in 0..self.levels.len() {
            if self.is_below(at, top) {
                let level = &mut self.levels[at];
                (level.is_walked, level.inherited, level.steps) = (false, 0, 0);
            }
        }
    }

    fn is_below(&self, at: usize, top: Ino) -> bool {
        let mut next = Some(self.levels[at].dir);
        // Whatever is said of what is above what, this ends.
        for _ in 0..=self.levels.len() {
            match next {
                Some(dir) if dir != top => {
                    next = self.find(dir).and_then(|at| self.levels[at].above);
                }
                found => return found.is_some(),
            }
        }
        false
    }

    fn find(&self, dir: Ino) -> Option<usize> {
        self.levels.iter().position(|level| level.dir == dir)
    }

    /// Says that a level and those above it are in use, and part of a walk if `walked`; the topmost of them.
    fn touch_upwards(&mut self, at: usize, walked: bool, now: Instant) -> Ino {
        let mut top = self.levels[at].dir;
        let mut next = Some(top);
        // A level goes to the end once: whatever is said of what is above what, this ends.
        for _ in 0..self.levels.len() {
            let Some(level) = next.and_then(|dir| self.find(dir)).and_then(|at| self.levels.remove(at))
            else {
                break;
            };
            (top, next) = (level.dir, level.above);
            let is_walked = level.is_walked || walked;
            self.levels.push_back(Level { touched: now, is_walked, ..level });
        }
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: Ino = Ino::ROOT;

    fn names(of: &[&str]) -> Vec<Arc<str>> {
        of.iter().map(|name| Arc::from(*name)).collect()
    }

    fn noted(seen: &mut Recogniser, dir: Ino, above: Option<Ino>, of: &[&str], now: Instant) {
        seen.noted(dir, above, names(of).into_iter(), true, now);
    }

    /// A directory with subdirectories `a`, `b`, ... was listed.
    fn top(count: u8, now: Instant) -> Recogniser {
        let mut seen = Recogniser::default();
        let all: Vec<String> = (0..count).map(|i| char::from(b'a' + i).to_string()).collect();
        noted(&mut seen, TOP, None, &all.iter().map(String::as_str).collect::<Vec<_>>(), now);
        seen
    }

    fn lists(seen: &mut Recogniser, of: &str, now: Instant) -> Vec<bool> {
        of.chars().map(|c| seen.listed(TOP, &c.to_string(), now).is_some()).collect()
    }

    #[test]
    fn the_third_directory_in_order_is_a_walk() {
        let now = Instant::now();
        assert_eq!(lists(&mut top(9, now), "abcd", now), [false, false, true, true]);
        assert_eq!(lists(&mut top(9, now), "ab", now), [false, false], "two by hand");
    }

    #[test]
    fn helpers_in_parallel_and_directories_left_out_are_one_walk() {
        let now = Instant::now();
        assert_eq!(lists(&mut top(9, now), "abdce", now), [false, false, true, true, true]);
        assert_eq!(lists(&mut top(9, now), "bacfe", now), [false, false, false, true, true]);
    }

    #[test]
    fn other_orders_are_none() {
        let now = Instant::now();
        assert!(!lists(&mut top(20, now), "tsrqponm", now).contains(&true), "backwards");
        assert!(!lists(&mut top(26, now), "aktaktak", now).contains(&true), "by leaps");
        assert!(!lists(&mut top(9, now), "aaaa", now).contains(&true), "the same again");
        let mut seen = Recogniser::default();
        assert!(seen.listed(TOP, "a", now).is_none(), "nothing is known of the one above");
    }

    #[test]
    fn what_comes_late_is_no_step() {
        let start = Instant::now();
        let mut seen = top(9, start);
        lists(&mut seen, "ab", start);
        assert_eq!(lists(&mut seen, "cde", start + SOON * 2), [false; 3]);
        let mut seen = top(20, start);
        let slowly = (0..9u32).map(|i| start + SOON * i / 2);
        let steps: Vec<_> =
            "abcdefghi".chars().zip(slowly).map(|(c, at)| lists(&mut seen, &c.to_string(), at)[0]).collect();
        assert!(steps[2..].iter().all(|walk| *walk), "each is soon after the one before");
    }

    #[test]
    fn depth_first_the_walk_is_of_the_topmost_directory() {
        let now = Instant::now();
        let (a, b) = (Ino(2), Ino(3));
        let mut seen = top(3, now);
        assert_eq!(seen.listed(TOP, "a", now), None);
        noted(&mut seen, a, Some(TOP), &["0", "1", "2"], now);
        assert_eq!(seen.listed(a, "0", now), None);
        assert_eq!(seen.listed(a, "1", now), Some(TOP));
        assert_eq!(seen.listed(a, "2", now), Some(TOP));
        assert_eq!(seen.listed(TOP, "b", now), Some(TOP), "it goes on above");
        noted(&mut seen, b, Some(TOP), &["0"], now);
        assert_eq!(seen.listed(b, "0", now), Some(TOP));
    }

    #[test]
    fn going_down_alone_is_no_walk() {
        let now = Instant::now();
        let mut seen = Recogniser::default();
        for depth in 1..20 {
            noted(&mut seen, Ino(depth), depth.checked_sub(1).map(Ino), &["only"], now);
            assert_eq!(seen.listed(Ino(depth), "only", now), None);
        }
    }

    #[test]
    fn after_walks_that_were_not_worth_it_more_is_asked_for() {
        let now = Instant::now();
        let mut seen = top(26, now);
        assert!(lists(&mut seen, "abc", now)[2]);
        seen.was_useless(TOP);
        assert_eq!(lists(&mut seen, "defghi", now), [false, false, false, false, false, true]);
        seen.was_of_use();
        let mut seen = Recogniser { needed: seen.needed, ..top(9, now) };
        assert!(lists(&mut seen, "abc", now)[2]);
    }

    #[test]
    fn a_walk_that_was_not_worth_it_ends_no_other_one() {
        let now = Instant::now();
        let (other, below) = (Ino(7), Ino(8));
        let mut seen = top(9, now);
        noted(&mut seen, other, None, &["a", "b", "c", "d", "e"], now);
        assert!(lists(&mut seen, "abc", now)[2]);
        let walks = ["a", "b", "c"].map(|name| seen.listed(other, name, now));
        assert_eq!(walks, [None, None, Some(other)]);
        noted(&mut seen, below, Some(other), &["x"], now);
        seen.was_useless(other);
        assert_eq!(seen.listed(other, "d", now), None);
        assert_eq!(seen.listed(below, "x", now), None);
        assert_eq!(seen.listed(TOP, "d", now), Some(TOP));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut seen = Recogniser::default();
        let many: Vec<Arc<str>> = (0..NAMES_MOST + 10).map(|i| Arc::from(format!("{i:06}"))).collect();
        for dir in 1..100 {
            seen.noted(Ino(dir), None, many.iter().cloned(), true, now);
        }
        assert_eq!(seen.levels.len(), LEVELS_MOST);
        assert!(seen.levels.iter().all(|level| level.names.len() == NAMES_MOST && level.is_cut));
        // Behind the names that are known, forward is in order.
        let walked: Vec<_> =
            many[NAMES_MOST - 3..].iter().map(|name| seen.listed(Ino(99), name, now).is_some()).collect();
        assert!(walked[5..].iter().all(|walk| *walk), "{walked:?}");
    }
}

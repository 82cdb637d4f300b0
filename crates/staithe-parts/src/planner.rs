//! What to fetch next: adaptive read-ahead over one object. Pure: no clock, no I/O, no locks.
//!
//! The planner is told of every read ([`Planner::note`]) and asked for ranges ([`Planner::plan`]). It keeps no
//! record of what was fetched: that is an argument, so an abandoned fetch is planned again by itself.
//!
//! Invariants:
//! 1. A planned range is non-empty, within the object, and disjoint from what is in flight, present, or planned
//!    in the same answer.
//! 2. Read-ahead lies ahead of the reads: a byte behind the reader is planned only if a read waits for it.
//!    Hence a sequential read of S bytes plans exactly S bytes plus what is ahead of its end.
//! 3. A stream's read-ahead is at most [`PlannerConfig::ahead_ratio`] times the bytes read in it.
//!
//! The doubling window follows Linux's on-demand readahead (Fengguang Wu et al., "On the design of a new Linux
//! readahead framework", 2008); several streams a file follow the same source's interleaved reads.

use std::ops::Range;

use crate::spans::Spans;
use crate::stream::Stream;

/// How to read ahead. All sizes in bytes. Any values are safe: zeroes switch a feature off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// The smallest read-ahead request; smaller only next to a waiting read, at the end of the object, or when
    /// memory is short. Default 1 MiB: an object store charges by the request.
    pub min_part: u64,
    /// The largest request. Default 8 MiB. Parts grow from `min_part` to it with the window.
    pub max_part: u64,
    /// The most read-ahead of one stream. Default 64 MiB. Zero: fetch only what is asked.
    pub max_window: u64,
    /// The read-ahead beyond which a window grows only when a read finds bytes missing. Default 32 MiB: who never
    /// waits needs no more, and bytes that lie for a short time are still in the processor's caches when they are read.
    pub ample_window: u64,
    /// Read-ahead that a new stream gets before it proves sequential. Default 0: a first or random read fetches
    /// only what was asked.
    pub initial_window: u64,
    /// Read-ahead is at most this many times the bytes that were read in sequence. Default 8.
    pub ahead_ratio: u64,
    /// Bytes already read that are kept for a seek back. Default 1 MiB; less when memory is short.
    pub back_window: u64,
    /// How far behind the newest read an older one may arrive and still be of the same stream. Default 4 MiB:
    /// a kernel with several readahead requests in flight delivers them in any order.
    pub reorder_window: u64,
    /// How far forward a read may skip and still be of the same stream. Default 256 KiB. A read within the
    /// current window always is.
    pub skip_gap: u64,
    /// How many streams are followed in one object. Default 4, at least 1.
    pub max_streams: usize,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        Self {
            min_part: MIB,
            max_part: 8 * MIB,
            max_window: 64 * MIB,
            ample_window: 32 * MIB,
            initial_window: 0,
            ahead_ratio: 8,
            back_window: MIB,
            reorder_window: 4 * MIB,
            skip_gap: 256 * KIB,
            max_streams: 4,
        }
    }
}

/// How a stream moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pattern {
    /// Nothing recognised yet: no read-ahead beyond [`PlannerConfig::initial_window`].
    Random,
    /// Forward, possibly out of order within [`PlannerConfig::reorder_window`].
    Sequential,
    /// Backward and contiguous.
    Reverse,
    /// Reads of one length, `stride` bytes from start to start (negative: backward).
    Strided {
        /// Signed distance between the starts of two reads, in bytes.
        stride: i64,
    },
}

/// A range to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Non-empty, in bytes from the start of the object.
    pub range: Range<u64>,
    /// How many bytes from the start of `range` a waiting read needs; 0 for pure read-ahead.
    pub demanded: u64,
}

/// The read-ahead policy of one object.
#[derive(Clone, Debug)]
pub struct Planner {
    config: PlannerConfig,
    size: u64,
    /// Most recently used first; never more than `max_streams`.
    streams: Vec<Stream>,
    /// The last three reads, newest first, to recognise strides by.
    recent: Vec<Range<u64>>,
}

impl Planner {
    /// A planner for an object of `size` bytes.
    pub fn new(size: u64, config: PlannerConfig) -> Self {
        Self { config, size, streams: Vec::new(), recent: Vec::new() }
    }

    /// The configuration.
    pub fn config(&self) -> &PlannerConfig {
        &self.config
    }

    /// Forgets every read, as after a reset.
    pub fn forget(&mut self) {
        self.streams.clear();
        self.recent.clear();
    }

    /// How the latest stream moves, and its window in bytes. `None` before the first read.
    pub fn current(&self) -> Option<(Pattern, u64)> {
        self.streams.first().map(|s| (s.pattern, s.window))
    }

    /// Takes in a read that finds bytes missing. Clamped to the object; an empty read changes nothing.
    /// O(`max_streams`).
    pub fn note(&mut self, read: &Range<u64>) {
        self.note_with(read, self.config.max_window);
    }

    /// As [`note`](Self::note), for a read that finds all of its bytes present.
    pub fn note_hit(&mut self, read: &Range<u64>) {
        self.note_with(read, self.config.ample_window.min(self.config.max_window));
    }

    fn note_with(&mut self, read: &Range<u64>, most: u64) {
        let read = read.start.min(self.size)..read.end.min(self.size);
        if read.is_empty() {
            return;
        }
        let strided = self.stride_of(&read);
        self.recent.insert(0, read.clone());
        self.recent.truncate(3);
        let nearest = (0..self.streams.len())
            .filter_map(|i| self.streams[i].distance(&read, &self.config).map(|d| (d, i)))
            .min();
        if let Some((_, i)) = nearest {
            self.streams[i].advance(&read, &self.config, most);
            self.streams[..=i].rotate_right(1);
        } else {
            self.begin(&read, strided);
        }
        self.age(read.end - read.start);
    }

    fn begin(&mut self, read: &Range<u64>, strided: Option<i64>) {
        // A seek: what other streams have in store is worth less now.
        for stream in &mut self.streams {
            stream.window /= 2;
        }
        let stream = if let Some(stride) = strided {
            let seen: Vec<_> = self.recent.iter().skip(1).map(|r| r.end).collect();
            self.streams.retain(|s| !seen.contains(&s.high));
            Stream::strided(read, stride, 1 + seen.len() as u64, &self.config)
        } else {
            Stream::begin(read, &self.config)
        };
        self.streams.insert(0, stream);
        self.streams.truncate(self.config.max_streams.max(1));
    }

    /// The stride that `read` continues: the same step twice before, and the same length.
    fn stride_of(&self, read: &Range<u64>) -> Option<i64> {
        let [newer, older] = self.recent.get(..2)? else { return None };
        let step = |from: u64, to: u64| i64::try_from(i128::from(to) - i128::from(from)).ok();
        let stride = step(newer.start, read.start)?;
        let len = read.end - read.start;
        let steady = step(older.start, newer.start)? == stride
            && [newer, older].iter().all(|r| r.end - r.start == len);
        (steady && stride.unsigned_abs() > len).then_some(stride)
    }

    /// Retires streams that others have outrun.
    fn age(&mut self, len: u64) {
        let patience = self.config.max_window.max(self.config.min_part);
        for stream in self.streams.iter_mut().skip(1) {
            stream.idle = stream.idle.saturating_add(len);
        }
        self.streams.retain(|s| s.idle <= patience);
    }

    /// Whether one stream may still come to read all of `range`.
    pub(crate) fn is_interested(&self, range: &Range<u64>) -> bool {
        self.streams
            .iter()
            .map(|s| s.interest(&self.config))
            .any(|i| i.start <= range.start && range.end <= i.end)
    }

    /// Where some stream may still come to read; bytes elsewhere may be given up.
    pub fn interests(&self) -> Spans {
        self.streams.iter().map(|s| s.interest(&self.config)).collect()
    }

    /// What to fetch now, most urgent first: what waiting reads need, then read-ahead, nearest first.
    ///
    /// `have` is what is present or in flight. `demands` are the reads that wait, oldest first. `cap` bounds the
    /// read-ahead of each stream, in bytes: pass the memory that is left. O(streams + demands + answers), each
    /// times log of the number of spans in `have`.
    pub fn plan(&self, have: &Spans, demands: &[Range<u64>], cap: u64) -> Vec<Planned> {
        let mut taken = have.clone();
        let mut out = Vec::new();
        let clamped = |r: &Range<u64>| r.start.min(self.size)..r.end.min(self.size);
        for demand in demands {
            for gap in taken.gaps(&clamped(demand)) {
                let tail = self.tail(&taken, gap.end, cap);
                let part = self.part(tail.end - gap.start, tail.run, u64::MAX);
                taken.insert(self.cut(gap.start..tail.end, gap.end, tail.bounded, part, &mut out));
            }
        }
        for stream in &self.streams {
            for ahead in stream.ahead(cap, self.size) {
                for gap in taken.gaps(&ahead) {
                    taken.insert(self.cut_ahead(stream, gap, &ahead, cap, &mut out));
                }
            }
        }
        out
    }

    /// The read-ahead that would directly follow a demand that ends at `from`, if a stream is there.
    fn tail(&self, taken: &Spans, from: u64, cap: u64) -> Tail {
        let forward = |s: &&Stream| matches!(s.pattern, Pattern::Random | Pattern::Sequential);
        let follows = self.streams.iter().filter(forward).find(|s| s.high.min(self.size) == from);
        let stream = follows.and_then(|s| s.ahead(cap, self.size).pop().map(|ahead| (ahead, s.run)));
        let Some((ahead, run)) = stream else {
            return Tail { end: from, bounded: true, run: u64::MAX };
        };
        let free = taken.gaps(&ahead).into_iter().next().filter(|gap| gap.start == from);
        let end = free.map_or(from, |gap| gap.end);
        Tail { end, bounded: end < ahead.end || end == self.size, run }
    }

    /// Cuts one gap of a stream's read-ahead into requests, the nearest to the reader first.
    fn cut_ahead(
        &self,
        stream: &Stream,
        gap: Range<u64>,
        ahead: &Range<u64>,
        cap: u64,
        out: &mut Vec<Planned>,
    ) -> Range<u64> {
        let part = self.part(stream.window.min(cap), stream.run, cap);
        let need = gap.start;
        match stream.pattern {
            Pattern::Strided { .. } => self.cut(gap, need, true, part, out),
            Pattern::Reverse => {
                let bounded = gap.start > ahead.start || gap.start == 0;
                let whole = (gap.end - gap.start) / part * part;
                let from = if bounded { gap.start } else { gap.end - whole };
                let first = out.len();
                let covered = self.cut(from..gap.end, from, true, part, out);
                out[first..].reverse();
                covered
            }
            Pattern::Random | Pattern::Sequential => {
                let bounded = gap.end < ahead.end || ahead.end == self.size;
                self.cut(gap, need, bounded, part, out)
            }
        }
    }

    /// The size of a request for a stretch of `len` bytes in a stream that has read `run`: a quarter of it, so that
    /// four run side by side. The reader of a young stream will soon wait for the first of them, on a store that gives
    /// each connection its share: then up to sixteen.
    fn part(&self, len: u64, run: u64, cap: u64) -> u64 {
        let max = self.config.max_part.max(1);
        let part = (len / 4).min(run / 8).max(len / 16);
        part.clamp(self.config.min_part.clamp(1, max), max).min((cap / 2).max(1))
    }

    /// Cuts `run`, demanded up to `need`, into requests of `part` bytes; answers the stretch that they cover.
    /// An end that is neither needed, nor `bounded` (nothing may follow it later), waits until it fills a part.
    fn cut(
        &self,
        run: Range<u64>,
        need: u64,
        bounded: bool,
        part: u64,
        out: &mut Vec<Planned>,
    ) -> Range<u64> {
        let mut at = run.start;
        while at < run.end {
            let end = at.saturating_add(part).min(run.end);
            if at >= need && end - at < part && !bounded {
                break;
            }
            // A sliver after this request rides along with it.
            let end = if run.end - end < self.config.min_part.min(part) / 2 && (bounded || run.end <= need) {
                run.end
            } else {
                end
            };
            out.push(Planned { range: at..end, demanded: need.clamp(at, end) - at });
            at = end;
        }
        run.start..at
    }
}

/// Read-ahead behind a demand: where it ends, whether something ends it for good, and what its stream has read.
struct Tail {
    end: u64,
    bounded: bool,
    run: u64,
}

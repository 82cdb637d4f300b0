//! The bytes that are here: parts by offset, what of them was read, and what is kept for a seek back.
//!
//! Invariants:
//! 1. Parts are non-empty and never overlap.
//! 2. `unread` is a subset of the bytes of the parts.
//! 3. A part is *retained* (has a stamp) if and only if none of its bytes is unread; `retained` lists every
//!    retained part, oldest first, and `retained_bytes` is their sum. Stale entries name a stamp that is gone.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use crate::slices::ReadSlices;
use crate::spans::Spans;

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    /// When the part was read to its end, counted in such events.
    stamp: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    parts: BTreeMap<u64, Part>,
    unread: Spans,
    retained: VecDeque<(u64, u64)>,
    retained_bytes: u64,
    bytes: u64,
    stamps: u64,
}

/// A part that left the shelf. Its buffer is dropped by the caller, outside of any lock.
pub(crate) type Taken = (Range<u64>, Bytes);

impl Shelf {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn unread(&self) -> &Spans {
        &self.unread
    }

    /// Puts a part on the shelf. The caller has trimmed it: it overlaps nothing here.
    pub(crate) fn insert(&mut self, offset: u64, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let range = span(offset, &bytes);
        self.bytes += range.end - range.start;
        self.unread.insert(range);
        self.parts.insert(offset, Part { bytes, stamp: None });
    }

    /// The bytes of `range`, or `None` if one is missing. O(log parts + slices).
    pub(crate) fn slices(&self, range: &Range<u64>) -> Option<ReadSlices> {
        let mut slices = ReadSlices::empty();
        let mut at = range.start;
        for (&offset, part) in self.overlapping(range) {
            if offset > at {
                return None;
            }
            let end = (range.end - offset).min(part.bytes.len() as u64);
            slices.push(part.bytes.slice((at - offset) as usize..end as usize));
            at = offset + end;
        }
        (at >= range.end).then_some(slices)
    }

    /// Marks `range` as read: parts read to their end become retained.
    pub(crate) fn consume(&mut self, range: &Range<u64>) {
        if !self.unread.intersects(range) {
            return;
        }
        self.unread.remove(range);
        let from = self.first_touching(range.start);
        for (&offset, part) in self.parts.range_mut(from..range.end) {
            let held = span(offset, &part.bytes);
            if part.stamp.is_none() && !self.unread.intersects(&held) {
                self.stamps += 1;
                part.stamp = Some(self.stamps);
                self.retained.push_back((offset, self.stamps));
                self.retained_bytes += held.end - held.start;
            }
        }
    }

    /// Lets the oldest retained parts go until at most `keep` bytes of them are left. A `pinned` part stays.
    pub(crate) fn evict(&mut self, keep: u64, pinned: impl Fn(&Range<u64>) -> bool) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut look = self.retained.len();
        while self.retained_bytes > keep && look > 0 {
            look -= 1;
            let Some((offset, stamp)) = self.retained.pop_front() else { break };
            let Some(part) = self.parts.get(&offset).filter(|p| p.stamp == Some(stamp)) else { continue };
            let held = span(offset, &part.bytes);
            if pinned(&held) {
                self.retained.push_back((offset, stamp));
                continue;
            }
            taken.extend(self.take(offset));
        }
        taken
    }

    /// Drops everything from `at` on; a part across it keeps its beginning.
    pub(crate) fn truncate(&mut self, at: u64) -> Vec<Taken> {
        let beyond: Vec<u64> = self.parts.range(at..).map(|(offset, _)| *offset).collect();
        let mut taken: Vec<Taken> = beyond.into_iter().filter_map(|offset| self.take(offset)).collect();
        self.unread.remove(&(at..u64::MAX));
        let across = self.parts.range(..at).next_back().map(|(offset, part)| span(*offset, &part.bytes));
        if let Some(across) = across.filter(|held| held.end > at)
            && let Some(part) = self.parts.get_mut(&across.start)
        {
            let cut = part.bytes.split_off((at - across.start) as usize);
            self.bytes -= cut.len() as u64;
            if part.stamp.is_some() {
                self.retained_bytes -= cut.len() as u64;
            }
            taken.push((at..across.end, cut));
            // What is left may have been read already.
            self.restamp(across.start);
        }
        taken
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) -> Vec<Taken> {
        self.truncate(0)
    }

    fn restamp(&mut self, offset: u64) {
        let Some(part) = self.parts.get_mut(&offset) else { return };
        let held = span(offset, &part.bytes);
        if part.stamp.is_none() && !self.unread.intersects(&held) {
            self.stamps += 1;
            part.stamp = Some(self.stamps);
            self.retained.push_back((offset, self.stamps));
            self.retained_bytes += held.end - held.start;
        }
    }

    fn take(&mut self, offset: u64) -> Option<Taken> {
        let part = self.parts.remove(&offset)?;
        let held = span(offset, &part.bytes);
        self.bytes -= held.end - held.start;
        if part.stamp.is_some() {
            self.retained_bytes -= held.end - held.start;
        }
        self.unread.remove(&held);
        Some((held, part.bytes))
    }

    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (&u64, &Part)> {
        let from = self.first_touching(range.start).min(range.end);
        self.parts
            .range(from..range.end)
            .filter(|(offset, part)| *offset + part.bytes.len() as u64 > range.start)
    }

    /// The offset of the part that holds `at`, or `at` itself.
    fn first_touching(&self, at: u64) -> u64 {
        match self.parts.range(..=at).next_back() {
            Some((offset, part)) if span(*offset, &part.bytes).end > at => *offset,
            _ => at,
        }
    }
}

fn span(offset: u64, bytes: &Bytes) -> Range<u64> {
    offset..offset + bytes.len() as u64
}

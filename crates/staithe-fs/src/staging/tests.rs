#![expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::sums::Sums;

impl Staged {
    /// Whether the content differs from the base, or there is no base yet.
    fn is_dirty(&self) -> bool {
        self.base_size != Some(self.size) || !self.dirty.is_empty()
    }

    /// How many bytes were written or fetched.
    fn local_bytes(&self) -> u64 {
        self.present.iter().map(|range| range.end - range.start).sum()
    }
}

fn base(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8 + 1).collect()
}

fn fill_all(staged: &mut Staged, base: &[u8]) {
    for gap in staged.missing(0..staged.size()) {
        staged.fill(gap.start, &base[gap.start as usize..gap.end as usize]).unwrap();
    }
}

fn content(staged: &mut Staged, base: &[u8]) -> Vec<u8> {
    fill_all(staged, base);
    staged.read(0, staged.size() as usize).unwrap().to_vec()
}

fn ranges(set: &RangeSet<u64>) -> Vec<Range<u64>> {
    set.iter().cloned().collect()
}

#[test]
fn a_new_file_is_dirty_until_it_is_stored() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::create(dir.path(), "f").unwrap();
    assert!(staged.is_dirty());
    let generation = staged.begin_commit();
    assert!(staged.committed(generation));
    assert!(!staged.is_dirty());
    assert_eq!((staged.base_size(), staged.size(), staged.local_bytes()), (Some(0), 0, 0));
}

#[test]
fn what_others_write_to_a_shared_file_is_seen_by_its_look_and_found_by_its_sums() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("f"), base(1000)).unwrap();
    let mut staged = Staged::adopt(dir.path(), "f", 1000).unwrap();
    let sums = |staged: &Staged| Sums::of(staged.disk_file()).unwrap();
    let other = File::options().write(true).open(dir.path().join("f")).unwrap();
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    other.set_modified(past).unwrap();
    assert_eq!(staged.catch_up(), None, "it is not shared");
    staged.share(sums(&staged)).unwrap();
    assert_eq!((staged.catch_up(), staged.take_in(sums(&staged))), (None, TakenIn::Nothing));

    other.write_all_at(b"longer", 1000).unwrap();
    other.set_modified(past + Duration::from_secs(1)).unwrap();
    let generation = staged.generation();
    assert_eq!(staged.catch_up(), Some(past + Duration::from_secs(1)));
    assert_eq!((staged.size(), ranges(staged.dirty())), (1006, vec![1000..1006]));
    assert!(staged.generation() > generation);
    assert_eq!(staged.take_in(sums(&staged)), TakenIn::Seen);
    assert_eq!(ranges(staged.dirty()), [0..1006], "by blocks");
    assert_eq!((staged.catch_up(), staged.take_in(sums(&staged))), (None, TakenIn::Nothing));

    // As a memory map may: without a trace.
    other.write_all_at(b"x", 5).unwrap();
    other.set_modified(past + Duration::from_secs(1)).unwrap();
    assert_eq!((staged.catch_up(), staged.take_in(sums(&staged))), (None, TakenIn::Unseen));
    staged.write(7, b"ours").unwrap();
    assert_eq!((staged.catch_up(), staged.take_in(sums(&staged))), (None, TakenIn::Seen));
}

#[test]
fn the_base_is_fetched_only_where_it_shows() {
    let dir = TempDir::new().unwrap();
    let base = base(100);
    let mut staged = Staged::over(dir.path(), "f", 100).unwrap();
    assert!(!staged.is_dirty());
    assert_eq!(staged.write(10, b"abc").unwrap(), 3);
    assert_eq!(staged.missing(0..20), [0..10, 13..20]);
    assert_eq!(staged.missing(10..13), []);
    assert_eq!(staged.read(9, 2).unwrap_err().kind(), FsErrorKind::Io);
    let before = staged.generation();
    staged.fill(0, &base[..50]).unwrap();
    assert_eq!(staged.generation(), before);
    assert_eq!(&staged.read(9, 5).unwrap()[..], &[base[9], b'a', b'b', b'c', base[13]]);
    assert_eq!(ranges(staged.dirty()), [10..13]);
    assert_eq!(staged.local_bytes(), 50);
    assert_eq!(staged.missing(0..1000), [50..100]);
    assert!(staged.read(100, 10).unwrap().is_empty());
}

#[test]
fn what_was_cut_stays_cut() {
    let dir = TempDir::new().unwrap();
    let base = base(100);
    let mut staged = Staged::over(dir.path(), "f", 100).unwrap();
    staged.truncate(40).unwrap();
    assert!(staged.is_dirty(), "a shorter file differs from its base");
    assert!(staged.dirty().is_empty());
    staged.truncate(60).unwrap();
    assert_eq!(ranges(staged.dirty()), [40..60]);
    staged.fill(0, &base).unwrap();
    assert_eq!(staged.read(30, 30).unwrap(), [&base[30..40], &[0; 20]].concat());
}

#[test]
fn a_change_during_a_commit_stays_dirty() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::create(dir.path(), "f").unwrap();
    staged.write(0, &[1; 100]).unwrap();
    let generation = staged.begin_commit();
    staged.truncate(50).unwrap();
    staged.write(70, &[2; 10]).unwrap();
    assert!(staged.committed(generation));
    assert_eq!(ranges(staged.dirty()), [50..80]);
    assert_eq!(staged.base_size(), Some(100));
    assert_eq!(staged.missing(0..80), [], "all of it was written here");
    assert!(!staged.committed(generation), "a commit ends once");

    let generation = staged.begin_commit();
    staged.abort_commit();
    assert!(!staged.committed(generation));
    assert_eq!(ranges(staged.dirty()), [50..80]);
}

#[test]
fn what_was_committed_from_here_is_never_fetched() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::over(dir.path(), "f", 20).unwrap();
    staged.write(90, b"tail").unwrap();
    let generation = staged.begin_commit();
    assert!(staged.committed(generation));
    assert_eq!(staged.missing(0..94), [0..20]);
}

#[test]
fn a_record_that_forgot_the_zeros_behind_the_base_is_completed() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::create(dir.path(), "f").unwrap();
    staged.truncate(10).unwrap();
    let state = StagedState { dirty: RangeSet::new(), ..staged.state() };
    assert_eq!(ranges(Staged::reopen(dir.path(), "f", &state).unwrap().dirty()), [0..10]);
}

#[test]
fn an_answer_to_an_earlier_commit_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::create(dir.path(), "f").unwrap();
    staged.write(0, b"one").unwrap();
    let first = staged.begin_commit();
    staged.write(0, b"two").unwrap();
    let second = staged.begin_commit();
    assert!(!staged.committed(first));
    assert!(staged.is_dirty());
    assert!(staged.committed(second));
    assert!(!staged.is_dirty());
}

#[test]
fn allocation_grows_only_when_asked() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::over(dir.path(), "f", 100).unwrap();
    staged.allocate(0, 5000, true).unwrap();
    assert_eq!((staged.size(), staged.is_dirty(), staged.generation()), (100, false, 0));
    staged.allocate(50, 150, false).unwrap();
    assert_eq!((staged.size(), ranges(staged.dirty())), (200, vec![100..200]));
    staged.zero(190, 100, true).unwrap();
    assert_eq!(staged.size(), 200);
    staged.zero(190, 100, false).unwrap();
    assert_eq!(staged.size(), 290);
    assert_eq!(staged.allocate(0, 0, false).unwrap_err().kind(), FsErrorKind::Invalid);
    assert_eq!(staged.allocate(1, u64::MAX, false).unwrap_err().kind(), FsErrorKind::TooLarge);
    assert_eq!(staged.truncate(u64::MAX).unwrap_err().kind(), FsErrorKind::TooLarge);
    assert_eq!(staged.write(u64::MAX, b"x").unwrap_err().kind(), FsErrorKind::TooLarge);
}

#[test]
fn zeros_are_written_where_holes_cannot_be_made() {
    let dir = TempDir::new().unwrap();
    let mut staged = Staged::over(dir.path(), "f", 200_000).unwrap();
    staged.write_zeros(10, 150_000).unwrap();
    assert_eq!(ranges(staged.dirty()), [10..150_000]);
    assert!(staged.read(10, 149_990).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_later_start_goes_on() {
    let dir = TempDir::new().unwrap();
    let base = base(100);
    let mut staged = Staged::over(dir.path(), "f", 100).unwrap();
    staged.truncate(80).unwrap();
    staged.write(90, b"tail").unwrap();
    staged.sync().unwrap();
    staged.disk_file().sync().unwrap();
    let state = staged.state();
    let expected = content(&mut staged, &base);
    staged.write(94, b"not synced").unwrap();
    drop(staged);

    let mut again = Staged::reopen(dir.path(), "f", &state).unwrap();
    assert!(again.is_dirty());
    assert_eq!(again.state(), state);
    assert_eq!(content(&mut again, &base), expected);
    again.truncate(85).unwrap();
    drop(again);

    let mut shorter = Staged::reopen(dir.path(), "f", &state).unwrap();
    assert_eq!(content(&mut shorter, &base), expected[..85]);
    shorter.remove().unwrap();
    assert_eq!(Staged::reopen(dir.path(), "f", &state).unwrap_err().kind(), FsErrorKind::Io);
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, usize, u8),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Allocate(u64, u64, bool),
    Fill(u64, usize),
    Begin,
    Abort,
    Committed,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..300_u64, 1..60_usize, 1..=255_u8).prop_map(|(at, len, byte)| Op::Write(at, len, byte)),
        3 => (0..300_u64).prop_map(Op::Truncate),
        1 => (0..300_u64, 1..80_u64).prop_map(|(at, len)| Op::Punch(at, len)),
        1 => (0..300_u64, 1..80_u64, any::<bool>()).prop_map(|(at, len, keep)| Op::Zero(at, len, keep)),
        1 => (0..300_u64, 1..80_u64, any::<bool>()).prop_map(|(at, len, keep)| Op::Allocate(at, len, keep)),
        2 => (0..300_u64, 1..120_usize).prop_map(|(at, len)| Op::Fill(at, len)),
        2 => Just(Op::Begin),
        1 => Just(Op::Abort),
        2 => Just(Op::Committed),
        1 => Just(Op::Reopen),
    ]
}

/// What a staged file should be: the base object, the content, and the content that is being committed.
struct Model {
    base: Option<Vec<u8>>,
    content: Vec<u8>,
    committing: Option<(u64, Vec<u8>)>,
}

impl Model {
    fn set(&mut self, at: u64, len: u64, byte: u8, grow: bool) {
        let end = (at + len) as usize;
        if grow && self.content.len() < end {
            self.content.resize(end, 0);
        }
        let end = end.min(self.content.len());
        let start = (at as usize).min(end);
        self.content[start..end].fill(byte);
    }

    fn apply(&mut self, staged: &mut Staged, dir: &Path, op: &Op) {
        let base = self.base.clone().unwrap_or_default();
        match *op {
            Op::Write(at, len, byte) => {
                assert_eq!(staged.write(at, &vec![byte; len]).unwrap(), len);
                self.set(at, len as u64, byte, true);
            }
            Op::Truncate(size) => {
                staged.truncate(size).unwrap();
                self.content.resize(size as usize, 0);
            }
            Op::Punch(at, len) => {
                staged.punch(at, len).unwrap();
                self.set(at, len, 0, false);
            }
            Op::Zero(at, len, keep) => {
                staged.zero(at, len, keep).unwrap();
                self.set(at, len, 0, !keep);
            }
            Op::Allocate(at, len, keep) => {
                staged.allocate(at, len, keep).unwrap();
                if !keep {
                    let size = self.content.len().max((at + len) as usize);
                    self.content.resize(size, 0);
                }
            }
            Op::Fill(at, len) => {
                let at = (at as usize).min(base.len());
                let end = (at + len).min(base.len());
                staged.fill(at as u64, &base[at..end]).unwrap();
            }
            Op::Begin => self.committing = Some((staged.begin_commit(), self.content.clone())),
            Op::Abort => {
                staged.abort_commit();
                self.committing = None;
            }
            Op::Committed => {
                if let Some((generation, mut content)) = self.committing.take() {
                    assert!(staged.committed(generation));
                    // An upload may read bytes that changed after it began: what they were must not matter.
                    for (at, byte) in content.iter_mut().enumerate() {
                        if staged.dirty().contains(&(at as u64)) || at as u64 >= staged.size() {
                            *byte = 0xEE;
                        }
                    }
                    self.base = Some(content);
                }
            }
            Op::Reopen => {
                let state = staged.state();
                *staged = Staged::reopen(dir, "f", &state).unwrap();
                assert_eq!(staged.state(), state);
                self.committing = None;
            }
        }
    }

    fn check(&self, staged: &Staged) -> Result<(), TestCaseError> {
        prop_assert_eq!(staged.size(), self.content.len() as u64);
        prop_assert_eq!(staged.disk_file().len().unwrap(), staged.size());
        prop_assert!(staged.local_bytes() <= staged.size());
        prop_assert_eq!(staged.base_size(), self.base.as_ref().map(|base| base.len() as u64));
        let base = self.base.as_deref().unwrap_or_default();
        for (at, byte) in self.content.iter().enumerate() {
            prop_assert!(
                staged.dirty().contains(&(at as u64)) || base.get(at) == Some(byte),
                "byte {at} differs from the base and is not dirty"
            );
        }
        prop_assert!(staged.dirty().iter().all(|range| range.end <= staged.size()));
        prop_assert!(staged.dirty().iter().all(|range| staged.missing(range.clone()).is_empty()));
        if !staged.is_dirty() {
            prop_assert_eq!(Some(&self.content), self.base.as_ref());
        }
        let mut at = 0;
        for gap in staged.missing(0..u64::MAX).into_iter().chain([staged.size()..staged.size()]) {
            prop_assert!(gap.is_empty() || gap.end <= base.len() as u64);
            let len = (gap.start - at) as usize;
            let read = staged.read(at, len).unwrap();
            prop_assert_eq!(&read[..], &self.content[at as usize..][..len]);
            at = gap.end;
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn behaves_as_the_model(base_size in prop::option::of(0..250_usize), ops in prop::collection::vec(op(), 1..60)) {
        let dir = TempDir::new().unwrap();
        let mut staged = match base_size {
            Some(size) => Staged::over(dir.path(), "f", size as u64).unwrap(),
            None => Staged::create(dir.path(), "f").unwrap(),
        };
        let base = base_size.map(base);
        let mut model = Model { content: base.clone().unwrap_or_default(), base, committing: None };
        for op in &ops {
            let (generation, before) = (staged.generation(), model.content.clone());
            model.apply(&mut staged, dir.path(), op);
            model.check(&staged)?;
            if !matches!(op, Op::Reopen) {
                prop_assert!(staged.generation() > generation || model.content == before);
            }
        }
        let base = model.base.clone().unwrap_or_default();
        prop_assert_eq!(content(&mut staged, &base), model.content);
    }
}

use super::*;

fn record(n: u32) -> Bytes {
    Bytes::from(format!("an upload of key {n}"))
}

fn write(journal: &DiskJournal, n: u32, durability: Durability) -> IntentId {
    let id = journal.reserve();
    journal.write(&[Entry::Record(id, record(n))], durability).unwrap();
    id
}

type Pending = Vec<(IntentId, Bytes)>;

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Every file, by name.
fn bytes_of(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries.map(|e| (e.file_name(), std::fs::read(e.path()).unwrap())).collect();
    all.sort();
    all
}

/// What a journal says when it is opened after `damage`. Opening it has changed nothing, whatever comes of it.
fn after(dir: &Path, damage: impl FnOnce(&Path)) -> Result<Pending, JournalError> {
    let copy = copy_of(dir);
    damage(copy.path());
    let before = bytes_of(copy.path());
    let pending = DiskJournal::open(copy.path()).and_then(|journal| journal.pending());
    assert_eq!(bytes_of(copy.path()), before);
    pending
}

/// The same for a change of the bytes of one file.
fn after_change(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Pending, JournalError> {
    after(dir, |dir| {
        let mut bytes = std::fs::read(dir.join(name)).unwrap();
        change(&mut bytes);
        std::fs::write(dir.join(name), bytes).unwrap();
    })
}

fn kind(outcome: Result<Pending, JournalError>) -> JournalErrorKind {
    outcome.unwrap_err().kind()
}

fn len_of(dir: &Path) -> usize {
    std::fs::metadata(dir.join(log::NAME)).unwrap().len() as usize
}

#[test]
fn what_was_recorded_and_not_completed_is_pending() {
    let dir = tempfile::tempdir().unwrap();
    let journal = DiskJournal::open(dir.path()).unwrap();
    let ids: Vec<IntentId> = (0..300).map(|n| write(&journal, n, Durability::Buffered)).collect();
    let completed: Vec<Entry> = ids[2..].iter().map(|id| Entry::Complete(*id)).collect();
    journal.write(&completed, Durability::Buffered).unwrap();
    journal.write(&[Entry::Record(ids[1], record(1000))], Durability::Synced).unwrap();
    let expected = vec![(ids[0], record(0)), (ids[1], record(1000))];
    assert_eq!(journal.pending().unwrap(), expected);
    assert_eq!(after(dir.path(), |_| ()).unwrap(), expected);
    drop(journal);

    let again = DiskJournal::open(dir.path()).unwrap();
    assert_eq!(again.pending().unwrap(), expected);
    assert!(write(&again, 7, Durability::Synced) > ids[299]);
    assert!(format!("{again:?}").starts_with("DiskJournal"));
}

/// A journal whose last two batches were never synced: what stood before each, and where it ends.
fn with_a_tail(dir: &Path) -> (DiskJournal, Vec<(usize, Pending)>) {
    let journal = DiskJournal::open(dir).unwrap();
    let first = write(&journal, 1, Durability::Synced);
    write(&journal, 2, Durability::Synced);
    let mut ends = vec![(len_of(dir), journal.pending().unwrap())];
    write(&journal, 3, Durability::Buffered);
    ends.push((len_of(dir), journal.pending().unwrap()));
    let batch = [Entry::Record(first, record(4)), Entry::Record(journal.reserve(), record(5))];
    journal.write(&batch, Durability::Buffered).unwrap();
    ends.push((len_of(dir), journal.pending().unwrap()));
    (journal, ends)
}

/// What stands of a log that is whole up to there; `None`: less than what was made durable.
fn whole_up_to(ends: &[(usize, Pending)], len: usize) -> Option<&Pending> {
    ends.iter().rfind(|(end, _)| *end <= len).map(|(_, pending)| pending)
}

#[test]
fn a_log_cut_short_anywhere_has_what_was_synced_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_open, ends) = with_a_tail(dir.path());
    for len in 0..=len_of(dir.path()) {
        let outcome = after_change(dir.path(), log::NAME, |log| log.truncate(len));
        match whole_up_to(&ends, len) {
            Some(pending) => assert_eq!(&outcome.unwrap(), pending, "{len}"),
            None => assert_eq!(kind(outcome), JournalErrorKind::Broken, "{len}"),
        }
    }
}

#[test]
fn a_log_with_any_bit_turned_has_what_was_synced_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_open, ends) = with_a_tail(dir.path());
    for at in 0..len_of(dir.path()) {
        for bit in 0..8 {
            let outcome = after_change(dir.path(), log::NAME, |log| log[at] ^= 1 << bit);
            if let Some(pending) = whole_up_to(&ends, at) {
                assert_eq!(&outcome.unwrap(), pending, "byte {at}, bit {bit}");
            } else {
                let kind = kind(outcome);
                // The version has no checksum that an older program could know.
                let is_newer = kind == JournalErrorKind::NewerVersion && (8..12).contains(&at);
                assert!(kind == JournalErrorKind::Broken || is_newer, "byte {at}, bit {bit}: {kind:?}");
            }
        }
    }
}

#[test]
fn zeros_where_a_power_failure_left_a_hole_end_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (_open, ends) = with_a_tail(dir.path());
    let outcome = after_change(dir.path(), log::NAME, |log| log[ends[0].0..ends[1].0].fill(0));
    assert_eq!(outcome.unwrap(), ends[0].1);
    for len in [1, 11, 12, 13, 5000] {
        let outcome = after_change(dir.path(), log::NAME, |log| log.resize(log.len() + len, 0));
        assert_eq!(outcome.unwrap(), ends[2].1);
    }
}

#[test]
fn what_was_torn_is_cut_off_before_anything_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let (open, ends) = with_a_tail(dir.path());
    drop(open);
    let log = dir.path().join(log::NAME);
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&log, &bytes).unwrap();
    // Dropped, it has synced all of it: as if it had been killed instead.
    std::fs::remove_file(dir.path().join(mark::NAME)).unwrap();
    let mut mark = Mark::create(dir.path()).unwrap();
    mark.advance(Reached { log: 1, len: ends[0].0 as u64 }).unwrap();
    let journal = DiskJournal::open(dir.path()).unwrap();
    assert_eq!(journal.torn_bytes(), bytes.len() as u64 - ends[1].0 as u64);
    let id = write(&journal, 6, Durability::Buffered);
    assert_eq!(journal.torn_bytes(), 0);
    let mut expected = ends[1].1.clone();
    expected.push((id, record(6)));
    assert_eq!(after(dir.path(), |_| ()).unwrap(), expected);
}

#[test]
fn a_mark_that_is_damaged_or_missing_is_an_error_and_one_slot_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (_open, ends) = with_a_tail(dir.path());
    let whole = &ends[2].1;
    for len in 0..1024 {
        let outcome = after_change(dir.path(), mark::NAME, |mark| mark.truncate(len));
        assert_eq!(kind(outcome), JournalErrorKind::Broken, "{len}");
    }
    assert_eq!(kind(after_change(dir.path(), mark::NAME, |mark| mark.push(0))), JournalErrorKind::Broken);
    for at in 0..1024 {
        // The other slot says less, and that holds too.
        assert_eq!(&after_change(dir.path(), mark::NAME, |mark| mark[at] ^= 1).unwrap(), whole, "{at}");
        let both = after_change(dir.path(), mark::NAME, |mark| {
            mark[at] ^= 1;
            mark[(at + 512) % 1024] ^= 1;
        });
        assert_eq!(kind(both), JournalErrorKind::Broken, "{at}");
    }
    for name in [log::NAME, mark::NAME] {
        let outcome = after(dir.path(), |dir| std::fs::remove_file(dir.join(name)).unwrap());
        assert_eq!(kind(outcome), JournalErrorKind::Broken, "{name}");
    }
}

#[test]
fn another_log_is_not_taken_for_this_one() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = DiskJournal::open(other.path()).unwrap();
    write(&old, 1, Durability::Synced);
    let older = std::fs::read(other.path().join(log::NAME)).unwrap();
    let (_open, _) = with_a_tail(dir.path());
    // Shorter than the mark has it.
    let outcome = after_change(dir.path(), log::NAME, |log| log.clone_from(&older));
    assert_eq!(kind(outcome), JournalErrorKind::Broken);
    let newer = after_change(dir.path(), log::NAME, |log| log[8] = 2);
    assert_eq!(kind(newer), JournalErrorKind::NewerVersion);
    for foreign in [&b"SQLite format 3\0 and so on, for longer than a header is"[..], b"", b"staithe\n"] {
        let outcome = after_change(dir.path(), log::NAME, |log| log.clone_from(&foreign.to_vec()));
        assert_eq!(kind(outcome), JournalErrorKind::Broken);
    }
}

#[test]
fn a_directory_with_something_else_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("0.jnl"), "of another database").unwrap();
    let refused = after(dir.path(), |_| ()).unwrap_err();
    assert_eq!(refused.kind(), JournalErrorKind::Broken);
    assert!(refused.to_string().contains("0.jnl"), "{refused}");
}

#[test]
fn a_first_start_that_a_crash_cut_short_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    // In the order in which they are made.
    let steps: [&dyn Fn(&Path); 4] = [
        &|dir| std::fs::write(dir.join("mark.new"), "half").unwrap(),
        &|dir| drop(Mark::create(dir).unwrap()),
        &|dir| std::fs::write(dir.join("log.new"), "half").unwrap(),
        &|dir| {
            let header = Header { number: 1, born: HEADER }.encode();
            std::fs::write(dir.join(log::NAME), header).unwrap();
        },
    ];
    for step in steps {
        step(dir.path());
        let copy = copy_of(dir.path());
        let journal = DiskJournal::open(copy.path()).unwrap();
        assert_eq!(journal.pending().unwrap(), []);
        let id = write(&journal, 1, Durability::Synced);
        assert_eq!(after(copy.path(), |_| ()).unwrap(), [(id, record(1))]);
        assert_eq!(
            kind(after(copy.path(), |dir| std::fs::remove_file(dir.join("log")).unwrap())),
            JournalErrorKind::Broken
        );
    }
}

#[test]
fn a_log_of_little_use_is_written_anew_and_loses_nothing_at_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let journal = DiskJournal::open(dir.path()).unwrap();
    let stays = write(&journal, 1, Durability::Synced);
    let large = Bytes::from(vec![7; 100_000]);
    let id = journal.reserve();
    let mut before = copy_of(dir.path());
    // Until it is shorter than it was.
    let mut len = 0;
    while len_of(dir.path()) >= len {
        len = len_of(dir.path());
        before = copy_of(dir.path());
        journal.write(&[Entry::Record(id, large.clone())], Durability::Buffered).unwrap();
        assert!(len < 4 << 20, "it is never written anew");
    }
    let expected = vec![(stays, record(1)), (id, large)];
    assert_eq!(journal.pending().unwrap(), expected);
    assert_eq!(after(dir.path(), |_| ()).unwrap(), expected);
    assert_eq!(len_of(dir.path()) as u64, journal.log.lock().said.end);
    let new = std::fs::read(dir.path().join(log::NAME)).unwrap();
    // Killed before it had its name, with half of it, or all.
    for len in [0, 10, new.len() / 2, new.len()] {
        let outcome = after(before.path(), |dir| std::fs::write(dir.join("log.new"), &new[..len]).unwrap());
        assert_eq!(outcome.unwrap(), expected);
    }
    // Killed before the mark knew of it.
    let outcome = after(before.path(), |dir| std::fs::write(dir.join(log::NAME), &new).unwrap());
    assert_eq!(outcome.unwrap(), expected);
    // All of it was durable when it got its name.
    let cut = after(before.path(), |dir| std::fs::write(dir.join(log::NAME), &new[..new.len() - 1]).unwrap());
    assert_eq!(kind(cut), JournalErrorKind::Broken);
    // And the old one is not put back unnoticed.
    let old = std::fs::read(before.path().join(log::NAME)).unwrap();
    let outcome = after(dir.path(), |dir| std::fs::write(dir.join(log::NAME), &old).unwrap());
    assert_eq!(kind(outcome), JournalErrorKind::Broken);
    let next = write(&journal, 2, Durability::Synced);
    assert_eq!(after(dir.path(), |_| ()).unwrap().last().unwrap(), &(next, record(2)));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = DiskJournal::open(dir.path()).unwrap();
    assert_eq!(DiskJournal::open(dir.path()).unwrap_err().kind(), JournalErrorKind::InUse);
    drop(first);
    DiskJournal::open(dir.path()).unwrap();
}

#[test]
fn errors_are_told_apart() {
    let full = failed("write to", io::ErrorKind::StorageFull.into());
    assert_eq!(full.kind(), JournalErrorKind::NoSpace);
    let quota = failed("write to", io::ErrorKind::QuotaExceeded.into());
    assert_eq!(quota.kind(), JournalErrorKind::NoSpace);
    assert_eq!(failed("open", io::ErrorKind::PermissionDenied.into()).kind(), JournalErrorKind::Io);
    assert!(full.to_string().starts_with("could not write to the journal"));
    assert!(std::error::Error::source(&full).is_some());
}

#[test]
fn writers_that_meet_are_all_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let journal = DiskJournal::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..25 {
                    let durability = if n % 3 == 0 { Durability::Buffered } else { Durability::Synced };
                    write(journal, thread * 100 + n, durability);
                }
            });
        }
    });
    journal.sync().unwrap();
    assert_eq!(journal.pending().unwrap().len(), 200);
    assert_eq!(after(dir.path(), |_| ()).unwrap().len(), 200);
}

//! A journal that was damaged anyhow: what is salvaged of it was recorded, byte by byte; what is missing is admitted; and
//! what can be opened has all that was made durable. Of a log *and* a mark that are damaged the last sync may be forgotten: a
//! mark has two slots, and if the newer one is of no use, the older one counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use staithe_persist::{DiskJournal, Durability, Entry, IntentId, Journal as _};

const FILES: [&str; 2] = ["log", "mark"];

/// What was written to a journal, all of it durable.
#[derive(Default)]
struct Wrote {
    /// Everything that was ever recorded.
    ever: BTreeSet<(IntentId, Bytes)>,
    /// What was not completed.
    standing: BTreeMap<IntentId, Bytes>,
}

/// A source of choices that never ends.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        self.0.next().copied().unwrap_or(0).into()
    }

    /// A place in so many bytes.
    fn place(&mut self, len: usize) -> usize {
        let at = self.next() << 8 | self.next();
        if len == 0 { 0 } else { at % len }
    }
}

/// Runs any bytes as a journal and its damage, in `dir`, which is emptied first.
pub(crate) fn run_bytes(bytes: &[u8], dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    let mut choices = Choices(bytes.iter());
    let wrote = write(&mut choices, dir);
    let whole = files(dir);
    while choices.0.len() > 0 {
        damage(&mut choices, dir);
    }
    let now = files(dir);
    let differing = FILES.iter().filter(|name| now.get(&dir.join(name)) != whole.get(&dir.join(name)));
    check(dir, &wrote, differing.count());
}

fn write(choices: &mut Choices<'_>, dir: &Path) -> Wrote {
    let (journal, mut wrote) = (DiskJournal::open(dir).unwrap(), Wrote::default());
    let mut ids = Vec::new();
    for n in 0..choices.next() % 12 {
        let mut batch = Vec::new();
        for _ in 0..=choices.next() % 3 {
            let choice = choices.next();
            let old = ids.get(choice % (ids.len() + 1)).copied();
            if let (Some(id), true) = (old, choice.is_multiple_of(5)) {
                batch.push(Entry::Complete(id));
                wrote.standing.remove(&id);
                continue;
            }
            let id = old.filter(|_| choice.is_multiple_of(3)).unwrap_or_else(|| journal.reserve());
            let record = Bytes::from(format!("{n} {}", "r".repeat(choice % 40)));
            batch.push(Entry::Record(id, record.clone()));
            ids.push(id);
            wrote.ever.insert((id, record.clone()));
            wrote.standing.insert(id, record);
        }
        journal.write(&batch, Durability::Synced).unwrap();
    }
    wrote
}

fn damage(choices: &mut Choices<'_>, dir: &Path) {
    let kind = choices.next();
    let file = dir.join(FILES[kind % 2]);
    let Ok(mut bytes) = std::fs::read(&file) else { return };
    let (at, byte) = (choices.place(bytes.len()), choices.next() as u8);
    match kind / 2 % 6 {
        0 if at < bytes.len() => bytes[at] = byte,
        1 => bytes.truncate(at),
        // What a disk has of a block that it never got.
        2 => bytes[at..].iter_mut().take(byte.into()).for_each(|byte| *byte = 0),
        // A piece of itself, where it does not belong.
        3 => {
            let from = choices.place(bytes.len());
            let piece = bytes[from..].iter().take(byte.into()).copied().collect::<Vec<_>>();
            bytes.splice(at..at, piece);
        }
        4 => bytes.extend(std::iter::repeat_n(byte, at % 600)),
        _ if byte == 0 => return std::fs::remove_file(file).unwrap(),
        _ => {}
    }
    std::fs::write(file, bytes).unwrap();
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let each = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    each.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// `damaged`: how many of its files are.
fn check(dir: &Path, wrote: &Wrote, damaged: usize) {
    let (is_whole, is_told_apart) = (damaged == 0, damaged < FILES.len());
    let before = files(dir);
    if let Ok(salvage) = DiskJournal::salvage(dir) {
        for (id, record) in &salvage.records {
            assert!(wrote.ever.contains(&(*id, record.clone())), "{id:?} was never recorded so");
        }
        let found: BTreeMap<_, _> = salvage.records.into_iter().collect();
        if found != wrote.standing && is_told_apart {
            assert!(
                !salvage.damage.is_empty(),
                "{found:?} where {:?} stand, and no word of it",
                wrote.standing
            );
        }
        assert!(!is_whole || salvage.damage.is_empty(), "nothing is wrong with it: {:?}", salvage.damage);
    }
    assert_eq!(files(dir), before, "to salvage changes nothing");
    match DiskJournal::open(dir) {
        Ok(journal) => {
            let pending = journal.pending().unwrap();
            assert!(
                pending.iter().all(|record| wrote.ever.contains(record)),
                "{pending:?} was never recorded so"
            );
            if is_told_apart {
                assert_eq!(BTreeMap::from_iter(pending), wrote.standing, "all of it was durable");
            }
        }
        Err(error) => assert!(!is_whole, "{error}"),
    }
}

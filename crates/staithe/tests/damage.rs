//! A state directory that a disk has damaged, or another version has written: the start either has all that was promised
//! to be durable, or says in one sentence what is wrong, mounts nothing and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use real::ledger::{Ledger, Node, Tree, tree_of};
use real::{BUCKET, Bench, noise, run, start};
use rustix::process::Signal;
use staithe_testkit::{Fault, MountedDaemon, Operation, When};

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;

/// A state directory as a killed daemon left it, in write-back, with a store that took nothing.
struct Left {
    bench: Bench,
    /// What is promised now that the process has ended.
    closed: Tree,
    /// What was promised to survive a power failure.
    synced: Tree,
}

fn left() -> Left {
    let bench = Bench::new();
    bench.bucket().put("stored", noise(9, 3000));
    let mut mount = start(bench.daemon().arg("--write-mode=back").arg("--op-deadline=2s"));
    let puts = bench.server.faults().inject(When::operation(Operation::PutObject), Fault::internal_error());
    let (root, mut ledger) = (mount.path().to_owned(), Ledger::default());
    ledger.mkdir(&root, "d").unwrap();
    ledger.write(&root, "d/first", &noise(1, 5000)).unwrap();
    ledger.write(&root, "d/second", &noise(2, 5000)).unwrap();
    let file = File::options().append(true).open(root.join("d/second")).unwrap();
    // With it all that came before it.
    file.sync_all().unwrap();
    drop(file);
    let synced = tree_of(&root).unwrap();
    ledger.write(&root, "third", &noise(3, 5000)).unwrap();
    ledger.symlink(&root, "link", "third").unwrap();
    let closed = tree_of(&root).unwrap();
    let open = File::create(root.join("open")).unwrap();
    open.write_all_at(&noise(4, 5000), 0).unwrap();
    mount.signal(Signal::KILL).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 137);
    drop(open);
    puts.remove();
    Left { bench, closed, synced }
}

/// Every file below a directory with its bytes; without the one that says who holds it.
fn bytes_of(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let bytes = path.is_file().then(|| fs::read(&path).unwrap());
            if bytes.is_none() {
                dirs.push(path.clone());
            }
            if path != dir.join("lock") {
                all.insert(path, bytes);
            }
        }
    }
    all
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Left {
    /// The state directory, once more, to be damaged.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(self.bench.state.path(), copy.path());
        copy
    }

    /// What of the log was made durable, in bytes.
    fn durable(&self) -> usize {
        let mark = fs::read(self.bench.state.path().join("journal/mark")).unwrap();
        let len = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().unwrap());
        len(8).max(len(520)) as usize
    }

    fn log(&self) -> Vec<u8> {
        fs::read(self.bench.state.path().join("journal/log")).unwrap()
    }

    /// A start with this damage is refused. The sentence.
    fn refused(&self, what: &str, damage: impl FnOnce(&Path)) -> String {
        let state = self.copy();
        damage(state.path());
        let before = bytes_of(state.path());
        let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
        command.args(["mount", &format!("s3://{BUCKET}")]).arg(self.bench.mountpoint.path());
        command.arg("--state-dir").arg(state.path()).arg("--write-mode=back").envs(self.bench.server.env());
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(FAILED), "{what}: {said}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        let after = bytes_of(state.path());
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|p| before.get(*p) != after.get(*p)).collect();
        assert!(changed.is_empty(), "{what}: changed {changed:?}");
        assert_eq!(self.bench.bucket().keys(), ["stored"], "{what}");
        said
    }

    /// The same for bytes of one file.
    fn refused_change(&self, file: &str, what: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        self.refused(&format!("{file}: {what}"), |state| {
            let mut bytes = fs::read(state.join(file)).unwrap();
            change(&mut bytes);
            fs::write(state.join(file), bytes).unwrap();
        })
    }

    /// A start with this damage, of a bench of its own: what it shows at once, and the daemon.
    fn started(&self, damage: impl FnOnce(&Path)) -> (Bench, MountedDaemon, Tree) {
        let bench = Bench::new();
        bench.bucket().put("stored", noise(9, 3000));
        copy_tree(self.bench.state.path(), bench.state.path());
        // Of another server: its volume has another name.
        let volume = fs::read_to_string(bench.state.path().join("volume")).unwrap();
        let (ours, theirs) = (bench.server.endpoint(), self.bench.server.endpoint());
        fs::write(bench.state.path().join("volume"), volume.replace(&theirs, &ours)).unwrap();
        damage(bench.state.path());
        let mount = start(bench.daemon().arg("--write-mode=back"));
        let tree = tree_of(mount.path()).unwrap();
        (bench, mount, tree)
    }
}

fn lost(state: &Path) -> usize {
    fs::read_dir(state.join("lost+found")).map_or(0, Iterator::count)
}

/// Everything of `wanted`, as it was.
fn assert_has(tree: &Tree, wanted: &Tree, what: &str) {
    for (path, node) in wanted {
        assert_eq!(tree.get(path), Some(node), "{what}: {path}");
    }
}

#[test]
fn a_journal_that_lacks_what_was_durable_is_refused() {
    let left = left();
    let (durable, log) = (left.durable(), "journal/log");
    assert!(durable > 200 && durable < left.log().len(), "{durable}");
    for len in [0, 1, 39, 40, 41, durable / 2, durable - 1] {
        let said = left.refused_change(log, &format!("{len} bytes"), |log| log.truncate(len));
        assert!(said.contains("journal"), "{said}");
    }
    for at in (0..durable).step_by(durable / 20).chain([durable - 1]) {
        left.refused_change(log, &format!("byte {at} changed"), |log| log[at] ^= 0x40);
    }
    left.refused_change(log, "a page of zeros", |log| log[100..durable].fill(0));
    let said = left.refused_change(log, "of another program", |log| *log = b"SQLite format 3\0".repeat(9));
    assert!(said.contains("another program"), "{said}");
    let said = left.refused_change(log, "of a newer version", |log| log[8] = 9);
    assert!(said.contains("version 9"), "{said}");
    for file in ["journal/log", "journal/mark"] {
        let said =
            left.refused(&format!("{file} missing"), |state| fs::remove_file(state.join(file)).unwrap());
        assert!(said.contains("missing"), "{said}");
    }
    left.refused_change("journal/mark", "cut short", |mark| mark.truncate(600));
    left.refused_change("journal/mark", "changed", |mark| (mark[3], mark[515]) = (7, 7));
}

#[test]
fn another_programs_database_in_place_of_the_journal_is_refused() {
    let left = left();
    let said = left.refused("another database", |state| {
        fs::remove_dir_all(state.join("journal")).unwrap();
        fs::create_dir_all(state.join("journal/keyspaces")).unwrap();
        fs::write(state.join("journal/version"), b"FJL\x03").unwrap();
    });
    assert!(said.contains("no journal of this program"), "{said}");
}

#[test]
fn a_part_of_the_state_directory_that_is_missing_or_of_another_version_is_refused() {
    let left = left();
    for name in ["staging", "journal"] {
        let said = left.refused(name, |state| fs::remove_dir_all(state.join(name)).unwrap());
        assert!(said.contains(name) && said.contains("put it back"), "{said}");
    }
    for name in ["format", "volume"] {
        let said = left.refused(name, |state| fs::remove_file(state.join(name)).unwrap());
        assert!(said.contains(name) && said.contains("put it back"), "{said}");
        left.refused_change(name, "empty", Vec::clear);
    }
    let said = left.refused_change("format", "newer", |format| *format = b"2\n".to_vec());
    assert!(said.contains("format 2"), "{said}");
    left.refused_change("format", "senseless", |format| *format = b"\xff\xfe".to_vec());
    let said = left.refused_change("volume", "another", |volume| *volume = b"s3://another\n".to_vec());
    assert!(said.contains("s3://another"), "{said}");
}

#[test]
fn an_end_of_the_journal_that_nobody_was_promised_is_dropped_and_its_bytes_are_set_aside() {
    let left = left();
    let (durable, len) = (left.durable(), left.log().len());
    for cut in [durable, durable + 1, usize::midpoint(durable, len), len - 1] {
        let (bench, mut mount, tree) = left.started(|state| {
            File::options().write(true).open(state.join("journal/log")).unwrap().set_len(cut as u64).unwrap();
        });
        assert_has(&tree, &left.synced, &format!("cut at {cut}"));
        let gone = left.closed.iter().filter(|(path, _)| !tree.contains_key(*path));
        // The file that was only open lies there too.
        let aside = 1 + gone.count();
        assert_eq!(lost(bench.state.path()), aside, "cut at {cut}: {}", mount.stderr());
        assert!(aside > 1 && mount.stderr().contains("lost+found"), "{}", mount.stderr());
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        assert!(bench.bucket().get("d/second").unwrap() == noise(2, 5000));
    }
}

#[test]
fn half_a_batch_at_the_end_of_the_journal_loses_nothing() {
    let left = left();
    for tail in [&b"\0"[..], &[0; 5000], &[0xff; 12], &left.log()[40..60], &left.log()[40..]] {
        let (bench, mut mount, tree) = left.started(|state| {
            let log = [left.log(), tail.to_vec()].concat();
            fs::write(state.join("journal/log"), log).unwrap();
        });
        assert_has(&tree, &left.closed, &format!("{} bytes more", tail.len()));
        assert!(mount.stderr().contains("not written whole"), "{}", mount.stderr());
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        assert!(bench.bucket().get("third").unwrap() == noise(3, 5000));
        // What is torn is cut off: the next start has nothing to say.
        let mount = start(bench.daemon().arg("--write-mode=back"));
        assert!(!mount.stderr().contains("not written whole"), "{}", mount.stderr());
    }
}

/// The staging file with these bytes.
fn staged(state: &Path, bytes: &[u8]) -> PathBuf {
    let entries = fs::read_dir(state.join("staging")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| fs::read(path).unwrap() == bytes).unwrap()
}

#[test]
fn a_staging_file_that_is_gone_longer_or_shorter() {
    let left = left();
    let first = noise(1, 5000);
    let (bench, mut mount, tree) = left.started(|state| fs::remove_file(staged(state, &first)).unwrap());
    assert!(!tree.contains_key("d/first") && tree.contains_key("d/second"), "{tree:?}");
    let said = mount.stderr();
    assert!(said.contains("d/first") && said.contains("not in the staging directory any more"), "{said}");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("d/second").unwrap() == noise(2, 5000));

    // What is behind the end that was promised was written later, and nobody closed it.
    let (bench, mut mount, tree) = left.started(|state| {
        let file = File::options().append(true).open(staged(state, &first)).unwrap();
        std::io::Write::write_all(&mut &file, b"more").unwrap();
    });
    assert_has(&tree, &left.closed, "longer");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("d/first").unwrap() == first);

    // As a truncation that the journal did not hear of any more leaves it.
    let (bench, mut mount, tree) = left.started(|state| {
        File::options().write(true).open(staged(state, &first)).unwrap().set_len(1000).unwrap();
    });
    assert_eq!(tree.get("d/first"), Some(&Node::file(&first[..1000])));
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("d/first").unwrap() == first[..1000]);
}

#[test]
fn bytes_that_no_intent_speaks_of_are_set_aside_and_reported() {
    let left = left();
    let (bench, mut mount, tree) = left.started(|state| {
        fs::write(state.join("staging/nobodys"), b"precious").unwrap();
        fs::write(state.join("staging/nothing"), b"").unwrap();
    });
    assert_has(&tree, &left.closed, "orphans");
    let aside = bench.state.path().join("lost+found");
    assert_eq!(fs::read(aside.join("nobodys")).unwrap(), b"precious");
    assert_eq!(lost(bench.state.path()), 2, "{}", mount.stderr());
    assert!(mount.stderr().contains("set aside") && mount.stderr().contains("files=2"), "{}", mount.stderr());
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

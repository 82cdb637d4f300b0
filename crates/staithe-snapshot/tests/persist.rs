//! Snapshots on disk: what a crash, a torn write or a damaged file leaves.
#![cfg(all(feature = "persist", not(loom)))]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use staithe_snapshot::persist::{Directory, Format, Loaded};
use staithe_snapshot::{Cause, Config, Epoch, Error, Kind, SnapshotCell};
use tempfile::tempdir;

const FORMAT: Format = Format { kind: *b"example.of.tests", version: 3 };

fn open(path: &Path) -> Directory {
    Directory::open(path, FORMAT).unwrap()
}

fn save(path: &Path, n: u64) {
    open(path).save(Epoch(n), |out| out.write_all(&state(n))).unwrap();
}

/// Long enough for several pieces.
fn state(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(20)
}

fn load(path: &Path) -> Result<Loaded<Vec<u8>>, Error> {
    open(path).load(|input| {
        let mut state = Vec::new();
        input.read_to_end(&mut state).map(|_| state)
    })
}

/// The state that is found, whole, and how many files were passed over.
fn found(path: &Path) -> (u64, usize) {
    let loaded = load(path).unwrap();
    assert_eq!(loaded.state, state(loaded.epoch.0), "a state that nobody has saved");
    (loaded.epoch.0, loaded.skipped.len())
}

fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
}

fn file(n: u64) -> String {
    format!("snapshot-{n:020}")
}

#[test]
fn what_is_saved_is_loaded_and_old_ones_go() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a/b");
    assert_eq!(load(&path).unwrap_err().kind(), Kind::Missing);
    for n in 1..=5 {
        save(&path, n);
        assert_eq!(found(&path), (n, 0));
    }
    let names: Vec<_> = files(&path).into_keys().collect();
    assert_eq!(names, ["CURRENT".to_string(), "LOCK".to_string(), file(4), file(5)]);
}

#[test]
fn a_directory_is_open_once() {
    let dir = tempdir().unwrap();
    let _open = open(dir.path());
    assert_eq!(Directory::open(dir.path(), FORMAT).unwrap_err().kind(), Kind::Busy);
}

#[test]
fn a_torn_snapshot_falls_back_to_the_one_before_and_says_so() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    save(dir.path(), 2);
    let newest = dir.path().join(file(2));
    let whole = fs::read(&newest).unwrap();
    for end in 0..whole.len() {
        fs::write(&newest, &whole[..end]).unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!((loaded.epoch, loaded.skipped.len()), (Epoch(1), 1), "{end} bytes");
        assert_eq!((&loaded.skipped[0].file, loaded.skipped[0].error.kind()), (&newest, Kind::Damaged));
    }
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x55;
        fs::write(&newest, bad).unwrap();
        assert_eq!(found(dir.path()), (1, 1), "byte {at}");
    }
    fs::remove_file(&newest).unwrap();
    assert_eq!(found(dir.path()), (1, 1));
    assert_eq!(load(dir.path()).unwrap().skipped[0].error.kind(), Kind::Missing);
}

#[test]
fn a_torn_current_is_passed_over() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    save(dir.path(), 2);
    let current = dir.path().join("CURRENT");
    let whole = fs::read(&current).unwrap();
    for end in 0..whole.len() {
        fs::write(&current, &whole[..end]).unwrap();
        assert_eq!(found(dir.path()), (2, 1), "{end} bytes");
    }
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(&current, bad).unwrap();
        assert_eq!(found(dir.path()), (2, 1), "byte {at}");
    }
    fs::remove_file(&current).unwrap();
    assert_eq!(found(dir.path()), (2, 0));
}

/// Every state of the directory that a process leaves that is killed while it saves, with each file cut at every byte.
#[test]
fn a_kill_at_any_point_of_a_save_leaves_the_old_or_the_new() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    save(dir.path(), 2);
    let before = files(dir.path());
    save(dir.path(), 3);
    let after = files(dir.path());
    let lay = |files: &BTreeMap<String, Vec<u8>>| {
        for entry in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
    };
    let mut now = before.clone();
    let new = &after[&file(3)];
    for end in 0..=new.len() {
        now.insert(file(3) + ".tmp", new[..end].to_vec());
        lay(&now);
        assert_eq!(found(dir.path()), (2, 0));
    }
    now.remove(&(file(3) + ".tmp"));
    now.insert(file(3), new.clone());
    let current = &after["CURRENT"];
    for end in 0..=current.len() {
        now.insert("CURRENT.tmp".into(), current[..end].to_vec());
        lay(&now);
        assert_eq!(found(dir.path()), (2, 0));
    }
    // The next save takes another number, and clears away what was left.
    save(dir.path(), 4);
    assert_eq!(found(dir.path()), (4, 0));
    assert!(files(dir.path()).into_keys().all(|name| Path::new(&name).extension().is_none()));
    now.remove("CURRENT.tmp");
    now.insert("CURRENT".into(), current.clone());
    lay(&now);
    assert_eq!(found(dir.path()), (3, 0));
}

#[test]
fn a_save_that_fails_or_panics_leaves_what_there_was() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    let before = files(dir.path());
    let mut directory = open(dir.path());
    let half = |out: &mut dyn io::Write| out.write_all(&vec![7; 1 << 20]);
    let failed = directory.save(Epoch(2), |out| half(out).map_err(Cause::from).and(Err("no more".into())));
    assert_eq!(failed.unwrap_err().kind(), Kind::Failed);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        directory.save(Epoch(2), |out| -> io::Result<()> {
            half(out)?;
            panic!("half way")
        })
    }));
    assert!(panicked.is_err());
    drop(directory);
    assert_eq!(files(dir.path()), before);
}

#[test]
fn newer_files_and_failing_disks_are_not_fallen_back_from() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    let newer = Format { version: 4, ..FORMAT };
    Directory::open(dir.path(), newer).unwrap().save(Epoch(2), |out| out.write_all(b"new")).unwrap();
    assert_eq!(load(dir.path()).unwrap_err().kind(), Kind::Newer);
    // Not a file, and so not readable.
    let newest = dir.path().join(file(2));
    fs::remove_file(&newest).unwrap();
    fs::create_dir(&newest).unwrap();
    assert_eq!(load(dir.path()).unwrap_err().kind(), Kind::Io);
}

#[test]
fn when_none_is_good_the_newest_says_why() {
    let dir = tempdir().unwrap();
    let other = Format { kind: *b"something.else\0\0", ..FORMAT };
    Directory::open(dir.path(), other).unwrap().save(Epoch(2), |out| out.write_all(b"x")).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Foreign);
    assert!(error.to_string().ends_with(&file(1)), "{error}");
}

#[test]
fn a_decoder_that_refuses_is_fallen_back_from() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    save(dir.path(), 2);
    let refuses = |input: &mut dyn io::Read| {
        let mut state = Vec::new();
        input.read_to_end(&mut state)?;
        if state[0] == 2 { Err(Cause::from("I do not like it")) } else { Ok(state) }
    };
    let loaded = open(dir.path()).load(|input| refuses(input)).unwrap();
    assert_eq!((loaded.epoch, loaded.skipped[0].error.kind()), (Epoch(1), Kind::Invalid));
}

#[test]
fn what_was_fallen_back_to_outlives_the_next_save() {
    let dir = tempdir().unwrap();
    save(dir.path(), 1);
    save(dir.path(), 2);
    fs::write(dir.path().join(file(2)), b"torn").unwrap();
    let mut directory = open(dir.path());
    let any = |input: &mut dyn io::Read| io::copy(input, &mut io::sink());
    assert_eq!(directory.load(|input| any(input)).unwrap().epoch, Epoch(1));
    directory.save(Epoch(2), |out| out.write_all(&state(2))).unwrap();
    drop(directory);
    assert_eq!(found(dir.path()), (2, 0));
    fs::write(dir.path().join(file(3)), b"torn").unwrap();
    assert_eq!(found(dir.path()).0, 1);
}

#[test]
fn a_cell_goes_on_where_it_was_saved() {
    let dir = tempdir().unwrap();
    let cell = SnapshotCell::new(state(1));
    drop(cell.publish(state(2)).unwrap());
    let snapshot = cell.load();
    open(dir.path()).save(snapshot.epoch(), |out| out.write_all(&snapshot)).unwrap();
    let loaded = load(dir.path()).unwrap();
    let config = Config { first_epoch: loaded.epoch, ..Config::default() };
    let again: SnapshotCell<Vec<u8>> = SnapshotCell::with_config(loaded.state, config);
    assert_eq!((again.epoch(), &**again.load()), (cell.epoch(), &**cell.load()));
}

const CHILD: &str = "STAITHE_SNAPSHOT_TEST_CHILD";

/// Not a test by itself: saves one state after the other, and says when each is durable, until it is killed.
#[test]
fn child_that_saves() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let mut directory = open(&path);
    for n in 1.. {
        directory.save(Epoch(n), |out| out.write_all(&state(n))).unwrap();
        println!("saved {n}");
    }
}

#[test]
fn nothing_that_was_saved_is_lost_by_a_kill() {
    for acknowledged in 1..=8 {
        let dir = tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_saves", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let saved = lines.map(Result::unwrap).filter_map(|line| line.split_once("saved ")?.1.parse().ok());
        let last: u64 = saved.take(acknowledged * 3).last().unwrap();
        // In the middle of one of the next.
        child.kill().unwrap();
        child.wait().unwrap();
        let (epoch, skipped) = found(dir.path());
        assert!(epoch >= last && skipped == 0, "{epoch} after {last}");
    }
}

//! The daemon ends, as by kill -9, at every step between two of which something could be lost: what was acknowledged
//! before is there afterwards, and nothing that was removed.
//!
//! The steps are in builds with debug assertions only, and so is this.

#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use real::ledger::{Ledger, Node, Tree, assert_stored, tree_of};
use real::{Bench, noise, staithe, start, text};
use rustix::process::Signal;
use staithe_fs::Step;
use staithe_testkit::{DaemonError, DaemonOptions, Fault, Operation, When};

const SOON: Duration = Duration::from_secs(30);
/// How a shell says that a program has aborted.
const ABORTED: i32 = 134;
/// The steps are shared out among so many tests.
const SHARES: usize = 16;
/// In one request up to 16 MiB, in parts from there.
const LARGE: usize = 17 << 20;

fn options(bench: &Bench, mode: &str) -> DaemonOptions {
    bench.daemon().arg(format!("--write-mode={mode}")).arg("--op-deadline=5s")
}

fn ending_at(options: DaemonOptions, step: Step, nth: u64) -> DaemonOptions {
    options.env([(String::from("STAITHE_ABORT_AT"), format!("{}:{nth}", step.name()))])
}

/// What another client had stored.
fn stored_before() -> Tree {
    let names = ["old", "stored", "target", "gone", "moved/a", "moved/b", "moved/sub/c", "cut"];
    let mut tree: Tree = names.iter().map(|name| (String::from(*name), Node::file(noise(7, 3000)))).collect();
    for dir in ["moved", "moved/sub"] {
        tree.insert(String::from(dir), Node::Dir { mode: 0o755 });
    }
    tree
}

fn bench() -> (Bench, Ledger) {
    let (bench, tree) = (Bench::new(), stored_before());
    for (key, node) in &tree {
        if let Node::File { bytes, .. } = node {
            bench.bucket().put(key, bytes.clone());
        }
    }
    (bench, Ledger::of(tree))
}

/// `staithe sync`: the store has everything.
fn sync(root: &Path) -> io::Result<()> {
    let output = staithe(&["sync", text(root)], Path::new("/"));
    if output.status.success() { Ok(()) } else { Err(io::Error::other("sync failed")) }
}

/// Changes of every kind, each acknowledged before the next.
fn work(root: &Path, ledger: &mut Ledger) -> io::Result<()> {
    ledger.mkdir(root, "d")?;
    ledger.mkdir(root, "d/empty")?;
    ledger.write(root, "d/closed", &noise(1, 5000))?;
    ledger.write_synced(root, "d/synced", &noise(2, 5000))?;
    ledger.write(root, "d/closed", &noise(3, 4000))?;
    ledger.edit(root, "old", 1000, &noise(4, 500))?;
    ledger.cut(root, "d/synced", 1234)?;
    ledger.cut(root, "cut", 100)?;
    ledger.symlink(root, "d/link", "closed")?;
    ledger.chmod(root, "d/closed", 0o600)?;
    ledger.chmod(root, "stored", 0o640)?;
    ledger.chmod(root, "d", 0o700)?;
    ledger.write(root, "moved/new", &noise(5, 700))?;
    ledger.rename(root, "d/closed", "d/renamed")?;
    ledger.rename(root, "d/renamed", "target")?;
    ledger.rename(root, "stored", "d/stored")?;
    ledger.rename(root, "moved", "d/moved")?;
    ledger.unlink(root, "gone")?;
    ledger.rmdir(root, "d/empty")?;
    ledger.write(root, "short", b"lived")?;
    ledger.unlink(root, "short")?;
    ledger.write(root, "large", &noise(6, LARGE))?;
    sync(root)?;
    ledger.write(root, "d/synced", &noise(8, 2000))?;
    ledger.rename(root, "d/moved", "back")?;
    ledger.chmod(root, "large", 0o600)?;
    ledger.unlink(root, "d/link")?;
    ledger.unlink(root, "d/stored")?;
    sync(root)
}

/// Whether the daemon came to the step, where it ended.
fn came_to_it(options: DaemonOptions, work: impl FnOnce(&Path) -> io::Result<()>) -> bool {
    let mut mount = match options.start() {
        Ok(mount) => mount,
        Err(DaemonError::Exited { status, .. }) if status.signal() == Some(Signal::ABORT.as_raw()) => {
            return true;
        }
        Err(error) => panic!("{error}"),
    };
    let done = work(mount.path());
    let code = if done.is_ok() { mount.terminate() } else { mount.wait(SOON) };
    let code = code.unwrap_or_else(|error| panic!("{done:?}: {error}"));
    assert!(code == ABORTED || (code == 0 && done.is_ok()), "{done:?}, {code}: {}", mount.stderr());
    code == ABORTED
}

/// The start after the crash has everything, and in the end the store has.
fn nothing_is_lost(bench: &Bench, ledger: &Ledger, mode: &str, when: &str) {
    let mut mount = start(options(bench, mode));
    let seen = tree_of(mount.path()).unwrap_or_else(|error| panic!("{when}: {error}: {}", mount.stderr()));
    ledger.check(&seen, &format!("{when}\n{}\n", mount.stderr()));
    assert_eq!(mount.terminate().unwrap(), 0, "{when}: {}", mount.stderr());
    assert_stored(&bench.bucket(), &seen, &format!("{when}\n{}\n", mount.stderr()));
    // The id of one that the store has just begun is in no journal yet.
    assert!(bench.bucket().uploads() <= 1, "{when}: uploads were left: {}", mount.stderr());
    let left = std::fs::read_dir(bench.state.path().join("staging")).unwrap().count();
    assert_eq!(left, 0, "{when}: staging files were left: {}", mount.stderr());
}

fn ends_at_work(mode: &str, step: Step, nth: u64) -> bool {
    let (bench, mut ledger) = bench();
    let armed = ending_at(options(&bench, mode), step, nth);
    let came = came_to_it(armed, |root| work(root, &mut ledger));
    nothing_is_lost(&bench, &ledger, mode, &format!("{mode}, {} {nth}", step.name()));
    came
}

#[test]
fn an_edited_file_whose_answer_a_crash_took_is_read_at_once() {
    let (bench, mut ledger) = bench();
    let armed = ending_at(options(&bench, "back"), Step::AfterPut, 1);
    assert!(came_to_it(armed, |root| {
        ledger.edit(root, "old", 1000, &noise(4, 500))?;
        sync(root)
    }));
    nothing_is_lost(&bench, &ledger, "back", "after-put");
}

#[test]
fn attributes_whose_answer_a_crash_took_are_not_unfinished_for_ever() {
    assert!(ends_at_work("back", Step::AfterAttributes, 2));
}

/// Leaves a bit of everything that a start can find: intents of each kind, an upload, and bytes that nothing speaks of.
fn leave_work_for_a_start(bench: &Bench, ledger: &mut Ledger) {
    let faults = bench.server.faults();
    let mut mount = start(options(bench, "back"));
    let root = mount.path().to_owned();
    let parts = faults.hold_requests(When::operation(Operation::UploadPart));
    ledger.write(&root, "large", &noise(6, LARGE)).unwrap();
    assert!(parts.wait_for_blocking(1, SOON), "{}", mount.stderr());
    faults.inject(When::operation(Operation::PutObject), Fault::internal_error());
    ledger.mkdir(&root, "d").unwrap();
    ledger.write(&root, "d/new", &noise(1, 5000)).unwrap();
    ledger.write(&root, "moved/new", &noise(2, 5000)).unwrap();
    ledger.edit(&root, "old", 1000, &noise(4, 500)).unwrap();
    ledger.chmod(&root, "stored", 0o640).unwrap();
    ledger.symlink(&root, "link", "old").unwrap();
    let open = ledger.open(&root, "open", &noise(5, 9000)).unwrap();
    let copies =
        faults.hold_requests(When::operation(Operation::CopyObject).key_where(|key| key.starts_with("d/")));
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| ledger.rename(&root, "moved", "d/moved"));
        assert!(copies.wait_for_blocking(1, SOON), "{}", mount.stderr());
        mount.signal(Signal::KILL).unwrap();
        assert_eq!(mount.wait(SOON).unwrap(), 137);
        renaming.join().unwrap().unwrap_err();
    });
    drop(open);
    parts.release();
    copies.release();
    faults.clear();
}

fn ends_at_the_start(mode: &str, step: Step, nth: u64) -> bool {
    let (bench, mut ledger) = bench();
    leave_work_for_a_start(&bench, &mut ledger);
    let armed = ending_at(options(&bench, mode), step, nth);
    let came = came_to_it(armed, sync);
    nothing_is_lost(&bench, &ledger, mode, &format!("start in {mode}, {} {nth}", step.name()));
    came
}

/// The daemon that goes on after one which ended with a file under both names, and attributes for it in the journal.
fn ends_at_the_start_in_a_rename(mode: &str, step: Step, nth: u64) -> bool {
    let (bench, mut ledger) = bench();
    assert!(came_to_it(ending_at(options(&bench, mode), Step::BeforeRenameDelete, 1), |root| {
        ledger.chmod(root, "stored", 0o640)?;
        ledger.rename(root, "stored", "target")
    }));
    let came = came_to_it(ending_at(options(&bench, mode), step, nth), sync);
    nothing_is_lost(&bench, &ledger, mode, &format!("start in a rename, {mode}, {} {nth}", step.name()));
    assert!(bench.bucket().get("stored").is_none(), "{} {nth}: the old name stayed", step.name());
    came
}

/// Ends daemons at a share of all steps: at each the first times that it is passed, and fewer and fewer of the later ones.
fn every_step_of(share: usize) {
    let mine = Step::ALL.iter().enumerate().filter(|(i, _)| i % SHARES == share);
    for (_, step) in mine {
        let scenarios: [&dyn Fn(u64) -> bool; 6] = [
            &|nth| ends_at_work("through", *step, nth),
            &|nth| ends_at_work("back", *step, nth),
            &|nth| ends_at_the_start("through", *step, nth),
            &|nth| ends_at_the_start("back", *step, nth),
            &|nth| ends_at_the_start_in_a_rename("through", *step, nth),
            &|nth| ends_at_the_start_in_a_rename("back", *step, nth),
        ];
        let mut times = 0;
        for ends in scenarios {
            // 1, 2, 5, 13, 34: every other one of Fibonacci's.
            let (mut nth, mut after) = (1, 2);
            while ends(nth) {
                times += 1;
                (nth, after) = (after, if nth == 1 { 5 } else { 3 * after - nth });
            }
        }
        assert!(times > 0, "nobody ever comes to {}", step.name());
    }
}

/// Tests that run side by side, each of one share.
macro_rules! shares {
    ($($name:ident = $share:literal,)*) => {$(
        #[test]
        fn $name() {
            every_step_of($share);
        }
    )*};
}

shares! {
    nothing_is_lost_at_the_steps_of_share_00 = 0,
    nothing_is_lost_at_the_steps_of_share_01 = 1,
    nothing_is_lost_at_the_steps_of_share_02 = 2,
    nothing_is_lost_at_the_steps_of_share_03 = 3,
    nothing_is_lost_at_the_steps_of_share_04 = 4,
    nothing_is_lost_at_the_steps_of_share_05 = 5,
    nothing_is_lost_at_the_steps_of_share_06 = 6,
    nothing_is_lost_at_the_steps_of_share_07 = 7,
    nothing_is_lost_at_the_steps_of_share_08 = 8,
    nothing_is_lost_at_the_steps_of_share_09 = 9,
    nothing_is_lost_at_the_steps_of_share_10 = 10,
    nothing_is_lost_at_the_steps_of_share_11 = 11,
    nothing_is_lost_at_the_steps_of_share_12 = 12,
    nothing_is_lost_at_the_steps_of_share_13 = 13,
    nothing_is_lost_at_the_steps_of_share_14 = 14,
    nothing_is_lost_at_the_steps_of_share_15 = 15,
}

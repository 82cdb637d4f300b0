//! `staithe reload`: a mount that goes on with other settings and other credentials.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use real::{
    Bucket, Keys, answer, at, close, code, daemon, noise, on_server, pair, quiet, record, refusal, sh,
    staithe, start, status, store, text,
};
use serde_json::{Value, json};
use staithe_testkit::{MountedDaemon, Operation, S3Server, Standing, Versioning, When, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// Reloads, which must be done; what is said of it.
fn reload(mount: &MountedDaemon, options: &[&str]) -> String {
    let output = staithe(&[&["reload", text(mount.path())], options].concat(), Path::new("/"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{options:?} said {said}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The same, which must be refused in one sentence, and change nothing.
fn refused(code: i32, mount: &MountedDaemon, options: &[&str]) -> String {
    let before = status(mount)["settings"].clone();
    let said = refusal(code, &[&["reload", text(mount.path())], options].concat());
    assert_eq!(&status(mount)["settings"]["reloads"], &before["reloads"], "{options:?}");
    for setting in ["metadata_ttl", "op_deadline", "log_level", "profile"] {
        assert_eq!(status(mount)["settings"][setting], before[setting], "{options:?}");
    }
    said
}

/// Reloads while files are open.
fn reload_quietly(mount: &MountedDaemon, options: &[[&str; 2]]) {
    let last = answer(mount, &json!({"reload": {"options": options}}));
    assert!(last["done"]["done"].is_object(), "{last}");
}

/// How many requests about objects `act` makes.
fn asked<T>(server: &S3Server, act: impl FnOnce() -> T) -> u64 {
    let before = server.requests().tally();
    act();
    let spent = server.requests().tally().since(&before);
    spent.total().requests - spent.of(Operation::HeadBucket).requests
}

#[test]
fn a_shorter_time_to_live_holds_at_once_for_what_is_remembered_and_a_longer_one_forgets_nothing() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(real::BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    for key in ["d/changed", "d/gone", "d/sub/deep"] {
        bucket.put(key, "old");
    }
    let options = daemon(&format!("s3://{}", real::BUCKET)).env(server.env());
    let mount = start(options.args(["--metadata-ttl", "forever"]));
    let look = || sh(mount.path(), "ls -lR . && cat d/changed && ! stat d/new && ! stat d/sub/new");
    look();
    assert_eq!(asked(&server, look), 0, "believed for ever");
    bucket.put("d/changed", "changed bytes");
    bucket.put("d/new", "new");
    bucket.delete("d/gone");
    assert_eq!(asked(&server, look), 0, "believed for ever");

    let said = reload(&mount, &["--metadata-ttl", "1h"]);
    assert_eq!(said, "metadata-ttl forever -> 1h, negative-ttl forever -> 1h; credentials read again");
    let seen = || {
        assert_eq!(sh(mount.path(), "ls d"), "changed\nnew\nsub");
        assert_eq!(fs::read(at(&mount, "d/changed")).unwrap(), b"changed bytes");
        assert_eq!(fs::read(at(&mount, "d/new")).unwrap(), b"new");
        for absent in ["d/gone", "d/sub/new"] {
            assert_eq!(code(fs::metadata(at(&mount, absent))), libc::ENOENT);
        }
    };
    assert!(asked(&server, seen) > 0);
    // Bytes are read once more by nobody either: they are the kernel's, and of this version.
    assert_eq!(asked(&server, seen), 0, "believed for an hour");
    assert_eq!(asked(&server, || reload(&mount, &["--metadata-ttl=forever"])), 0);
    assert_eq!(asked(&server, seen), 0, "nothing was forgotten");

    let said = reload(&mount, &["--metadata-ttl=0", "--negative-ttl=1h"]);
    assert!(said.starts_with("metadata-ttl forever -> 0, negative-ttl forever -> 1h"), "{said}");
    let (there, absent) = (at(&mount, "d/changed"), at(&mount, "d/gone"));
    for _ in 0..2 {
        assert!(asked(&server, || fs::metadata(&there).unwrap()) > 0, "nothing is believed");
    }
    assert_eq!(code(fs::metadata(&absent)), libc::ENOENT);
    let of_parent = asked(&server, || fs::metadata(at(&mount, "d")).unwrap());
    assert!(asked(&server, || code(fs::metadata(&absent))) <= of_parent, "absence is");
}

#[test]
fn a_name_that_is_not_stored_yet_is_believed_for_the_new_time_too() {
    let (server, _) = on_server(Versioning::Off);
    let options = ["--write-mode", "back", "--metadata-ttl", "forever"];
    let mount = start(daemon(&format!("s3://{}", real::BUCKET)).env(server.env()).args(options));
    let (bucket, dir) = (Bucket::of(&server), at(&mount, "dir"));
    fs::create_dir(&dir).unwrap();
    fs::metadata(&dir).unwrap();
    // Before it is on its way to the store, half a second later.
    reload_quietly(&mount, &[["--metadata-ttl", "0"]]);
    assert!(wait_until(SOON, || status(&mount)["dirty_files"] == 0));
    bucket.delete("dir/");
    assert_eq!(code(fs::metadata(&dir)), libc::ENOENT);
}

#[test]
fn keys_are_rotated_under_open_files() {
    for standing in [Standing::Revoked, Standing::Expired] {
        let keys = Keys::new(Versioning::Off);
        let (bucket, bytes) = (keys.bucket(), noise(1, 8 << 20));
        bucket.put("large", bytes.clone());
        bucket.put("other", "other");
        // Refused for longer, they would be taken for refused for good.
        let mount = start(keys.daemon().arg("--op-deadline=1s"));
        let _quiet = quiet();
        let reader = File::open(at(&mount, "large")).unwrap();
        let mut piece = [0; 4096];
        reader.read_exact_at(&mut piece, 0).unwrap();
        let mut writer = File::create(at(&mount, "new")).unwrap();
        writer.write_all(b"written before").unwrap();

        let new = pair("SECOND");
        keys.server.credentials().add(&new);
        keys.server.credentials().set(&keys.server.key_pair().access_key, standing);
        let errno = if standing == Standing::Expired { libc::EKEYEXPIRED } else { libc::EKEYREJECTED };
        assert_eq!(code(fs::read(at(&mount, "other"))), errno);
        assert_eq!(code(reader.read_exact_at(&mut piece, 6 << 20)), errno);
        assert_eq!(code(writer.sync_all()), errno);

        keys.write(&[("default", &new)]);
        reload_quietly(&mount, &[]);
        reader.read_exact_at(&mut piece, 6 << 20).unwrap();
        assert!(piece == bytes[6 << 20..][..4096]);
        assert_eq!(fs::read(at(&mount, "other")).unwrap(), b"other");
        writer.write_all(b", and after").unwrap();
        close(writer).unwrap();
        assert_eq!(bucket.get("new").unwrap(), b"written before, and after");
    }
}

#[test]
fn what_could_not_be_stored_with_the_old_keys_is_stored_with_the_new_ones() {
    let keys = Keys::new(Versioning::Off);
    let mount = start(keys.daemon().args(["--write-mode=back", "--op-deadline=1s"]));
    let path = at(&mount, "new");
    let _quiet = quiet();
    let mut file = File::create(&path).unwrap();
    file.write_all(b"kept here").unwrap();
    let new = pair("SECOND");
    keys.server.credentials().add(&new);
    keys.server.credentials().set(&keys.server.key_pair().access_key, Standing::Revoked);
    close(file).unwrap();
    assert!(wait_until(SOON, || real::state(&path).starts_with("failed")), "{}", real::state(&path));
    assert!(keys.bucket().get("new").is_none());
    keys.write(&[("default", &new)]);
    reload_quietly(&mount, &[]);
    assert!(wait_until(SOON, || real::state(&path) == "clean"), "{}", real::state(&path));
    assert_eq!(keys.bucket().get("new").unwrap(), b"kept here");
}

#[test]
fn credentials_that_the_store_does_not_take_change_nothing() {
    let keys = Keys::new(Versioning::Off);
    let (bucket, old, new) = (keys.bucket(), keys.server.key_pair().clone(), pair("SECOND"));
    let mount = start(keys.daemon().arg("--op-deadline=5s"));
    let works = |name: &str| {
        bucket.put(name, "stored");
        assert_eq!(fs::read(at(&mount, name)).unwrap(), b"stored");
        store(&at(&mount, &format!("{name}-of-ours")), "ours").unwrap();
    };
    let options = ["--metadata-ttl=9s", "--log-level=error"];
    for (n, (profiles, word)) in [
        (&[("default", &new)][..], "does not accept the credentials"),
        (&[][..], "no credentials"),
        (&[("other", &old)][..], "no credentials"),
    ]
    .into_iter()
    .enumerate()
    {
        keys.write(profiles);
        let said = refused(FAILED, &mount, &options);
        assert!(said.contains("nothing has changed") && said.contains(word), "{said}");
        works(&format!("after{n}"));
    }
    // A server that does not answer says nothing for them either.
    keys.write(&[("default", &old)]);
    keys.server.stop();
    let said = refused(FAILED, &mount, &options);
    assert!(said.contains("nothing has changed") && said.contains("cannot be reached"), "{said}");
    keys.server.restart().unwrap();
    let hold = keys.server.faults().hold_requests(When::operation(Operation::HeadBucket));
    let said = refused(FAILED, &mount, &options);
    assert!(said.contains("nothing has changed") && said.contains("does not answer"), "{said}");
    hold.release();
    works("at_the_end");
    let said = reload(&mount, &options);
    assert!(said.starts_with("metadata-ttl 1s -> 9s"), "{said}");
}

#[test]
fn who_hangs_up_before_the_store_has_answered_has_changed_nothing() {
    let (server, mount) = on_server(Versioning::Off);
    let hold = server.faults().hold_requests(When::operation(Operation::HeadBucket));
    let mut hasty = UnixStream::connect(record(&mount).with_extension("sock")).unwrap();
    let request = json!({"v": 1, "request": {"reload": {"options": [["--metadata-ttl", "7s"]]}}});
    writeln!(hasty, "{request}").unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    drop(hasty);
    thread::scope(|scope| {
        // One at a time: the next one comes to the store once the first is given up.
        let next = scope.spawn(|| reload_quietly(&mount, &[["--op-deadline", "2m"]]));
        assert!(hold.wait_for_blocking(2, SOON));
        hold.release();
        next.join().unwrap();
    });
    let told = status(&mount)["settings"].clone();
    assert_eq!((&told["metadata_ttl"], &told["op_deadline"]), (&json!("1s"), &json!("2m")));
    assert_eq!(told["reloads"], 1);
}

#[test]
fn another_profile_is_taken_and_stays() {
    let keys = Keys::new(Versioning::Off);
    let (old, new) = (keys.server.key_pair().clone(), pair("SECOND"));
    let mount = start(keys.daemon());
    keys.server.credentials().add(&new);
    keys.write(&[("default", &old), ("other", &new)]);
    assert!(refused(FAILED, &mount, &["--profile=nobody"]).contains("credentials"));
    assert_eq!(reload(&mount, &["--profile", "other"]), "profile default -> other; credentials read again");
    keys.server.credentials().set(&old.access_key, Standing::Revoked);
    store(&at(&mount, "new"), "new").unwrap();
    assert_eq!(reload(&mount, &[]), "nothing changed; credentials read again");
    assert_eq!(keys.bucket().get("new").unwrap(), b"new");
    let told = status(&mount)["settings"].clone();
    assert_eq!((&told["profile"], &told["reloads"]), (&json!("other"), &json!(2)));
    assert!(told["reloaded_seconds_ago"].is_u64(), "{told}");
}

#[test]
fn what_cannot_change_is_refused_by_name_and_nothing_changes() {
    let (server, mount) = on_server(Versioning::Off);
    assert_eq!(status(&mount)["settings"]["reloaded_seconds_ago"], Value::Null);
    let before = server.requests().tally();
    for option in [
        "--endpoint-url=http://127.0.0.1:1",
        "--region=eu-west-1",
        "--path-style",
        "--no-sign-request",
        "--read-only",
        "--allow-other",
        "--uid=7",
        "--gid=7",
        "--file-mode=600",
        "--dir-mode=700",
        "--attributes=listing",
        "--cache-dir=/nowhere",
        "--cache-size=1GiB",
        "--memory-limit=64MiB",
        "--write-mode=back",
        "--staging-size=1GiB",
        "--snapshot=/nowhere",
        "--state-dir=/nowhere",
        "--log-format=json",
        "--background",
        "--metrics=127.0.0.1:1",
        "--audit-log=syslog",
        "--on-volume-gone=unmount",
        "--accept-new-volume",
    ] {
        let name = option.split('=').next().unwrap();
        for options in [&[option][..], &["--metadata-ttl=9s", option], &[option, "--log-level=off"]] {
            let said = refused(USAGE, &mount, options);
            let wanted = format!("{name} cannot change while it is mounted");
            assert!(said.contains(&wanted), "{options:?}: {said}");
        }
    }
    for (option, value) in [
        ("--metadata-ttl", "soon"),
        ("--negative-ttl", "-1s"),
        ("--op-deadline", "0"),
        ("--drain-deadline", "x"),
        ("--on-conflict", "fight"),
        ("--log-level", "loud"),
        ("--colour", "red"),
    ] {
        let said = refused(
            USAGE,
            &mount,
            &["--metadata-ttl=9s", option, value][usize::from(option == "--metadata-ttl")..],
        );
        assert!(said.contains(option), "{said}");
    }
    // Its keys are in its environment, where no profile is asked for.
    let said = refused(USAGE, &mount, &["--profile=other", "--metadata-ttl=9s"]);
    assert!(said.contains("--profile") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    assert_eq!(server.requests().tally().since(&before).total().requests, 0, "the store was not asked");
}

#[test]
fn what_is_of_no_use_to_a_mount_is_refused_there() {
    let mount = start(daemon("memory://").arg("--read-only"));
    assert!(refused(USAGE, &mount, &["--profile=p"]).contains("--profile is only for"));
    assert!(refused(USAGE, &mount, &["--on-conflict=overwrite"]).contains("--on-conflict decides nothing"));
    assert_eq!(reload(&mount, &[]), "nothing changed");
    assert_eq!(reload(&mount, &["--drain-deadline=0"]), "drain-deadline 30s -> 0");
    let output = staithe(&["status", text(mount.path())], Path::new("/"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("drain-deadline 0,") && said.contains(" ago, 2 in all"), "{said}");
}

#[test]
fn the_fate_of_operations_follows_the_settings_in_force() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    bucket.put("held", "held");
    let _quiet = quiet();
    reload_quietly(&mount, &[["--op-deadline", "1h"]]);
    reload_quietly(&mount, &[["--op-deadline", "100ms"], ["--on-conflict", "overwrite"]]);
    let hold = server.faults().hold_requests(When::any().key("held"));
    assert_eq!(code(fs::read(at(&mount, "held"))), libc::ETIMEDOUT);
    hold.release();
    reload_quietly(&mount, &[["--op-deadline", "1m"]]);
    assert_eq!(fs::read(at(&mount, "held")).unwrap(), b"held");
    let mut file = File::create(at(&mount, "raced")).unwrap();
    file.write_all(b"ours").unwrap();
    bucket.put("raced", "theirs");
    close(file).unwrap();
    assert_eq!(bucket.get("raced").unwrap(), b"ours");
    let mut file = File::create(at(&mount, "raced")).unwrap();
    file.write_all(b"ours again").unwrap();
    reload_quietly(&mount, &[["--on-conflict", "keep-both"]]);
    bucket.put("raced", "theirs");
    assert_eq!(code(close(file)), libc::ESTALE);
    assert_eq!(bucket.get("raced").unwrap(), b"theirs");
}

#[test]
fn readers_and_writers_at_work_through_fifty_reloads_see_no_error() {
    const FILES: u32 = 8;
    const SIZE: usize = 300_000;
    let keys = Keys::new(Versioning::Off);
    let pairs = [keys.server.key_pair().clone(), pair("SECOND")];
    for pair in &pairs {
        keys.server.credentials().add(pair);
    }
    for n in 0..FILES {
        keys.bucket().put(&format!("d/f{n}"), noise(n, SIZE));
    }
    let mount = start(keys.daemon());
    let root = mount.path();
    let (over, rounds) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let until_over = |worker: usize, mut work: Box<dyn FnMut(u32) + '_>| {
        for n in (0..FILES).cycle() {
            if over.load(Ordering::Acquire) {
                return;
            }
            work(n);
            rounds[worker].fetch_add(1, Ordering::AcqRel);
        }
    };
    let read = |n| assert!(fs::read(root.join(format!("d/f{n}"))).unwrap() == noise(n, SIZE));
    let write = |n| {
        let (path, bytes) = (root.join(format!("w{n}")), noise(n + 100, SIZE));
        store(&path, &bytes).unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
    };
    let look = |_| {
        let names: Vec<_> = fs::read_dir(root.join("d")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(names.len(), FILES as usize);
        assert_eq!(code(fs::metadata(root.join("absent"))), libc::ENOENT);
    };
    let _quiet = quiet();
    thread::scope(|scope| {
        scope.spawn(|| until_over(0, Box::new(read)));
        scope.spawn(|| until_over(1, Box::new(write)));
        scope.spawn(|| until_over(2, Box::new(look)));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for round in 0..50 {
                let done = rounds.each_ref().map(|rounds| rounds.load(Ordering::Acquire));
                keys.write(&[("default", &pairs[(round + 1) % 2])]);
                let ttl = ["0", "1h", "1s"][round % 3];
                reload_quietly(
                    &mount,
                    &[["--metadata-ttl", ttl], ["--op-deadline", ["1m", "2m"][round % 2]]],
                );
                let moved = || rounds.iter().zip(done).all(|(now, done)| now.load(Ordering::Acquire) > done);
                assert!(wait_until(SOON, moved), "somebody is stuck");
            }
        }));
        over.store(true, Ordering::Release);
        outcome.unwrap();
    });
    for n in 0..FILES {
        assert!(keys.bucket().get(&format!("w{n}")).unwrap() == noise(n + 100, SIZE));
    }
}

#[test]
fn the_log_level_changes() {
    for format in ["text", "json"] {
        let options = daemon("memory://").args(["--log-format", format, "--log-level", "error"]);
        let mount = start(options);
        let logged = |line: &str| assert!(wait_until(SOON, || mount.stderr().contains(line)), "{line}");
        assert_eq!(reload(&mount, &["--op-deadline=2m"]), "op-deadline 1m -> 2m");
        assert_eq!(reload(&mount, &["--log-level=info"]), "log-level error -> info");
        logged("reloaded: log-level error -> info");
        reload(&mount, &["--op-deadline=3m"]);
        logged("reloaded: op-deadline 2m -> 3m");
        reload(&mount, &["--log-level=off"]);
        reload(&mount, &["--op-deadline=4m"]);
        reload(&mount, &["--log-level=debug"]);
        logged("reloaded: log-level off -> debug");
        let all = mount.stderr();
        assert!(!all.contains("1m -> 2m") && !all.contains("3m -> 4m"), "{all}");
    }
}

#[test]
fn a_pinned_mount_goes_on_with_new_keys_and_swaps_its_view_after_that() {
    let views = real::Views::new(Versioning::On);
    let bucket = views.bucket();
    for key in ["a", "b", "c"] {
        bucket.put(key, format!("{key} as it was"));
    }
    views.take("first");
    bucket.put("b", "b as it is");
    views.take("second");
    let (first, second) = (views.file("first"), views.file("second"));
    let keys = Keys::of(views.server);
    let mount = start(keys.daemon().args(["--op-deadline=1s", "--snapshot"]).arg(&first));
    assert_eq!(fs::read(at(&mount, "a")).unwrap(), b"a as it was");
    let new = pair("SECOND");
    keys.server.credentials().add(&new);
    keys.server.credentials().set(&keys.server.key_pair().access_key, Standing::Revoked);
    assert_eq!(code(fs::read(at(&mount, "b"))), libc::EKEYREJECTED);
    keys.write(&[("default", &new)]);
    let said = reload(&mount, &["--log-level=warn"]);
    assert_eq!(said, "log-level info -> warn; credentials read again");
    assert_eq!(fs::read(at(&mount, "b")).unwrap(), b"b as it was");
    let said = refused(USAGE, &mount, &["--on-conflict=overwrite", "--log-level=info"]);
    assert!(said.contains("--on-conflict"), "{said}");
    let said = refused(USAGE, &mount, &["--snapshot", text(&second)]);
    assert!(said.contains("--snapshot cannot change"), "{said}");
    let output = staithe(&["snapshot", "swap", text(mount.path()), text(&second)], Path::new("/"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(at(&mount, "b")).unwrap(), b"b as it is");
    assert_eq!(real::view(&mount)["epoch"], 2);
}

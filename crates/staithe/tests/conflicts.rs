//! Two writers of one object: which bytes stay, and who is told.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use real::{BUCKET, Bucket, at, close, code, daemon, noise, on_server, quiet, spawn, start};
use staithe_testkit::{Moto, MountedDaemon, S3Server, Versioning, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn write(path: &Path, bytes: &[u8]) -> File {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn with(arg: &str) -> (S3Server, MountedDaemon) {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg(arg));
    (server, mount)
}

/// Another client is first: both versions stay, the loser is told.
fn both_stay(name: &str, size: usize, existed: bool) {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    if existed {
        bucket.put(name, "base");
    }
    let ours = noise(1, size);
    let _quiet = quiet();
    let file = write(&at(&mount, name), &ours);
    bucket.put(name, "theirs");
    assert_eq!(code(close(file)), libc::ESTALE);
    let keys = bucket.keys();
    let prefix = format!("{name}.conflict-");
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys[0] == name && keys[1].starts_with(&prefix), "{keys:?}");
    assert_eq!(bucket.get(name).unwrap(), b"theirs");
    assert!(bucket.get(&keys[1]).unwrap() == ours);
    // This mount sees both, too.
    assert_eq!(fs::read(at(&mount, name)).unwrap(), b"theirs");
    assert!(fs::read(at(&mount, &keys[1])).unwrap() == ours);
    let names = fs::read_dir(mount.path()).unwrap().count();
    assert_eq!(names, 2);
    assert!(mount.stderr().contains(&keys[1]), "{}", mount.stderr());
    assert!(wait_until(SOON, || bucket.uploads() == 0));
    // The name can be written again.
    fs::write(at(&mount, name), "again").unwrap();
    assert_eq!(bucket.get(name).unwrap(), b"again");
}

#[test]
fn a_lost_race_for_a_new_name_keeps_both() {
    both_stay("new", 100_000, false);
}

#[test]
fn a_lost_race_for_a_known_name_keeps_both() {
    both_stay("known", 100_000, true);
}

#[test]
fn a_lost_race_of_a_large_file_keeps_both() {
    both_stay("large", 40 << 20, false);
}

#[test]
fn a_lost_race_against_a_delete_keeps_ours_beside() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    bucket.put("file", "base");
    let _quiet = quiet();
    let file = write(&at(&mount, "file"), b"ours");
    bucket.delete("file");
    assert_eq!(code(close(file)), libc::ESTALE);
    let keys = bucket.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys[0].starts_with("file.conflict-"), "{keys:?}");
    assert_eq!(bucket.get(&keys[0]).unwrap(), b"ours");
}

#[test]
fn every_descriptor_hears_of_a_lost_race() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    let _quiet = quiet();
    let file = write(&at(&mount, "file"), b"ours");
    bucket.put("file", "theirs");
    // As a child's exec does: its error is heard by nobody.
    assert_eq!(code(close(file.try_clone().unwrap())), libc::ESTALE);
    assert_eq!(code(file.write_all_at(b"more", 4)), libc::ESTALE);
    assert_eq!(code(file.set_len(2)), libc::ESTALE);
    assert_eq!(code(file.sync_all()), libc::ESTALE);
    assert_eq!(code(close(file)), libc::ESTALE);
    let keys = bucket.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(bucket.get(&keys[1]).unwrap(), b"ours");
    assert_eq!(bucket.get("file").unwrap(), b"theirs");
}

#[test]
fn with_overwrite_the_last_writer_wins() {
    let (server, mount) = with("--on-conflict=overwrite");
    let bucket = Bucket::of(&server);
    for name in ["known", "new"] {
        if name == "known" {
            bucket.put(name, "base");
        }
        let file = write(&at(&mount, name), b"ours");
        bucket.put(name, "theirs, which is longer");
        close(file).unwrap();
        assert_eq!(bucket.get(name).unwrap(), b"ours");
        assert_eq!(fs::read(at(&mount, name)).unwrap(), b"ours");
    }
    assert_eq!(bucket.keys(), ["known", "new"]);
}

#[test]
fn a_server_that_ignores_conditions_is_found_out_at_mount() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    server.modes().ignore_conditions(true);
    let mut mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()));
    let bucket = Bucket::of(&server);
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
    for name in ["first", "second"] {
        let file = write(&at(&mount, name), b"ours");
        bucket.put(name, "theirs");
        close(file).unwrap();
        assert_eq!(bucket.get(name).unwrap(), b"ours");
    }
    fs::rename(at(&mount, "first"), at(&mount, "second")).unwrap();
    fs::remove_file(at(&mount, "second")).unwrap();
    assert_eq!(mount.terminate().unwrap(), 0);
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
    let said = mount.stderr();
    let lines: Vec<_> = said.lines().filter(|l| l.contains("WARN") && l.contains("condition")).collect();
    assert_eq!(lines.len(), 1, "{said}");
}

/// Another client: boto3, in a process that is there before a file is opened, and so has no copy of it.
struct Sdk {
    python: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sdk {
    fn start(env: Vec<(String, String)>) -> Self {
        let script = "import boto3, sys\n\
            s3 = boto3.client('s3')\n\
            for line in sys.stdin:\n    \
                what, key, body = line.split()\n    \
                if what == 'put': s3.put_object(Bucket='bucket', Key=key, Body=body.encode())\n    \
                if what == 'get': print(s3.get_object(Bucket='bucket', Key=key)['Body'].read().decode())\n    \
                if what == 'list':\n        \
                    objects = s3.list_objects_v2(Bucket='bucket', Prefix=key).get('Contents', [])\n        \
                    print(*[o['Key'] for o in objects])\n    \
                print('done', flush=True)\n";
        let mut command = Command::new("python3");
        let command = command.args(["-c", script]).envs(env);
        let mut python = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (ask, answers) = (python.stdin.take().unwrap(), BufReader::new(python.stdout.take().unwrap()));
        Self { python, ask, answers }
    }

    /// What it prints before it is done.
    fn ask(&mut self, what: &str, key: &str, body: &str) -> String {
        writeln!(self.ask, "{what} {key} {body}").unwrap();
        let mut said = String::new();
        while !said.ends_with("done\n") {
            assert!(self.answers.read_line(&mut said).unwrap() > 0, "boto3 failed: {said}");
        }
        said.trim_end_matches("done\n").trim_end().to_owned()
    }

    fn keys(&mut self, prefix: &str) -> Vec<String> {
        self.ask("list", prefix, "-").split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = (self.python.kill(), self.python.wait());
    }
}

/// Races of a mount against an SDK, in both modes, for new and known names; `honours`: the server keeps conditions.
fn races_against_an_sdk(env: &[(String, String)], honours: bool) {
    let mut sdk = Sdk::start(env.to_vec());
    for (mode, how) in
        [("through", "keep-both"), ("back", "keep-both"), ("through", "overwrite"), ("back", "overwrite")]
    {
        let options = [format!("--write-mode={mode}"), format!("--on-conflict={how}")];
        let mut mount = start(daemon(&format!("s3://{BUCKET}")).env(env.to_vec()).args(options));
        let keeps_both = how == "keep-both" && honours;
        for is_known in [false, true] {
            let name = format!("{mode}-{how}-{is_known}");
            if is_known {
                sdk.ask("put", &name, "base");
            }
            let quiet = quiet();
            let file = write(&at(&mount, &name), b"ours");
            sdk.ask("put", &name, "theirs");
            let closed = close(file);
            drop(quiet);
            match closed {
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{name}"),
                Ok(()) => assert!(!keeps_both || mode == "back", "{name}: {}", mount.stderr()),
            }
            if !keeps_both {
                assert!(wait_until(SOON, || sdk.ask("get", &name, "-") == "ours"), "{}", mount.stderr());
                assert_eq!(sdk.keys(&name), [name]);
                continue;
            }
            assert!(wait_until(SOON, || sdk.keys(&name).len() == 2), "{name}: {}", mount.stderr());
            let keys = sdk.keys(&name);
            assert!(keys[0] == name && keys[1].starts_with(&format!("{name}.conflict-")), "{keys:?}");
            assert_eq!(sdk.ask("get", &keys[0], "-"), "theirs");
            assert_eq!(sdk.ask("get", &keys[1], "-"), "ours");
        }
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        let is_said = mount.stderr().contains("this store ignores conditions of writes");
        assert_eq!(is_said, how == "keep-both" && !honours, "{}", mount.stderr());
    }
}

#[test]
fn a_race_against_an_sdk_ends_as_the_mount_was_told() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    races_against_an_sdk(&server.env(), true);
}

/// It forgets If-Match where an upload in parts is completed, and is not trusted with any.
#[test]
fn on_moto_the_last_writer_wins_and_the_mount_says_so() {
    let moto = Moto::start().unwrap();
    moto.create_bucket(BUCKET).unwrap();
    races_against_an_sdk(&moto.env(), false);
}

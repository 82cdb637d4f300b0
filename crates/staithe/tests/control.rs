//! The commands that talk to a running daemon, and clients of its socket that behave badly.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use real::{at, daemon, on_directory, record, refusal, sh, staithe, start, store, text};
use rustix::process::Signal;
use serde_json::Value;
use staithe_testkit::wait_until;

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const STATUS: &[u8] = b"{\"v\":1,\"request\":{\"status\":{}}}\n";

/// The status of the mount that a path belongs to.
fn status(path: &str, dir: &Path) -> Value {
    let output = staithe(&["status", path, "--json"], dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    serde_json::from_str(&said).unwrap()
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// All that a daemon answers to some bytes.
fn answers(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(socket);
    // It may hang up on what is too long, once it has said so.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        said.extend_from_slice(&piece[..n]);
    }
    String::from_utf8(said).unwrap()
}

#[test]
fn status_is_told_of_the_mount_and_of_any_path_in_it() {
    let (bucket, mount) = on_directory();
    fs::create_dir_all(at(&mount, "d/e")).unwrap();
    store(&at(&mount, "d/e/file"), b"bytes").unwrap();
    let told = status(text(mount.path()), Path::new("/"));
    assert_eq!(told["mountpoint"], text(mount.path()));
    assert_eq!(told["source"], format!("file://{}", bucket.path().display()));
    assert_eq!(told["pid"], mount.pid());
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["state_dir"], text(mount.state_dir()));
    assert_eq!((&told["read_only"], &told["write_mode"]), (&Value::Bool(false), &Value::from("through")));
    assert_eq!(told["memory"]["limit_bytes"], 512 << 20);
    assert_eq!(told["cache"], Value::Null);
    assert!(told["uptime_seconds"].as_u64().unwrap() < 60 && told["inodes"].as_u64().unwrap() >= 4, "{told}");
    assert_eq!((&told["open_files"], &told["dirty_files"]), (&Value::from(0), &Value::from(0)));

    let mut file = File::create(at(&mount, "d/new")).unwrap();
    file.write_all(b"not stored yet").unwrap();
    // Starting a program closes its copy of the file, which stores it: so ask without one.
    let quiet = real::quiet();
    file.write_all(b", any of it").unwrap();
    let said = answers(&record(&mount).with_extension("sock"), STATUS);
    drop(quiet);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["done"]["dirty_files"], 1, "{said}");

    let link = tempfile::tempdir().unwrap();
    symlink(at(&mount, "d"), link.path().join("link")).unwrap();
    let inside = at(&mount, "d/e");
    let ways = [
        (text(&inside), Path::new("/")),
        ("file", &*inside),
        (".", &*inside),
        ("nothing/of/the/kind", &*inside),
        ("link/e", link.path()),
    ];
    for (path, dir) in ways {
        let told = status(path, dir);
        assert_eq!(
            (&told["pid"], &told["open_files"]),
            (&Value::from(mount.pid()), &Value::from(1)),
            "{path}"
        );
    }
    drop(file);
}

#[test]
fn top_shows_a_line_each_time_with_what_was_asked_of_the_store_meanwhile() {
    let server = real::server();
    let bucket = real::Bucket::of(&server);
    let mut mount = start(real::on(&server).args(["--metadata-ttl=0"]));
    let path = text(mount.path()).to_owned();
    let looking = std::thread::spawn(move || {
        staithe(&["top", &path, "--every=300ms", "--count=5", "--json"], Path::new("/"))
    });
    for n in 0..20 {
        bucket.put(&format!("f{n}"), "bytes");
        assert_eq!(fs::read(at(&mount, &format!("f{n}"))).unwrap(), b"bytes");
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = looking.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let looks: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(looks.len(), 5);
    assert!(looks.iter().all(|look| look["phase"] == "healthy" && look["requests"]["errors"] == 0), "{said}");
    let heads: u64 = looks.iter().map(|look| look["requests"]["head"].as_u64().unwrap()).sum();
    assert!((1..=100).contains(&heads), "{said}");

    let output = staithe(&["top", text(mount.path()), "--every=100ms", "--count=2"], Path::new("/"));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!((lines[0][0], lines[1][0]), ("phase", "healthy"));
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{said}");

    let refused = refusal(2, &["top", text(mount.path()), "--every=1ms"]);
    assert!(refused.contains("--every"), "{refused}");
    // It ends with the daemon, and says so.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_staithe"));
    command.args(["top", text(mount.path()), "--every=100ms"]);
    let mut looking = real::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (mut shown, mut lines) = (String::new(), std::io::BufReader::new(looking.stdout.take().unwrap()));
    lines.read_line(&mut shown).unwrap();
    assert!(shown.starts_with("phase"), "{shown}");
    assert_eq!(mount.terminate().unwrap(), 0);
    let output = looking.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(FAILED), "{output:?}");
    assert!(!output.stderr.is_empty());
}

#[test]
fn status_is_told_to_people_in_lines() {
    let mount = start(daemon("memory://").arg("--read-only").arg("--memory-limit=64MiB"));
    let output = staithe(&["status", text(mount.path())], Path::new("/"));
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = said.lines().map(|line| line.split_at(16)).collect();
    for (what, value) in [
        ("mount point", text(mount.path())),
        ("source", "memory://"),
        ("process", &mount.pid().to_string()),
        ("access", "read-only"),
        ("write mode", "through"),
        ("open files", "0"),
        ("memory", "0 B of 64.0 MiB in use, 0 B at most"),
        ("cache directory", "none"),
    ] {
        assert!(lines.contains(&(&format!("{what:<16}"), value)), "{what} {value}: {said}");
    }
}

#[test]
fn a_directory_that_is_mounted_again_belongs_to_its_mount() {
    let (_bucket, mount) = on_directory();
    fs::create_dir(at(&mount, "d")).unwrap();
    let again = tempfile::tempdir().unwrap();
    sh(Path::new("/"), &format!("mount --bind {} {}", at(&mount, "d").display(), again.path().display()));
    let told = status(text(again.path()), Path::new("/"));
    sh(Path::new("/"), &format!("umount {}", again.path().display()));
    assert_eq!(told["mountpoint"], text(mount.path()));
}

#[test]
fn what_is_no_mount_of_ours_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path(), &dir.path().join("missing"), Path::new("/proc/self"), Path::new("/")] {
        assert!(refusal(FAILED, &["status", text(path)]).contains("nothing of staithe"));
    }
}

#[test]
fn a_daemon_that_died_or_hangs_is_said_and_a_new_one_takes_its_place() {
    let (bucket, mut mount) = on_directory();
    let mountpoint = mount.path().to_owned();
    let asked = ["status", text(&mountpoint)];
    real::stop(&mut mount);
    let since = Instant::now();
    let said = refusal(FAILED, &asked);
    assert!(said.contains("does not answer") && since.elapsed() < SOON, "{said}");
    // A path in it is not asked for, so that it cannot hang.
    let below = at(&mount, "d/e");
    assert!(refusal(FAILED, &["status", text(&below)]).contains("does not answer"));
    mount.signal(Signal::CONT).unwrap();
    assert_eq!(status(asked[1], Path::new("/"))["pid"], mount.pid());

    let socket = record(&mount).with_extension("sock");
    mount.signal(Signal::KILL).unwrap();
    mount.wait(SOON).unwrap();
    assert!(mount.is_mounted() && socket.exists());
    let said = refusal(FAILED, &asked);
    assert!(said.contains("has died") && said.contains("umount"), "{said}");
    assert!(refusal(FAILED, &["status", text(&below)]).contains("has died"));

    let state = tempfile::tempdir().unwrap();
    let options = daemon(&format!("file://{}", bucket.path().display())).state_dir(state.path());
    let mut next = start(options.mount_point(&mountpoint));
    assert_eq!(status(asked[1], Path::new("/"))["pid"], next.pid());
    assert_eq!(next.terminate().unwrap(), 0);
    assert!(!socket.exists());
    assert!(refusal(FAILED, &asked).contains("nothing of staithe"));
}

#[test]
fn only_the_owner_may_connect() {
    let mount = start(daemon("memory://"));
    let socket = record(&mount).with_extension("sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_client_without_sense_is_told_so() {
    let mount = start(daemon("memory://"));
    let socket = record(&mount).with_extension("sock");
    let megabyte = vec![b'x'; (1 << 20) + 1];
    let long_line = [&megabyte[..], b"\n"].concat();
    for (bytes, word) in [
        (&b"\0\xff\x1b[2J\n"[..], "no request"),
        (b"GET / HTTP/1.1\r\n\r\n", "no request"),
        (b"{}\n", "no request"),
        (
            br#"{"v":1,"request":{"dance":{}}}
"#,
            "dance",
        ),
        (
            br#"{"v":99,"request":{"status":{}}}
"#,
            "version 1",
        ),
        (&megabyte, "1048576 bytes"),
        (&long_line, "1048576 bytes"),
    ] {
        let said = answers(&socket, bytes);
        let reply: Value = serde_json::from_str(&said).unwrap();
        assert!(reply["error"].as_str().unwrap().contains(word), "{said}");
    }
    // Whoever ends in the middle, or asks and does not listen, is forgotten.
    for bytes in [&b""[..], br#"{"v":1,"requ"#, STATUS] {
        connect(&socket).write_all(bytes).unwrap();
    }
    let good = answers(&socket, &[STATUS, b"{\"v\":1}\n"].concat());
    assert_eq!(serde_json::from_str::<Value>(&good).unwrap()["done"]["pid"], mount.pid());
    store(&at(&mount, "file"), b"bytes").unwrap();
    assert_eq!(fs::read(at(&mount, "file")).unwrap(), b"bytes");
}

#[test]
fn clients_that_stay_hold_up_neither_the_mount_nor_its_end() {
    let mut mount = start(daemon("memory://"));
    let socket = record(&mount).with_extension("sock");
    let mut idle: Vec<_> = (0..16).map(|_| connect(&socket)).collect();
    for (i, stream) in idle.iter_mut().enumerate() {
        stream.write_all(if i % 2 == 0 { b"" } else { b"{\"v\":1," }).unwrap();
    }
    // They have all places there are.
    let told =
        wait_until(SOON, || refusal(FAILED, &["status", text(mount.path())]).contains("try again later"));
    assert!(told, "{}", mount.stderr());
    store(&at(&mount, "file"), b"bytes").unwrap();
    // One that leaves makes room.
    drop(idle.pop());
    let asked = || staithe(&["status", text(mount.path())], Path::new("/")).status.success();
    assert!(wait_until(SOON, asked));
    let since = Instant::now();
    let output = staithe(&["umount", text(mount.path())], Path::new("/"));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(mount.wait(SOON).unwrap(), 0);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    for mut stream in idle {
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
}

#[test]
fn a_client_that_says_nothing_loses_its_place() {
    let mount = start(daemon("memory://"));
    let socket = record(&mount).with_extension("sock");
    let said = answers(&socket, b"{\"v\":1,");
    assert!(said.contains("no request came"), "{said}");
    drop(mount);
}

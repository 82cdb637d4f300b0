//! What people run: version control, archives, databases, editors, logs.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use real::{BUCKET, at, daemon, noise, on_directory, on_moto, on_server, sh, start};
use staithe_testkit::{MountedDaemon, S3Server, Versioning, wait_until};

fn git(dir: &Path) {
    sh(
        dir,
        "git init -q -b main repo && cd repo
         for i in 1 2 3; do mkdir -p d$i; seq $((i * 500)) > d$i/f; git add .; git commit -qm c$i; done
         git gc -q && git fsck --strict 2>&1
         git checkout -q -b side && git mv d1/f d1/g && git commit -qam moved && git checkout -q main
         git merge -q side && git status --porcelain
         cd .. && git clone -q repo copy && cd copy && git fsck --strict 2>&1 && diff -r ../repo/d3 d3
         test $(git log --oneline | wc -l) = 4",
    );
}

fn tar_and_rsync(dir: &Path) {
    let source = tempfile::tempdir().unwrap();
    sh(
        source.path(),
        "mkdir -p a/b 'sp ace' && seq 1000 > a/b/f && : > empty && ln -s a/b/f link && ln -s nowhere dangling
         chmod 750 a && chmod 4711 a/b/f && touch -d '2001-02-03 04:05:06.789' 'sp ace' a/b/f
         touch -h -d '2002-02-02 02:02:02.202' link dangling; printf 'x' > 'sp ace/ünï+%&'",
    );
    let source = source.path().display();
    let listing = "find . ! -type d -printf '%P %y %m %s %T@ %l\\n' | sort";
    let list_modes = "find . -type d -printf '%P %m\\n' | sort | tail -n +2";
    sh(
        dir,
        &format!(
            "mkdir t && tar -C {source} --format=posix -cf - . | tar -C t -xpf - && diff -r --no-dereference {source} t"
        ),
    );
    assert_eq!(sh(&dir.join("t"), listing), sh(Path::new(&source.to_string()), listing));
    assert_eq!(sh(&dir.join("t"), list_modes), sh(Path::new(&source.to_string()), list_modes));
    sh(dir, &format!("rsync -a {source}/ r/ && diff -r --no-dereference {source} r"));
    assert_eq!(sh(&dir.join("r"), listing), sh(Path::new(&source.to_string()), listing));
    // A second run finds nothing to do.
    assert_eq!(sh(dir, &format!("rsync -ai --omit-dir-times {source}/ r/ | grep '^[<>]' || true")), "");
    sh(dir, "rm -rf t r");
}

fn sqlite(dir: &Path) {
    sh(
        dir,
        "sqlite3 db 'create table t(a integer primary key, b text)'
         for i in $(seq 20); do sqlite3 db \"insert into t(b) values(hex(randomblob(500)))\"; done
         test $(sqlite3 db 'select count(*) from t') = 20
         sqlite3 db 'delete from t where a % 2; vacuum'
         test $(sqlite3 db 'pragma integrity_check') = ok
         test $(sqlite3 db 'select count(*) from t') = 10",
    );
}

fn editor(dir: &Path) {
    sh(
        dir,
        "printf 'one\\n' > text
         for i in $(seq 10); do
             cp -p text .text.swp; sed s/one/two$i/ text > text~new; mv text text~; mv text~new text
             grep -q . text; rm .text.swp text~
         done
         sed -i s/two/three/ text && grep -q three text && test \"$(ls)\" = text -o -n \"$(ls | grep text)\"
         rm text",
    );
}

fn change_in_place(dir: &Path) {
    let mut model = noise(7, 40 << 20);
    fs::write(dir.join("big"), &model).unwrap();
    sh(dir, "printf CHANGED | dd of=big bs=1 seek=20000000 conv=notrunc status=none; printf TAIL >> big");
    model[20_000_000..20_000_007].copy_from_slice(b"CHANGED");
    model.extend_from_slice(b"TAIL");
    assert!(fs::read(dir.join("big")).unwrap() == model);
    sh(dir, "truncate -s 1000000 big && truncate -s 2000000 big && fallocate -l 3000000 big");
    model.truncate(1_000_000);
    model.resize(3_000_000, 0);
    assert!(fs::read(dir.join("big")).unwrap() == model);
    sh(dir, "rm big");
}

fn tail_a_log(dir: &Path) {
    let path = dir.join("log");
    let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let mut tail = fs::File::open(&path).unwrap();
    let mut seen = String::new();
    for i in 0..200 {
        writeln!(log, "line {i}").unwrap();
        let line = format!("line {i}\n");
        let arrived = wait_until(Duration::from_secs(10), || {
            tail.read_to_string(&mut seen).unwrap();
            seen.ends_with(&line)
        });
        assert!(arrived, "line {i} does not arrive; seen: {seen:?}");
    }
    drop(log);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 200);
}

fn memory_map(dir: &Path) {
    sh(
        dir,
        "python3 - <<'EOF'
import mmap, os
with open('mapped', 'wb') as f: f.write(bytes(100000))
with open('mapped', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
    m[50000:50005] = b'hello'
    m.flush()
    assert open('mapped', 'rb').read()[50000:50005] == b'hello'
    m[0:3] = b'abc'
assert open('mapped', 'rb').read()[:3] == b'abc'
EOF",
    );
}

fn all(mount: &MountedDaemon) {
    for program in [git, tar_and_rsync, sqlite, editor, change_in_place, tail_a_log, memory_map] {
        program(mount.path());
    }
}

#[test]
fn programs_work_on_s3() {
    let (server, mut mount) = on_server(Versioning::Off);
    all(&mount);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    drop(server);
}

/// What they have read once lies on the local disk, and the kernel reads it there by itself.
#[test]
fn programs_work_with_a_disk_cache() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let disk = tempfile::tempdir().unwrap();
    fs::create_dir(disk.path().join("state")).unwrap();
    let options = daemon(&format!("s3://{BUCKET}")).env(server.env()).state_dir(disk.path().join("state"));
    let mut mount = start(options.arg("--cache-dir").arg(disk.path().join("cache")));
    all(&mount);
    // Once more, over files that are in the cache.
    sh(
        mount.path(),
        "for f in repo/d3/f copy/.git/HEAD; do cat $f > /dev/null; done; rm -rf repo copy db log map",
    );
    all(&mount);
    assert_eq!(mount.terminate().unwrap(), 0);
}

#[test]
fn programs_work_on_a_versioned_bucket() {
    let (_server, mount) = on_server(Versioning::On);
    for program in [git, editor, change_in_place, tail_a_log] {
        program(mount.path());
    }
}

#[test]
fn programs_work_on_moto() {
    let (_moto, mount) = on_moto();
    all(&mount);
}

#[test]
fn programs_work_on_a_directory() {
    let (bucket, mount) = on_directory();
    all(&mount);
    fs::write(at(&mount, "plain"), "as it is").unwrap();
    assert_eq!(fs::read(bucket.path().join("plain")).unwrap(), b"as it is");
}

#[test]
fn attributes_are_there_after_a_remount() {
    let (server, mut mount) = on_server(Versioning::Off);
    sh(
        mount.path(),
        "mkdir d && echo x > d/f && chmod 2750 d && chown 12:34 d/f && chmod 4711 d/f
         setfattr -n user.colour -v blue d/f && ln -s d/f l && touch -d @981173106.5 d/f",
    );
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    let mount = real::start(real::daemon(&format!("s3://{}", real::BUCKET)).env(server.env()));
    assert_eq!(sh(mount.path(), "stat -c '%a %u %g %s %.1Y' d/f"), "4711 12 34 2 981173106.5");
    assert_eq!(
        sh(mount.path(), "stat -c '%a' d; readlink l; getfattr --only-values -n user.colour d/f"),
        "2750\nd/f\nblue"
    );
    assert_eq!(sh(mount.path(), "getfattr --only-values -n user.staithe.state d/f"), "clean");
}

//! A local directory as a source, which other programs use too.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink,
};
use std::path::Path;

use real::{at, code, on_directory, store};

#[test]
fn a_name_where_a_link_a_pipe_or_a_socket_stands_is_refused_at_once() {
    let (bucket, mut mount) = on_directory();
    fs::create_dir(bucket.path().join("d")).unwrap();
    fs::write(bucket.path().join("d/file"), "target").unwrap();
    symlink("file", bucket.path().join("d/link")).unwrap();
    symlink("nowhere", bucket.path().join("d/dangling")).unwrap();
    let pipe = bucket.path().join("d/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bucket.path().join("d/socket")).unwrap();
    // Cold, and after a listing that did not show them.
    for _ in 0..2 {
        for name in ["link", "dangling", "pipe", "socket"] {
            let path = at(&mount, "d").join(name);
            for outcome in [
                fs::symlink_metadata(&path).map(drop),
                File::open(&path).map(drop),
                File::create_new(&path).map(drop),
                File::create(&path).map(drop),
                fs::create_dir(&path),
                fs::rename(at(&mount, "d/file"), &path),
                fs::remove_file(&path),
            ] {
                assert_eq!(code(outcome), libc::EACCES, "{name}");
            }
        }
        let shown: Vec<_> = fs::read_dir(at(&mount, "d")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(shown, ["file"]);
    }
    store(&at(&mount, "d/new"), "x").unwrap();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(fs::read_link(bucket.path().join("d/link")).unwrap(), std::path::Path::new("file"));
    assert_eq!(fs::read(bucket.path().join("d/file")).unwrap(), b"target");
}

/// Permissions, owner and group.
fn owned(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.gid())
}

#[test]
fn what_others_put_there_keeps_its_mode_and_owner() {
    let (bucket, mount) = on_directory();
    let below = |name: &str| bucket.path().join(name);
    let set = |name: &str, mode: u32| {
        fs::set_permissions(below(name), fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(below(name), Some(1234), Some(5678)).unwrap();
    };
    fs::write(below("private"), "secret").unwrap();
    set("private", 0o600);
    fs::create_dir(below("empty")).unwrap();
    set("empty", 0o700);
    assert_eq!(owned(at(&mount, "private")), (0o600, 1234, 5678));
    assert_eq!(owned(at(&mount, "empty")), (0o700, 1234, 5678));
    // Also by the name that a listing showed, after a change of its bytes, and under another name.
    fs::write(below("listed"), "secret").unwrap();
    set("listed", 0o640);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 3);
    assert_eq!(owned(at(&mount, "listed")), (0o640, 1234, 5678));
    store(&at(&mount, "private"), "changed").unwrap();
    assert_eq!(owned(below("private")), (0o600, 1234, 5678));
    fs::rename(at(&mount, "private"), at(&mount, "renamed")).unwrap();
    assert_eq!(owned(below("renamed")), (0o600, 1234, 5678));
    assert_eq!(owned(at(&mount, "renamed")), (0o600, 1234, 5678));
    store(&at(&mount, "empty/child"), "x").unwrap();
    fs::remove_file(at(&mount, "empty/child")).unwrap();
    assert_eq!(
        (owned(below("empty")), owned(at(&mount, "empty"))),
        ((0o700, 1234, 5678), (0o700, 1234, 5678))
    );
}

#[test]
fn what_is_written_has_its_mode_and_owner_in_the_directory_too() {
    let (bucket, mount) = on_directory();
    let below = |name: &str| bucket.path().join(name);
    for (name, mode) in [("private", 0o600), ("shared", 0o664), ("program", 0o755)] {
        let file = File::options().write(true).create_new(true).mode(mode).open(at(&mount, name)).unwrap();
        std::io::Write::write_all(&mut &file, name.as_bytes()).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        real::close(file).unwrap();
        assert_eq!(owned(below(name)), (mode, 0, 0), "{name}");
        assert_eq!(owned(at(&mount, name)), (mode, 0, 0), "{name}");
    }
    fs::set_permissions(at(&mount, "shared"), fs::Permissions::from_mode(0o4640)).unwrap();
    std::os::unix::fs::chown(at(&mount, "shared"), Some(1234), Some(5678)).unwrap();
    assert_eq!(owned(below("shared")), (0o640, 1234, 5678));
    fs::DirBuilder::new().mode(0o700).create(at(&mount, "d")).unwrap();
    assert_eq!(owned(below("d")), (0o700, 0, 0));
    fs::set_permissions(at(&mount, "d"), fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(owned(below("d")), (0o750, 0, 0));
    // A link has a mode that means nothing, and its object must not get it.
    symlink("target", at(&mount, "link")).unwrap();
    assert_eq!(owned(below("link")).0 & 0o022, 0);
    // A directory of others with files in it never gets wider.
    fs::create_dir(below("theirs")).unwrap();
    fs::write(below("theirs/file"), "x").unwrap();
    fs::set_permissions(below("theirs"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(at(&mount, "theirs/file")).unwrap();
    assert_eq!(owned(below("theirs")), (0o700, 0, 0));
}

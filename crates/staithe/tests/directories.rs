//! A local directory as a source, which other programs use too.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::symlink;

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

//! Programs that walk a tree: what they see, and what that costs in listings.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::BTreeSet;

use real::{BUCKET, Bucket, daemon, sh, start};
use staithe_testkit::{MountedDaemon, Operation, S3Server, Versioning};

const DIRECTORIES: usize = 40;
const FILES: usize = 50;

/// A server with a tree: directories of two levels, the last of them empty but for a marker.
fn tree() -> (S3Server, Bucket) {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    for dir in 0..DIRECTORIES {
        for file in 0..FILES {
            bucket.put(&format!("top{}/dir{:02}/file{file:03}", dir / 10, dir % 10), format!("{dir}/{file}"));
        }
    }
    bucket.put("top3/empty/", "");
    (server, bucket)
}

/// Paths of the bucket's files and directories, sorted.
fn paths(bucket: &Bucket) -> Vec<String> {
    let mut all = BTreeSet::new();
    for key in bucket.keys() {
        all.extend(key.match_indices('/').map(|(at, _)| key[..at].to_owned()));
        all.insert(key.trim_end_matches('/').to_owned());
    }
    all.into_iter().collect()
}

/// What a program said on a fresh mount, and how often that listed.
fn walked(server: &S3Server, script: &str) -> (String, u64) {
    // Nothing is to go out of date on a busy machine, so that the count is of what is asked for once.
    let options = daemon(&format!("s3://{BUCKET}")).env(server.env()).args(["--metadata-ttl", "1h"]);
    let mount: MountedDaemon = start(options);
    let before = server.requests().tally();
    let said = sh(mount.path(), script);
    (said, server.requests().tally().since(&before).of(Operation::ListObjectsV2).requests)
}

/// One for each of the first directories, as long as it is no walk yet, and then one for a thousand files.
const LISTS: u64 = 8;

#[test]
fn find_and_du_see_every_file_for_a_listing_a_thousand() {
    let (server, bucket) = tree();
    let expected = paths(&bucket);
    for script in [
        "find . -mindepth 1 -printf '%P\\n'",
        "du -a . | cut -f 2 | sed -n 's,^[.]/,,p'",
        "find . -mindepth 1 | cut -c 3-",
    ] {
        let (said, lists) = walked(&server, script);
        let mut said: Vec<&str> = said.lines().collect();
        said.sort_unstable();
        assert!(said == expected, "{script}: {} instead of {}", said.len(), expected.len());
        assert!(lists <= LISTS, "{script}: {lists}");
    }
}

#[test]
fn ls_of_a_tree_with_attributes_sees_every_file() {
    let (server, _bucket) = tree();
    let (said, lists) = walked(&server, "LC_ALL=C ls -lR");
    assert_eq!(said.lines().filter(|line| line.starts_with('-')).count(), DIRECTORIES * FILES);
    let headings = said.lines().filter(|line| line.starts_with("./") && line.ends_with(':')).count();
    assert_eq!(headings, DIRECTORIES + DIRECTORIES / 10 + 1);
    assert!(lists <= LISTS, "{lists}");
}

#[test]
fn rsync_and_tar_copy_every_file() {
    let (server, bucket) = tree();
    for script in ["rsync -a . $copy/", "tar c . | tar x -C $copy", "cp -r . $copy/"] {
        let copy = tempfile::tempdir().unwrap();
        let (_, lists) = walked(&server, &script.replace("$copy", copy.path().to_str().unwrap()));
        for key in bucket.keys() {
            let place = copy.path().join(&key);
            match bucket.get(&key) {
                Some(bytes) if !key.ends_with('/') => {
                    assert!(std::fs::read(&place).unwrap() == bytes, "{key}");
                }
                _ => assert!(place.is_dir(), "{key}"),
            }
        }
        assert!(lists <= LISTS, "{script}: {lists}");
    }
}

#[test]
fn what_is_changed_here_in_the_middle_of_a_walk_is_seen_by_the_next() {
    let (server, bucket) = tree();
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).args(["--metadata-ttl", "1h"]));
    let script = "
        find . -type d | head -30 > /dev/null
        rm top2/dir05/file000; echo new > top2/dir06/new; mv top2/dir07/file001 top3/dir00/moved
        mv top2/dir08 top3/dir08a; mkdir top3/made; rmdir top3/empty; rm -r top1/dir09
        find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort";
    let said = sh(mount.path(), script);
    let mut seen: Vec<&str> = said.lines().collect();
    seen.sort_unstable();
    assert!(seen == paths(&bucket));
    assert!(!seen.contains(&"top2/dir05/file000") && seen.contains(&"top3/dir08a/file049"));
}

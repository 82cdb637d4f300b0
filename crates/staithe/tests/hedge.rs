//! A range that stalls, between a real mount and a real server: it is asked for once more, and nobody waits for it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;
use std::ops::Range;
use std::time::Duration;

use real::{BUCKET, Bucket, at, daemon, noise, start};
use staithe_testkit::{Fault, MountedDaemon, Operation, RequestRecord, S3Server, Versioning, When};

/// What comes of the range that stalls.
const BEGINNING: u64 = 50_000;

/// Reads files until it is known what silence is usual: each is a range at least.
fn learn_the_pace(server: &S3Server, mount: &MountedDaemon) {
    let bucket = Bucket::of(server);
    let names: Vec<_> = (0..96).map(|n| format!("usual/{n}")).collect();
    for name in &names {
        bucket.put(name, noise(1, 256 << 10));
    }
    // So slow that what a busy machine adds to it is not silence.
    server.modes().set_latency(Duration::from_millis(150));
    std::thread::scope(|scope| {
        for names in names.chunks(8) {
            scope.spawn(move || {
                for name in names {
                    assert!(fs::read(at(mount, name)).unwrap() == noise(1, 256 << 10));
                }
            });
        }
    });
    server.modes().set_latency(Duration::ZERO);
}

fn range(record: &RequestRecord) -> Range<u64> {
    let range = record.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = range.unwrap();
    first.parse().unwrap()..last.parse::<u64>().unwrap() + 1
}

#[test]
fn a_range_that_stalls_is_asked_for_once_more_and_its_reader_goes_on() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    // Longer than any test: who waits for what never comes does not end.
    let mut mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--op-deadline=1h"));
    learn_the_pace(&server, &mount);
    let bytes = noise(2, 4 << 20);
    Bucket::of(&server).put("big", bytes.clone());
    let second = When::operation(Operation::GetObject).key("big").nth(2);
    let stall = server.faults().inject(second, Fault::StallBody { after: BEGINNING });
    assert!(fs::read(at(&mount, "big")).unwrap() == bytes);
    assert_eq!(stall.hits(), 1);

    let records = server.requests().records();
    let of_big = |record: &&RequestRecord| {
        record.operation == Operation::GetObject && record.key.as_deref() == Some("big")
    };
    let ranges: Vec<_> =
        records.iter().filter(of_big).map(|record| (range(record), record.bytes_out)).collect();
    let is_cut = |(range, sent): &&(Range<u64>, u64)| *sent == BEGINNING && *sent < range.end - range.start;
    let (stalled, _) = ranges.iter().find(is_cut).unwrap();
    let touching = ranges.iter().filter(|(range, _)| range.start < stalled.end && stalled.start < range.end);
    let touching: Vec<_> = touching.map(|(range, _)| range.clone()).collect();
    assert_eq!(
        touching,
        [stalled.clone(), stalled.start + BEGINNING..stalled.end],
        "its rest, once: {ranges:?}"
    );
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

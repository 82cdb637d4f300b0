//! F5: credentials that are refused, expired, renewed, and not good for one key.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use real::fate::{audit, becomes, of_event, phase};
use real::{Bucket, Keys, at, code, on, pair, server, start};
use staithe_testkit::{Fault, Operation, Standing, Versioning, When, wait_until};

const SOON: Duration = Duration::from_mins(1);
const REFUSED: i32 = 77;

#[test]
fn credentials_that_are_revoked_for_good_end_the_mount_with_77() {
    let keys = Keys::new(Versioning::Off);
    keys.bucket().put("known", "known");
    let options = keys.daemon().args(["--write-mode=back", "--metadata-ttl=0", "--op-deadline=2min"]);
    let mut mount = start(options);
    assert_eq!(fs::read(at(&mount, "known")).unwrap(), b"known");
    keys.server.credentials().set(&keys.server.key_pair().access_key, Standing::Revoked);
    let (began, before) = (Instant::now(), keys.server.requests().tally());
    assert_eq!(code(fs::metadata(at(&mount, "missing"))), libc::ENODEV);
    // A rotation may leave a gap.
    assert!(began.elapsed() > Duration::from_secs(55), "given up after {:?}", began.elapsed());
    assert_eq!(mount.wait(SOON).unwrap(), REFUSED, "{}", mount.stderr());
    let asked = keys.server.requests().tally().since(&before).of(Operation::HeadBucket).requests;
    assert!((5..=12).contains(&asked), "{asked} questions about the bucket in a minute");
    let records = audit(mount.state_dir());
    let last = of_event(&records, "credentials-refused-for-good")[0];
    assert!(!last["request_ids"].as_array().unwrap().is_empty(), "{last}");
    assert_eq!(of_event(&records, "credentials-refused").len(), 1, "{records:?}");
    assert_eq!(of_event(&records, "credentials-refused-for-good").len(), 1, "{records:?}");
    assert!(of_event(&records, "volume-gone").is_empty());
}

#[test]
fn credentials_that_are_renewed_where_they_are_looked_for_are_found_without_being_told() {
    for standing in [Standing::Expired, Standing::Revoked] {
        let keys = Keys::new(Versioning::Off);
        keys.bucket().put("known", "known");
        let mut mount = start(keys.daemon().args(["--metadata-ttl=0"]));
        let (old, new) = (keys.server.key_pair().clone(), pair("SECONDKEY"));
        keys.server.credentials().add(&new);
        keys.server.credentials().set(&old.access_key, standing);
        thread::scope(|scope| {
            // It waits, and gets what it asked for.
            let reading = scope.spawn(|| fs::read(at(&mount, "known")));
            assert!(wait_until(SOON, || phase(&mount) != "healthy"));
            keys.write(&[("default", &new)]);
            assert_eq!(reading.join().unwrap().unwrap(), b"known", "{standing:?}");
        });
        becomes(&mount, "healthy");
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    }
}

#[test]
fn expired_credentials_that_nobody_renews_are_named_as_that() {
    let keys = Keys::new(Versioning::Off);
    keys.bucket().put("known", "known");
    let mount = start(keys.daemon().args(["--metadata-ttl=0", "--op-deadline=3s"]));
    keys.server.credentials().set(&keys.server.key_pair().access_key, Standing::Expired);
    assert_eq!(code(fs::read(at(&mount, "known"))), libc::EKEYEXPIRED);
    assert_ne!(phase(&mount), "condemned");
}

#[test]
fn what_is_forbidden_of_one_key_is_an_answer_and_not_a_fate() {
    let server = server();
    let bucket = Bucket::of(&server);
    for key in ["forbidden", "allowed"] {
        bucket.put(key, key);
    }
    let mount = start(on(&server).args(["--metadata-ttl=0"]));
    server.faults().inject(When::any().key("forbidden"), Fault::access_denied());
    for _ in 0..10 {
        assert_eq!(code(fs::read(at(&mount, "forbidden"))), libc::EACCES);
    }
    assert_eq!(fs::read(at(&mount, "allowed")).unwrap(), b"allowed");
    assert_eq!(phase(&mount), "healthy");
}

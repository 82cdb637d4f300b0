//! Small files read in the order of their listing.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;

use real::{BUCKET, Bucket, daemon, noise, sh, start};
use staithe_testkit::{Operation, S3Server, Versioning};

const COUNT: u32 = 300;
const SIZE: usize = 4 << 10;

#[test]
fn cat_of_a_directory_is_one_get_a_file_and_no_head() {
    for attributes in ["full", "listing"] {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, Versioning::Off));
        let bucket = Bucket::of(&server);
        let mut all = Vec::new();
        for n in 0..COUNT {
            let body = noise(n + 1, SIZE);
            bucket.put(&format!("samples/{n:04}"), body.clone());
            all.extend(body);
        }
        let options = daemon(&format!("s3://{BUCKET}")).env(server.env());
        // The listing must not go out of date on a busy machine, so that the count is exact.
        let mount = start(options.args(["--metadata-ttl", "1h", "--attributes", attributes]));
        let before = server.requests().tally();
        let copy = tempfile::NamedTempFile::new().unwrap();
        sh(mount.path(), &format!("cat samples/* > {}", copy.path().display()));
        assert!(fs::read(copy.path()).unwrap() == all, "{attributes}: other bytes");
        let spent = server.requests().tally().since(&before);
        let count = |operation| spent.of(operation).requests;
        assert_eq!(count(Operation::GetObject), u64::from(COUNT), "{attributes}: {spent:?}");
        // Of the directory's own name.
        assert!(count(Operation::HeadObject) <= 2, "{attributes}: {spent:?}");
    }
}

//! A server of ours, and a place to mount it: one daemon after another.

use staithe_testkit::{DaemonOptions, S3Server, Versioning};

use super::{BUCKET, Bucket, daemon};

pub(crate) struct Bench {
    pub(crate) server: S3Server,
    pub(crate) state: tempfile::TempDir,
    pub(crate) mountpoint: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, Versioning::Off));
        let (state, mountpoint) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self { server, state, mountpoint }
    }

    /// A daemon at this place.
    pub(crate) fn daemon(&self) -> DaemonOptions {
        let options = daemon(&format!("s3://{BUCKET}")).env(self.server.env());
        options.state_dir(self.state.path()).mount_point(self.mountpoint.path())
    }

    pub(crate) fn bucket(&self) -> Bucket {
        Bucket::of(&self.server)
    }
}

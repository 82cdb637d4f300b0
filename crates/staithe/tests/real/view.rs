//! A bucket that is written down, and mounted as it was written down.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use staithe_testkit::{MountedDaemon, S3Server, Versioning};

use super::{BUCKET, Bucket, daemon, run, start, status, text};

pub(crate) struct Views {
    pub(crate) server: S3Server,
    pub(crate) dir: tempfile::TempDir,
}

impl Views {
    pub(crate) fn new(versioning: Versioning) -> Self {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, versioning));
        Self { server, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn bucket(&self) -> Bucket {
        Bucket::of(&self.server)
    }

    /// The place of a manifest.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `staithe snapshot`.
    pub(crate) fn staithe(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
        run(command.arg("snapshot").args(arguments).envs(self.server.env()).current_dir(self.dir.path()))
    }

    /// The same, which must be done.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.staithe(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{arguments:?} said {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, which must be refused in one sentence.
    pub(crate) fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.staithe(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} said {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    /// Writes the bucket down.
    pub(crate) fn take(&self, name: &str) {
        self.done(&["create", &format!("s3://{BUCKET}"), "-o", name]);
    }

    /// Mounts the bucket as it was written down.
    pub(crate) fn mount(&self, name: &str) -> MountedDaemon {
        self.mount_with("listing", name)
    }

    /// The same, with attributes from there.
    pub(crate) fn mount_with(&self, attributes: &str, name: &str) -> MountedDaemon {
        let options = daemon(&format!("s3://{BUCKET}")).env(self.server.env());
        start(options.args(["--attributes", attributes, "--snapshot"]).arg(self.file(name)))
    }

    pub(crate) fn swap(&self, mount: &MountedDaemon, name: &str) {
        self.done(&["swap", text(mount.path()), name]);
    }
}

/// What the mount says of its view.
pub(crate) fn view(mount: &MountedDaemon) -> Value {
    status(mount)["view"].clone()
}

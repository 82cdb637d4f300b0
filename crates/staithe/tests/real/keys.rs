//! A mount whose credentials are in a file, as they may be rotated.

use std::fs;
use std::path::PathBuf;

use staithe_testkit::{DaemonOptions, KeyPair, S3Server, Versioning};

use super::{BUCKET, Bucket, daemon};

pub(crate) struct Keys {
    pub(crate) server: S3Server,
    dir: tempfile::TempDir,
}

impl Keys {
    /// A server with a bucket, and a file with its key pair.
    pub(crate) fn new(versioning: Versioning) -> Self {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, versioning));
        Self::of(server)
    }

    /// A file with the key pair of `server`.
    pub(crate) fn of(server: S3Server) -> Self {
        let keys = Self { server, dir: tempfile::tempdir().unwrap() };
        keys.write(&[("default", keys.server.key_pair())]);
        keys
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("credentials")
    }

    /// Writes the file anew: key pairs and the profiles that they are in.
    pub(crate) fn write(&self, profiles: &[(&str, &KeyPair)]) {
        let section = |(profile, KeyPair { access_key, secret_key }): &(&str, &KeyPair)| {
            format!("[{profile}]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")
        };
        fs::write(self.file(), profiles.iter().map(section).collect::<String>()).unwrap();
    }

    /// A daemon that finds its credentials there only.
    pub(crate) fn daemon(&self) -> DaemonOptions {
        let by_file = |(name, _): &(String, String)| !name.contains("ACCESS_KEY");
        let own = [
            ("AWS_SHARED_CREDENTIALS_FILE", self.file()),
            ("AWS_CONFIG_FILE", self.dir.path().join("config")),
        ];
        let own = own.map(|(name, path)| (name.to_owned(), path.to_str().unwrap().to_owned()));
        daemon(&format!("s3://{BUCKET}")).env(self.server.env().into_iter().filter(by_file)).env(own)
    }

    pub(crate) fn bucket(&self) -> Bucket {
        Bucket::of(&self.server)
    }
}

/// Another key pair than the server begins with.
pub(crate) fn pair(name: &str) -> KeyPair {
    KeyPair { access_key: name.to_owned(), secret_key: format!("the secret of {name}") }
}

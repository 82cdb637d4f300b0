//! Configurations for servers that a test started.
#![allow(dead_code, reason = "each test file needs some of these")]

use std::time::Duration;

use staithe_s3::{S3Config, S3Store, StaticCredentials};
use staithe_testkit::{Moto, S3Server};

/// The bucket that tests of the in-process server use.
pub(crate) const BUCKET: &str = "quay";

/// For a bucket of the in-process server; impatient, so that a test of a time-out takes no second.
pub(crate) fn config(server: &S3Server) -> S3Config {
    let pair = server.key_pair();
    S3Config {
        endpoint_url: Some(server.endpoint()),
        region: Some(staithe_testkit::REGION.to_owned()),
        credentials: Some(keys(&pair.access_key, &pair.secret_key)),
        first_byte_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        ..S3Config::new(BUCKET)
    }
}

/// For a bucket of moto.
pub(crate) fn moto_config(moto: &Moto, bucket: &str) -> S3Config {
    S3Config {
        endpoint_url: Some(moto.endpoint()),
        region: Some(staithe_testkit::REGION.to_owned()),
        credentials: Some(keys("moto", "moto")),
        ..S3Config::new(bucket)
    }
}

/// A pair of keys.
pub(crate) fn keys(id: &str, secret: &str) -> StaticCredentials {
    StaticCredentials {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
    }
}

/// Opens the bucket of the in-process server.
pub(crate) async fn open(server: &S3Server) -> S3Store {
    S3Store::connect(config(server)).await.expect("the server is up and has the bucket")
}

use std::fmt;
use std::time::Duration;

use staithe_store::{ErrorKind, Result, StoreError};

/// How to reach a bucket, and how patient to be with it. `S3Config::new(bucket)` gives the defaults; every
/// `None` is decided as the AWS command line would: environment first, then the profile.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket's name (or an access point's alias).
    pub bucket: String,
    /// The server, as `http://host:port` or `https://host`; `None` takes `AWS_ENDPOINT_URL_S3`,
    /// `AWS_ENDPOINT_URL`, the profile's `endpoint_url`, then Amazon S3 itself.
    pub endpoint_url: Option<String>,
    /// The region to sign for; `None` takes the environment's, the profile's, then `us-east-1`. The bucket's
    /// own region, where the server names another, wins.
    pub region: Option<String>,
    /// The profile of the shared configuration files; `None` takes `AWS_PROFILE`, then `default`.
    pub profile: Option<String>,
    /// The credentials; `None` takes the chain: environment, profile, SSO, process, container, instance.
    pub credentials: Option<StaticCredentials>,
    /// The bucket in the path instead of the host name; `None` is true when there is an endpoint.
    pub path_style: Option<bool>,
    /// Send requests unsigned, for public buckets. Default false.
    pub no_sign_request: bool,
    /// Longest wait for a TCP and TLS connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, once the request is out. Default 20 s.
    pub first_byte_timeout: Duration,
    /// Longest wait without a single byte of a body. Default 20 s.
    pub stall_timeout: Duration,
    /// Longest wait for work that the server does before it answers: copies, completed uploads. Default 120 s.
    pub server_work_timeout: Duration,
    /// The slowest upload that is not given up, in bytes a second, beyond `first_byte_timeout`. Default 64 KiB.
    pub upload_floor: u64,
    /// Tries of one request, the first included; at least 1. Default 4.
    pub max_attempts: u32,
    /// The same once the bucket is open, at least 1; `None` is as before. 1 leaves trying again to a caller who wants to see
    /// every failure; what another write of the same object was in the way of is tried again all the same.
    pub max_attempts_once_open: Option<u32>,
    /// Upper bound of the first random pause between tries; it doubles each time. Default 100 ms.
    pub backoff_base: Duration,
    /// Upper bound of any pause between tries, a `Retry-After` included. Default 5 s.
    pub backoff_max: Duration,
    /// Most requests in flight before their answers begin (bodies being read do not count); at least 1.
    /// Default 128.
    pub max_concurrency: usize,
    /// Most idle connections kept. Default 64.
    pub max_idle_connections: usize,
    /// How long an idle connection is kept. Default 30 s.
    pub idle_timeout: Duration,
    /// Whether `connect` may write (and remove) a scratch object to see which conditions the server honours.
    /// Set false for read-only use: then a server of one's own is taken to honour none. Default true.
    pub probe_conditions: bool,
    /// Where scratch objects are made: a prefix of keys, empty or ending in `/`. Default empty.
    pub scratch_prefix: String,
    /// The checksum sent with what is written. Default CRC-64/NVME, which the probe lowers to MD5, then to
    /// none, on a server that refuses it.
    pub upload_checksum: UploadChecksum,
}

/// A checksum that goes with an upload, in a header, so that the server refuses damaged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadChecksum {
    /// `x-amz-checksum-crc64nvme`: what Amazon S3 keeps by default, and gives back with the object.
    Crc64Nvme,
    /// `Content-MD5`: understood everywhere; slower to compute.
    Md5,
    /// None.
    Off,
}

/// A pair of keys given outright.
#[derive(Clone)]
pub struct StaticCredentials {
    /// The public half.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: String,
    /// The token that comes with temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl S3Config {
    /// The defaults, for `bucket`.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint_url: None,
            region: None,
            profile: None,
            credentials: None,
            path_style: None,
            no_sign_request: false,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(20),
            server_work_timeout: Duration::from_mins(2),
            upload_floor: 64 << 10,
            max_attempts: 4,
            max_attempts_once_open: None,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            max_concurrency: 128,
            max_idle_connections: 64,
            idle_timeout: Duration::from_secs(30),
            probe_conditions: true,
            scratch_prefix: String::new(),
            upload_checksum: UploadChecksum::Crc64Nvme,
        }
    }

    /// Refuses what cannot work, before any request.
    ///
    /// # Errors
    /// `Invalid`, with a sentence that names the setting.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(StoreError::new(ErrorKind::Invalid, "connect", text));
        if self.bucket.is_empty() || self.bucket.contains('/') {
            return wrong(format!("{:?} is not a bucket's name", self.bucket));
        }
        if let Some(url) = &self.endpoint_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return wrong(format!("the endpoint {url:?} must begin with http:// or https://"));
        }
        let attempts = self.max_attempts.min(self.max_attempts_once_open.unwrap_or(u32::MAX));
        if attempts == 0 || self.max_concurrency == 0 || self.upload_floor == 0 {
            return wrong("max_attempts, max_concurrency and upload_floor must be at least 1".to_owned());
        }
        if !(self.scratch_prefix.is_empty() || self.scratch_prefix.ends_with('/')) {
            return wrong(format!("the scratch prefix {:?} must end in a slash", self.scratch_prefix));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let mut config = S3Config::new("bucket");
        assert!(config.check().is_ok());
        config.endpoint_url = Some("localhost:9000".to_owned());
        assert!(config.check().unwrap_err().to_string().contains("localhost:9000"));
        assert_eq!(S3Config::new("").check().unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(S3Config::new("a/b").check().unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn secrets_are_not_printed() {
        let keys = StaticCredentials {
            access_key_id: "id".to_owned(),
            secret_access_key: "hush".to_owned(),
            session_token: Some("hush".to_owned()),
        };
        assert!(!format!("{keys:?}").contains("hush"));
    }
}

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use s3s::service::S3ServiceBuilder;
use s3s::validation::{AwsNameValidation, NameValidation};
use staithe_store::MemoryStore;
use tokio::runtime::Runtime;

use crate::exchange::Exchanges;
use crate::listener::Listener;
use crate::s3::{Buckets, Front};
use crate::{Credentials, Faults, KeyPair, Modes, Requests, Versioning};

/// The region that every server says it is in.
pub const REGION: &str = "us-east-1";

/// How a server starts.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens. Port 0, the default, takes a free one on loopback.
    pub listen: SocketAddr,
    /// The key pair that it knows from the start.
    pub key_pair: KeyPair,
    /// How long every request waits before its effect; none by default.
    pub latency: Duration,
    /// Bytes a second of every connection, each way; not limited by default.
    pub bandwidth: Option<u64>,
    /// Threads that serve; 2 by default.
    pub threads: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key_pair: KeyPair::test(),
            latency: Duration::ZERO,
            bandwidth: None,
            threads: 2,
        }
    }
}

/// An S3 server over HTTP, in this process, with its data in memory.
///
/// It runs on threads of its own, so that a test may block: on a mount that this very server feeds, for
/// example. Dropping it closes its port and its connections.
///
/// ```
/// use staithe_testkit::{S3Server, Versioning};
///
/// let server = S3Server::start_blocking()?;
/// server.create_bucket("photos", Versioning::Off);
/// assert!(server.endpoint().starts_with("http://127.0.0.1:"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    key_pair: KeyPair,
    buckets: Buckets,
    credentials: Credentials,
    faults: Faults,
    modes: Modes,
    requests: Requests,
    connections: Arc<AtomicU64>,
    exchanges: Exchanges,
    listener: Mutex<Option<Listener>>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts a server on a free port of loopback.
    ///
    /// # Errors
    /// When threads or the port cannot be had.
    #[allow(clippy::unused_async, reason = "tests that are async read better so; nothing here waits")]
    pub async fn start() -> io::Result<Self> {
        Self::start_blocking()
    }

    /// [`start`](Self::start) for tests that are not async.
    ///
    /// # Errors
    /// When threads or the port cannot be had.
    pub fn start_blocking() -> io::Result<Self> {
        Self::start_with(ServerConfig::default())
    }

    /// Starts a server as `config` says.
    ///
    /// # Errors
    /// When threads or the port cannot be had.
    pub fn start_with(config: ServerConfig) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("s3-server")
            .enable_all()
            .build()?;
        let (buckets, modes, credentials) = (Buckets::default(), Modes::default(), Credentials::default());
        modes.set_latency(config.latency);
        modes.set_bandwidth(config.bandwidth);
        credentials.add(&config.key_pair);
        let mut service = S3ServiceBuilder::new(Front { buckets: buckets.clone(), modes: modes.clone() });
        service.set_auth(credentials.clone());
        service.set_access(credentials.clone());
        service.set_validation(ShortNames);
        let (faults, requests) = (Faults::default(), Requests::default());
        let exchanges = Exchanges {
            service: service.build(),
            faults: faults.clone(),
            requests: requests.clone(),
            modes: modes.clone(),
        };
        let connections = Arc::<AtomicU64>::default();
        let listener =
            Listener::bind(config.listen, exchanges.clone(), Arc::clone(&connections), runtime.handle())?;
        Ok(Self {
            address: listener.address(),
            key_pair: config.key_pair,
            buckets,
            credentials,
            faults,
            modes,
            requests,
            connections,
            exchanges,
            listener: Mutex::new(Some(listener)),
            runtime: Some(runtime),
        })
    }

    /// The endpoint as a URL; requests are path-style.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address it listens on; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key pair that it knew from the start.
    pub fn key_pair(&self) -> &KeyPair {
        &self.key_pair
    }

    /// The AWS variables that make a client speak to this server, and to nothing else.
    pub fn env(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", self.key_pair.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.key_pair.secret_key.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Adds an empty bucket; says whether it is new.
    pub fn create_bucket(&self, name: &str, versioning: Versioning) -> bool {
        self.buckets.create(name, versioning)
    }

    /// Deletes a bucket with all that is in it; says whether it was there. Later requests get `NoSuchBucket`.
    pub fn delete_bucket(&self, name: &str) -> bool {
        self.buckets.delete(name)
    }

    /// The data of a bucket, past HTTP and its faults: another client's point of view.
    pub fn store(&self, bucket: &str) -> Option<Arc<MemoryStore>> {
        self.buckets.find(bucket).map(|bucket| Arc::clone(&bucket.store))
    }

    /// The key pairs that it knows.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What goes wrong, and when.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// How it behaves to everybody.
    pub fn modes(&self) -> &Modes {
        &self.modes
    }

    /// What it was asked.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Closes the port and every connection, as if the server's machine were gone; the data stays. Blocks for
    /// the few milliseconds that this takes. A server that is stopped stays so.
    pub fn stop(&self) {
        let listener = self.listener.lock().take();
        if let Some(listener) = listener {
            listener.stop();
        }
    }

    /// Serves the same port again, with the same data. A server that runs is stopped first.
    ///
    /// # Errors
    /// When somebody else has taken the port.
    pub fn restart(&self) -> io::Result<()> {
        self.stop();
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let (exchanges, connections) = (self.exchanges.clone(), Arc::clone(&self.connections));
        let listener = Listener::bind(self.address, exchanges, connections, runtime.handle())?;
        *self.listener.lock() = Some(listener);
        Ok(())
    }
}

/// The names of S3's buckets, and shorter ones.
struct ShortNames;

impl NameValidation for ShortNames {
    fn validate_bucket_name(&self, name: &str) -> bool {
        let is_short =
            matches!(name.len(), 1 | 2) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        is_short || AwsNameValidation::new().validate_bucket_name(name)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime where waiting is not allowed would panic.
            runtime.shutdown_background();
        }
    }
}

//! What the criterion suites share: a filesystem over a bucket in memory, without a mount.
//!
//! The figures beside it are of the store itself, so that a suite says what the filesystem adds.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use staithe_fs::{Caller, Filesystem, FsConfig, HandleId, Ino, Lookup, OpenMode, Ttl};
use staithe_store::{Key, MemoryStore, NewObject, ObjectStore, Payload, PutCondition};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Why a bench cannot run.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The user of every bench.
pub const CALLER: Caller = Caller { uid: 0, gid: 0 };
/// Open for reading.
pub const READ: OpenMode =
    OpenMode { read: true, write: false, truncate: false, direct: false, append: false, sync: false };
/// Open for reading and writing.
pub const WRITE: OpenMode = OpenMode { write: true, ..READ };

/// How every suite measures: a few seconds a figure, so that all of them are run at once.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
}

/// A filesystem over a bucket in memory. Names and attributes are believed until they change here.
#[derive(Debug)]
pub struct World {
    /// The bucket.
    pub bucket: Arc<MemoryStore>,
    /// The filesystem.
    pub fs: Arc<Filesystem>,
    runtime: Runtime,
    _state: TempDir,
}

impl World {
    /// An empty one.
    ///
    /// # Errors
    /// When threads or a temporary directory cannot be had.
    pub fn new() -> Result<Self> {
        Self::with(|_, _| {})
    }

    /// An empty one, configured otherwise; the path is of a directory that lives as long as it does.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(change: impl FnOnce(&mut FsConfig, &Path)) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (bucket, state) = (Arc::new(MemoryStore::default()), tempfile::tempdir()?);
        let mut config = FsConfig::new(state.path());
        (config.live.metadata_ttl, config.live.negative_ttl) = (Ttl::Forever, Ttl::Forever);
        change(&mut config, state.path());
        let fs = runtime.block_on(Filesystem::open(bucket.clone(), config))?;
        Ok(Self { bucket, fs, runtime, _state: state })
    }

    /// Runs a future as the mount's runtime would.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Stores an object of `len` bytes as another client does.
    ///
    /// # Errors
    /// Those of the store, and of a key that is none.
    pub fn put(&self, key: &str, len: usize) -> Result<()> {
        let piece = Bytes::from(vec![7; len.min(1 << 20)]);
        let chunks = (0..len).step_by(1 << 20).map(|at| piece.slice(..(len - at).min(1 << 20)));
        let (key, payload) = (Key::new(key)?, Payload::new(chunks));
        self.run(self.bucket.put(&key, payload, NewObject::default(), PutCondition::Always))?;
        Ok(())
    }

    /// Looks a path up from the root.
    ///
    /// # Errors
    /// Those of the filesystem, and when a name is not there.
    pub fn ino(&self, path: &str) -> Result<Ino> {
        let mut at = Ino::ROOT;
        for name in path.split('/') {
            match self.run(self.fs.lookup(at, name))? {
                Lookup::Found(entry) => at = entry.attr.ino,
                Lookup::Absent { .. } => return Err(format!("{path} is not there").into()),
            }
        }
        Ok(at)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Those of the filesystem, and when it is not there.
    pub fn open(&self, path: &str, mode: OpenMode) -> Result<HandleId> {
        let ino = self.ino(path)?;
        Ok(self.run(self.fs.open_file(ino, mode))?.handle)
    }
}

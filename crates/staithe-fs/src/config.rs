use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::owned_dir::{Place, refuse_foreign};

/// For how long something may be believed without asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Always ask.
    Zero,
    /// For this long.
    For(Duration),
    /// Until something here changes it.
    Forever,
}

/// Where a file's mode, owner and times come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeSource {
    /// From the object's metadata: exact, at most one HEAD an object.
    Full,
    /// From the listing: size and time of storing; mode and owner by default. No request an object.
    Listing,
}

/// When close(2) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// When the store has the file.
    Through,
    /// When the journal knows that it is to be stored; that happens soon after. New directories, links and attributes
    /// likewise.
    Back,
}

/// What happens to a commit that lost a race with another client of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Ours is stored beside theirs, as `name.conflict-<host>-<time>`, and the writer gets an error.
    KeepBoth,
    /// The last writer wins.
    Overwrite,
}

/// A directory on the local disk that keeps what was fetched.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Created if missing, and locked.
    pub dir: PathBuf,
    /// The most that it may take of the disk, in bytes; what was used least recently goes first.
    pub size: u64,
}

impl CacheConfig {
    /// Whether what lies in the directory, if it is there, can be ours only: what comes from it is served as the
    /// store's.
    ///
    /// # Errors
    /// `Invalid` if another user owns it or may write to it; `Io` if it cannot be examined.
    pub fn check(&self) -> Result<()> {
        let what = "cache directory";
        refuse_foreign(Place { what, path: &self.dir })?;
        refuse_foreign(Place { what, path: &self.dir.join("objects") })
    }
}

/// The part of the configuration that [`Filesystem::reload`](crate::Filesystem::reload) changes while it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveConfig {
    /// What happens to a lost race. Default: keep both.
    pub on_conflict: OnConflict,
    /// For how long names and attributes are believed. Default: 1 s.
    pub metadata_ttl: Ttl,
    /// For how long absence is believed. Default: 1 s.
    pub negative_ttl: Ttl,
    /// How long one operation may take, waiting for the store included. Default: 60 s.
    pub op_deadline: Duration,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            on_conflict: OnConflict::KeepBoth,
            metadata_ttl: Ttl::For(Duration::from_secs(1)),
            negative_ttl: Ttl::For(Duration::from_secs(1)),
            op_deadline: Duration::from_mins(1),
        }
    }
}

/// Configuration of a [`Filesystem`](crate::Filesystem).
#[derive(Debug, Clone)]
pub struct FsConfig {
    /// What it begins with of what may change later.
    pub live: LiveConfig,
    /// Key prefix that is the root, empty or ending in `/`. Default: empty.
    pub prefix: String,
    /// Refuse every change. Default: false.
    pub read_only: bool,
    /// Owner of what has no owner in its metadata. Default: 0, 0.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// Mode of files without one in their metadata. Default: 0o644.
    pub file_mode: u16,
    /// Mode of directories without one. Default: 0o755.
    pub dir_mode: u16,
    /// Where attributes come from. Default: full.
    pub attributes: AttributeSource,
    /// Whether the state directory keeps attributes for the next run; of no use where the volume does not outlive the
    /// process. Default: true.
    pub keep_attributes: bool,
    /// When close(2) returns. Default: through.
    pub write_mode: WriteMode,
    /// Write-back: how long a change waits for the next one before it is stored. Default: 500 ms.
    pub write_back_delay: Duration,
    /// The most that staging files may hold, in bytes; writers wait then, and are refused after
    /// [`op_deadline`](LiveConfig::op_deadline). Default: as much as the disk has.
    pub staging_size: Option<u64>,
    /// Staging files, journal; created if missing, and locked.
    pub state_dir: PathBuf,
    /// When the volume is taken for troubled, and when for gone.
    pub lifecycle: staithe_lifecycle::Config,
    /// Store what an earlier run left unfinished in a volume that was made anew since. Default: false, such a start is
    /// refused.
    pub accept_new_volume: bool,
    /// Where fetched bytes are kept on the local disk. Default: nowhere.
    pub cache: Option<CacheConfig>,
    /// Bytes that read-ahead and small bodies may hold, over all files. Default: 512 MiB.
    pub memory_limit: u64,
    /// Name of this host in conflict names. Default: `host`.
    pub host: String,
}

impl FsConfig {
    /// The defaults, with this state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            live: LiveConfig::default(),
            prefix: String::new(),
            read_only: false,
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            attributes: AttributeSource::Full,
            keep_attributes: true,
            write_mode: WriteMode::Through,
            write_back_delay: Duration::from_millis(500),
            staging_size: None,
            state_dir: state_dir.into(),
            lifecycle: staithe_lifecycle::Config::default(),
            accept_new_volume: false,
            cache: None,
            memory_limit: 512 << 20,
            host: String::from("host"),
        }
    }
}

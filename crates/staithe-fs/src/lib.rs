//! Filesystem semantics over an object store: what a name means, what a handle reads, what a close stores.
//!
//! [`Filesystem`] is the whole of it; [`api`](Entry) values cross its border. It keeps true that
//!
//! - what this mount changed, it sees at once, and in the store when the call returns;
//! - an open file is one version, from its first byte to its last;
//! - a commit takes effect at the key that the file's name says then, on the condition that nobody else was first;
//! - nothing waits without a deadline, and memory is bounded in bytes.
//!
//! It refuses to know FUSE, errno, S3, and who configured it. An adapter (staithe-fuse) turns its errors into a
//! protocol's; a store (staithe-store) is its only view of the world.
//!
//! # Rooms
//! `lookup`, `revalidate`, `recall`, `refresh`, `absences`, `answers`, `ahead`, `directory`, `flat`, `create`, `remove`, `rename`, `rename_tree`: names. `attributes`: stat and what
//! changes it. `file`, `read`, `fetch`, `hedge`, `pace`, `write`: open files. `staging`, `commit`, `tries`, `upload`,
//! `streaming`: from the local disk to the store. `inode`, `table`, `handles`, `locks`: what is in memory, and who may
//! change it. `cache`, `sums`, `provision`, `warm`: fetched bytes on the local disk. `lend`: local files, to a kernel.
//! `room`, `reserve`: how much of the disk is whose. `state_dir`, `journal`, `keep`, `recovery`, `numbers`: what outlives a run; `failpoint`:
//! where tests end one; `rescue`: how it is brought out without the store. `persist`, `door`, `sync`, `drain`: when what
//! is dirty is stored. `verify`: whether all of that agrees with the store. `view`: what a bucket held at one moment.
//! `live`: what changes while it is in use. `fate`: whether the volume is well.
//! `status`: what it says of itself.

mod absences;
mod ahead;
mod answers;
mod api;
mod attributes;
mod bodies;
mod cache;
mod commit;
mod config;
mod create;
mod directory;
mod disk_file;
mod door;
mod drain;
mod error;
mod failpoint;
mod fate;
mod fetch;
mod file;
mod filesystem;
mod flat;
mod handles;
mod hedge;
mod identity;
mod inode;
mod intent;
mod journal;
mod keep;
mod layout;
mod lend;
mod live;
mod locks;
mod lookup;
mod metadata;
mod names;
mod numbers;
mod owned_dir;
mod pace;
mod patience;
mod persist;
mod provision;
mod read;
mod recall;
mod recovery;
mod refresh;
mod remote;
mod remove;
mod rename;
mod rename_tree;
mod rescue;
mod reserve;
mod revalidate;
mod room;
mod staging;
mod state_dir;
mod status;
mod streaming;
mod sums;
mod sync;
mod table;
mod tries;
mod upload;
mod verify;
mod view;
mod warm;
mod write;

pub use answers::{Answering, Answers};
pub use api::{
    Allocate, Attr, Attributes, Caller, DirItem, DrainReport, Entry, Fence, FsStats, HandleId, Ino,
    Invalidation, Kind, Lookup, OpenMode, Opened, ReadData, RenameMode, SetAttr, SetTime, XattrMode,
};
pub use cache::CacheStats;
pub use commit::Conflict;
pub use config::{AttributeSource, CacheConfig, FsConfig, LiveConfig, OnConflict, Ttl, WriteMode};
pub use error::{FsError, FsErrorKind, Result};
pub use failpoint::Step;
#[cfg(debug_assertions)]
pub use failpoint::abort_at;
pub use fate::{RequestCount, Verdict};
pub use filesystem::Filesystem;
pub use lend::LocalFile;
pub use names::{HiddenReason, hidden_reason};
pub use persist::{Job, JobCounts, JobPhase};
pub use refresh::{RefreshFailure, RefreshReport};
pub use rescue::{MissingBytes, RescueReport, RescueTo, Rescued, RescuedKind, rescue};
pub use status::{FsStatus, ReadStats};
pub use sync::{SyncProgress, SyncReport};
pub use verify::{Difference, DifferenceKind, Repair, VerifyProgress, VerifyRequest};
pub use view::{
    Inventory, Manifest, ManifestHeader, ManifestReader, PinnedStore, Taken, ViewChange, ViewObject,
    ViewStatus, diff_manifests, read_header, take_inventory, take_manifest,
};
pub use warm::{WarmFailure, WarmReport, WarmRequest};

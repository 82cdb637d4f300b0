//! Filesystem semantics over an object store.

mod api;
mod config;
mod disk_file;
mod error;
mod filesystem;
mod intent;
#[cfg_attr(not(test), expect(dead_code, reason = "the write path is its user"))]
mod journal;
#[cfg_attr(not(test), expect(dead_code, reason = "the write path is its user"))]
mod layout;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace is its user"))]
mod metadata;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace is its user"))]
mod names;
#[cfg_attr(not(test), expect(dead_code, reason = "the write path is its user"))]
mod staging;
#[cfg_attr(not(test), expect(dead_code, reason = "the filesystem is its user"))]
mod state_dir;

pub use api::{
    Allocate, Attr, Attributes, Caller, DirItem, DrainReport, Entry, FsStats, HandleId, Ino, Invalidation,
    Kind, Lookup, OpenMode, Opened, ReadData, RenameMode, SetAttr, SetTime, XattrMode,
};
pub use config::{AttributeSource, FsConfig, OnConflict, Ttl};
pub use error::{FsError, FsErrorKind, Result};
pub use filesystem::Filesystem;
pub use names::{HiddenReason, hidden_reason};

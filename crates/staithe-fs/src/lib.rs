//! Filesystem semantics over an object store.

mod api;
mod config;
mod error;
mod filesystem;

pub use api::{
    Allocate, Attr, Attributes, Caller, DirItem, DrainReport, Entry, FsStats, HandleId, Ino, Invalidation,
    Kind, Lookup, OpenMode, Opened, ReadData, RenameMode, SetAttr, SetTime, XattrMode,
};
pub use config::{AttributeSource, FsConfig, OnConflict, Ttl};
pub use error::{FsError, FsErrorKind, Result};
pub use filesystem::Filesystem;

//! The FUSE adapter of staithe: a [`Filesystem`](staithe_fs::Filesystem) as a mount of Linux.
//!
//! Kept true here: every request gets one reply, in time; a panic fails its request and nothing else; errors
//! become error codes in one table; the kernel is told of changes from a thread of its own, never from a
//! request; nothing is unmounted that is not ours.
//! Refused: any knowledge of stores, keys and caches. Which answers may be believed, and for how long, the
//! filesystem says.
//!
//! ```no_run
//! use std::time::Duration;
//! use staithe_fuse::{FuseConfig, FuseMount};
//!
//! # async fn example(fs: std::sync::Arc<staithe_fs::Filesystem>) -> Result<(), staithe_fuse::MountError> {
//! let runtime = tokio::runtime::Handle::current();
//! let mount = FuseMount::mount(fs, runtime, &FuseConfig::new("/mnt", "s3://bucket"))?;
//! mount.ended().await; // somebody ran `umount`
//! mount.unmount(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! Linux only. No write-back cache of the kernel's, no `io_uring` transport. The kernel's
//! interrupts are not heeded: a caller waits until its request is answered, which the deadline bounds.

mod adapter;
mod attributes;
mod config;
mod connection;
mod device;
mod directory;
mod direntplus;
mod dispatch;
mod errno;
mod error;
mod flags;
mod fusermount;
mod incidents;
mod kernel;
mod mount;
mod mountpoint;
mod mounts;
mod notify;
mod passthrough;
mod privileges;
mod send;
mod subject;
mod xattr;

pub use config::FuseConfig;
pub use device::unmount;
pub use error::{MountError, MountErrorKind};
pub use mount::{FuseMount, Unmounted};
pub use mountpoint::prepare as prepare_mountpoint;
pub use mounts::{FS_TYPE, MountEntry, mounts};

//! Pinned views: what a bucket held at one moment, written down, compared, and mounted.
//!
//! A *manifest* is the listing of a volume below a prefix, in the order of the keys' bytes: per object its size, entity
//! tag, version id where the bucket keeps versions, and time of storing. It is a file ([`format`] says what is in it),
//! written by [`take_manifest`] or [`take_inventory`], compared by [`diff_manifests`].
//!
//! Invariants:
//! 1. A manifest is whole or refused: each block and the whole of it have a checksum, the number of objects is in the
//!    footer, keys ascend and begin with the prefix. Nothing of it is believed before all of it was seen.
//! 2. It appears whole at its place, or not at all: written aside, synced, renamed.
//! 3. A mount of a view ([`PinnedStore`]) shows one view at a time, whole; see `pinned`.
//! 4. Writing, comparing and reading it takes memory for a block, however many objects there are; only what is mounted is
//!    in memory ([`Manifest`]).

mod decode;
mod diff;
mod encode;
mod file;
mod format;
mod inventory;
mod manifest;
mod object;
mod pinned;
mod sort;
mod streams;
mod swap;
mod take;

pub use diff::{ViewChange, diff_manifests};
pub use file::{ManifestReader, read_header};
pub use format::ManifestHeader;
pub use inventory::{Inventory, take_inventory};
pub use manifest::Manifest;
pub use object::ViewObject;
pub use pinned::{PinnedStore, ViewStatus};
pub use take::{Taken, take_manifest};

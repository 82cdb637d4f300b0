//! What differs between two manifests: both are read once, side by side.

use std::cmp::Ordering;

use super::file::ManifestReader;
use super::object::ViewObject;
use crate::error::{FsError, FsErrorKind, Result};

/// A key under which two views differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewChange {
    /// Only the second has it.
    Added(ViewObject),
    /// Only the first has it.
    Removed(ViewObject),
    /// They have other bytes there, or another version.
    Changed {
        /// As the first has it.
        from: ViewObject,
        /// As the second has it.
        to: ViewObject,
    },
}

/// Tells `hear` of each key under which the manifests differ, in the order of the keys. What it heard holds only if this
/// ends well: then both were whole. O(objects of both), in bounded memory.
///
/// # Errors
/// `Invalid` if they are not of the same volume and prefix, or damaged; `Io`; what `hear` says.
pub fn diff_manifests(
    first: &mut ManifestReader,
    second: &mut ManifestReader,
    mut hear: impl FnMut(ViewChange) -> Result<()>,
) -> Result<()> {
    let of = |reader: &ManifestReader| (reader.header().volume.clone(), reader.header().prefix.clone());
    if of(first) != of(second) {
        let ((a, below_a), (b, below_b)) = (of(first), of(second));
        let why = format!("they are of two places: {a}, {below_a:?}, and {b}, {below_b:?}");
        return Err(FsError::new(FsErrorKind::Invalid, why));
    }
    let (mut old, mut new) = (first.next_object()?, second.next_object()?);
    loop {
        let order = match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.key.cmp(&new.key),
        };
        let mut from = None;
        if order.is_le() {
            from = std::mem::replace(&mut old, first.next_object()?);
        }
        let mut to = None;
        if order.is_ge() {
            to = std::mem::replace(&mut new, second.next_object()?);
        }
        match (from, to) {
            (Some(from), Some(to)) if differ(&from, &to) => hear(ViewChange::Changed { from, to })?,
            (Some(from), None) => hear(ViewChange::Removed(from))?,
            (None, Some(to)) => hear(ViewChange::Added(to))?,
            _ => {}
        }
    }
}

/// Times are told by listings and inventories in other units, and ids not by all.
fn differ(a: &ViewObject, b: &ViewObject) -> bool {
    let ids_differ = a.version.id.as_ref().zip(b.version.id.as_ref()).is_some_and(|(a, b)| a != b);
    a.size != b.size || a.version.etag != b.version.etag || ids_differ
}

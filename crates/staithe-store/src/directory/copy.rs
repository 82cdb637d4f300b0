//! A copy within the directory: a new file, sharing blocks with the old one where the filesystem can.

use super::blocking::Cancel;
use super::commit::{Commit, Leaf};
use super::multipart::unwritten;
use super::place::Place;
use super::root::Root;
use super::temp::TempFile;
use super::{marker_is_empty, pinned};
use crate::{CopyRequest, NewObject, PutCondition, Result, Written};

const OP: &str = "copy";

/// Copies one object. A copy onto itself takes effect only over the version that was copied, so that it
/// cannot undo a put that came between.
pub(super) fn copy(root: &Root, request: &CopyRequest, cancel: &Cancel) -> Result<Written> {
    root.check_alive(OP)?;
    let from = Place::for_read(OP, &request.from)?;
    let to = Place::for_write(OP, &request.to)?;
    let source = root.open_object(OP, &from)?;
    pinned(OP, &request.from, request.from_version.as_ref(), &source)?;
    marker_is_empty(OP, &to, source.meta.size)?;
    let new = request.replace.clone().unwrap_or_else(|| NewObject {
        metadata: source.meta.metadata.clone(),
        content_type: source.meta.content_type.clone(),
    });
    let condition = if request.from == request.to {
        PutCondition::IfMatch(source.meta.version.etag.clone())
    } else {
        PutCondition::Always
    };
    let commit = Commit { root, operation: OP, place: &to, condition: &condition, cancel };
    if to.marker {
        return commit.run(&Leaf::Marker(&new), || Ok(()));
    }
    let mut temp = TempFile::new(root, OP, &request.to)?;
    if source.meta.size > 0 {
        temp.append(&source.fd, 0, source.meta.size, cancel)?;
        unwritten(OP, &request.from, &source.fd, &source.stat)?;
    }
    temp.seal(&new)?;
    commit.run(&Leaf::File(&temp), || Ok(()))
}

//! The condition headers.

use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3Result, s3_error};
use staithe_store::{ObjectMeta, PutCondition};

use super::translate::{precondition_failed, tag_in, tag_out, whole_seconds};

/// The condition of a write. The two headers exclude each other, and each has one form that S3 takes.
pub(super) fn of_write(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<PutCondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(PutCondition::Always),
        (None, Some(ETagCondition::Any)) => Ok(PutCondition::IfAbsent),
        (Some(ETagCondition::ETag(tag)), None) => Ok(PutCondition::IfMatch(tag_in(tag))),
        _ => Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        )),
    }
}

/// The conditions on an object that is read, or copied from.
#[derive(Debug, Default)]
pub(super) struct ReadConditions {
    /// `If-Match`.
    pub(super) matches: Option<ETagCondition>,
    /// `If-None-Match`.
    pub(super) differs_from: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub(super) modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub(super) unmodified_since: Option<Timestamp>,
}

/// Which condition did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// The object is another one than asked for.
    Changed,
    /// The object is still the one that the client has.
    Unchanged,
}

impl ReadConditions {
    /// Checks them in the order of RFC 9110, 13.2.2: a tag decides before a date.
    pub(super) fn check(&self, meta: &ObjectMeta) -> Result<(), Unmet> {
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => tag.weak_cmp(&tag_out(&meta.version.etag)),
        };
        let modified = whole_seconds(meta.last_modified);
        let holds = match (&self.matches, &self.unmodified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !holds {
            return Err(Unmet::Changed);
        }
        let differs = match (&self.differs_from, &self.modified_since) {
            (Some(condition), _) => !is(condition),
            (None, Some(since)) => modified > *since,
            (None, None) => true,
        };
        if differs { Ok(()) } else { Err(Unmet::Unchanged) }
    }
}

impl Unmet {
    /// The answer to a read.
    pub(super) fn on_read(self) -> S3Error {
        match self {
            Self::Changed => precondition_failed(),
            Self::Unchanged => s3_error!(NotModified, "Not Modified"),
        }
    }
}

//! What the store is asked about a name, and what it may answer.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use staithe_store::{ListRequest, ObjectMeta, ObjectSummary};

use super::{Dent, SMALL_BODY};
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};

/// What the store says of a name.
#[derive(Debug)]
pub(crate) enum Answer {
    Absent,
    /// An object with its attributes, and all its bytes if they came along.
    Object(Box<ObjectMeta>, Option<Bytes>),
    /// An object as a listing shows it.
    Listed(ObjectSummary),
    /// A directory; its marker's attributes where there is one and somebody asked.
    Directory {
        marker: Marker,
        meta: Option<Box<ObjectMeta>>,
    },
}

impl Filesystem {
    /// A cold name: one HEAD and one LIST, side by side. A directory with a marker costs one HEAD more.
    pub(super) async fn ask(&self, path: &str) -> Result<Answer> {
        let key = self.key(path)?;
        let (object, below) = tokio::join!(self.head(key), self.first_below(path, 1));
        let below = below?;
        if below.objects.is_empty() && below.prefixes.is_empty() {
            return Ok(object?.map_or(Answer::Absent, |meta| Answer::Object(Box::new(meta), None)));
        }
        self.directory_answer(path, below.objects.first()).await
    }

    async fn directory_answer(&self, path: &str, first: Option<&ObjectSummary>) -> Result<Answer> {
        let marker_key = self.marker_key(path)?;
        let has_marker = first.is_some_and(|o| Some(&o.key) == marker_key.as_ref());
        let (Some(key), true, true) = (marker_key, has_marker, self.wants_full()) else {
            let marker = if has_marker { Marker::Present } else { Marker::Missing };
            return Ok(Answer::Directory { marker, meta: None });
        };
        let meta = self.head(key).await?.map(Box::new);
        Ok(Answer::Directory { marker: Marker::Present, meta })
    }

    /// A cold name without a question to an object: the listing shows object and prefix side by side, unless
    /// over a page of other names stand between them.
    pub(super) async fn ask_by_listing(&self, path: &str) -> Result<Answer> {
        let key = self.key(path)?;
        let request =
            ListRequest { prefix: key.as_str().into(), delimiter: Some('/'), ..ListRequest::default() };
        let page = self.store.list(request).await?;
        let directory = format!("{key}/");
        let is_directory = page.prefixes.contains(&directory)
            || (page.next.is_some() && !self.first_below(path, 1).await?.objects.is_empty());
        if is_directory {
            return Ok(Answer::Directory { marker: Marker::Unknown, meta: None });
        }
        let listed = page.objects.into_iter().find(|o| o.key == key);
        if listed.is_none() && !self.store.capabilities().lists_every_name {
            self.head(key).await?;
        }
        Ok(listed.map_or(Answer::Absent, Answer::Listed))
    }

    /// A name that a listing showed: only its attributes are missing; if `with_body`, its bytes come along.
    pub(crate) async fn ask_listed(&self, path: &str, dent: &Dent, with_body: bool) -> Result<Answer> {
        match dent {
            Dent::Directory { .. } => {
                let Some(key) = self.marker_key(path)? else { return Ok(Answer::Absent) };
                let meta = self.head(key).await?.map(Box::new);
                let marker = if meta.is_some() { Marker::Present } else { Marker::Missing };
                Ok(Answer::Directory { marker, meta })
            }
            Dent::File { .. } => {
                let key = self.key(path)?;
                let object = if with_body {
                    self.get_small(key).await?.map(|(meta, body)| (meta, Some(body)))
                } else {
                    self.head(key).await?.map(|meta| (meta, None))
                };
                match object {
                    Some((meta, body)) => Ok(Answer::Object(Box::new(meta), body)),
                    None => self.ask(path).await,
                }
            }
        }
    }

    /// Whether the bytes of a small object should come along with its attributes: as long as the last ones
    /// fetched so in this directory were opened afterwards (`cat *`), and not merely looked at (`ls -l`).
    pub(super) fn is_worth_a_body(&self, dir: &Inode, dent: &Dent) -> bool {
        let Dent::File { size, .. } = dent else { return false };
        let worth = *size <= SMALL_BODY
            && dir
                .eagerness
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n > 0).then_some(n - 1))
                .is_ok();
        worth && self.bodies.has_room(*size)
    }
}

//! Comparing what the journal, the staging directory, the disk cache and the memory say with what the store has.
//!
//! Invariants:
//! 1. Nothing is said to differ that is under way: what looks wrong is looked at again under the locks that commits and
//!    renames take, and is told only if it is still so then.
//! 2. Bytes that the store does not have are never removed. Those that are removed are copies of what it has: it has just
//!    said so, or nothing of them would ever be shown.
//! 3. Memory: a page of a listing, the names in one of the 256 directories of the cache, a bounded number of questions
//!    under way, and what the journal has to finish.
//!
//! `intents` looks at the journal, `staged` at the bytes that it should speak of, `unstored` at what nobody is storing,
//! `cached` at the disk cache, `attributes` at what is remembered of objects.

mod attributes;
mod cached;
mod intents;
mod staged;
mod unstored;

use tokio::sync::{mpsc, watch};

use crate::commit::with_causes;
use crate::error::{FsError, Result};
use crate::filesystem::Filesystem;
use crate::intent::Intent;
use crate::journal::IntentId;
use crate::locks::is_below;
use crate::upload::blocking;

/// Questions to the store at once.
const QUESTIONS_AT_ONCE: usize = 16;

/// What is to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    /// A file, or a directory with all that is below it: a path from the root, whose own is empty.
    pub path: String,
    /// Whether what differs is mended, where that is safe.
    pub repair: bool,
}

/// How far comparing has come, and at its end what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Intents, files and objects that were compared.
    pub compared: u64,
    /// Bytes of the cache that were read for it.
    pub bytes: u64,
    /// Bytes that the cache has, about: fewer are read where only a part of a mount is compared.
    pub bytes_most: u64,
    /// Those that differ.
    pub differences: u64,
    /// Those of them that were mended.
    pub repaired: u64,
}

/// Something that should agree, and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of what: a path from the root of the mount; of what has none, where it is on the local disk.
    pub path: String,
    /// What sort of thing.
    pub kind: DifferenceKind,
    /// What differs, in a few words.
    pub detail: String,
    /// What was done about it.
    pub outcome: Repair,
}

/// What may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DifferenceKind {
    /// Cached bytes that are not what was cached, or not what the store has.
    Cache,
    /// An intent of the journal that nobody carries out.
    Intent,
    /// An upload in parts that nobody completes.
    Upload,
    /// Staged bytes that no intent speaks of.
    Staged,
    /// Something that the store does not have, and nobody is storing.
    Unstored,
    /// Attributes that are remembered otherwise than the store has them.
    Attributes,
    /// What could not be compared.
    Unknown,
}

/// What was done about a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: nobody asked for it.
    NotAsked,
    /// This.
    Done(&'static str),
    /// Nothing, for this reason.
    Left(String),
}

/// One comparison under way.
struct Run<'v> {
    fs: &'v Filesystem,
    request: &'v VerifyRequest,
    progress: &'v watch::Sender<VerifyProgress>,
    tell: &'v mpsc::Sender<Difference>,
}

impl Filesystem {
    /// Compares what is here with what the store has, at and below a path; `tell` is sent each difference, in no order,
    /// and waited for. With `repair`, what can be mended without losing a byte is. What could not be compared is a
    /// difference of its own, and holds up nothing else.
    ///
    /// # Errors
    /// `ReadOnly` if it is to be repaired and this mount is read-only; the local disk's, if the journal or the staging
    /// directory cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future ends the work; what was mended stays so.
    pub async fn verify(
        &self,
        request: &VerifyRequest,
        progress: &watch::Sender<VerifyProgress>,
        tell: &mpsc::Sender<Difference>,
    ) -> Result<VerifyProgress> {
        if request.repair {
            self.writable()?;
        }
        let run = Run { fs: self, request, progress, tell };
        run.unstored().await;
        run.intents().await?;
        run.staged().await?;
        run.cached().await?;
        run.attributes().await;
        Ok(*progress.borrow())
    }

    /// What the journal has to finish.
    async fn pending(&self) -> Result<Vec<(IntentId, Intent)>> {
        let journal = self.journal.clone();
        blocking(move || journal.pending()).await
    }
}

impl Run<'_> {
    /// Whether a path is to be compared.
    fn covers(&self, path: &str) -> bool {
        let above = &self.request.path;
        path == above || is_below(path, above)
    }

    /// Whether it is the whole mount.
    fn covers_all(&self) -> bool {
        self.request.path.is_empty()
    }

    fn compared(&self) {
        self.progress.send_modify(|progress| progress.compared += 1);
    }

    /// Tells a difference, after `mend` if it is to be mended.
    async fn differs(
        &self,
        path: impl Into<String>,
        kind: DifferenceKind,
        detail: impl Into<String>,
        mend: impl Future<Output = Result<Repair>>,
    ) {
        self.differs_under((), path, kind, detail, mend).await;
    }

    /// The same, mending under a lock. It is let go before anybody is told: who listens may take as long as they like.
    async fn differs_under<G>(
        &self,
        guard: G,
        path: impl Into<String>,
        kind: DifferenceKind,
        detail: impl Into<String>,
        mend: impl Future<Output = Result<Repair>>,
    ) {
        let outcome = if self.request.repair {
            mend.await.unwrap_or_else(|error| Repair::Left(with_causes(&error)))
        } else {
            Repair::NotAsked
        };
        drop(guard);
        self.progress.send_modify(|progress| {
            progress.differences += 1;
            progress.repaired += u64::from(matches!(outcome, Repair::Done(_)));
        });
        let difference = Difference { path: path.into(), kind, detail: detail.into(), outcome };
        // Nobody listens any more: then this future is about to be dropped.
        let _ = self.tell.send(difference).await;
    }

    /// Tells that something could not be compared.
    async fn unknown(&self, path: &str, error: &FsError) {
        let why = with_causes(error);
        self.differs(path, DifferenceKind::Unknown, format!("not compared: {why}"), async {
            Ok(Repair::Left(String::from("it is not known what it should be")))
        })
        .await;
    }
}

#[cfg(test)]
mod tests;

//! The journal: intents that nobody carries out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use staithe_store::{HeadRequest, Key, MultipartUpload, ObjectMeta, UploadId};

use super::staged::{id, open_files};
use super::{DifferenceKind, Repair, Run};
use crate::commit::{is_file_of, sum_of_file};
use crate::error::{FsError, Result};
use crate::intent::{Intent, StoreIntent};
use crate::journal::IntentId;
use crate::locks::Scope;
use crate::metadata::{FileMeta, write_id};
use crate::recovery::describe;
use crate::remote::found;
use crate::upload::blocking;

/// What is left for the next mount: what it does to the names may be in the way of those who use them now.
const NEXT_MOUNT: &str = "the next mount finishes it";

impl Run<'_> {
    pub(super) async fn intents(&self) -> Result<()> {
        // Before it is asked who carries them out: what is said later is none of these.
        let pending = self.fs.pending().await?;
        let carried_out = self.carried_out();
        for (id, intent) in pending {
            let path = self.path_of(&intent);
            if !self.covers(&path) {
                continue;
            }
            self.compared();
            if carried_out.contains(&id) || self.fs.uploads.has(id) {
                continue;
            }
            if let Err(error) = self.intent(id, &intent, &path).await {
                self.unknown(&path, &error).await;
            }
        }
        Ok(())
    }

    /// The intents that files and directories in memory stand for.
    fn carried_out(&self) -> HashSet<IntentId> {
        self.fs.inodes.all().iter().filter_map(|inode| inode.state().kept).collect()
    }

    /// The path that an intent is about; its key, if that is no path of this mount.
    fn path_of(&self, intent: &Intent) -> String {
        let key = match intent {
            Intent::Store(store) => store.key.as_str(),
            Intent::Attributes(attributes) => attributes.key.as_str(),
            Intent::Marker(marker) => marker.key.as_str(),
            Intent::Upload { key, .. } => key.as_str(),
            Intent::OldName(old) => old.key.as_str(),
            Intent::RenameTree { from_prefix, .. } => from_prefix,
        };
        let path = key.strip_prefix(&self.fs.config.prefix).unwrap_or(key);
        path.strip_suffix('/').unwrap_or(path).to_owned()
    }

    /// One that nobody seems to carry out.
    async fn intent(&self, id: IntentId, intent: &Intent, path: &str) -> Result<()> {
        // Whoever is about to say something else of the name has it said when this is had.
        let scope = match intent {
            Intent::RenameTree { .. } => Scope::Subtree(path.to_owned()),
            _ => Scope::Name(path.to_owned()),
        };
        let guard = self.fs.locks.acquire(vec![scope]).await;
        let is_taken = self.carried_out().contains(&id) || self.fs.uploads.has(id);
        if is_taken || !self.fs.journal.has(id) {
            return Ok(());
        }
        if let Intent::Upload { key, upload_id } = intent {
            let detail = "an upload that nobody completes any more";
            let mend = self.abort(id, key, upload_id);
            self.differs_under(guard, path, DifferenceKind::Upload, detail, mend).await;
            return Ok(());
        }
        let (detail, mend) = match self.what_is_there(intent).await? {
            There::Done(copy) => (String::from("an intent that is carried out already"), Some(copy)),
            There::Gone => (String::from("an intent about bytes that are not here any more"), Some(None)),
            There::Other => (String::from("an intent of which the store has other bytes"), None),
            There::Not => (format!("an intent that nobody carries out: {}", describe(intent)), None),
        };
        let mending = async {
            let Some(copy) = mend else { return Ok(Repair::Left(String::from(NEXT_MOUNT))) };
            self.strike_out(id).await?;
            if let Some(copy) = copy {
                blocking(move || remove_unless_open(&copy)).await?;
            }
            Ok(Repair::Done("struck out"))
        };
        self.differs_under(guard, path, DifferenceKind::Intent, detail, mending).await;
        Ok(())
    }

    async fn abort(&self, id: IntentId, key: &Key, upload_id: &UploadId) -> Result<Repair> {
        let upload = MultipartUpload { key: key.clone(), id: upload_id.clone(), initiated: None };
        self.fs.store.abort_multipart(&upload).await?;
        self.strike_out(id).await?;
        Ok(Repair::Done("aborted"))
    }

    /// What stands in the journal all the same is left as it is, with what it speaks of.
    async fn strike_out(&self, id: IntentId) -> Result<()> {
        let journal = self.fs.journal.clone();
        blocking(move || journal.complete(id)).await
    }

    /// Whether the store has what an intent is about.
    async fn what_is_there(&self, intent: &Intent) -> Result<There> {
        let done = |is_done| if is_done { There::Done(None) } else { There::Not };
        match intent {
            Intent::Store(store) => self.is_stored(store).await,
            Intent::Attributes(intent) => {
                let object = self.head(&intent.key).await?;
                Ok(done(object.is_some_and(|object| self.has_attributes(&object, &intent.meta))))
            }
            Intent::Marker(intent) => {
                let object = self.head(&intent.key).await?;
                Ok(done(object.is_some_and(|object| self.has_attributes(&object, &intent.meta))))
            }
            Intent::OldName(old) => Ok(done(self.head(&old.key).await?.is_none())),
            Intent::RenameTree { .. } | Intent::Upload { .. } => Ok(There::Not),
        }
    }

    async fn is_stored(&self, intent: &StoreIntent) -> Result<There> {
        let file = self.fs.state_dir.staging().join(&intent.staging_name);
        if !file.try_exists().unwrap_or(true) {
            return Ok(There::Gone);
        }
        let is_ours = |object: &ObjectMeta| {
            let id = write_id(object).map(str::to_owned);
            id.is_some() && id == intent.meta.write_id
        };
        let Some(object) = self.head(&intent.key).await?.filter(is_ours) else { return Ok(There::Not) };
        if object.size != intent.state.size {
            return Ok(There::Other);
        }
        // Where not all of it is here, its length is all that can be compared.
        let sum = if is_file_of(&intent.state) { sum_of_file(&file, object.size).await? } else { None };
        let told = self.fs.told_sum(&object).await?;
        Ok(match sum.zip(told) {
            Some((ours, theirs)) if ours != theirs => There::Other,
            Some(_) => There::Done(Some(file)),
            None => There::Done(None),
        })
    }

    pub(super) async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        Ok(found(self.fs.store.head(HeadRequest::latest(key.clone())).await)?)
    }

    /// Whether an object has these attributes.
    fn has_attributes(&self, object: &ObjectMeta, meta: &FileMeta) -> bool {
        let stored = FileMeta::decode(object, &self.fs.defaults());
        FileMeta { write_id: None, ..stored } == FileMeta { write_id: None, ..meta.clone() }
    }
}

/// Removes a staging file that nobody uses: an intent that could not be struck out may speak of one that is written on.
fn remove_unless_open(file: &Path) -> Result<()> {
    let failed = |error| FsError::local("removing a staging file", error);
    let meta = file.metadata().map_err(failed)?;
    if open_files().map_err(failed)?.contains(&id(&meta)) {
        return Ok(());
    }
    std::fs::remove_file(file).map_err(failed)
}

/// What the store has of what an intent is about.
enum There {
    /// All of it; the staging file, if it is known to be a copy of that.
    Done(Option<PathBuf>),
    /// What it has does not matter: there is nothing to store.
    Gone,
    /// Something else, which we have stored.
    Other,
    /// Not that.
    Not,
}

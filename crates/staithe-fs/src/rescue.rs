//! Bringing out what was never stored, without the store that it was meant for.
//!
//! A state directory has the bytes of files that are not in the store yet, and a journal that says what they are. A mount
//! of the same volume stores them; where there will be none, because the bucket is gone, or nobody may write to it any
//! more, they are brought to a local directory here, or to another volume.
//!
//! Invariants:
//! 1. Nothing in the state directory changes: files in it are opened for reading only. It is locked meanwhile.
//! 2. Nothing in the output is written over, and nothing in it is half: a file of which not all was here has a name that
//!    says so.
//! 3. What is not rescued is told, each by itself.
//! 4. Memory: what the journal has to finish, and a file or two in pieces.
//!
//! `plan` says what there is, `names` what it is called, `bytes` and `copy` where its bytes are, `directory` and `volume`
//! are where it goes, `report` is what is told.

mod bytes;
mod copy;
mod directory;
mod names;
mod plan;
mod report;
mod volume;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::task::JoinSet;

pub use report::{MissingBytes, RescueReport, RescueTo, Rescued, RescuedKind};

use self::bytes::{Bytes, Found};
use self::directory::{Directory, Finished};
use self::plan::{Item, Plan, plan};
use self::volume::{Sending, Volume};
use crate::api::Kind;
use crate::cache::is_map;
use crate::commit::with_causes;
use crate::error::{FsError, FsErrorKind, Result};
use crate::intent::AttributesIntent;
use crate::journal::{self, Salvaged};
use crate::metadata::FileMeta;
use crate::owned_dir::Visit;
use crate::state_dir::may_be_lost;
use crate::upload::blocking;

/// Where it is written down what attributes were to change.
const ATTRIBUTES: &str = "unstored-attributes.json";
/// Files on their way to a store at once, and their bytes together unless it is one.
const AT_ONCE: usize = 16;
const BYTES_AT_ONCE: u64 = 256 << 20;
/// How many names are tried for something whose own is taken.
const NAMES_TRIED: u32 = 10_000;

/// Brings out what `state_dir` has and no store: files, links and directories under their keys, in which the prefix of
/// their mount is, which nothing there says; bytes without a name in `lost+found`; and what attributes were to change, in
/// `unstored-attributes.json`. Tells each of them when it is done, and what could not be.
///
/// What has the name of something else goes beside it as `NAME.conflict-1`. A file of which not all is here is
/// `NAME.partial`: what is missing is told, and zeros there, but for what had been fetched of the object, or written and
/// neither closed nor synced.
///
/// # Errors
/// `Invalid` if there is no state directory, another process uses it, or a newer version wrote any of it; if the output is
/// not empty, or lies in it: nothing is written then. The error of the output, if it cannot be opened, or what is in it
/// cannot be made durable.
///
/// # Cancel safety
/// Dropping the future ends the work after the piece that is under way; what was told is there.
pub async fn rescue(
    state_dir: &Path,
    to: RescueTo,
    tell: &mut (dyn FnMut(&Rescued) + Send),
) -> Result<RescueReport> {
    let stop = Stop::default();
    let dir = state_dir.to_owned();
    let (_visit, damage, intents) = blocking(move || {
        let visit = Visit::begin("state directory", &dir)?;
        let Salvaged { intents, mut damage } = match dir.join("journal").try_exists() {
            Ok(false) => {
                Salvaged { intents: Vec::new(), damage: vec![String::from("the journal is missing")] }
            }
            _ => journal::salvage(&dir.join("journal"))?,
        };
        damage.extend(visit.damage.clone());
        Ok((visit, damage, intents))
    })
    .await?;
    let Plan { directories, files, attributes, notes, spoken_of } = plan(intents, &state_dir.join("staging"));
    let output = Output::open(to, state_dir, stop.0.clone()).await?;
    let mut run = Run { output, report: RescueReport::default(), tell };
    for damage in damage {
        run.tell(&Rescued::failed(RescuedKind::Damage, "", damage));
    }
    let made = run.directories(directories).await;
    run.files(files).await;
    let dir = state_dir.to_owned();
    let (lost, failed) = blocking(move || Ok(lost(&dir, &spoken_of))).await?;
    for failed in failed {
        run.tell(&failed);
    }
    run.files(lost).await;
    run.attributes(&attributes).await;
    run.finish(made).await?;
    for note in notes {
        run.tell(&note);
    }
    Ok(run.report)
}

/// Ends what goes on in other threads when it is dropped.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Output {
    Directory(Arc<Directory>),
    Volume(Arc<Volume>),
}

impl Output {
    async fn open(to: RescueTo, state_dir: &Path, stop: Arc<AtomicBool>) -> Result<Self> {
        match to {
            RescueTo::Directory(path) => {
                let state_dir = state_dir.to_owned();
                let opened = blocking(move || Directory::open(&path, &state_dir, stop)).await?;
                Ok(Self::Directory(Arc::new(opened)))
            }
            RescueTo::Store { store, prefix, scratch } => {
                Ok(Self::Volume(Arc::new(Volume::open(store, prefix, &scratch, stop).await?)))
            }
        }
    }

    /// What is at a path.
    async fn at(&self, path: &str) -> Result<Option<Kind>> {
        match self {
            Self::Directory(directory) => {
                let (directory, path) = (directory.clone(), path.to_owned());
                blocking(move || directory.at(&path)).await
            }
            Self::Volume(volume) => volume.at(path).await,
        }
    }

    /// Where something may go that is to go to `wanted`: there, unless a part of that is no name, or is taken by
    /// something that is not a directory, or not to be one.
    async fn place(&self, wanted: &str, is_directory: bool) -> Result<String> {
        let mut place = String::new();
        let mut parts = wanted.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_directory = is_directory || parts.peek().is_some();
            place = self.place_in(&place, &names::possible(part), is_directory).await?;
        }
        Ok(place)
    }

    async fn place_in(&self, dir: &str, name: &str, is_directory: bool) -> Result<String> {
        let mut place = names::join(dir, name);
        for n in 1..NAMES_TRIED {
            match self.at(&place).await? {
                None => return Ok(place),
                Some(Kind::Directory) if is_directory => return Ok(place),
                Some(_) => place = names::join(dir, &names::beside(name, n)),
            }
        }
        Err(FsError::new(FsErrorKind::Exists, format!("{name:?} has too many namesakes")))
    }
}

/// A rescue under way.
struct Run<'t> {
    output: Output,
    report: RescueReport,
    tell: &'t mut (dyn FnMut(&Rescued) + Send),
}

/// A file that was begun with.
enum Begun {
    Ended,
    Sending(Sending),
}

impl Run<'_> {
    fn tell(&mut self, rescued: &Rescued) {
        self.report.count(rescued);
        (self.tell)(rescued);
    }

    /// Makes directories. Those that are told when they have their attributes.
    async fn directories(&mut self, directories: BTreeMap<String, FileMeta>) -> Vec<Rescued> {
        let mut made = Vec::new();
        for (path, meta) in directories {
            let mut rescued = Rescued::new(RescuedKind::Directory, format!("{path}/"));
            match self.directory(&path, meta).await {
                Ok((place, remark)) => (rescued.path, rescued.remark) = (Some(place), remark),
                Err(error) => rescued.failure = Some(with_causes(&error)),
            }
            if rescued.failure.is_none() && matches!(self.output, Output::Directory(_)) {
                made.push(rescued);
            } else {
                self.tell(&rescued);
            }
        }
        made
    }

    async fn directory(&self, path: &str, meta: FileMeta) -> Result<(String, Option<String>)> {
        let place = self.output.place(path, true).await?;
        let remark = match &self.output {
            Output::Directory(directory) => {
                let (directory, path) = (directory.clone(), place.clone());
                blocking(move || directory.make(&path, meta)).await?;
                None
            }
            Output::Volume(volume) => volume.make(&place, meta).await?,
        };
        Ok((place, remark))
    }

    /// Brings out files, several at once where they are sent.
    async fn files(&mut self, items: Vec<Item>) {
        let (mut under_way, mut bytes) = (JoinSet::new(), 0);
        for item in items {
            let (mut rescued, begun) = self.file(item).await;
            if let Begun::Sending(sending) = begun {
                let len = sending.len();
                bytes += len;
                under_way.spawn(async move {
                    if let Err(error) = sending.finish().await {
                        (rescued.path, rescued.failure) = (None, Some(with_causes(&error)));
                    }
                    (rescued, len)
                });
            } else {
                self.tell(&rescued);
            }
            while under_way.len() >= AT_ONCE || bytes > BYTES_AT_ONCE {
                bytes -= self.sent(&mut under_way).await;
            }
        }
        while !under_way.is_empty() {
            self.sent(&mut under_way).await;
        }
    }

    /// Waits for one to be sent. Its length.
    async fn sent(&mut self, under_way: &mut JoinSet<(Rescued, u64)>) -> u64 {
        match under_way.join_next().await {
            Some(Ok((rescued, len))) => {
                self.tell(&rescued);
                len
            }
            Some(Err(error)) => {
                self.tell(&Rescued::failed(RescuedKind::File, "", format!("it was cut off: {error}")));
                0
            }
            None => 0,
        }
    }

    /// Begins to bring out a file; all of it, where that is not sent. What is to be told then.
    async fn file(&self, item: Item) -> (Rescued, Begun) {
        let Item { kind, key, path, mut meta, bytes: local, base } = item;
        let tag = base.as_ref().map(|(_, version)| version.etag.clone());
        let opened = blocking(move || {
            let what = format!("could not open {}", local.file.display());
            local.open(tag.as_ref()).map_err(|error| FsError::local(&format!("{what}: {error}"), error))
        });
        let Found { bytes, missing, fetched } = match opened.await {
            Ok(Some(found)) => found,
            Ok(None) => {
                let why = "its bytes are not here any more: the store had them, or somebody took them";
                return (Rescued::failed(kind, key, why), Begun::Ended);
            }
            Err(error) => return (Rescued::failed(kind, key, with_causes(&error)), Begun::Ended),
        };
        let mut rescued = Rescued::new(kind, key);
        rescued.bytes = bytes.len() - missing.iter().map(|range| range.end - range.start).sum::<u64>();
        let mut wanted = path;
        if !missing.is_empty() {
            wanted = names::partial(&wanted);
            (rescued.kind, meta.kind) = (RescuedKind::File, Kind::File);
            let (key, version) = base.unzip();
            let key = key.map_or_else(|| rescued.key.clone(), |key| key.as_str().to_owned());
            rescued.missing = Some(MissingBytes { ranges: missing, fetched, key, version });
        }
        match self.put(&wanted, rescued.kind, meta, bytes).await {
            Ok((place, unlike, begun)) => {
                (rescued.path, rescued.unlike) = (Some(place), unlike);
                (rescued, begun)
            }
            Err(error) => (Rescued::failed(rescued.kind, rescued.key, with_causes(&error)), Begun::Ended),
        }
    }

    /// Puts a file where it may go, which is told, and what of its attributes it was not given.
    async fn put(
        &self,
        wanted: &str,
        kind: RescuedKind,
        meta: FileMeta,
        bytes: Bytes,
    ) -> Result<(String, Option<String>, Begun)> {
        let place = self.output.place(wanted, false).await?;
        match &self.output {
            Output::Directory(directory) => {
                let (directory, path) = (directory.clone(), place.clone());
                let unlike = blocking(move || directory.put(&path, kind, &meta, &bytes)).await?;
                Ok((place, unlike, Begun::Ended))
            }
            Output::Volume(volume) => {
                let sending = volume.begin(&place, meta, bytes).await?;
                Ok((place, None, Begun::Sending(sending)))
            }
        }
    }

    /// Writes down what attributes were to change.
    async fn attributes(&mut self, all: &[AttributesIntent]) {
        if all.is_empty() {
            return;
        }
        let put = async {
            let text = told_attributes(all)?;
            let (uid, gid) = us();
            let meta = FileMeta::new(Kind::File, 0o644, uid, gid, SystemTime::now());
            let (place, _, begun) = self.put(ATTRIBUTES, RescuedKind::File, meta, Bytes::Text(text)).await?;
            if let Begun::Sending(sending) = begun {
                sending.finish().await?;
            }
            Ok::<_, FsError>(place)
        };
        let put = put.await.map_err(|error| with_causes(&error));
        for attributes in all {
            let mut rescued = Rescued::new(RescuedKind::Attributes, attributes.key.as_str());
            match &put {
                Ok(place) => rescued.path = Some(place.clone()),
                Err(why) => rescued.failure = Some(why.clone()),
            }
            self.tell(&rescued);
        }
    }

    /// Ends the output, and tells of the directories that were `made` in it.
    async fn finish(&mut self, made: Vec<Rescued>) -> Result<()> {
        let Output::Directory(directory) = &self.output else { return Ok(()) };
        let directory = directory.clone();
        let Finished { unlike, lacks_owners } = blocking(move || directory.finish()).await?;
        for mut rescued in made {
            rescued.unlike = rescued.path.as_ref().and_then(|path| unlike.get(path).cloned());
            self.tell(&rescued);
        }
        if lacks_owners {
            self.tell(&Rescued::note("", "owners are not kept: only root may give files away"));
        }
        Ok(())
    }
}

/// What nothing says the name of: staging files that are not `spoken_of`, and what was set aside earlier. Reads those that
/// came from the disk cache.
fn lost(state_dir: &Path, spoken_of: &HashSet<String>) -> (Vec<Item>, Vec<Rescued>) {
    let (mut items, mut failed) = (Vec::new(), Vec::new());
    for dir in ["staging", "lost+found"] {
        let is_staging = dir == "staging";
        let mut look = || -> io::Result<()> {
            for entry in std::fs::read_dir(state_dir.join(dir))? {
                let entry = entry?;
                let (path, name, meta) = (entry.path(), entry.file_name(), entry.metadata()?);
                let name = name.to_string_lossy();
                let key = format!("{dir}/{name}");
                let is_nobodys = !spoken_of.contains(&*name) && !is_map(&path) && may_be_lost(&path, &meta);
                if is_staging && !is_nobodys {
                    continue;
                }
                if meta.is_file() {
                    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    items.push(Item::lost(path, key, modified, us()));
                } else {
                    failed.push(Rescued::failed(RescuedKind::Lost, key, "it is no file of ours"));
                }
            }
            Ok(())
        };
        match look() {
            Err(error) if !is_staging && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let why = format!("could not look through {dir} of the state directory: {error}");
                failed.push(Rescued::failed(RescuedKind::Damage, "", why));
            }
            Ok(()) => {}
        }
    }
    items.sort_by(|one, other| one.path.cmp(&other.path));
    (items, failed)
}

/// Who we are.
fn us() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// What attributes were to change, as a list for people and scripts: `metadata` as an object would have it.
fn told_attributes(all: &[AttributesIntent]) -> Result<String> {
    let told = |intent: &AttributesIntent| -> Result<Value> {
        let AttributesIntent { key, base, size, meta } = intent;
        let stored = FileMeta { write_id: None, ..meta.clone() }.encode(usize::MAX)?;
        Ok(json!({
            "key": key.as_str(),
            "etag": base.etag.as_str(),
            "version_id": base.id.as_ref().map(staithe_store::VersionId::as_str),
            "size": size,
            "mode": format!("{:04o}", meta.mode),
            "uid": meta.uid,
            "gid": meta.gid,
            "mtime": humantime::format_rfc3339_nanos(meta.mtime.max(SystemTime::UNIX_EPOCH)).to_string(),
            "metadata": stored.metadata,
            "content_type": stored.content_type,
        }))
    };
    let told: Vec<Value> = all.iter().map(told).collect::<Result<_>>()?;
    Ok(format!("{:#}\n", Value::Array(told)))
}

#[cfg(test)]
mod tests;

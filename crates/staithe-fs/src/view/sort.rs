//! Bringing objects into the order of their keys, in bounded memory: sorted runs on the disk, merged.
//!
//! A run is written as a manifest is, into a file that has no name any more, so nothing is left of it whatever happens.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::decode::Decoder;
use super::encode::Encoder;
use super::file::{beside, create_new, unwritten};
use super::format::ManifestHeader;
use super::object::ViewObject;
use crate::error::{FsError, FsErrorKind, Result};

/// Bytes between the disk and each run, as there may be many.
const BUFFER: usize = 64 << 10;
/// What an object takes in memory beside its texts, roughly.
const OVERHEAD: usize = 160;

/// Takes objects in any order.
pub(super) struct Sorter {
    /// Runs lie beside it.
    target: PathBuf,
    /// Bytes that objects may take in memory.
    room: usize,
    taken: usize,
    objects: Vec<ViewObject>,
    runs: Vec<Run>,
}

type Run = Decoder<BufReader<File>>;

impl Sorter {
    pub(super) fn new(target: &Path, room: usize) -> Self {
        Self { target: target.to_owned(), room, taken: 0, objects: Vec::new(), runs: Vec::new() }
    }

    pub(super) fn push(&mut self, object: ViewObject) -> Result<()> {
        let id = object.version.id.as_ref().map_or(0, |id| id.as_str().len());
        self.taken += OVERHEAD + object.key.as_str().len() + object.version.etag.as_str().len() + id;
        self.objects.push(object);
        if self.taken >= self.room { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let aside = beside(&self.target)?;
        let mut file = create_new(&aside, &self.target)?;
        let cannot = |error| unwritten(&self.target, error);
        std::fs::remove_file(&aside).map_err(cannot)?;
        let header = ManifestHeader::nowhere();
        sort(&mut self.objects)?;
        let mut run = Encoder::new(BufWriter::with_capacity(BUFFER, &file), &header).map_err(cannot)?;
        for object in self.objects.drain(..) {
            run.push(&object).map_err(|refused| refused.of(&self.target))?;
        }
        let flushed =
            run.finish().and_then(|out| out.into_inner().map_err(std::io::IntoInnerError::into_error));
        flushed.map_err(cannot)?;
        file.seek(SeekFrom::Start(0)).map_err(cannot)?;
        let run = Decoder::new(BufReader::with_capacity(BUFFER, file));
        self.runs.push(run.map_err(|fault| fault.of(&self.target))?);
        self.taken = 0;
        Ok(())
    }

    /// Gives all of them, in order.
    pub(super) fn finish(mut self, mut put: impl FnMut(&ViewObject) -> Result<()>) -> Result<()> {
        if self.runs.is_empty() {
            sort(&mut self.objects)?;
            return self.objects.iter().try_for_each(put);
        }
        self.spill()?;
        let Self { mut runs, target, .. } = self;
        let mut heads = BinaryHeap::new();
        for (run, decoder) in runs.iter_mut().enumerate() {
            heads.extend(next_of(decoder, run, &target)?);
        }
        let mut last = None;
        while let Some(Reverse(Head { object, run })) = heads.pop() {
            if last.as_ref() == Some(&object.key) {
                return Err(twice(&object));
            }
            put(&object)?;
            last = Some(object.key);
            heads.extend(next_of(&mut runs[run], run, &target)?);
        }
        Ok(())
    }
}

fn next_of(decoder: &mut Run, run: usize, target: &Path) -> Result<Option<Reverse<Head>>> {
    let next = decoder.advance().map_err(|fault| fault.of(target))?;
    Ok(next.map(|decoded| Reverse(Head { object: decoded.object, run })))
}

fn sort(objects: &mut [ViewObject]) -> Result<()> {
    objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    match objects.array_windows().find(|[a, b]| a.key == b.key) {
        Some([object, _]) => Err(twice(object)),
        None => Ok(()),
    }
}

fn twice(object: &ViewObject) -> FsError {
    FsError::new(FsErrorKind::Invalid, format!("it lists {:?} twice as the latest version", object.key))
}

/// The least object of a run that was not given yet.
struct Head {
    object: ViewObject,
    run: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.object.key.cmp(&other.object.key).then(self.run.cmp(&other.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

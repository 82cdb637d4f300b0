//! A directory of snapshots, of which one is current.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::fault::{Fault, io};
use super::format::{Format, HEADER};
use super::names::{ASIDE, CURRENT, LOCK, Serial, is_aside};
use super::{Reader, Writer};
use crate::error::Cause;
use crate::{Epoch, Error, Kind};

/// A directory of snapshots, open in one place at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    format: Format,
    keep: usize,
    /// Those that were found not to be good.
    bad: Vec<Serial>,
    /// Locked for as long as it is open.
    _lock: File,
}

/// A snapshot that was saved, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its file.
    pub file: PathBuf,
    /// Bytes of the state in it.
    pub bytes: u64,
}

/// A state that was loaded.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The state.
    pub state: T,
    /// The epoch that it was saved with.
    pub epoch: Epoch,
    /// Its file.
    pub file: PathBuf,
    /// Newer files that were passed over: what was in them is lost, unless somebody repairs them.
    pub skipped: Vec<Skipped>,
}

/// A file that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub error: Error,
}

impl Directory {
    /// Opens a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`Kind::Busy`]: it is open already, here or in another process. [`Kind::Io`].
    pub fn open(path: impl Into<PathBuf>, format: Format) -> Result<Self, Error> {
        let path = path.into();
        create(&path)?;
        let name = path.join(LOCK);
        let lock = OpenOptions::new().create(true).append(true).open(&name).map_err(io("open", &name))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, format, keep: 2, bad: Vec::new(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Fault::InUse { path }.into()),
            Err(TryLockError::Error(source)) => Err(Fault::Io { what: "lock", path: name, source }.into()),
        }
    }

    /// How many snapshots a save leaves, at least 1, itself included. Default 2: one to fall back to.
    #[must_use]
    pub fn keeping(mut self, snapshots: usize) -> Self {
        self.keep = snapshots.max(1);
        self
    }

    /// Saves a state, which `write` streams out; when it returns, it is durable and current. A failed or panicking
    /// `write` leaves what was current before.
    ///
    /// # Errors
    /// [`Kind::Failed`] if `write` does; [`Kind::Io`]: if the last fsync of the directory failed, a power failure may
    /// bring back the older state, otherwise nothing has changed.
    pub fn save<E: Into<Cause>>(
        &mut self,
        epoch: Epoch,
        write: impl FnOnce(&mut Writer<File>) -> Result<(), E>,
    ) -> Result<Saved, Error> {
        let last = self.serials()?.last().map_or(0, |last| last.0);
        let serial = Serial(last.max(self.current()?.map_or(0, |current| current.0)).saturating_add(1));
        let file = self.path.join(serial.name());

        let aside = Aside::new(&file);
        let mut writer = Writer::new(aside.file()?, self.format, epoch)?;
        write(&mut writer).map_err(|cause| Fault::Encode(cause.into()))?;
        let bytes = writer.written();
        aside.become_file(&writer.finish()?, &file)?;
        // The file before what names it.
        sync(&self.path)?;

        let current = self.path.join(CURRENT);
        let aside = Aside::new(&current);
        let mut line = aside.file()?;
        line.write_all(serial.line().as_bytes()).map_err(io("write", &aside.path))?;
        aside.become_file(&line, &current)?;
        sync(&self.path)?;

        self.prune(serial);
        Ok(Saved { file, bytes })
    }

    /// Loads the current state, which `read` decodes as it streams in, or the newest that is whole.
    ///
    /// # Errors
    /// [`Kind::Missing`]: there is none, nor was one. [`Kind::Newer`] and [`Kind::Io`] at once; [`Kind::Damaged`],
    /// [`Kind::Foreign`] or [`Kind::Invalid`], of the newest file, if none is good.
    pub fn load<T, E: Into<Cause>>(
        &mut self,
        mut read: impl FnMut(&mut Reader<BufReader<File>>) -> Result<T, E>,
    ) -> Result<Loaded<T>, Error> {
        let mut skipped = Vec::new();
        let name = self.path.join(CURRENT);
        let current = self.current()?;
        if current.is_none() && name.exists() {
            skipped.push(Skipped { error: Fault::Current { path: name.clone() }.into(), file: name });
        }
        let mut candidates = self.serials()?;
        candidates.reverse();
        candidates.retain(|serial| Some(*serial) != current);
        for serial in current.into_iter().chain(candidates) {
            let file = self.path.join(serial.name());
            match self.load_one(&file, &mut read) {
                Ok((state, epoch)) => {
                    for Skipped { error, file } in &skipped {
                        tracing::warn!(file = %file.display(), %error, "a snapshot was passed over");
                    }
                    return Ok(Loaded { state, epoch, file, skipped });
                }
                Err(fault) if matches!(fault.kind(), Kind::Newer | Kind::Io) => return Err(fault.into()),
                Err(fault) => {
                    self.bad.retain(|bad| *bad != serial);
                    self.bad.push(serial);
                    skipped.push(Skipped { file, error: fault.into() });
                }
            }
        }
        // The first of them is what should have been loaded.
        let first = skipped.into_iter().next().map(|skipped| skipped.error);
        Err(first.unwrap_or_else(|| Fault::Missing { path: self.path.clone() }.into()))
    }

    fn load_one<T, E: Into<Cause>>(
        &self,
        path: &Path,
        read: &mut impl FnMut(&mut Reader<BufReader<File>>) -> Result<T, E>,
    ) -> Result<(T, Epoch), Fault> {
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Fault::Missing { path: path.into() },
            _ => io("open", path)(error),
        })?;
        let whole = || {
            // Small, for what is between the pieces; pieces go past it.
            let mut reader = Reader::begin(BufReader::with_capacity(HEADER, file), self.format)?;
            let epoch = reader.header().epoch;
            let decoded = read(&mut reader);
            match (decoded, reader.verify()) {
                (Ok(state), Ok(())) => Ok((state, epoch)),
                // A decoder that stopped left something, and that is not the reason.
                (Err(cause), Ok(()) | Err(Fault::Left { .. })) => Err(Fault::Decode(cause.into())),
                (_, Err(fault)) => Err(fault),
            }
        };
        whole().map_err(|fault: Fault| fault.within(path))
    }

    /// The one that `CURRENT` names.
    fn current(&self) -> Result<Option<Serial>, Fault> {
        let path = self.path.join(CURRENT);
        match fs::read(&path) {
            Ok(line) => Ok(Serial::from_line(&line)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// Those that have their name, oldest first.
    fn serials(&self) -> Result<Vec<Serial>, Fault> {
        let mut serials = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io("list", &self.path))? {
            serials.extend(Serial::of(&entry.map_err(io("list", &self.path))?.file_name()));
        }
        serials.sort_unstable();
        Ok(serials)
    }

    /// Removes what is too old, and what was never finished. What cannot be removed now is tried at the next save.
    fn prune(&mut self, newest: Serial) {
        let Ok(serials) = self.serials() else { return };
        let good = serials.iter().rev().filter(|serial| !self.bad.contains(serial));
        let oldest = good.take(self.keep).last().copied().unwrap_or(newest);
        self.bad.retain(|serial| *serial >= oldest);
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let old = is_aside(&name) || Serial::of(&name).is_some_and(|serial| serial < oldest);
            if old && let Err(error) = fs::remove_file(entry.path()) {
                tracing::debug!(file = %entry.path().display(), %error, "an old snapshot stays");
            }
        }
    }
}

/// Makes a directory that lasts, with those that it is in.
fn create(path: &Path) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    create(parent)?;
    fs::create_dir_all(path).map_err(io("create", path))?;
    sync(parent)
}

/// Makes the names in a directory durable.
fn sync(path: &Path) -> Result<(), Fault> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io("fsync", path))
}

/// A file that is being written. It is removed unless it becomes what it is meant to be.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn new(of: &Path) -> Self {
        let mut path = of.as_os_str().to_owned();
        path.push(ASIDE);
        Self { path: path.into() }
    }

    fn file(&self) -> Result<File, Fault> {
        File::create(&self.path).map_err(io("create", &self.path))
    }

    fn become_file(self, written: &File, name: &Path) -> Result<(), Fault> {
        written.sync_all().map_err(io("fsync", &self.path))?;
        fs::rename(&self.path, name).map_err(io("rename", &self.path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.path);
    }
}

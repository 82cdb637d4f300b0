//! How a command finds the daemon of a mount point, and learns how it ended.
//!
//! A running daemon holds a lock on a small file that is named after its mount point. The lock is a gate: it opens
//! when the process is gone, however it went; the exit code is in the file by then, or the daemon died. Its control
//! socket has the same name with another ending; who holds the lock may replace it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use staithe_fuse::MountEntry;

use crate::places;

/// What a daemon says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    pub(crate) source: String,
    pub(crate) mountpoint: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// How it ended, once it has.
    pub(crate) exit_code: Option<u8>,
}

/// A daemon's own entry. Dropping it opens the gate.
#[derive(Debug)]
pub(crate) struct Entry {
    file: File,
    path: PathBuf,
    record: Record,
}

impl Entry {
    /// Writes the entry and locks it.
    pub(crate) fn create(record: Record) -> io::Result<Self> {
        let dir = places::runtime_dir().ok_or_else(|| io::Error::other("there is no directory for it"))?;
        places::create_private(&dir)?;
        let path = dir.join(file_name(&record.mountpoint));
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut entry = Self { file: options?, path, record };
        flock(&entry.file, FlockOperation::NonBlockingLockExclusive)?;
        entry.write()?;
        Ok(entry)
    }

    /// Where its control socket belongs.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_beside(&self.path)
    }

    /// Leaves the exit code for whoever waits.
    pub(crate) fn finish(&mut self, exit_code: u8) -> io::Result<()> {
        self.record.exit_code = Some(exit_code);
        self.write()?;
        // Who waits has the file open; who comes later finds no daemon.
        std::fs::remove_file(&self.path)
    }

    fn write(&mut self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.record)?;
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(&text)
    }
}

/// Another process's entry.
#[derive(Debug)]
pub(crate) struct Found {
    file: File,
    path: PathBuf,
}

/// What became of a daemon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended in order, with this code.
    Exit(u8),
    /// It died; this is where its state is.
    Died(PathBuf),
}

impl Found {
    /// The entry of the daemon that serves `mount`, if it left one where we may look.
    pub(crate) fn of(mount: &MountEntry) -> Option<Self> {
        let name = file_name(&mount.mountpoint);
        let theirs = mount.user_id.map(|id| PathBuf::from(format!("/run/user/{id}/staithe")));
        let dirs = [places::runtime_dir(), Some(PathBuf::from("/run/staithe")), theirs];
        dirs.into_iter().flatten().map(|dir| dir.join(&name)).find_map(|path| {
            let file = File::open(&path).ok()?;
            Some(Self { file, path })
        })
    }

    /// Where its control socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_beside(&self.path)
    }

    /// Waits until the daemon is gone.
    pub(crate) fn wait(mut self) -> io::Result<End> {
        rustix::io::retry_on_intr(|| flock(&self.file, FlockOperation::LockShared))?;
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        let record: Record = serde_json::from_str(&text)?;
        Ok(record.exit_code.map_or(End::Died(record.state_dir), End::Exit))
    }
}

fn socket_beside(record: &Path) -> PathBuf {
    record.with_extension("sock")
}

fn file_name(mountpoint: &Path) -> String {
    format!("{}.json", places::hash(&[mountpoint.as_os_str().as_encoded_bytes()]))
}

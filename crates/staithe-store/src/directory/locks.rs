//! Locks on the directories of the tree, among the users of this process and of others.
//!
//! Invariants:
//! 1. Whoever checks a condition on a key and then commits holds the lock of the key's directory in between.
//! 2. Whoever looks whether a directory is empty in order to act on it holds that directory's lock.
//! 3. Stripes are taken in ascending order, so no two holders wait for each other; nothing else is locked
//!    while a stripe is held, and no stripe across an await.
//!
//! A lock is a stripe: a mutex for this process, an flock on a file for the others. A killed process lets go of
//! its flocks. Where flock does not work, the lock holds within the process only.

use std::os::fd::OwnedFd;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

const STRIPES: usize = 64;

#[derive(Debug)]
pub(super) struct Locks {
    files: OwnedFd,
    stripes: Vec<Mutex<Option<OwnedFd>>>,
}

/// Stripes held; dropping releases them.
pub(super) struct Held<'l>(Vec<MutexGuard<'l, Option<OwnedFd>>>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for file in self.0.iter().filter_map(|stripe| stripe.as_ref()) {
            let _ = rustix::fs::flock(file, FlockOperation::Unlock); // closing the file would do as well
        }
    }
}

impl Locks {
    /// Locks whose files lie in the directory `files`.
    pub(super) fn new(files: OwnedFd) -> Self {
        Self { files, stripes: (0..STRIPES).map(|_| Mutex::new(None)).collect() }
    }

    /// Locks these directories (paths relative to the root). Blocks.
    pub(super) fn lock<'p>(&self, directories: impl IntoIterator<Item = &'p str>) -> Result<Held<'_>, Errno> {
        let mut wanted: Vec<usize> = directories.into_iter().map(stripe_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut held = Held(Vec::with_capacity(wanted.len()));
        for index in wanted {
            let Some(stripe) = self.stripes.get(index) else { continue };
            let mut stripe = stripe.lock();
            if stripe.is_none() {
                *stripe = Some(self.open(index)?);
            }
            if let Some(file) = &*stripe {
                exclusive(file)?;
            }
            held.0.push(stripe);
        }
        Ok(held)
    }

    fn open(&self, index: usize) -> Result<OwnedFd, Errno> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.files, format!("{index:02}"), flags, Mode::from_raw_mode(0o600))
    }
}

fn exclusive(file: &OwnedFd) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => return Ok(()),
            result => return result,
        }
    }
}

/// FNV-1a: every process must come to the same stripe.
fn stripe_of(directory: &str) -> usize {
    let hash = directory.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % STRIPES as u64) as usize
}

//! New files, lent to their writers: a kernel writes to the staging file in our place.
//!
//! Invariants:
//! 1. Lent so is, in write-back, a file that begins empty: one that is made, or cut to nothing by its first opener. It is
//!    lent to who can only write, and asks for nothing that a kernel would not do for us: see [`OpenMode::by_calls`].
//! 2. As long as all of its writers are such, its staging file is *watched*: close is told nothing, looks at the file's
//!    length and time, and reads none of it. Who opens it for reading and writing makes it a shared one.
//! 3. When the last of them has closed it, it is a staging file like any other.
//! 4. Intents of the journal speak of it as of any file in write-back: what was closed, synced or cut last stands, and of
//!    what was written since anything may, as far as the length goes that was said. A kernel writes on for a program that
//!    outlives this process, so a start does not go on with the file itself, but with a copy: the file says that it was
//!    lent.
//! 5. It is not stored before its last writer closes it, or somebody asks for it with fsync(2) or a sync. What is stored
//!    while it is being written is declared clean only if no write has begun since its mark was set.

use std::sync::atomic::Ordering;

use super::{Lent, LocalFile};
use crate::api::OpenMode;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, State};
use crate::staging::Staged;
use crate::state_dir::StateDir;
use crate::upload::blocking;

/// Who runs the file runs it as somebody else: a write takes that away, and is left to us.
const SET_ID: u16 = 0o6000;

impl Filesystem {
    /// Whether new files may be lent to their writers, or why not.
    ///
    /// # Errors
    /// The reason, in a few words.
    pub(super) fn can_lend_new(&self) -> Result<(), &'static str> {
        if self.config.read_only {
            return Err("nothing is written on a read-only mount");
        }
        if !self.writes_back() {
            return Err("close stores what is written (--write-mode through)");
        }
        if self.config.staging_size.is_some() {
            return Err("what a kernel writes by itself cannot be held to --staging-size");
        }
        Ok(())
    }

    /// Why new files are not lent; `None` when they are.
    pub fn lends_no_new_because(&self) -> Option<String> {
        let reason = self.lends_no_new.lock().clone();
        let is_full = || !self.room.can_be_taken_untold();
        reason.or_else(|| is_full().then(|| String::from("the disk of the state directory is nearly full")))
    }

    fn may_lend_new(&self, mode: OpenMode, permissions: u16) -> bool {
        self.may_lend_new.load(Ordering::Acquire)
            && mode.by_calls()
            && permissions & SET_ID == 0
            && self.room.can_be_taken_untold()
    }

    /// Lends a file that was just made, and that nobody knows of yet.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn lend_new(&self, state: &mut State, mode: OpenMode) -> Result<Option<Loan>> {
        if !self.may_lend_new(mode, state.meta.mode) {
            return Ok(None);
        }
        state.lend_staging();
        state.loan(mode)
    }

    /// Begins to lend a file that is opened to be cut to nothing, and that nobody else has open.
    ///
    /// # Errors
    /// The local disk's.
    pub(super) fn lend_cut(&self, inode: &Inode, state: &mut State, mode: OpenMode) -> Result<()> {
        let is_free = inode.opens.load(Ordering::Acquire) == 0 && state.lent.is_none() && !state.replaced;
        if !mode.truncate || !is_free || !self.may_lend_new(mode, state.meta.mode) {
            return Ok(());
        }
        if state.staged.is_none() {
            let (dir, name) = (self.state_dir.staging(), StateDir::new_staging_name());
            state.staged = Some(Staged::create(&dir, &name)?.counted(&self.room));
        }
        state.lend_staging();
        Ok(())
    }
}

/// What a handle of a lent file is given.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) file: LocalFile,
    /// A kernel writes through it by itself, to a watched file.
    pub(crate) is_untold: bool,
}

impl OpenMode {
    /// Whether a kernel could do in our place all that can be done through such a handle, and nobody can map it for
    /// writing. A kernel does not make the intent durable after each write (`O_SYNC`), goes on appending when that is
    /// switched off (`O_APPEND`), and may have writes under way that hold no lock (`O_DIRECT`).
    fn by_calls(self) -> bool {
        self.write && !(self.read || self.sync || self.append || self.direct)
    }
}

impl State {
    fn lend_staging(&mut self) {
        let file = self.staged.as_ref().map(|staged| LocalFile::of_staging(staged.disk_file()));
        self.lent = file.map(|file| Lent { file, cached: None, handles: 0, untold: 0 });
    }

    /// One handle more, for the lent file.
    ///
    /// # Errors
    /// The local disk's; then there is none.
    pub(super) fn loan(&mut self, mode: OpenMode) -> Result<Option<Loan>> {
        let Some(lent) = self.lent.as_ref() else { return Ok(None) };
        let is_ours = lent.cached.is_none() && mode.by_calls();
        let mut is_untold = false;
        if let Some(staged) = self.staged.as_mut().filter(|staged| is_ours && !staged.is_shared()) {
            if mode.truncate && !self.replaced {
                // Before a kernel writes to it. What else a truncation is comes later.
                staged.truncate(0)?;
                self.bytes_dirty = true;
            }
            if staged.is_watched() || (staged.is_all_local() && self.bytes_dirty) {
                staged.watch()?;
                is_untold = true;
            }
        }
        let Some(lent) = self.lent.as_mut() else { return Ok(None) };
        lent.handles += 1;
        lent.untold += u32::from(is_untold);
        Ok(Some(Loan { file: lent.file.clone(), is_untold }))
    }

    /// Whether a kernel may be writing to the file in our place, with calls.
    pub(crate) fn is_written_untold(&self) -> bool {
        self.staged.as_ref().is_some_and(Staged::is_watched)
    }
}

impl Inode {
    /// Before a commit reads the bytes of a watched file: from now on each write to it shows.
    pub(crate) async fn mark_untold_writes(&self) {
        let mark = {
            let mut state = self.state();
            if !state.bytes_dirty {
                // The last one holds, and another would hide what was written meanwhile.
                return;
            }
            state.staged.as_mut().and_then(Staged::next_mark)
        };
        let Some((disk, mark)) = mark else { return };
        // Not while the state is locked: it waits for the writes that are under way.
        if let Err(error) = blocking(move || disk.set_mark(mark)).await {
            tracing::debug!(ino = self.ino.0, %error, "it will be stored once more");
        }
    }
}

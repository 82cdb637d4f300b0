//! The steps at which a test ends the process, as kill -9 would: between any two of them nothing may be lost.
//!
//! Only in builds with debug assertions; in all others a step is nothing, and cannot be armed.
//!
//! Invariants:
//! 1. The list below has every step, and each is passed somewhere: a test ends a daemon at each, and fails for one that
//!    none has passed.
//! 2. Nothing is changed by passing a step that is not armed.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal,)*) => {
        /// A step of storing, naming or recovering, at which a process can be made to end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$step,)*];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    /// A new state directory says its format, or whose it is, in a file that has not its name yet.
    BeforeClaim = "before-claim",
    /// It has its name.
    AfterClaim = "after-claim",
    /// Nothing of a change is in the journal.
    BeforeJournalWrite = "before-journal-write",
    /// The change is in the journal, and nobody was told.
    AfterJournalWrite = "after-journal-write",
    /// What the journal has is not durable yet.
    BeforeJournalSync = "before-journal-sync",
    /// It is.
    AfterJournalSync = "after-journal-sync",
    /// There is no staging file yet.
    BeforeStagingCreate = "before-staging-create",
    /// It is there, and nothing speaks of it.
    AfterStagingCreate = "after-staging-create",
    /// Bytes were written to it.
    AfterStagingWrite = "after-staging-write",
    /// Its length is to change.
    BeforeStagingResize = "before-staging-resize",
    /// Its length has changed, and the journal says the old one.
    AfterStagingResize = "after-staging-resize",
    /// Its bytes are not durable yet.
    BeforeStagingSync = "before-staging-sync",
    /// They are.
    AfterStagingSync = "after-staging-sync",
    /// It is of no more use.
    BeforeStagingRemove = "before-staging-remove",
    /// It is gone.
    AfterStagingRemove = "after-staging-remove",
    /// Bytes are to be sent in one request.
    BeforePut = "before-put",
    /// The store has them; nobody here knows.
    AfterPut = "after-put",
    /// The store has an upload that the journal does not know.
    AfterUploadBegun = "after-upload-begun",
    /// The journal knows it.
    AfterUploadNoted = "after-upload-noted",
    /// The store has a part.
    AfterPart = "after-part",
    /// The store has all parts.
    BeforeComplete = "before-complete",
    /// The store has the object; nobody here knows.
    AfterComplete = "after-complete",
    /// The object is known here; the journal still says that it is to be stored.
    BeforeStrikeOut = "before-strike-out",
    /// Attributes are to be sent to an object.
    BeforeAttributes = "before-attributes",
    /// The object has them; nobody here knows.
    AfterAttributes = "after-attributes",
    /// A directory's marker is to be stored.
    BeforeMarker = "before-marker",
    /// It is there.
    AfterMarker = "after-marker",
    /// An object is to be copied to a new name.
    BeforeRenameCopy = "before-rename-copy",
    /// It has both names.
    AfterRenameCopy = "after-rename-copy",
    /// The journal says the new name, and the old one is still there.
    BeforeRenameDelete = "before-rename-delete",
    /// The old name is gone from the store.
    AfterRenameDelete = "after-rename-delete",
    /// A file has its new name here, and the journal may say the old one.
    AfterRelink = "after-relink",
    /// The move of a directory is in the journal.
    MoveNoted = "move-noted",
    /// Its objects have both names.
    MoveCopied = "move-copied",
    /// So has its marker.
    MoveMarked = "move-marked",
    /// The journal says that the new names are the right ones.
    MoveSwitched = "move-switched",
    /// The old names are gone from the store.
    MoveDeleted = "move-deleted",
    /// The directory has its new name here.
    MoveRelinked = "move-relinked",
    /// An object is to be deleted.
    BeforeUnlink = "before-unlink",
    /// It is gone from the store.
    AfterUnlink = "after-unlink",
    /// A marker is to be deleted.
    BeforeRmdir = "before-rmdir",
    /// It is gone from the store.
    AfterRmdir = "after-rmdir",
    /// A start has read what is to be finished.
    RecoveryBegun = "recovery-begun",
    /// A start has finished a move, and the journal does not say so.
    MoveFinished = "move-finished",
    /// A start has removed the old name of a file, and the journal does not say so.
    RenameFinished = "rename-finished",
    /// A start has given a file its place again.
    Revived = "revived",
    /// A start has carried an intent out that is still in the journal.
    Recovered = "recovered",
    /// A start has found bytes that nothing speaks of.
    BeforeSetAside = "before-set-aside",
    /// They are in `lost+found`.
    AfterSetAside = "after-set-aside",
}

/// The step to end at, counted from 1; 0 is none.
#[cfg(debug_assertions)]
static ARMED: AtomicU64 = AtomicU64::new(0);

/// How many times it is to be passed.
#[cfg(debug_assertions)]
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Ends this process when it reaches `step` for the `nth` time, counted from 1.
#[cfg(debug_assertions)]
pub fn abort_at(step: Step, nth: u64) {
    LEFT.store(nth, Ordering::Relaxed);
    ARMED.store(step as u64 + 1, Ordering::Release);
}

/// Passes a step.
#[cfg(debug_assertions)]
pub(crate) fn reach(step: Step) {
    if ARMED.load(Ordering::Acquire) == step as u64 + 1 && LEFT.fetch_sub(1, Ordering::AcqRel) == 1 {
        // As kill -9: no destructor runs, nothing is flushed.
        std::process::abort();
    }
}

/// Passes a step.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_step: Step) {}

//! Why something was refused, or has failed.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::Epoch;
use crate::ledger::Alive;

/// Any cause.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What kind of failure it is: what a caller may decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Somebody else published first.
    Lost,
    /// A replacement is under way already, or somebody else has the directory open.
    Busy,
    /// A bound is reached: of old states, or of waiters.
    Exhausted,
    /// The cell is gone.
    Closed,
    /// The closure of an update, or a delta, said no.
    Refused,
    /// The replacement was cancelled.
    Cancelled,
    /// The loader, the saver or a delta that was replayed failed.
    Failed,
    /// The loader, the validator or a delta panicked.
    Panicked,
    /// The validator, or the decoder of a file that is whole, said no.
    Invalid,
    /// More was changed while the replacement loaded than its log may hold.
    Overflowed,
    /// The state was replaced while the replacement loaded, by what cannot be replayed.
    Overtaken,
    /// The file system failed.
    Io,
    /// A file is torn or its checksum is wrong.
    Damaged,
    /// A file is not one of ours, or of another kind of state.
    Foreign,
    /// A file was written by a newer version.
    Newer,
    /// There is no snapshot.
    Missing,
}

/// Why something was refused, or has failed. What was published before is untouched.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Detail>);

impl Error {
    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.0.kind()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Detail {
    #[error("the state is at epoch {current}, not at {expected}: load it and decide again")]
    Lost { expected: Epoch, current: Epoch },
    #[error("another replacement is loading: cancel it or wait for its end")]
    Busy,
    #[error(
        "{alive} states are alive, of which {most} may be old, and the oldest is {}: have its holders let go of it",
        Oldest(oldest)
    )]
    Old { alive: usize, most: usize, oldest: Option<Alive> },
    #[error("{most} wait already: drop waits that are not needed, or raise the bound")]
    Waiters { most: usize },
    #[error("the cell is gone and will publish nothing more")]
    Closed,
    #[error("the update was refused and nothing has changed")]
    Refused(#[source] Cause),
    #[error("the replacement was cancelled")]
    Cancelled,
    #[error("the new state could not be loaded")]
    Load(#[source] Cause),
    #[error("the change of epoch {epoch} could not be replayed on the new state")]
    Replay {
        epoch: Epoch,
        #[source]
        cause: Cause,
    },
    #[error("{what} panicked: {message}")]
    Panicked { what: &'static str, message: String },
    #[error("the new state is not valid")]
    Invalid(#[source] Cause),
    #[error("the new state claims to be as of epoch {as_of}, but {began} to {current} are possible")]
    AsOf { as_of: Epoch, began: Epoch, current: Epoch },
    #[error(
        "while the new state loaded, {entries} changes of {bytes} bytes came, more than its log may hold: raise the \
         bounds, or load when less is changed"
    )]
    Overflowed { entries: usize, bytes: usize },
    #[error("while the new state loaded, epoch {by} replaced the state without a delta: load again")]
    Overtaken { by: Epoch },
    #[cfg(feature = "persist")]
    #[error(transparent)]
    Persist(#[from] crate::persist::Fault),
}

impl Detail {
    fn kind(&self) -> Kind {
        match self {
            Self::Lost { .. } => Kind::Lost,
            Self::Busy => Kind::Busy,
            Self::Old { .. } | Self::Waiters { .. } => Kind::Exhausted,
            Self::Closed => Kind::Closed,
            Self::Refused(_) => Kind::Refused,
            Self::Cancelled => Kind::Cancelled,
            Self::Load(_) | Self::Replay { .. } => Kind::Failed,
            Self::Panicked { .. } => Kind::Panicked,
            Self::Invalid(_) | Self::AsOf { .. } => Kind::Invalid,
            Self::Overflowed { .. } => Kind::Overflowed,
            Self::Overtaken { .. } => Kind::Overtaken,
            #[cfg(feature = "persist")]
            Self::Persist(fault) => fault.kind(),
        }
    }
}

impl From<Detail> for Error {
    fn from(detail: Detail) -> Self {
        Self(Box::new(detail))
    }
}

#[cfg(feature = "persist")]
impl From<crate::persist::Fault> for Error {
    fn from(fault: crate::persist::Fault) -> Self {
        Detail::from(fault).into()
    }
}

/// The oldest state, in a sentence.
struct Oldest<'a>(&'a Option<Alive>);

impl fmt::Display for Oldest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(oldest) = self.0 else { return f.write_str("freed by now") };
        write!(f, "of epoch {}, held {} times", oldest.epoch, oldest.holders)?;
        for (at, (label, count)) in oldest.labels.iter().enumerate() {
            write!(f, "{}{label} ({count})", if at == 0 { ", by " } else { ", " })?;
        }
        Ok(())
    }
}

/// A state that was not published, and why.
pub struct Rejected<T> {
    error: Error,
    state: T,
}

impl<T> Rejected<T> {
    pub(crate) fn new(error: impl Into<Error>, state: T) -> Self {
        Self { error: error.into(), state }
    }

    /// Why.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.error.kind()
    }

    /// The state, to be tried again.
    pub fn into_state(self) -> T {
        self.state
    }
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> StdError for Rejected<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<T> From<Rejected<T>> for Error {
    fn from(rejected: Rejected<T>) -> Self {
        rejected.error
    }
}

/// What a panic said.
pub(crate) fn panicked(what: &'static str, payload: &(dyn std::any::Any + Send)) -> Detail {
    let message = payload
        .downcast_ref::<&'static str>()
        .map(|text| Cow::Borrowed(*text))
        .or_else(|| payload.downcast_ref::<String>().map(|text| Cow::Owned(text.clone())))
        .unwrap_or(Cow::Borrowed("it did not say why"));
    Detail::Panicked { what, message: message.into_owned() }
}

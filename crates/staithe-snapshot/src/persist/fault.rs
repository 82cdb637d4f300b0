//! Why a file was not written, or not believed.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Cause, Kind};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the snapshot cannot be read")]
    Read(#[source] io::Error),
    #[error("the snapshot cannot be written")]
    Write(#[source] io::Error),
    #[error("the snapshot is torn: it ends after {at} bytes, in the middle")]
    Torn { at: u64 },
    #[error("the snapshot is damaged: what lies before byte {at} is not what was written")]
    Checksum { at: u64 },
    #[error("the snapshot is damaged: something follows its end at byte {at}")]
    Trailing { at: u64 },
    #[error("this is no snapshot: it does not begin like one")]
    Foreign,
    #[error("this is a snapshot of another kind of state: {}", .found.escape_ascii())]
    OtherKind { found: [u8; 16] },
    #[error(
        "the snapshot is of file format {found}, newer than {known}: use the version that wrote it, or a later one"
    )]
    Container { found: u32, known: u32 },
    #[error(
        "the state is of version {found}, newer than {known}: use the version that wrote it, or a later one"
    )]
    Version { found: u32, known: u32 },
    #[error("the decoder left {bytes} bytes of the snapshot unread")]
    Left { bytes: u64 },
    #[error("the snapshot is whole, but what is in it was refused")]
    Decode(#[source] Cause),
    #[error("the state could not be written out")]
    Encode(#[source] Cause),
    #[error("{}", path.display())]
    In {
        path: PathBuf,
        #[source]
        fault: Box<Fault>,
    },
    #[error("{} does not say which snapshot is current", path.display())]
    Current { path: PathBuf },
    #[error("there is no snapshot in {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} is in use: whoever saves or loads there must end first", path.display())]
    InUse { path: PathBuf },
}

impl Fault {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } | Self::Read(_) | Self::Write(_) => Kind::Io,
            Self::Torn { .. } | Self::Checksum { .. } | Self::Trailing { .. } | Self::Current { .. } => {
                Kind::Damaged
            }
            Self::Foreign | Self::OtherKind { .. } => Kind::Foreign,
            Self::Container { .. } | Self::Version { .. } => Kind::Newer,
            Self::Left { .. } | Self::Decode(_) => Kind::Invalid,
            Self::Encode(_) => Kind::Failed,
            Self::In { fault, .. } => fault.kind(),
            Self::Missing { .. } => Kind::Missing,
            Self::InUse { .. } => Kind::Busy,
        }
    }

    /// The same, with the file that it is about.
    pub(crate) fn within(self, path: &Path) -> Self {
        match self {
            named @ (Self::In { .. } | Self::Io { .. }) => named,
            fault => Self::In { path: path.into(), fault: Box::new(fault) },
        }
    }
}

/// Makes a failure of the file system say what failed.
pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Fault + 'a {
    move |source| Fault::Io { what, path: path.into(), source }
}

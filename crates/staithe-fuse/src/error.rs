use std::error::Error as StdError;
use std::path::Path;

/// The coarse class of a [`MountError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MountErrorKind {
    /// The mount point cannot be used: missing, a file, not empty, or mounted already.
    MountPoint,
    /// This machine has no FUSE, or not for us.
    NoFuse,
    /// Not allowed to mount or unmount.
    NotPermitted,
    /// The mount is in use.
    Busy,
    /// The kernel refused for another reason.
    Kernel,
}

/// Why a mount could not be made or ended: one sentence that says what to do, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    kind: MountErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl MountError {
    pub(crate) fn new(kind: MountErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused(
        kind: MountErrorKind,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(Box::new(source)) }
    }

    pub(crate) fn mount_point(path: &Path, what: &str) -> Self {
        Self::new(MountErrorKind::MountPoint, format!("the mount point {} {what}", path.display()))
    }

    /// The class of this error.
    pub fn kind(&self) -> MountErrorKind {
        self.kind
    }
}

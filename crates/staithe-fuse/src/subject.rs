//! What a request is about: for the log, and for the choice of an error code.

use std::borrow::Cow;
use std::fmt;

use crate::errno::Address;

/// An operation and what it was addressed to.
#[derive(Debug, Clone)]
pub(crate) struct Subject<'a> {
    /// The operation, by its kernel name in lower case.
    pub(crate) operation: &'static str,
    ino: u64,
    name: Option<Cow<'a, str>>,
}

impl<'a> Subject<'a> {
    /// An operation on an inode or handle.
    pub(crate) fn inode(operation: &'static str, ino: u64) -> Self {
        Self { operation, ino, name: None }
    }

    /// An operation on a name in a directory.
    pub(crate) fn name(operation: &'static str, parent: u64, name: &'a str) -> Self {
        Self { operation, ino: parent, name: Some(Cow::Borrowed(name)) }
    }

    /// How the request named it.
    pub(crate) fn address(&self) -> Address {
        if self.name.is_some() { Address::Name } else { Address::Inode }
    }

    /// The same, to take along into a task.
    pub(crate) fn into_owned(self) -> Subject<'static> {
        let Self { operation, ino, name } = self;
        Subject { operation, ino, name: name.map(|n| Cow::Owned(n.into_owned())) }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.ino)?;
        match &self.name {
            Some(name) => write!(f, ", name {name:?}"),
            None => Ok(()),
        }
    }
}

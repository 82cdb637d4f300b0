//! Extended attributes. Only `user.*` is kept with an object; the other namespaces are answered here, because the
//! kernel asks for some of them all the time and the store must not hear of it. They are never answered
//! "not implemented": the kernel would then stop asking for `user.*` too.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{ReplyEmpty, ReplyXattr};
use staithe_fs::{FsError, FsErrorKind, Ino, Result};

use crate::adapter::Adapter;
use crate::flags::{self, Namespace};
use crate::send;
use crate::subject::Subject;

/// A name that is kept with the object, or why there is none.
fn kept(name: &OsStr, never_there: FsErrorKind) -> Result<&str> {
    let name = name.to_str().ok_or_else(|| {
        FsError::new(FsErrorKind::NameNotUtf8, "an extended attribute's name must be UTF-8")
    })?;
    let refuse = |kind| Err(FsError::new(kind, format!("{name} is not kept in an object store")));
    match flags::namespace(name) {
        Namespace::Kept => Ok(name),
        Namespace::NeverThere => refuse(never_there),
        Namespace::Unsupported => refuse(FsErrorKind::Unsupported),
    }
}

impl Adapter {
    pub(crate) fn get_attribute(&self, ino: Ino, name: &OsStr, size: u32, reply: ReplyXattr) {
        let subject = Subject::inode("getxattr", ino.0);
        let name = match kept(name, FsErrorKind::NoAttribute) {
            Ok(name) => name.to_owned(),
            Err(error) => return self.dispatcher.refuse(&subject, reply, &error),
        };
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.getxattr(ino, &name).await };
        self.later(subject, reply, future, move |reply, value| send::xattr(reply, size, &value));
    }

    pub(crate) fn set_attribute(&self, ino: Ino, name: &OsStr, value: &[u8], mode: i32, reply: ReplyEmpty) {
        let subject = Subject::inode("setxattr", ino.0);
        let checked = kept(name, FsErrorKind::Unsupported).and_then(|n| Ok((n, flags::xattr_mode(mode)?)));
        let (name, mode) = match checked {
            Ok((name, mode)) => (name.to_owned(), mode),
            Err(error) => return self.dispatcher.refuse(&subject, reply, &error),
        };
        let (fs, value) = (Arc::clone(&self.fs), value.to_vec());
        let future = async move { fs.setxattr(ino, &name, &value, mode).await };
        self.later(subject, reply, future, send::empty);
    }

    pub(crate) fn list_attributes(&self, ino: Ino, size: u32, reply: ReplyXattr) {
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.listxattr(ino).await };
        let send = move |reply, names: Vec<String>| send::xattr_names(reply, size, &names);
        self.later(Subject::inode("listxattr", ino.0), reply, future, send);
    }

    pub(crate) fn remove_attribute(&self, ino: Ino, name: &OsStr, reply: ReplyEmpty) {
        let subject = Subject::inode("removexattr", ino.0);
        let name = match kept(name, FsErrorKind::NoAttribute) {
            Ok(name) => name.to_owned(),
            Err(error) => return self.dispatcher.refuse(&subject, reply, &error),
        };
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.removexattr(ino, &name).await };
        self.later(subject, reply, future, send::empty);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn only_user_attributes_reach_the_filesystem() {
        let refusal = |name: &str| kept(OsStr::new(name), FsErrorKind::NoAttribute).err().map(|e| e.kind());
        assert_eq!(refusal("user.a"), None);
        assert_eq!(refusal("security.capability"), Some(FsErrorKind::NoAttribute));
        assert_eq!(refusal("system.posix_acl_access"), Some(FsErrorKind::Unsupported));
        let broken = kept(OsStr::from_bytes(b"user.\xff"), FsErrorKind::NoAttribute);
        assert_eq!(broken.unwrap_err().kind(), FsErrorKind::NameNotUtf8);
    }
}

//! Where a key lies in the directory.

use crate::{ErrorKind, Key, Result, checks};

/// The entry of the root that holds temporary files; never part of a key.
pub(super) const HIDDEN: &str = ".staithe-tmp";

/// The longest name that Linux filesystems take, in bytes.
const NAME_MAX: usize = 255;

/// A key as a path: relative, without a slash at the end.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) marker: bool,
}

impl Place {
    /// The place of a key that is about to be written.
    pub(super) fn for_write(operation: &'static str, key: &Key) -> Result<Self> {
        Self::find(key).ok_or_else(|| {
            let text = format!(
                "a directory cannot hold this key: each part must have 1 to {NAME_MAX} bytes, no NUL, and not \
                 be \".\", \"..\" or (the first) {HIDDEN:?}"
            );
            checks::fail(ErrorKind::Invalid, operation, key, text)
        })
    }

    /// The place of a key that is about to be read; a key that has none cannot exist.
    pub(super) fn for_read(operation: &'static str, key: &Key) -> Result<Self> {
        Self::find(key).ok_or_else(|| checks::missing(operation, key))
    }

    pub(super) fn find(key: &Key) -> Option<Self> {
        let marker = key.is_marker();
        let path = key.as_str().strip_suffix('/').unwrap_or(key.as_str());
        is_path(path).then(|| Self { key: key.clone(), marker })
    }

    /// The path of the file, or of the directory that a marker stands for.
    pub(super) fn path(&self) -> &str {
        self.key.as_str().strip_suffix('/').unwrap_or(self.key.as_str())
    }

    /// The path of the directory that holds it; empty for the root.
    pub(super) fn parent(&self) -> &str {
        parent_of(self.path())
    }

    pub(super) fn name(&self) -> &str {
        name_of(self.path())
    }
}

/// Whether a text is a relative path that a key can have, without a slash at the end.
pub(super) fn is_path(path: &str) -> bool {
    path.split('/').all(is_name) && path.split('/').next() != Some(HIDDEN)
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && name != "." && name != ".." && !name.contains('\0')
}

pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(super) fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_no_path_can_name_have_no_place() {
        let long = "n".repeat(256);
        let hidden = format!("{HIDDEN}/x");
        for key in ["a//b", "/a", "a//", "/", ".", "..", "a/./b", "../a", "a\0b", &long, HIDDEN, &hidden] {
            assert!(Place::find(&Key::new(key).unwrap()).is_none(), "{key:?}");
        }
        for key in ["a", "a/b", "a/", "...", ".a", "a/.staithe-tmp"] {
            assert!(Place::find(&Key::new(key).unwrap()).is_some(), "{key:?}");
        }
    }
}

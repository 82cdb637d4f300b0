use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name of an object in its bucket: 1 to 1,024 bytes of UTF-8, as S3 defines it.
///
/// Cloning is a reference count. Any such text is a legal key, also one that no path can name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The empty text names no object.
    #[error("an object key may not be empty")]
    Empty,
    /// Longer than [`Key::MAX_BYTES`].
    #[error("an object key may not exceed 1024 bytes (this one has {0})")]
    TooLong(usize),
}

impl Key {
    /// The longest key that S3 stores, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Checks a text and makes it a key.
    ///
    /// # Errors
    /// [`InvalidKey`] for an empty text or one over [`Key::MAX_BYTES`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidKey> {
        let text = text.as_ref();
        match text.len() {
            0 => Err(InvalidKey::Empty),
            n if n > Self::MAX_BYTES => Err(InvalidKey::TooLong(n)),
            _ => Ok(Self(Arc::from(text))),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this key is a directory marker: it ends in `/`.
    pub fn is_marker(&self) -> bool {
        self.0.ends_with('/')
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_s3() {
        assert_eq!(Key::new(""), Err(InvalidKey::Empty));
        assert!(Key::new("k".repeat(1024)).is_ok());
        assert_eq!(Key::new("k".repeat(1025)), Err(InvalidKey::TooLong(1025)));
        assert!(Key::new("a//../b\n").is_ok());
    }
}

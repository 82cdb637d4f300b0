//! A name as the cache stores it: up to 22 bytes inside the entry, longer ones in a box of their own.
//!
//! Most names are short. One that lies in its entry saves an allocation and, on every hit, the cache miss of
//! following a pointer (the small-string idea of C++ standard libraries and of the `smol_str` crate).

/// The longest name that needs no allocation, in bytes.
const INLINE: usize = 22;

#[derive(Debug, Clone)]
pub(crate) enum Name {
    Inline { len: u8, bytes: [u8; INLINE] },
    Boxed(Box<str>),
}

impl Name {
    pub(crate) const EMPTY: Name = Name::Inline { len: 0, bytes: [0; INLINE] };

    pub(crate) fn new(name: &str) -> Self {
        let len = name.len();
        if len > INLINE {
            return Name::Boxed(name.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..len].copy_from_slice(name.as_bytes());
        Name::Inline { len: len as u8, bytes }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Name::Boxed(name) => name.as_bytes(),
        }
    }

    /// Checks the encoding again: O(length). Only [`Name::new`] writes the bytes, so it never fails.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Name::Inline { .. } => str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Name::Boxed(name) => name,
        }
    }

    /// Bytes outside the entry.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Name::Inline { .. } => 0,
            Name::Boxed(name) => name.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        for len in 0..64 {
            let name = "é".repeat(len / 2) + &"x".repeat(len % 2);
            assert_eq!(Name::new(&name).as_str(), name);
            assert_eq!(Name::new(&name).as_bytes(), name.as_bytes());
            assert_eq!(Name::new(&name).heap_bytes(), if len > INLINE { len } else { 0 });
        }
        assert_eq!(size_of::<Name>(), 24);
    }
}

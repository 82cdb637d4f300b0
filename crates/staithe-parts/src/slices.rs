//! What a read returns: the bytes asked for, in order, as the buffers they arrived in.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

/// The bytes of one read, in order, without a copy: each slice shares the buffer that a fetcher pushed.
///
/// One slice needs no allocation. No slice is empty. Holding slices keeps their buffers alive, outside of the
/// [`Budget`](crate::Budget).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSlices {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

impl ReadSlices {
    /// No bytes: a read at or beyond the end of the object, or of length zero.
    pub const fn empty() -> Self {
        Self { first: Bytes::new(), rest: Vec::new(), len: 0 }
    }

    pub(crate) fn push(&mut self, slice: Bytes) {
        if slice.is_empty() {
            return;
        }
        self.len += slice.len();
        if self.first.is_empty() {
            self.first = slice;
        } else {
            self.rest.push(slice);
        }
    }

    /// How many bytes, over all slices.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte: end of object.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many slices.
    pub fn count(&self) -> usize {
        usize::from(!self.first.is_empty()) + self.rest.len()
    }

    /// The slices in order.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> + '_ {
        Some(&self.first).filter(|b| !b.is_empty()).into_iter().chain(&self.rest)
    }

    /// The slices as a vectored write wants them, so that `writev` sends them without a copy.
    pub fn io_slices(&self) -> Vec<IoSlice<'_>> {
        self.iter().map(|b| IoSlice::new(b)).collect()
    }

    /// The bytes in one piece: free for at most one slice, one copy of [`len`](Self::len) bytes otherwise.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for slice in self.iter() {
            whole.extend_from_slice(slice);
        }
        whole.freeze()
    }
}

impl IntoIterator for ReadSlices {
    type Item = Bytes;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Bytes>, std::vec::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        Some(self.first).filter(|b| !b.is_empty()).into_iter().chain(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::ReadSlices;
    use bytes::Bytes;

    #[test]
    fn one_slice_is_not_copied_and_more_are_joined() {
        let buffer = Bytes::from(vec![7u8; 64]);
        let mut one = ReadSlices::empty();
        one.push(buffer.slice(8..16));
        one.push(Bytes::new());
        assert_eq!(one.clone().into_bytes().as_ptr(), buffer[8..].as_ptr());
        one.push(Bytes::from_static(b"end"));
        assert_eq!((one.len(), one.count(), one.io_slices().len()), (11, 2, 2));
        assert_eq!(one.into_bytes(), [&[7u8; 8][..], b"end"].concat());
        assert!(ReadSlices::empty().into_bytes().is_empty());
    }
}

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;

use crate::{Key, Result};

macro_rules! opaque_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the store's own text, unchanged.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The store's own text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque_text! {
    /// An entity tag as the store writes it, quotes included (RFC 9110, 8.8.3): equal tags mean equal bytes.
    ETag
}
opaque_text! {
    /// The id of one version of an object in a versioned bucket.
    VersionId
}
opaque_text! {
    /// The id of a multipart upload in progress.
    UploadId
}
opaque_text! {
    /// Where a listing goes on; meaningful only to the store that gave it.
    PageToken
}

/// What pins a read to one version of an object: its `ETag`, and the version id where the bucket keeps versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// The entity tag.
    pub etag: ETag,
    /// The version id; `None` on an unversioned bucket.
    pub id: Option<VersionId>,
}

/// User metadata: names in lower case without the `x-amz-meta-` prefix; names and values in printable ASCII.
pub type Metadata = BTreeMap<String, String>;

/// What a HEAD tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// Which version this is.
    pub version: Version,
    /// When the store took it in (whole seconds on S3).
    pub last_modified: SystemTime,
    /// The user metadata.
    pub metadata: Metadata,
    /// The media type, where one is stored.
    pub content_type: Option<String>,
}

/// What a listing tells of an object: no metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSummary {
    /// The object's key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag.
    pub etag: ETag,
    /// The id of its version, from a listing that tells it; S3's does not.
    pub id: Option<VersionId>,
    /// When the store took it in.
    pub last_modified: SystemTime,
}

/// One line of a version listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// The object's key.
    pub key: Key,
    /// The version's id.
    pub id: VersionId,
    /// Whether this is what a plain GET answers with.
    pub is_latest: bool,
    /// Whether this is a delete marker: then there is no size and no tag.
    pub is_delete_marker: bool,
    /// Length in bytes; 0 for a delete marker.
    pub size: u64,
    /// The entity tag; `None` for a delete marker.
    pub etag: Option<ETag>,
    /// When this version came to be.
    pub last_modified: SystemTime,
}

/// The number of a part in a multipart upload: 1 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u16);

impl PartNumber {
    /// The highest part number that S3 takes.
    pub const MAX: u16 = 10_000;

    /// The part number `n`, or `None` outside 1 to [`PartNumber::MAX`].
    pub fn new(n: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&n).then_some(Self(n))
    }

    /// The number itself.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// CRC-64/NVME of some bytes: the checksum that S3 gives a whole object, however it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc64Nvme(pub u64);

/// What the store gave for an uploaded part; all of them, in order, complete the upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReceipt {
    /// Which part.
    pub number: PartNumber,
    /// Its entity tag.
    pub etag: ETag,
    /// Its length in bytes.
    pub size: u64,
    /// The checksum of its bytes, where the store has said it: a store that completes an upload of such parts alone
    /// can be told what the whole must be.
    pub crc64: Option<Crc64Nvme>,
}

/// A multipart upload in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartUpload {
    /// The object that it will become.
    pub key: Key,
    /// The upload's id.
    pub id: UploadId,
    /// When it began, where the store says so.
    pub initiated: Option<SystemTime>,
}

/// A streaming response body: non-empty chunks, then the end; an error ends it.
pub type Body = BoxStream<'static, Result<Bytes>>;

/// A request body: a rope of byte slices, in memory, cheap to clone for a retry.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    chunks: Arc<[Bytes]>,
    len: u64,
}

impl Payload {
    /// The body made of `chunks`, in order.
    pub fn new(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let chunks: Arc<[Bytes]> = chunks.into_iter().filter(|c| !c.is_empty()).collect();
        let len = chunks.iter().map(|c| c.len() as u64).sum();
        Self { chunks, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, in order, none empty.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The body as one slice; copies only when there is more than one chunk. O(len).
    pub fn to_bytes(&self) -> Bytes {
        match &*self.chunks {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len as usize);
                for chunk in many {
                    whole.extend_from_slice(chunk);
                }
                whole.freeze()
            }
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::new([bytes])
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

/// What a store can do; fixed once it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `If-None-Match: *` on put and complete is honoured.
    pub put_if_absent: bool,
    /// `If-Match` on put and complete is honoured.
    pub put_if_match: bool,
    /// A match condition on the source of a copy is honoured.
    pub copy_if_match: bool,
    /// `If-Match` on delete is honoured.
    pub delete_if_match: bool,
    /// The bucket keeps versions: every [`Version`] carries an id, and old ids can be read.
    pub versions: bool,
    /// `upload_part_copy` works.
    pub part_copy: bool,
    /// `x` and `x/y` can both be objects. False where keys are paths of a real directory.
    pub file_beside_prefix: bool,
    /// A name that no listing shows is free. False where something that is no object can stand at a key: a listing
    /// hides it, and a HEAD is answered with [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden).
    pub lists_every_name: bool,
    /// Smallest part of a multipart upload but for the last, in bytes.
    pub part_size_min: u64,
    /// Largest part, and largest single put or copy, in bytes.
    pub part_size_max: u64,
    /// Largest object, in bytes.
    pub object_size_max: u64,
    /// Most keys in one `delete_batch`.
    pub delete_batch_max: usize,
    /// Most bytes of user metadata (names and values together).
    pub metadata_bytes_max: usize,
}

impl Capabilities {
    /// What Amazon S3 documents for a general purpose bucket without versions.
    pub const S3: Self = Self {
        put_if_absent: true,
        put_if_match: true,
        copy_if_match: true,
        delete_if_match: true,
        versions: false,
        part_copy: true,
        file_beside_prefix: true,
        lists_every_name: true,
        part_size_min: 5 << 20,
        part_size_max: 5 << 30,
        object_size_max: 5 << 40,
        delete_batch_max: 1000,
        metadata_bytes_max: 2048,
    };
}

/// What a probe of the volume answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeInfo {
    /// When the bucket was created, where the store shows it.
    pub created: Option<SystemTime>,
    /// Where it lives, where the store shows it.
    pub region: Option<String>,
}

//! The object-store port of staithe.
//!
//! Everything above this crate speaks to a bucket through one object-safe trait, [`ObjectStore`]; everything
//! below implements it. The trait is the S3 data model, not its wire format: keys, versions, conditions,
//! ranges, multipart uploads. What a store cannot do it says in [`Capabilities`]; what went wrong it says in
//! a [`StoreError`], classified once, by status and code, where the answer arrived.
//!
//! Kept true here: a request names the version it means ([`Version`]), a body is delivered whole or fails,
//! a condition is honoured or refused, never ignored. Refused: paths, inodes, retries of the caller's intent,
//! and any knowledge of who asks.
//!
//! Two stores are here: [`MemoryStore`], the reference, and [`DirectoryStore`], a local directory. The
//! [`decorators`] stand around any store: faults, latency, a request log, a view of one prefix. The suite
//! that every store passes is `conformance`, behind the feature of that name.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use staithe_store::{ErrorKind, HeadRequest, Key, MemoryStore, NewObject, ObjectStore, PutCondition};
//!
//! let store = MemoryStore::default();
//! let key = Key::new("ships/cutty-sark").unwrap();
//! let written = store.put(&key, "1869".into(), NewObject::default(), PutCondition::IfAbsent).await.unwrap();
//! let again = store.put(&key, "1870".into(), NewObject::default(), PutCondition::IfAbsent).await;
//! assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
//! let meta = store.head(HeadRequest::latest(key)).await.unwrap();
//! assert_eq!(meta.version, written.version);
//! # });
//! ```
//!
//! Limits: bodies of requests are in memory ([`Payload`]); large objects go up in parts.

mod checks;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorators;
mod directory;
mod error;
mod key;
pub mod listing;
mod memory;
mod model;
mod store;

pub use directory::{DirectoryOptions, DirectoryStore, Durability};
pub use error::{ErrorKind, Result, StoreError};
pub use key::{InvalidKey, Key};
pub use memory::{MemoryOptions, MemoryStore};
pub use model::{
    Body, Capabilities, Crc64Nvme, ETag, Metadata, MultipartUpload, ObjectMeta, ObjectSummary, PageToken,
    PartNumber, PartReceipt, Payload, UploadId, Version, VersionEntry, VersionId, VolumeInfo,
};
pub use store::{
    CopyRequest, DeleteFailure, DeleteRequest, GetRequest, GetResponse, HeadRequest, ListPage, ListRequest,
    NewObject, ObjectStore, PutCondition, UploadPage, VersionPage, Written,
};

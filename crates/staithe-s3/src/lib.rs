//! Amazon S3, and servers that speak its protocol, as a [`staithe_store::ObjectStore`].
//!
//! The obvious adapter hands every call to the SDK and every error up. It fails in the field: servers accept
//! conditions and ignore them, answers to HEAD carry no reason, a body ends early without an error, a retried
//! request meets its own result, and upload framing that one server likes another refuses. [`S3Store`] settles
//! those here, once:
//!
//! - **Errors** are classified where the answer arrives, by status and code in one table, never by text.
//! - **Capabilities** are found out, not assumed: at [`S3Store::connect`] a scratch object is written under
//!   conditions that do not hold, and what lets it through is not promised.
//! - **Writes** are compared: what the server says of what it stored with what was sent, part by part and as a whole.
//! - **Bodies** are checked for length, progress and checksum as they stream, without a copy.
//! - **Tries** are bounded, with full jitter, and each has a time limit of its own kind.
//!
//! ```no_run
//! use staithe_s3::{S3Config, S3Store};
//! use staithe_store::{HeadRequest, Key, NewObject, ObjectStore, Payload, PutCondition};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = S3Config {
//!     endpoint_url: Some("http://127.0.0.1:9000".to_owned()),
//!     ..S3Config::new("my-bucket")
//! };
//! let store = S3Store::connect(config).await?;
//! let key = Key::new("greeting")?;
//! let new = NewObject::default();
//! store.put(&key, Payload::from("hello"), new, PutCondition::IfAbsent).await?;
//! assert_eq!(store.head(HeadRequest::latest(key)).await?.size, 5);
//! # Ok(())
//! # }
//! ```
//!
//! Kept true: a condition is honoured or refused, never ignored; a write that the server speaks wrongly of is an error; a body ends whole or in an error; a call ends.
//! Refused: any knowledge of files, caches, or of whether a bucket's loss is final.
//!
//! Limits: general purpose buckets are what it is made for; directory buckets work as far as their probe says.
//! Keys longer than 1,024 bytes and metadata outside printable ASCII are refused. Times are whole seconds.

mod answer;
mod batch;
mod body;
mod bucket;
mod capability;
mod classify;
mod config;
mod confirm;
mod connect;
mod document;
mod encoding;
mod failure;
mod link;
mod listing;
mod multipart;
mod read;
mod retry;
mod store;
mod transport;
mod upload;
mod volume;
mod write;

pub use config::{S3Config, StaticCredentials, UploadChecksum};
pub use store::S3Store;

//! Real parts for staithe's tests.
//!
//! A test of a mount is worth what its parts are worth, so none of them is a mock. [`S3Server`] speaks S3 over
//! HTTP on loopback, checks signatures, conditions and checksums, and keeps its data in the reference store of
//! `staithe-store`. [`Faults`] break that HTTP at runtime: latency, bandwidth, errors, resets, cut and corrupt
//! bodies, silence; [`Hold`] turns a race into a fixed order. [`MountedDaemon`] is a real process with a real
//! FUSE mount, and leaves neither behind. [`Moto`] is somebody else's S3 server, to be compared with.
//!
//! Kept true here: a condition or a checksum is honoured as Amazon S3 does, or refused; a fault meets exactly the
//! requests that it was told to; what a test started is gone when the test is, also when it panics or is killed.
//! Refused: any knowledge of what is tested.
//!
//! ```
//! use staithe_testkit::{Fault, Operation, S3Server, Versioning, When};
//!
//! let server = S3Server::start_blocking()?;
//! server.create_bucket("photos", Versioning::On);
//! // The second part of every upload fails once, after the store has it.
//! server.faults().inject(When::operation(Operation::UploadPart).nth(2), Fault::ResetAfter);
//! let before = server.requests().tally();
//! // ... run what is to be tested, with the variables of `server.env()` ...
//! assert_eq!(server.requests().tally().since(&before).total().requests, 0);
//! # Ok::<(), std::io::Error>(())
//! ```

mod body;
mod credentials;
mod exchange;
mod fault;
mod guard;

mod hold;
mod lie;
mod listener;
mod matcher;
mod modes;
mod moto;
mod mount;

mod operation;
mod requests;
mod s3;
mod server;
mod socket;
mod wait;

pub use credentials::{Credentials, KeyPair, Standing};
pub use fault::{Fault, Faults, Injected, Refusal};
pub use hold::Hold;
pub use matcher::When;
pub use modes::Modes;
pub use moto::Moto;
pub use mount::{DaemonError, DaemonOptions, MountedDaemon, require_fuse};

pub use operation::Operation;
pub use requests::{RequestRecord, Requests, Tally, Traffic};
pub use s3::Versioning;
pub use server::{REGION, S3Server, ServerConfig};
pub use wait::wait_until;

//! One suite that every store passes.
//!
//! [`run`] drives a store through the port and compares what it does with what the port promises. Each case
//! works below a prefix of its own, so cases neither meet nor depend on each other, and cleans up behind it.
//! What a store says it cannot do ([`Capabilities`]) is skipped, with the reason.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use staithe_store::{MemoryStore, conformance};
//!
//! conformance::run(Arc::new(MemoryStore::default()), "scratch/").await.assert_passed();
//! # });
//! ```

mod case;
mod conditions;
mod copies;
mod deletes;
mod listing;
mod multipart;
mod objects;
mod pinned;
mod report;
mod versions;

use std::sync::Arc;

use self::case::{Case, Context};
pub use self::report::{Outcome, Report};
use crate::{Capabilities, ObjectStore};

/// Runs every case against `store`, below `scratch_prefix` (which should be empty, and end in `/`).
///
/// It moves some MiB and makes a few thousand requests; against a real S3 endpoint that takes a minute or two.
///
/// # Cancel safety
/// Safe, but what the running case has stored stays below the prefix.
pub async fn run(store: Arc<dyn ObjectStore>, scratch_prefix: &str) -> Report {
    let mut report = Report::default();
    for case in cases() {
        let context = Context::new(store.clone(), &format!("{scratch_prefix}{}/", case.name()));
        let outcome = match case.reason_to_skip(store.capabilities()) {
            Some(reason) => Outcome::Skipped(reason),
            None => match case.run(context.clone()).await {
                Ok(()) => Outcome::Passed,
                Err(failure) => Outcome::Failed(failure.to_string()),
            },
        };
        context.clean_up().await;
        report.add(case.name(), outcome);
    }
    report
}

fn cases() -> impl Iterator<Item = Case> {
    let groups: [fn() -> Vec<Case>; 8] = [
        objects::cases,
        pinned::cases,
        listing::cases,
        conditions::cases,
        multipart::cases,
        copies::cases,
        deletes::cases,
        versions::cases,
    ];
    groups.into_iter().flat_map(|group| group())
}

/// A need that every store meets.
fn nothing(_: &Capabilities) -> Option<&'static str> {
    None
}

//! The conformance suite against moto, an S3 server that nobody here wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod served;

use std::collections::BTreeMap;
use std::sync::Arc;

use staithe_s3::S3Store;
use staithe_store::{Capabilities, ObjectStore, conformance};
use staithe_testkit::Moto;

/// Where moto 5.2 is not S3, and why. What it ignores altogether (the conditions of completed uploads and of
/// copies) the probe finds out, and the suite skips.
const DEVIATIONS: &[(&str, &str)] = &[
    ("odd_keys", "its routes match no line feed in a key: 404"),
    ("list_start_after", "it echoes a control character into its XML, which no XML may hold"),
    ("multipart_makes_one_object", CRC64),
    ("multipart_out_of_order", CRC64),
    ("multipart_replaced_part", CRC64),
    ("multipart_uploads_are_listed", CRC64),
    ("multipart_part_copy", "it copies a range beyond the end of its source"),
    ("multipart_part_copy_of_a_stale_source", "it ignores the condition on the source, so none is sent"),
    ("multipart_abort", "a part for an upload that ended is answered 500"),
    ("multipart_bad_part_lists", "it completes lists of parts that are out of order"),
];

const CRC64: &str = "without the package awscrt it computes a CRC-32 and calls it CRC-64/NVME";

async fn suite(versioned: bool) -> Capabilities {
    let moto = Moto::start().unwrap();
    if versioned { moto.create_versioned_bucket("quay") } else { moto.create_bucket("quay") }.unwrap();
    let store = S3Store::connect(served::moto_config(&moto, "quay")).await.unwrap();
    let capabilities = store.capabilities().clone();
    let report = conformance::run(Arc::new(store), "suite/").await;
    let known: BTreeMap<_, _> = DEVIATIONS.iter().copied().collect();
    let failed: BTreeMap<_, _> = report.failures().collect();
    let news: Vec<_> = failed.keys().filter(|case| !known.contains_key(*case)).collect();
    assert!(news.is_empty(), "new deviations: {news:?}\n{capabilities:#?}\n{report}");
    assert!(report.passed() >= 48, "{report}");
    capabilities
}

#[tokio::test]
async fn unversioned_bucket_conforms() {
    assert!(!suite(false).await.versions);
}

#[tokio::test]
async fn versioned_bucket_conforms() {
    assert!(suite(true).await.versions);
}

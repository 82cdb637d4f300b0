//! The conformance suite against moto, an S3 server that nobody here wrote.

mod served;

use std::collections::BTreeMap;
use std::sync::Arc;

use staithe_s3::S3Store;
use staithe_store::{Capabilities, ObjectStore, conformance};
use staithe_testkit::Moto;

/// Where moto is not S3, and why. A deviation that is gone fails the test, too: then its line goes.
const DEVIATIONS: &[(&str, &str)] = &[
    ("odd_keys", "its routes match no line feed in a key: 404"),
    ("list_start_after", "it echoes a control character into its XML, which no XML may hold"),
    ("multipart_abort", "a part for an upload that ended is answered 500"),
    ("multipart_bad_part_lists", "it completes lists of parts that are out of order"),
];

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
    capabilities
}

#[tokio::test]
async fn unversioned_bucket_conforms() {
    suite(false).await;
}

#[tokio::test]
async fn versioned_bucket_conforms() {
    suite(true).await;
}

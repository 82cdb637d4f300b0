//! The conformance suite against the in-process S3 server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod served;

use std::sync::Arc;

use staithe_store::{Capabilities, ObjectStore, conformance};
use staithe_testkit::{S3Server, Versioning};

async fn suite(versioning: Versioning) -> Capabilities {
    let server = S3Server::start().await.unwrap();
    server.create_bucket(served::BUCKET, versioning);
    let store = served::open(&server).await;
    let capabilities = store.capabilities().clone();
    conformance::run(Arc::new(store), "suite/").await.assert_passed();
    capabilities
}

#[tokio::test]
async fn unversioned_bucket_conforms() {
    assert_eq!(suite(Versioning::Off).await, Capabilities::S3);
}

#[tokio::test]
async fn versioned_bucket_conforms() {
    assert_eq!(suite(Versioning::On).await, Capabilities { versions: true, ..Capabilities::S3 });
}

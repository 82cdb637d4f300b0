//! The memory store keeps every promise of the port.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use staithe_store::{
    Capabilities, ErrorKind, HeadRequest, Key, MemoryOptions, MemoryStore, ObjectStore, conformance,
};

/// S3 without the size that makes parts slow to test.
fn small_parts() -> MemoryOptions {
    let capabilities = Capabilities { part_size_min: 2000, ..Capabilities::S3 };
    MemoryOptions { capabilities, ..MemoryOptions::default() }
}

async fn conforms(options: MemoryOptions) {
    conformance::run(Arc::new(MemoryStore::new(options)), "scratch/").await.assert_passed();
}

#[tokio::test]
async fn unversioned_conforms() {
    conforms(small_parts()).await;
}

#[tokio::test]
async fn versioned_conforms() {
    conforms(MemoryOptions { versioned: true, ..small_parts() }).await;
}

#[tokio::test]
async fn with_tiny_pages_and_chunks_conforms() {
    conforms(MemoryOptions { versioned: true, page_max: 2, chunk_bytes: 1001, ..small_parts() }).await;
}

#[tokio::test]
async fn without_conditions_conforms() {
    let capabilities = Capabilities {
        put_if_absent: false,
        put_if_match: false,
        copy_if_match: false,
        delete_if_match: false,
        part_copy: false,
        ..small_parts().capabilities
    };
    conforms(MemoryOptions { capabilities, ..small_parts() }).await;
}

#[tokio::test]
async fn a_removed_volume_answers_so_until_it_is_made_anew() {
    let store = MemoryStore::default();
    let request = HeadRequest::latest(Key::new("a").unwrap());
    store.remove_volume();
    assert_eq!(store.probe().await.unwrap_err().kind(), ErrorKind::VolumeGone);
    assert_eq!(store.head(request.clone()).await.unwrap_err().kind(), ErrorKind::VolumeGone);
    store.create_volume();
    assert_eq!(store.head(request).await.unwrap_err().kind(), ErrorKind::NotFound);
}

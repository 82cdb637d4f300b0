//! Decorators that do nothing conform, and those that do something do just that.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use staithe_store::decorators::{
    Fault, FaultAction, Faulty, Gate, Operation, Pace, Prefixed, RequestLog, Slow,
};
use staithe_store::{
    Capabilities, ErrorKind, GetRequest, HeadRequest, Key, MemoryOptions, MemoryStore, NewObject,
    ObjectStore, Payload, PutCondition, Result, conformance,
};

fn memory() -> Arc<MemoryStore> {
    let capabilities = Capabilities { part_size_min: 2000, ..Capabilities::S3 };
    Arc::new(MemoryStore::new(MemoryOptions {
        versioned: true,
        capabilities,
        chunk_bytes: 10,
        ..MemoryOptions::default()
    }))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(store: &dyn ObjectStore, name: &str, body: &'static str) -> Result<()> {
    store.put(&key(name), body.into(), NewObject::default(), PutCondition::Always).await.map(drop)
}

async fn get(store: &dyn ObjectStore, name: &str) -> Result<Bytes> {
    let request = GetRequest { key: key(name), range: None, version: None };
    let chunks: Vec<_> = store.get(request).await?.body.try_collect().await?;
    Ok(Payload::new(chunks).to_bytes())
}

#[tokio::test]
async fn idle_decorators_conform() {
    let store: Arc<dyn ObjectStore> =
        Arc::new(MemoryStore::new(MemoryOptions { versioned: true, ..MemoryOptions::default() }));
    let store = Arc::new(Faulty::new(store, 1));
    let store = Arc::new(Slow::new(store, Pace::default()));
    let log = Arc::new(RequestLog::new(store));
    conformance::run(log.clone(), "scratch/").await.assert_passed();
    let sum: u64 = log.table().0.iter().map(|record| record.received).sum();
    assert_eq!(sum, log.bytes_received());
    assert!(log.count(Operation::CompleteMultipart) > 0);
}

#[tokio::test]
async fn a_prefixed_store_conforms_but_for_the_longest_keys() {
    let report = conformance::run(Arc::new(Prefixed::new(memory(), "some/prefix/")), "scratch/").await;
    let failed: Vec<_> = report.failures().map(|(case, _)| case).collect();
    assert_eq!(failed, ["long_keys"], "{report}");
}

#[tokio::test]
async fn a_prefixed_store_keeps_to_its_prefix() {
    let inner = memory();
    let store = Prefixed::new(inner.clone(), "dir/");
    for name in ["dir/", "dis/x"] {
        put(&*inner, name, "x").await.unwrap();
    }
    put(&store, "a/b", "x").await.unwrap();
    assert_eq!(get(&*inner, "dir/a/b").await.unwrap(), "x");
    let page = store.list(staithe_store::ListRequest::default()).await.unwrap();
    let names: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(names, ["a/b"]);
    assert_eq!(store.url(), "memory:///dir/");
    let error = store.head(HeadRequest::latest(key("missing"))).await.unwrap_err();
    assert_eq!(error.key(), Some(&key("missing")));
}

#[tokio::test]
async fn faults_before_and_after_the_effect() {
    let store = Faulty::new(memory(), 1);
    let faults = store.handle();
    let before = Fault::new(FaultAction::FailBefore(ErrorKind::Unavailable));
    let after = Fault::new(FaultAction::FailAfter(ErrorKind::Timeout));
    faults.add(before.on(Operation::Put).key(|key| key == "a").skip(1).times(1));
    faults.add(after.on(Operation::Put).key(|key| key == "b"));
    put(&store, "a", "first").await.unwrap();
    assert_eq!(put(&store, "a", "second").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(get(&store, "a").await.unwrap(), "first");
    assert_eq!(put(&store, "b", "there").await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(get(&store, "b").await.unwrap(), "there");
    put(&store, "a", "third").await.unwrap();
    assert_eq!(faults.strikes(), 2);
    faults.clear();
    put(&store, "b", "again").await.unwrap();
}

#[tokio::test]
async fn faults_in_the_body() {
    let store = Faulty::new(memory(), 1);
    put(&store, "a", "0123456789abcdefghij").await.unwrap();
    for (action, wanted) in [
        (FaultAction::ShortBody(13), Ok("0123456789abc")),
        (FaultAction::Corrupt(11), Ok("0123456789accdefghij")),
        (FaultAction::BodyError(13, ErrorKind::Unavailable), Err(ErrorKind::Unavailable)),
    ] {
        store.handle().add(Fault::new(action.clone()).times(1));
        let found = get(&store, "a").await.map_err(|error| error.kind());
        assert_eq!(found, wanted.map(Bytes::from), "{action:?}");
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_faults() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let store = Faulty::new(memory(), 42);
        store.handle().add(Fault::new(FaultAction::FailBefore(ErrorKind::Throttled)).probability(0.3));
        let mut outcomes = Vec::new();
        for _ in 0..100 {
            outcomes.push(put(&store, "a", "x").await.is_ok());
        }
        runs.push(outcomes);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&true) && runs[0].contains(&false));
}

#[tokio::test]
async fn a_gate_holds_a_request_where_it_is_told_to() {
    let inner = memory();
    let store = Arc::new(Faulty::new(inner.clone(), 1));
    let gate = Gate::new();
    store.handle().add(Fault::new(FaultAction::HoldAfter(gate.clone())).on(Operation::Put));
    let held = tokio::spawn({
        let store = store.clone();
        async move { put(&*store, "a", "x").await }
    });
    gate.arrived(1).await;
    assert!(!held.is_finished());
    assert_eq!(get(&*inner, "a").await.unwrap(), "x");
    gate.open();
    held.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_its_time() {
    let pace = Pace { latency: Duration::from_millis(30), bytes_per_second: Some(1000) };
    let store = Slow::new(memory(), pace);
    let start = tokio::time::Instant::now();
    put(&store, "a", "0123456789abcdefghij").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(50));
    get(&store, "a").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

#[tokio::test]
async fn the_log_tells_what_was_asked() {
    let store = RequestLog::new(memory());
    put(&store, "a", "0123456789").await.unwrap();
    let request = GetRequest { key: key("a"), range: Some(2..6), version: None };
    let _: Vec<_> = store.get(request).await.unwrap().body.try_collect().await.unwrap();
    store.head(HeadRequest::latest(key("b"))).await.unwrap_err();
    let table = store.table();
    let text = table.to_string();
    assert!(text.ends_with("3 requests, 10 bytes sent, 4 bytes received\n"), "{text}");
    let records = store.take();
    assert_eq!(records[1].range, Some(2..6));
    assert_eq!((records[1].received, records[0].sent), (4, 10));
    assert_eq!(records[2].outcome, Some(Err(ErrorKind::NotFound)));
    assert_eq!(store.count(Operation::Get), 1);
    assert!(store.take().is_empty());
}

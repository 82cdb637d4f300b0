//! Put, get and list of the memory and the directory store, beside the same work done with `std::fs`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use staithe_store::{
    DirectoryOptions, DirectoryStore, Durability, GetRequest, HeadRequest, Key, ListRequest, MemoryStore,
    NewObject, ObjectStore, Payload, PutCondition,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SMALL: usize = 4 << 10;
const LARGE: usize = 8 << 20;

fn stores(dir: &TempDir) -> [(&'static str, Arc<dyn ObjectStore>); 2] {
    let options = DirectoryOptions { durability: Durability::Buffered, ..DirectoryOptions::default() };
    [
        ("memory", Arc::new(MemoryStore::default())),
        ("directory", Arc::new(DirectoryStore::open(dir.path(), options).unwrap())),
    ]
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(store: &dyn ObjectStore, name: &str, body: &Payload) {
    store.put(&key(name), body.clone(), NewObject::default(), PutCondition::Always).await.unwrap();
}

async fn read(store: &dyn ObjectStore, name: &str) -> u64 {
    let request = GetRequest { key: key(name), range: None, version: None };
    let body = store.get(request).await.unwrap().body;
    body.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len() as u64) }).await.unwrap()
}

fn bench(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for (label, size) in [("4KiB", SMALL), ("8MiB", LARGE)] {
        let dir = TempDir::new().unwrap();
        let body = Payload::from(vec![7; size]);
        let mut group = c.benchmark_group(label);
        group.throughput(Throughput::Bytes(size as u64)).sample_size(20);
        for (name, store) in stores(&dir) {
            group.bench_function(format!("put/{name}"), |b| {
                b.iter(|| runtime.block_on(put(&*store, "object", &body)));
            });
            group.bench_function(format!("get/{name}"), |b| {
                b.iter(|| runtime.block_on(read(&*store, "object")));
            });
        }
        let bytes = body.to_bytes();
        let (path, aside) = (dir.path().join("raw"), dir.path().join("aside"));
        group.bench_function("put/std", |b| {
            b.iter(|| {
                std::fs::write(&aside, &bytes).unwrap();
                std::fs::rename(&aside, &path).unwrap();
            });
        });
        group.bench_function("get/std", |b| b.iter(|| std::fs::read(&path).unwrap().len()));
        group.finish();
    }
    listing(c, &runtime);
}

fn listing(c: &mut Criterion, runtime: &Runtime) {
    let dir = TempDir::new().unwrap();
    let mut group = c.benchmark_group("1000 keys");
    for (name, store) in stores(&dir) {
        for i in 0..1000 {
            runtime.block_on(put(&*store, &format!("d/{i:04}"), &"x".into()));
        }
        group.bench_function(format!("list/{name}"), |b| {
            b.iter(|| runtime.block_on(store.list(ListRequest::default())).unwrap().objects.len());
        });
        group.bench_function(format!("head/{name}"), |b| {
            b.iter(|| runtime.block_on(store.head(HeadRequest::latest(key("d/0500")))).unwrap().size);
        });
    }
    group.bench_function("list/std", |b| {
        b.iter(|| {
            let entries = std::fs::read_dir(dir.path().join("d")).unwrap();
            entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

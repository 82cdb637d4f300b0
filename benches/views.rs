//! Pinned views of a million objects: written down, read through, loaded, and swapped under a filesystem.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot run has nothing better to do")]

use std::path::PathBuf;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use staithe_fs::{
    AttributeSource, Filesystem, FsConfig, LiveConfig, Manifest, ManifestReader, PinnedStore, Ttl,
    take_manifest,
};
use staithe_store::{Key, MemoryStore, NewObject, ObjectStore, Payload, PutCondition};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const OBJECTS: u64 = 1_000_000;

/// A bucket, and the manifest of it.
struct Place {
    runtime: Runtime,
    bucket: Arc<MemoryStore>,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let (runtime, bucket) = (Runtime::new().unwrap(), Arc::new(MemoryStore::default()));
        runtime.block_on(async {
            for n in 0..OBJECTS {
                let key = Key::new(format!("data/{:03}/part-{:05}/{n:08}.bin", n % 500, n % 20_000)).unwrap();
                let (body, always) = (Payload::default(), PutCondition::Always);
                bucket.put(&key, body, NewObject::default(), always).await.unwrap();
            }
        });
        Self { runtime, bucket, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("view")
    }

    fn take(&self) {
        let file = self.file();
        let taking = take_manifest(&*self.bucket, "", None, &file, |_| {});
        assert_eq!(self.runtime.block_on(taking).unwrap().objects, OBJECTS);
    }
}

fn views(c: &mut Criterion) {
    let place = Place::new();
    let mut group = c.benchmark_group("a view of 1,000,000 objects");
    group.throughput(Throughput::Elements(OBJECTS));
    group.bench_function("take", |b| b.iter(|| place.take()));
    let file = place.file();
    group.bench_function("read through", |b| {
        b.iter(|| {
            let mut reader = ManifestReader::open(&file).unwrap();
            while reader.next_object().unwrap().is_some() {}
        });
    });
    group.bench_function("load", |b| {
        b.iter(|| assert_eq!(Manifest::load(&file).unwrap().len() as u64, OBJECTS));
    });
    let store: Arc<dyn ObjectStore> = place.bucket.clone();
    let pinned = Arc::new(PinnedStore::open(store, "", AttributeSource::Listing, &file).unwrap());
    let config = FsConfig {
        read_only: true,
        attributes: AttributeSource::Listing,
        live: LiveConfig { metadata_ttl: Ttl::Forever, ..LiveConfig::default() },
        ..FsConfig::new(place.dir.path().join("state"))
    };
    let opening = Filesystem::open(Arc::clone(&pinned) as Arc<dyn ObjectStore>, config);
    let fs = place.runtime.block_on(opening).unwrap();
    let bytes = std::fs::metadata(&file).unwrap().len();
    eprintln!("{bytes} bytes on the disk, {} in memory", pinned.status().memory);
    group.bench_function("swap", |b| {
        b.iter(|| place.runtime.block_on(fs.swap_view(&pinned, file.clone())).unwrap());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = staithe_benches::criterion();
    targets = views
}
criterion_main!(benches);

//! Reads: through the part queue, of what is still there, from the staging file, and from the disk cache; beside the
//! store's own get, and a plain file.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot run has nothing better to do")]

use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt as _;
use staithe_benches::{READ, WRITE, World};
use staithe_fs::{CacheConfig, HandleId, WarmRequest};
use staithe_store::{GetRequest, Key, ObjectStore as _};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const BIG: usize = 64 * MIB;
/// The largest range that the planner asks for.
const RANGE: u64 = 8 << 20;

fn sequential(c: &mut Criterion) {
    let world = World::new().unwrap();
    world.put("big", BIG).unwrap();
    let mut group = c.benchmark_group("sequential read of 64 MiB");
    group.throughput(Throughput::Bytes(BIG as u64));
    for piece in [128 * KIB, MIB] {
        let name = format!("filesystem, {} KiB a read", piece / KIB);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let handle = world.open("big", READ).unwrap();
                assert_eq!(world.run(read_all(&world, handle, piece)), BIG as u64);
                world.fs.release(handle);
            });
        });
    }
    group.bench_function("the store's get, 8 MiB a range", |b| b.iter(|| world.run(get_all(&world))));
    group.finish();
}

async fn read_all(world: &World, handle: HandleId, piece: usize) -> u64 {
    let mut at = 0;
    loop {
        match world.fs.read(handle, at, piece as u32).await.unwrap().len() {
            0 => return at,
            n => at += n as u64,
        }
    }
}

async fn get_all(world: &World) {
    for at in (0..BIG as u64).step_by(RANGE as usize) {
        let range = Some(at..(at + RANGE).min(BIG as u64));
        let request = GetRequest { key: Key::new("big").unwrap(), range, version: None };
        let mut body = world.bucket.get(request).await.unwrap().body;
        while let Some(chunk) = body.next().await {
            black_box(chunk.unwrap());
        }
    }
}

fn again(c: &mut Criterion) {
    let world = World::new().unwrap();
    world.put("big", BIG).unwrap();
    let handle = world.open("big", READ).unwrap();
    world.run(world.fs.read(handle, 0, MIB as u32)).unwrap();
    let staged = world.run(async {
        let (_, opened) = world
            .fs
            .create(staithe_fs::Ino::ROOT, "staged", 0o644, WRITE, staithe_benches::CALLER)
            .await
            .unwrap();
        world.fs.write(opened.handle, 0, &vec![7; MIB]).unwrap();
        opened.handle
    });
    let mut group = c.benchmark_group("read of what is here");
    for len in [4 * KIB, 128 * KIB] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("fetched before, {} KiB", len / KIB), |b| {
            b.iter(|| black_box(world.run(world.fs.read(handle, 0, len as u32)).unwrap().len()));
        });
        group.bench_function(format!("staged, {} KiB", len / KIB), |b| {
            b.iter(|| black_box(world.fs.try_read(staged, 0, len as u32).unwrap().unwrap().len()));
        });
    }
    group.finish();
}

/// From the disk cache, checked; beside the same file without a check.
fn from_disk(c: &mut Criterion) {
    let world = World::with(|config, dir| {
        config.cache = Some(CacheConfig { dir: dir.join("cache"), size: 1 << 30 });
    })
    .unwrap();
    world.put("big", BIG).unwrap();
    let request = WarmRequest { paths: vec![String::new()], jobs: 1 };
    let warmed = world.run(world.fs.warm(&request, &tokio::sync::watch::Sender::default())).unwrap();
    assert!(warmed.is_whole());
    let handle = world.open("big", READ).unwrap();
    let plain = tempfile::tempfile().unwrap();
    plain.write_all_at(&vec![7; BIG], 0).unwrap();
    let mut group = c.benchmark_group("read from the local disk, in the page cache");
    for len in [4 * KIB, 128 * KIB, MIB] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("disk cache, {} KiB", len / KIB), |b| {
            b.iter(|| black_box(world.fs.try_read(handle, 0, len as u32).unwrap().unwrap().len()));
        });
        group.bench_function(format!("plain file, {} KiB", len / KIB), |b| {
            b.iter(|| {
                let mut piece = vec![0; len];
                plain.read_exact_at(&mut piece, 0).unwrap();
                black_box(piece.len())
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = staithe_benches::criterion();
    targets = sequential, again, from_disk
}
criterion_main!(benches);

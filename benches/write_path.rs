//! Writes: into the staging file, and from there to the store; beside the store's own put.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot run has nothing better to do")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use staithe_benches::{CALLER, WRITE, World};
use staithe_fs::{HandleId, Ino};
use staithe_store::{Key, NewObject, ObjectStore as _, Payload, PutCondition};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Below this, nothing is uploaded before the close.
const STAGED: usize = 4 * MIB;

fn create(world: &World, name: &str) -> HandleId {
    world.run(world.fs.create(Ino::ROOT, name, 0o644, WRITE, CALLER)).unwrap().1.handle
}

fn pieces(c: &mut Criterion) {
    let world = World::new().unwrap();
    let handle = create(&world, "pieces");
    let mut group = c.benchmark_group("write of 4 MiB");
    group.throughput(Throughput::Bytes(STAGED as u64));
    for piece in [vec![7; 4 * KIB], vec![7; 128 * KIB], vec![7; MIB]] {
        group.bench_function(format!("{} KiB a write", piece.len() / KIB), |b| {
            b.iter(|| {
                for at in (0..STAGED).step_by(piece.len()) {
                    world.fs.write(handle, at as u64, &piece).unwrap();
                }
            });
        });
    }
    group.finish();
}

fn commit(c: &mut Criterion) {
    let world = World::new().unwrap();
    let mut group = c.benchmark_group("write and close");
    for len in [4 * KIB, 4 * MIB, 64 * MIB] {
        group.throughput(Throughput::Bytes(len as u64));
        let body = Bytes::from(vec![7; len]);
        group.bench_function(format!("{} KiB", len / KIB), |b| b.iter(|| write_and_close(&world, &body)));
        let key = Key::new("raw").unwrap();
        group.bench_function(format!("{} KiB, the store's put", len / KIB), |b| {
            b.iter(|| {
                let payload = Payload::from(body.clone());
                world
                    .run(world.bucket.put(&key, payload, NewObject::default(), PutCondition::Always))
                    .unwrap();
            });
        });
    }
    group.finish();
}

fn write_and_close(world: &World, body: &[u8]) {
    let handle = create(world, "file");
    for (n, piece) in body.chunks(MIB).enumerate() {
        world.fs.write(handle, (n * MIB) as u64, piece).unwrap();
    }
    world.run(world.fs.flush(handle)).unwrap();
    world.fs.release(handle);
    world.run(world.fs.unlink(Ino::ROOT, "file")).unwrap();
}

criterion_group! {
    name = benches;
    config = staithe_benches::criterion();
    targets = pieces, commit
}
criterion_main!(benches);

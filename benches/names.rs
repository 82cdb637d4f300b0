//! Names: a lookup that memory answers, a big directory, and a short-lived file.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot run has nothing better to do")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use staithe_benches::{CALLER, WRITE, World};
use staithe_fs::Ino;
use staithe_store::{HeadRequest, Key, ListRequest, ObjectStore as _};

/// Entries that fit into one answer to the kernel.
const BATCH: usize = 128;
const MANY: usize = 10_000;

fn lookup(c: &mut Criterion) {
    let world = World::new().unwrap();
    world.put("dir/file", 1).unwrap();
    let dir = world.ino("dir").unwrap();
    let file = world.ino("dir/file").unwrap();
    let key = Key::new("dir/file").unwrap();
    let mut group = c.benchmark_group("lookup");
    group.bench_function("found in memory", |b| {
        b.iter(|| black_box(world.fs.try_lookup(dir, "file").unwrap().unwrap()));
    });
    assert!(world.run(world.fs.lookup(dir, "absent")).is_ok());
    group.bench_function("absent, in memory", |b| {
        b.iter(|| black_box(world.fs.try_lookup(dir, "absent").unwrap().unwrap()));
    });
    group.bench_function("attributes in memory", |b| {
        b.iter(|| black_box(world.fs.try_getattr(file, None).unwrap().unwrap()));
    });
    group.bench_function("the store's head", |b| {
        b.iter(|| world.run(world.bucket.head(HeadRequest::latest(key.clone()))).unwrap());
    });
    group.finish();
}

fn readdir(c: &mut Criterion) {
    let world = World::new().unwrap();
    for n in 0..MANY {
        world.put(&format!("dir/{n:05}"), 1).unwrap();
    }
    let dir = world.ino("dir").unwrap();
    let mut group = c.benchmark_group("readdir of 10,000");
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("filesystem", |b| b.iter(|| assert_eq!(world.run(names_of(&world, dir)), MANY + 2)));
    group.bench_function("the store's list", |b| b.iter(|| assert_eq!(world.run(keys_of(&world)), MANY)));
    group.finish();
}

async fn names_of(world: &World, dir: Ino) -> usize {
    let handle = world.fs.opendir(dir).await.unwrap();
    let (mut count, mut offset) = (0, 0);
    loop {
        let items = world.fs.readdir(handle, offset, BATCH).await.unwrap();
        let Some(last) = items.last() else { break };
        (count, offset) = (count + items.len(), last.next);
    }
    world.fs.releasedir(handle);
    count
}

async fn keys_of(world: &World) -> usize {
    let mut request =
        ListRequest { prefix: "dir/".to_owned(), delimiter: Some('/'), ..ListRequest::default() };
    let mut count = 0;
    loop {
        let page = world.bucket.list(request.clone()).await.unwrap();
        count += page.objects.len();
        match page.next {
            Some(next) => request.token = Some(next),
            None => return count,
        }
    }
}

fn short_lived(c: &mut Criterion) {
    let world = World::new().unwrap();
    let fs = &world.fs;
    c.bench_function("create, close, unlink", |b| {
        b.iter(|| {
            world.run(async {
                let (_, opened) = fs.create(Ino::ROOT, "file", 0o644, WRITE, CALLER).await.unwrap();
                fs.flush(opened.handle).await.unwrap();
                fs.release(opened.handle);
                fs.unlink(Ino::ROOT, "file").await.unwrap();
            });
        });
    });
}

criterion_group! {
    name = benches;
    config = staithe_benches::criterion();
    targets = lookup, readdir, short_lived
}
criterion_main!(benches);

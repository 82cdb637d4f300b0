//! What a kernel is told when something is forgotten or gone.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use staithe_fs::{Filesystem, FsConfig, Ino, Invalidation, Lookup, Ttl};
use staithe_store::{DeleteRequest, MemoryOptions, ObjectStore};
use world::{World, k};

fn for_ever(config: &mut FsConfig) {
    (config.live.metadata_ttl, config.live.negative_ttl) = (Ttl::Forever, Ttl::Forever);
}

async fn world(change: impl FnOnce(&mut FsConfig)) -> World {
    World::with(MemoryOptions::default(), change).await
}

async fn refresh(world: &World, path: &str) {
    let report = world.fs.refresh(&[path.to_owned()]).await;
    assert_eq!(report.failures, [], "{path:?}");
}

/// What a kernel is told, in a thread of its own as an adapter does.
fn kernel(fs: &Arc<Filesystem>) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (told, stream) = (heard.clone(), fs.invalidations());
    std::thread::spawn(move || {
        for invalidation in stream {
            match invalidation {
                Invalidation::Doubt { parent, name, may_be_directory } => {
                    let slash = if may_be_directory { "/" } else { "" };
                    told.lock().unwrap().push(format!("{}/{name}{slash}", parent.0));
                }
                Invalidation::Attributes { ino } => told.lock().unwrap().push(format!("{}", ino.0)),
                Invalidation::Fence(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    heard
}

#[tokio::test]
async fn a_kernel_has_been_told_of_all_that_it_believes_when_a_refresh_returns() {
    let world = world(for_ever).await;
    for key in ["d/f", "d/sub/g", "beside/x"] {
        world.put(key, b"1".to_vec()).await;
    }
    let heard = kernel(&world.fs);
    world.list("d").await;
    let [d, sub, f, g, x] = ["d", "d/sub", "d/f", "d/sub/g", "beside/x"].map(|path| world.ino(path));
    let (d, sub, f, g, _) = (d.await, sub.await, f.await, g.await, x.await);
    for name in ["none", "none", "neither"] {
        let Lookup::Absent { ttl } = world.fs.lookup(d, name).await.unwrap() else { panic!("{name}") };
        assert!(ttl > Duration::from_hours(24), "whole listings answer for ever");
    }
    let Lookup::Absent { .. } = world.fs.lookup(Ino::ROOT, "nowhere").await.unwrap() else { panic!() };
    refresh(&world, "d").await;
    let mut told = std::mem::take(&mut *heard.lock().unwrap());
    told.sort();
    let (root, d_, sub_) = (Ino::ROOT.0, d.0, sub.0);
    let mut wanted = vec![
        format!("{root}/d/"),
        format!("{d_}"),
        format!("{d_}/f"),
        format!("{}", f.0),
        format!("{d_}/sub/"),
        format!("{sub_}"),
        format!("{sub_}/g"),
        format!("{}", g.0),
        format!("{d_}/none"),
        format!("{d_}/neither"),
    ];
    wanted.sort();
    assert_eq!(told, wanted);
    refresh(&world, "").await;
    assert!(heard.lock().unwrap().contains(&format!("{root}/nowhere")));
}

#[tokio::test]
async fn a_kernel_that_takes_its_time_holds_up_no_other_answer() {
    let world = world(for_ever).await;
    for key in ["d/f", "beside/x"] {
        world.put(key, b"1".to_vec()).await;
        world.ino(key).await;
    }
    let stream = world.fs.invalidations();
    let fs = world.fs.clone();
    let refreshing = tokio::spawn(async move { fs.refresh(&["d".to_owned()]).await });
    let hears = move || stream.into_iter().find(|told| matches!(told, Invalidation::Fence(_)));
    let fence = tokio::task::spawn_blocking(hears).await.unwrap();
    let beside = world.ino("beside").await;
    world.spent();
    let Lookup::Found(entry) = world.fs.lookup(beside, "x").await.unwrap() else { panic!() };
    assert!(entry.entry_ttl > Duration::ZERO && entry.attr_ttl > Duration::ZERO);
    assert_eq!(world.spent(), []);
    drop(fence);
    assert_eq!(refreshing.await.unwrap().failures, []);
}

#[tokio::test]
async fn a_kernel_is_told_when_a_name_that_it_knows_is_gone() {
    let world =
        world(|config| (config.live.metadata_ttl, config.live.negative_ttl) = (Ttl::Zero, Ttl::Zero)).await;
    world.put("f", b"1".to_vec()).await;
    let stream = world.fs.invalidations();
    world.ino("f").await;
    world.bucket.delete(DeleteRequest::latest(k("f"))).await.unwrap();
    assert_eq!(world.try_ino("f").await, None);
    let told = stream.try_recv();
    let is_it =
        |told: &Invalidation| matches!(told, Invalidation::Entry { parent: Ino::ROOT, name } if name == "f");
    assert!(told.as_ref().is_ok_and(is_it), "{told:?}");
}

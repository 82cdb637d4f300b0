//! What it costs to make names in a directory that was there before. Counted, not timed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::time::Duration;

use staithe_fs::{FsConfig, Lookup, Ttl, WriteMode};
use staithe_store::MemoryOptions;
use staithe_store::decorators::Operation as Op;
use world::World;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_hours(1);

fn remembering(config: &mut FsConfig) {
    (config.live.metadata_ttl, config.live.negative_ttl) = (Ttl::For(FOR_EVER), Ttl::For(FOR_EVER));
}

/// A directory with so many files of others in it.
async fn world(files: usize, change: impl FnOnce(&mut FsConfig)) -> World {
    let world = World::with(MemoryOptions::default(), change).await;
    for n in 0..files {
        world.put(&format!("dir/theirs {n:04}"), b"theirs".to_vec()).await;
    }
    world.ino("dir").await;
    assert_eq!(questions(&world), 2, "the directory itself");
    world
}

/// How often the store was asked what is there.
fn questions(world: &World) -> u64 {
    world.log.count(Op::Head) + world.log.count(Op::List)
}

async fn create(world: &World, n: usize) {
    world.create("dir", &format!("ours {n:04}"), b"ours").await.unwrap();
}

#[tokio::test]
async fn new_names_in_a_directory_are_asked_about_a_few_times_and_then_listed_once() {
    let world = world(100, remembering).await;
    for n in 0..50 {
        create(&world, n).await;
    }
    assert_eq!(world.log.count(Op::Put), 50);
    assert_eq!(questions(&world), 2 + 3 * 2 + 1, "{}", world.log.table());
    let dir = world.ino("dir").await;
    assert!(matches!(world.fs.lookup(dir, "none").await.unwrap(), Lookup::Absent { .. }));
    assert!(matches!(world.fs.lookup(dir, "theirs 0007").await.unwrap(), Lookup::Found(_)));
    assert_eq!(questions(&world), 2 + 3 * 2 + 1, "{}", world.log.table());
    assert_eq!(world.log.count(Op::Get), 1, "the attributes of one, and its bytes");
    assert_eq!(world.list("dir").await.len(), 150);
}

#[tokio::test]
async fn so_are_they_while_others_of_the_directory_are_being_stored() {
    let world = world(100, |config| {
        remembering(config);
        (config.write_mode, config.write_back_delay) = (WriteMode::Back, Duration::ZERO);
    })
    .await;
    let dir = world.ino("dir").await;
    let making = |at: usize| {
        let world = &world;
        async move {
            for n in at..at + 25 {
                create(world, n).await;
                // What is made next is asked about while this one is being stored.
                tokio::task::yield_now().await;
            }
        }
    };
    futures::join!(making(0), making(1_000), making(2_000), making(3_000));
    assert!(questions(&world) <= 24, "{}", world.log.table());
    assert_eq!(world.list("dir").await.len(), 200);
    assert!(matches!(world.fs.lookup(dir, "ours 9999").await.unwrap(), Lookup::Absent { .. }));
}

#[tokio::test]
async fn what_another_client_makes_is_seen_when_the_listing_is_over() {
    let world = world(10, |config| {
        (config.live.metadata_ttl, config.live.negative_ttl) =
            (Ttl::For(FOR_EVER), Ttl::For(Duration::from_millis(1)));
    })
    .await;
    for n in 0..10 {
        create(&world, n).await;
    }
    world.put("dir/news", b"1".to_vec()).await;
    let dir = world.ino("dir").await;
    let look = async {
        while matches!(world.fs.lookup(dir, "news").await.unwrap(), Lookup::Absent { .. }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), look).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_no_page_holds_is_not_listed_for_each_new_name() {
    let world = world(1_100, remembering).await;
    for n in 0..100 {
        create(&world, n).await;
    }
    // A HEAD and a small LIST each, and one LIST that was too small.
    assert_eq!(questions(&world), 2 + 100 * 2 + 1, "{}", world.log.table());
}

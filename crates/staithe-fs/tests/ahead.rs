//! Attributes asked for ahead of who goes through a listed directory.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod world;

use staithe_fs::{Ino, Lookup};
use staithe_store::decorators::Operation;
use world::World;

/// Requests for single objects since the last call.
fn asked(world: &World) -> usize {
    let of_objects = |o: &Operation| matches!(o, Operation::Head | Operation::Get);
    world.spent().into_iter().filter(|(o, _)| of_objects(o)).map(|(_, n)| n).sum()
}

async fn a_listed_directory(names: &[String]) -> (World, Ino) {
    let world = World::new().await;
    for name in names {
        world.put(&format!("dir/{name}"), "body").await;
    }
    let dir = world.ino("dir").await;
    assert_eq!(world.list("dir").await.len(), names.len());
    world.spent();
    (world, dir)
}

async fn look(world: &World, dir: Ino, name: &str) {
    let Lookup::Found(entry) = world.fs.lookup(dir, name).await.unwrap() else { panic!("{name} is absent") };
    assert_eq!(entry.attr.size, 4);
}

#[tokio::test]
async fn in_order_each_name_is_asked_for_once_and_most_of_them_ahead() {
    let names: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let (world, dir) = a_listed_directory(&names).await;
    let (mut total, mut waits) = (0, 0);
    for name in &names {
        look(&world, dir, name).await;
        let now = asked(&world);
        (total, waits) = (total + now, waits + usize::from(now > 0));
    }
    assert_eq!(total, names.len(), "none twice");
    assert!(waits <= 10, "{waits} lookups waited for the store");
}

#[tokio::test]
async fn out_of_order_nothing_is_asked_for_ahead() {
    let names: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
    let (world, dir) = a_listed_directory(&names).await;
    for step in 0..50 {
        look(&world, dir, &names[step * 37 % 100]).await;
        assert_eq!(asked(&world), 1, "step {step}");
    }
}

#[tokio::test]
async fn a_name_deleted_by_another_client_is_absent_though_it_was_listed() {
    use staithe_store::{DeleteRequest, ObjectStore};
    let names: Vec<String> = (0..20).map(|n| format!("{n:03}")).collect();
    let (world, dir) = a_listed_directory(&names).await;
    world.bucket.delete(DeleteRequest::latest(world::k("dir/007"))).await.unwrap();
    for name in names.iter().take(7) {
        look(&world, dir, name).await;
    }
    let answer = world.fs.lookup(dir, "007").await.unwrap();
    assert!(matches!(answer, Lookup::Absent { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_name_that_hangs_holds_up_no_other() {
    use staithe_store::decorators::{Fault, FaultAction};
    use std::time::{Duration, Instant};
    let names: Vec<String> = (0..40).map(|n| format!("{n:03}")).collect();
    let (world, dir) = a_listed_directory(&names).await;
    world.faults.add(Fault::new(FaultAction::Hang).key(|key| key == "dir/020"));
    let start = Instant::now();
    for name in names.iter().filter(|n| *n != "020") {
        look(&world, dir, name).await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

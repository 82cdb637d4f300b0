//! Another configuration and another store, in force while the filesystem is in use.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use staithe_fs::{FsConfig, FsErrorKind, Ino, LiveConfig, Ttl};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op, RequestLog};
use staithe_store::{ErrorKind, MemoryOptions, MemoryStore, ObjectStore};
use tokio::time::timeout;
use world::{READ, ROOT, WRITE, World};

const HOUR: Ttl = Ttl::For(Duration::from_hours(1));
const SOON: Duration = Duration::from_mins(1);

fn for_ever(config: &mut FsConfig) {
    (config.live.metadata_ttl, config.live.negative_ttl) = (Ttl::Forever, Ttl::Forever);
}

/// Another way to the bucket of a world.
fn another_way(world: &World) -> Arc<RequestLog> {
    Arc::new(RequestLog::new(world.bucket.clone()))
}

async fn go_over(world: &World, log: &Arc<RequestLog>) {
    world.fs.reload(world.fs.live_config(), Some(log.clone())).await.unwrap();
}

async fn with_ttls(world: &World, metadata_ttl: Ttl, negative_ttl: Ttl) {
    let config = LiveConfig { metadata_ttl, negative_ttl, ..world.fs.live_config() };
    world.fs.reload(config, None).await.unwrap();
    assert_eq!(world.fs.live_config(), config);
}

#[tokio::test]
async fn what_is_under_way_ends_with_the_store_it_began_with_and_what_follows_asks_the_other() {
    let world = World::new().await;
    world.put("a", vec![b'a'; 16 << 20]).await;
    world.put("b", b"b".to_vec()).await;
    let reader = world.open("a", READ).await;
    let gate = Gate::new();
    world.faults.add(Fault::new(FaultAction::HoldAfter(gate.clone())).on(Op::Get).times(1));
    let other = another_way(&world);
    world.spent();
    let reading = world.read(reader, 8 << 20, 4096);
    let going = async {
        timeout(SOON, gate.arrived(1)).await.unwrap();
        go_over(&world, &other).await;
        assert_eq!(world.cat("b").await.unwrap(), b"b");
        gate.open();
    };
    assert!(tokio::join!(reading, going).0.unwrap() == [b'a'; 4096]);
    assert!(world.spent().iter().all(|(op, _)| *op == Op::Get), "asked before");
    assert!(other.total() > 0);
    assert!(world.read(reader, 15 << 20, 4096).await.unwrap() == [b'a'; 4096]);
    world.create("", "new", b"new").await.unwrap();
    assert_eq!(world.stored("new").await.unwrap(), b"new");
    assert!(world.spent().iter().all(|(op, _)| *op == Op::Get), "what the reader had asked for");
    assert_eq!(other.count(Op::Put), 1);
}

#[tokio::test]
async fn what_is_tried_again_is_tried_with_the_store_in_force() {
    let world = World::new().await;
    world.put("a", b"a".to_vec()).await;
    world.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Unavailable)));
    let other = another_way(&world);
    let going = async {
        world::until("it was tried", || world.faults.strikes() > 0).await;
        go_over(&world, &other).await;
    };
    assert_eq!(tokio::join!(world.cat("a"), going).0.unwrap(), b"a");
}

#[tokio::test]
async fn who_could_not_read_on_reads_on_once_there_is_another_store() {
    let shortly = |config: &mut FsConfig| config.live.op_deadline = Duration::from_secs(1);
    let world = World::with(MemoryOptions::default(), shortly).await;
    world.put("a", vec![b'a'; 16 << 20]).await;
    let reader = world.open("a", READ).await;
    world.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::CredentialsExpired)).on(Op::Get));
    for _ in 0..2 {
        let refused = world.read(reader, 8 << 20, 4096).await.unwrap_err();
        assert_eq!(refused.kind(), FsErrorKind::CredentialsExpired);
    }
    go_over(&world, &another_way(&world)).await;
    assert!(world.read(reader, 8 << 20, 4096).await.unwrap() == [b'a'; 4096]);
    assert!(world.read(reader, 0, 4096).await.unwrap() == [b'a'; 4096]);
}

#[tokio::test]
async fn a_store_of_another_volume_changes_nothing() {
    let world = World::new().await;
    world.put("a", b"ours".to_vec()).await;
    let before = world.fs.live_config();
    let config = LiveConfig { metadata_ttl: Ttl::Zero, op_deadline: Duration::from_secs(1), ..before };
    let other = Arc::new(MemoryStore::new(MemoryOptions::default()));
    let refused = world.fs.reload(config, Some(other)).await.unwrap_err();
    assert_eq!(refused.kind(), FsErrorKind::Invalid);
    assert!(refused.to_string().contains(&world.bucket.volume()), "{refused}");
    assert_eq!(world.fs.live_config(), before);
    assert_eq!(world.cat("a").await.unwrap(), b"ours");
}

#[tokio::test]
async fn a_shorter_time_to_live_forgets_what_is_remembered_and_a_longer_one_does_not() {
    let world = World::with(MemoryOptions::default(), for_ever).await;
    world.put("d/f", b"old".to_vec()).await;
    let look = async || {
        world.list("d").await;
        (world.try_ino("d/f").await.is_some(), world.try_ino("d/new").await.is_some())
    };
    look().await;
    world.put("d/new", b"new".to_vec()).await;
    world.spent();
    assert_eq!(look().await, (true, false));
    assert_eq!(world.spent(), [], "believed for ever");
    with_ttls(&world, HOUR, Ttl::Forever).await;
    assert_eq!(world.spent(), [], "nothing is asked for that");
    assert_eq!(look().await, (true, true));
    assert_ne!(world.spent(), []);
    with_ttls(&world, Ttl::Forever, Ttl::Forever).await;
    assert_eq!(look().await, (true, true));
    assert_eq!(world.spent(), [], "nothing was forgotten");
    assert_eq!(world.try_ino("d/later").await, None);
    world.put("d/later", b"later".to_vec()).await;
    with_ttls(&world, Ttl::Forever, HOUR).await;
    assert!(world.try_ino("d/later").await.is_some(), "absence is believed for a shorter time");
}

#[tokio::test]
async fn files_stay_open_and_unstored_through_a_reload() {
    let world = World::with(MemoryOptions::default(), for_ever).await;
    world.put("f", b"stored".to_vec()).await;
    let (reader, writer) = (world.open("f", READ).await, world.open("f", WRITE).await);
    world.fs.write(writer, 0, b"S").unwrap();
    let other = another_way(&world);
    with_ttls(&world, Ttl::Zero, Ttl::Zero).await;
    go_over(&world, &other).await;
    assert_eq!(world.read(reader, 0, 16).await.unwrap(), b"Stored");
    world.close(writer).await.unwrap();
    assert_eq!(world.stored("f").await.unwrap(), b"Stored");
    assert_eq!(other.count(Op::Put), 1);
}

#[tokio::test]
async fn the_kernel_doubts_also_the_name_of_what_is_not_stored_yet() {
    let world = World::with(MemoryOptions::default(), for_ever).await;
    let (told, (hear, heard)) = (world.fs.invalidations(), channel());
    std::thread::spawn(move || told.into_iter().try_for_each(|told| hear.send(format!("{told:?}"))));
    let (_, opened) = world.fs.create(Ino::ROOT, "new", 0o644, WRITE, ROOT).await.unwrap();
    with_ttls(&world, HOUR, HOUR).await;
    // All of it was told when the reload returned.
    let heard: Vec<_> = heard.try_iter().collect();
    assert!(heard.iter().any(|told| told.starts_with("Doubt") && told.contains("new")), "{heard:?}");
    world.close(opened.handle).await.unwrap();
}

#[tokio::test]
async fn a_deadline_holds_for_what_begins_after_it() {
    let world = World::with(MemoryOptions::default(), |config| config.live.op_deadline = SOON * 60).await;
    world.put("a", b"a".to_vec()).await;
    world.faults.add(Fault::new(FaultAction::Hang));
    let config = LiveConfig { op_deadline: Duration::from_millis(30), ..world.fs.live_config() };
    world.fs.reload(config, None).await.unwrap();
    assert_eq!(world.fs.op_deadline(), Duration::from_millis(30));
    let late = world.fs.lookup(Ino::ROOT, "a").await.unwrap_err();
    assert_eq!(late.kind(), FsErrorKind::TimedOut);
}

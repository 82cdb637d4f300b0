//! What is asked for ahead of who goes through a listed directory. Counted, not timed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::time::Duration;

use staithe_fs::{AttributeSource, FsConfig, FsErrorKind, Ino, Lookup, Ttl};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op};
use staithe_store::{DeleteRequest, ErrorKind, MemoryOptions, ObjectStore};
use world::{READ, WRITE, World, until};

/// Longer than any test: a wait for what hangs is a test that does not end.
const FOR_EVER: Duration = Duration::from_hours(1);

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:03}")).collect()
}

fn body(name: &str) -> Vec<u8> {
    format!("body of {name}").repeat(300).into_bytes()
}

fn remembering(config: &mut FsConfig) {
    (config.live.metadata_ttl, config.live.op_deadline) = (Ttl::For(FOR_EVER), FOR_EVER);
}

fn by_listing(config: &mut FsConfig) {
    remembering(config);
    config.attributes = AttributeSource::Listing;
}

/// A directory of small files, listed.
async fn listed(count: usize, change: impl FnOnce(&mut FsConfig)) -> (World, Ino) {
    let world = World::with(MemoryOptions::default(), change).await;
    for name in names(count) {
        world.put(&format!("dir/{name}"), body(&name)).await;
    }
    let dir = world.ino("dir").await;
    assert_eq!(world.list("dir").await.len(), count);
    world.spent();
    (world, dir)
}

async fn look(world: &World, dir: Ino, name: &str) {
    let Lookup::Found(entry) = world.fs.lookup(dir, name).await.unwrap() else { panic!("{name} is absent") };
    assert_eq!(entry.attr.size, body(name).len() as u64);
}

async fn cat(world: &World, name: &str) {
    assert!(world.cat(&format!("dir/{name}")).await.unwrap() == body(name), "{name} reads otherwise");
}

/// Lets everything run that can.
async fn settle(world: &World) {
    let mut before = u64::MAX;
    while std::mem::replace(&mut before, world.log.total()) != world.log.total() {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
}

/// How many requests for single objects there were.
fn asked(world: &World) -> u64 {
    world.log.count(Op::Head) + world.log.count(Op::Get)
}

#[tokio::test]
async fn looked_up_in_order_each_name_is_asked_for_once_and_in_parallel() {
    let (world, dir) = listed(200, remembering).await;
    let gate = Gate::new();
    let is_later = |key: &str| key.strip_prefix("dir/").is_some_and(|name| ("002".."006").contains(&name));
    world.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).key(is_later));
    let before = asked(&world);
    for name in &names(2) {
        look(&world, dir, name).await;
    }
    gate.arrived(4).await;
    gate.open();
    for name in &names(100)[2..] {
        look(&world, dir, name).await;
    }
    until("a window ahead", || asked(&world) - before >= 100 + 32).await;
    for name in &names(200)[100..] {
        look(&world, dir, name).await;
    }
    settle(&world).await;
    assert_eq!(asked(&world) - before, 200, "none twice\n{}", world.log.table());
}

#[tokio::test]
async fn read_in_order_each_file_is_one_get_and_fetched_ahead() {
    for change in [remembering, by_listing] {
        let (world, _) = listed(300, change).await;
        for name in &names(100) {
            cat(&world, name).await;
        }
        until("a window ahead", || world.log.count(Op::Get) >= 100 + 32).await;
        for name in &names(300)[100..] {
            cat(&world, name).await;
        }
        settle(&world).await;
        assert_eq!(world.spent(), [(Op::Get, 300)]);
    }
}

#[tokio::test]
async fn opened_in_order_after_ls_l_each_file_is_one_get_more() {
    let (world, dir) = listed(100, remembering).await;
    for name in &names(100) {
        look(&world, dir, name).await;
    }
    settle(&world).await;
    let spent = world.spent();
    assert!(spent.contains(&(Op::Head, 98)), "two are tried with their bodies: {spent:?}");
    let gate = Gate::new();
    let is_later = |key: &str| key.strip_prefix("dir/").is_some_and(|name| ("004".."008").contains(&name));
    world.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).key(is_later));
    for name in &names(4) {
        cat(&world, name).await;
    }
    gate.arrived(4).await;
    gate.open();
    for name in &names(100)[4..] {
        cat(&world, name).await;
    }
    settle(&world).await;
    // Two of the bodies came with the first look.
    assert_eq!(world.spent(), [(Op::Get, 98)]);
    // What the kernel may have in its pages is not fetched again.
    for name in &names(100) {
        let handle = world.open(&format!("dir/{name}"), READ).await;
        world.fs.release(handle);
    }
    settle(&world).await;
    assert_eq!(world.spent(), []);
}

#[tokio::test]
async fn ls_l_of_a_large_directory_asks_ahead_while_it_is_still_listed() {
    let world = World::with(MemoryOptions::default(), remembering).await;
    let names: Vec<_> = (0..2200).map(|n| format!("{n:04}")).collect();
    for name in &names {
        world.put(&format!("dir/{name}"), "body").await;
    }
    let dir = world.ino("dir").await;
    world.spent();
    let stream = world.fs.opendir(dir).await.unwrap();
    let (mut offset, mut waits) = (0, 0);
    loop {
        let items = world.fs.readdir(stream, offset, 700).await.unwrap();
        let Some(last) = items.last() else { break };
        offset = last.next;
        for item in items.iter().filter(|i| !i.name.starts_with('.')) {
            settle(&world).await;
            let before = asked(&world);
            assert!(matches!(world.fs.lookup(dir, &item.name).await.unwrap(), Lookup::Found(_)));
            waits += usize::from(asked(&world) > before && world.log.count(Op::List) < 3);
        }
    }
    settle(&world).await;
    let spent = world.spent();
    assert!(spent.contains(&(Op::List, 3)), "{spent:?}");
    assert_eq!(spent.iter().filter(|(op, _)| *op != Op::List).map(|(_, n)| n).sum::<usize>(), 2200);
    // Each window of names, not each name, is asked for at a moment of its own.
    assert!(waits < 200, "{waits}");
}

#[tokio::test]
async fn who_sorts_by_inode_number_as_cp_does_reads_in_listing_order() {
    let (world, dir) = listed(200, remembering).await;
    let stream = world.fs.opendir(dir).await.unwrap();
    let mut items = world.fs.readdir(stream, 0, 1000).await.unwrap();
    items.retain(|item| !item.name.starts_with('.'));
    assert!(items.is_sorted_by_key(|item| item.ino));
    items.sort_by_key(|item| item.ino);
    for item in &items {
        cat(&world, &item.name).await;
    }
    settle(&world).await;
    assert_eq!(world.spent(), [(Op::Get, 200)]);
}

#[tokio::test]
async fn out_of_order_nothing_is_asked_for_ahead() {
    let (world, dir) = listed(100, remembering).await;
    for step in 0..50 {
        let before = asked(&world);
        look(&world, dir, &names(100)[step * 37 % 100]).await;
        settle(&world).await;
        assert_eq!(asked(&world) - before, 1, "step {step}");
    }
    let (world, _) = listed(100, by_listing).await;
    for step in 0..50 {
        cat(&world, &names(100)[step * 37 % 100]).await;
        settle(&world).await;
        assert_eq!(world.spent(), [(Op::Get, 1)], "step {step}");
    }
}

#[tokio::test]
async fn readers_in_parallel_fetch_each_file_once() {
    for change in [remembering, by_listing] {
        let (world, _) = listed(200, change).await;
        let all = names(200);
        let (world_ref, all) = (&world, &all);
        let reader = async |first: usize| {
            for name in all.iter().skip(first).step_by(4) {
                cat(world_ref, name).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(reader(0), reader(1), reader(2), reader(3));
        settle(&world).await;
        assert_eq!(world.spent(), [(Op::Get, 200)]);
    }
}

#[tokio::test]
async fn ls_l_after_reading_another_directory_fetches_few_bodies() {
    let (world, _) = listed(100, remembering).await;
    for name in names(200) {
        world.put(&format!("other/{name}"), body(&name)).await;
    }
    for name in &names(100) {
        cat(&world, name).await;
    }
    let other = world.ino("other").await;
    world.list("other").await;
    settle(&world).await;
    world.spent();
    for name in &names(200) {
        look(&world, other, name).await;
        settle(&world).await;
    }
    let gets = world.spent().into_iter().find(|(op, _)| *op == Op::Get).map_or(0, |(_, n)| n);
    assert!(gets <= 24, "{gets} bodies");
}

#[tokio::test]
async fn what_was_fetched_ahead_is_dropped_when_the_order_ends() {
    let (world, _) = listed(300, by_listing).await;
    for name in &names(100) {
        cat(&world, name).await;
    }
    settle(&world).await;
    let fetched = world.log.count(Op::Get);
    assert!(fetched >= 132, "{fetched}");
    // Far away and in no order, each for itself.
    for n in (200..216).rev() {
        cat(&world, &names(300)[n]).await;
    }
    settle(&world).await;
    assert_eq!(world.log.count(Op::Get), fetched + 16, "no further");
    world.spent();
    cat(&world, "120").await;
    settle(&world).await;
    assert_eq!(world.spent(), [(Op::Get, 1)], "it had to be fetched again");
}

#[tokio::test]
async fn bodies_ahead_keep_to_the_memory_limit() {
    // A sixteenth of it is for small bodies, half of that for those of walks: four, with what each takes beside.
    let change = |config: &mut FsConfig| {
        by_listing(config);
        config.memory_limit = 16 * 2 * 4 * (body("000").len() as u64 + 1024);
    };
    let (world, _) = listed(50, change).await;
    let gate = Gate::new();
    world.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).key(|key| *key >= *"dir/010"));
    for name in &names(10) {
        cat(&world, name).await;
    }
    gate.arrived(4).await;
    settle(&world).await;
    assert_eq!(world.log.count(Op::Get), 10 + 4);
    gate.open();
    for name in &names(50)[10..] {
        cat(&world, name).await;
    }
    settle(&world).await;
    assert_eq!(world.spent(), [(Op::Get, 50)]);
}

#[tokio::test]
async fn a_listing_out_of_date_is_renewed_a_page_at_a_time() {
    for attributes in [AttributeSource::Full, AttributeSource::Listing] {
        let ttl = Duration::from_secs(1);
        let change = |config: &mut FsConfig| {
            (config.live.metadata_ttl, config.attributes) = (Ttl::For(ttl), attributes);
        };
        let (world, _) = listed(300, change).await;
        for name in &names(20) {
            cat(&world, name).await;
        }
        settle(&world).await;
        world.spent();
        // All of it is out of date then, also what came ahead and was not opened. To look would renew it.
        tokio::time::sleep(ttl).await;
        for name in &names(300)[20..] {
            cat(&world, name).await;
        }
        let spent = world.spent();
        let count = |op| spent.iter().find(|(o, _)| *o == op).map_or(0, |(_, n)| *n);
        // Not one each, as cold names cost. On a busy machine the new listing goes out of date as well.
        assert!(count(Op::List) <= 70 && count(Op::Head) <= 70, "{spent:?}");
        assert!((280..560).contains(&count(Op::Get)), "{spent:?}");
    }
}

#[tokio::test]
async fn a_name_deleted_by_another_client_is_absent_though_it_was_listed() {
    let (world, dir) = listed(20, remembering).await;
    world.bucket.delete(DeleteRequest::latest(world::k("dir/007"))).await.unwrap();
    for name in &names(7) {
        look(&world, dir, name).await;
    }
    let answer = world.fs.lookup(dir, "007").await.unwrap();
    assert!(matches!(answer, Lookup::Absent { .. }), "{answer:?}");
}

#[tokio::test]
async fn what_is_written_here_while_the_old_bytes_are_on_their_way_is_what_is_read() {
    for change in [remembering, by_listing] {
        let (world, _) = listed(20, change).await;
        let gate = Gate::new();
        let held = Fault::new(FaultAction::HoldAfter(gate.clone())).on(Op::Get).key(|key| key == "dir/004");
        world.faults.add(held.times(1));
        for name in &names(3) {
            cat(&world, name).await;
        }
        gate.arrived(1).await;
        // Reached by another way than its name, so that nobody waits for what is on its way.
        world.fs.unlink(world.ino("dir").await, "004").await.unwrap();
        world.create("dir", "004", b"new").await.unwrap();
        gate.open();
        settle(&world).await;
        assert_eq!(world.cat("dir/004").await.unwrap(), b"new");
        assert_eq!(world.stored("dir/004").await.unwrap(), b"new");
        cat(&world, "005").await;
    }
}

#[tokio::test]
async fn a_body_that_came_ahead_is_gone_with_a_write() {
    for change in [remembering, by_listing] {
        let (world, _) = listed(20, change).await;
        for name in &names(3) {
            cat(&world, name).await;
        }
        settle(&world).await;
        let handle = world.open("dir/004", WRITE).await;
        world.fs.write(handle, 0, b"BODY").unwrap();
        world.close(handle).await.unwrap();
        let mut expected = body("004");
        expected[..4].copy_from_slice(b"BODY");
        assert!(world.cat("dir/004").await.unwrap() == expected);
    }
}

#[tokio::test]
async fn old_bytes_are_served_for_as_long_as_names_are_believed_and_no_longer() {
    for attributes in [AttributeSource::Full, AttributeSource::Listing] {
        let ttl = Duration::from_millis(200);
        let change = |config: &mut FsConfig| {
            (config.live.metadata_ttl, config.attributes) = (Ttl::For(ttl), attributes);
        };
        let (world, _) = listed(20, change).await;
        for name in &names(3) {
            cat(&world, name).await;
        }
        settle(&world).await;
        // An inode that is known by number, as a kernel knows it.
        let known = world.ino("dir/004").await;
        world.put("dir/004", "new").await;
        world.put("dir/005", "new").await;
        tokio::time::sleep(ttl).await;
        let error = world.fs.open_file(known, READ).await.unwrap_err();
        assert_eq!(error.kind(), FsErrorKind::Stale);
        assert_eq!(world.cat("dir/004").await.unwrap(), b"new");
        assert_eq!(world.cat("dir/005").await.unwrap(), b"new");
    }
}

#[tokio::test]
async fn a_version_replaced_before_it_was_fetched_ahead_is_not_served() {
    let (world, _) = listed(20, by_listing).await;
    let gate = Gate::new();
    world.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).key(|key| key == "dir/004"));
    for name in &names(3) {
        cat(&world, name).await;
    }
    gate.arrived(1).await;
    world.put("dir/004", "new").await;
    gate.open();
    settle(&world).await;
    let known = world.ino("dir/004").await;
    let error = world.fs.open_file(known, READ).await.unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::Stale);
    assert_eq!(world.cat("dir/004").await.unwrap(), b"new");
}

#[tokio::test]
async fn a_neighbour_that_hangs_holds_up_nobody() {
    for change in [remembering, by_listing] {
        let (world, dir) = listed(200, change).await;
        world.faults.add(Fault::new(FaultAction::Hang).key(|key| key == "dir/020"));
        for name in names(200).iter().filter(|n| *n != "020") {
            cat(&world, name).await;
        }
        assert_eq!(world.faults.strikes(), 1, "it was asked for, and nobody waited");
        world.faults.clear();
        // Given up by now: who wants it asks anew.
        look(&world, dir, "020").await;
        cat(&world, "020").await;
    }
}

#[tokio::test]
async fn a_neighbour_that_fails_fails_nobody_else() {
    for change in [remembering, by_listing] {
        let (world, _) = listed(100, change).await;
        let refused = FaultAction::FailBefore(ErrorKind::Forbidden);
        world.faults.add(Fault::new(refused).key(|key| key == "dir/020"));
        for name in names(100).iter().filter(|n| *n != "020") {
            cat(&world, name).await;
        }
        world.faults.clear();
        cat(&world, "020").await;
        settle(&world).await;
        assert_eq!(world.spent(), [(Op::Get, 101)]);
    }
}

#[tokio::test]
async fn a_drain_waits_for_nothing_that_was_asked_for_ahead() {
    let (world, _) = listed(20, remembering).await;
    world.faults.add(Fault::new(FaultAction::Hang).key(|key| *key >= *"dir/003"));
    for name in &names(3) {
        cat(&world, name).await;
    }
    until("names on their way", || world.faults.strikes() > 0).await;
    let drained = tokio::time::timeout(Duration::from_mins(1), world.fs.drain(FOR_EVER)).await;
    assert!(drained.unwrap().kept.is_empty());
}

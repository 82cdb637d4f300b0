//! A filesystem's clients on the queue, with seeded time, faults and scheduling: files are written, renamed in whole
//! directories and removed while their uploads run, fail and are tried again.
//!
//! What must hold is F3 of the field: an asynchronous persist never brings back a name that was renamed or removed.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod runtime;
mod world;

use std::sync::Arc;
use std::time::Duration;

use runtime::Simulation;
use staithe_persist::{Answer, Config, Generation, Order, Overlap, Priority, Queue, State};
use world::World;

const FILES: u64 = 8;
const CLIENTS: u64 = 4;
const STEPS: u32 = 25;

type Clients = Arc<Queue<u64>>;

async fn write(world: &World, queue: &Queue<u64>, file: u64) {
    let order = Order {
        priority: if world.dice(4) == 0 { Priority::Waited } else { Priority::Background },
        bytes: u64::from(world.dice(100)),
        overlap: if world.dice(3) == 0 { Overlap::LetsFinish } else { Overlap::Outdates },
        after: Vec::new(),
        not_before: None,
    };
    let permit = queue.reserve(order.bytes).await.expect("the queue is not closed");
    let Some(generation) = world.change(file) else { return };
    let ticket = queue.enqueue_with(permit, file, generation, order).expect("the room is reserved");
    if world.dice(3) == 0 {
        world.note(format!("file {file} was waited for: {:?}", ticket.outcome().await));
    }
}

/// Moves every file of a directory, stored or not: nothing is written under the old name afterwards.
async fn rename(world: &World, queue: &Queue<u64>) {
    let _one_at_a_time = world.renames.lock().await;
    let (from, to) = (world.dice(3), world.dice(3));
    let names = world.names();
    let inside = move |file: &u64| names.get(file).is_some_and(|(dir, _)| *dir == from);
    let mut hold = queue.hold_where(inside.clone());
    hold.quiet().await;
    let moved: Vec<u64> = (0..FILES).filter(inside).collect();
    let retargeted: Vec<_> =
        moved.iter().filter_map(|file| Some((*file, world.rename(*file, to)?))).collect();
    let found = queue.retarget_all(retargeted.iter().copied());
    for (file, generation) in retargeted {
        world.outdate(file, generation);
    }
    world.note(format!("renamed {from} to {to}: {found:?}"));
    world.sleep(20).await;
    drop(hold);
}

async fn unlink(world: &World, queue: &Queue<u64>, file: u64) {
    let Some(generation) = world.unlink(file) else { return };
    let answer = if world.dice(2) == 0 {
        queue.cancel(&file).answer().await
    } else {
        queue.supersede(&file, generation).answer().await
    };
    world.note(format!("unlinked {file}: {answer:?}"));
    world.outdate(file, generation);
    if answer != Some(Answer::NotStarted) {
        world.sleep(5).await;
    }
    // Whatever was stored before, or too late.
    world.delete(file);
    world.forget(file);
}

async fn client(world: World, queue: Clients) {
    for _ in 0..STEPS {
        world.sleep(60).await;
        let file = u64::from(world.dice(FILES as u32));
        match world.dice(20) {
            0..=11 => write(&world, &queue, file).await,
            12..=13 => rename(&world, &queue).await,
            14..=15 => unlink(&world, &queue, file).await,
            16 => {
                let failures = queue.barrier().await.expect("the queue lives");
                world.note(format!("a barrier of {} failures", failures.len()));
            }
            17 => drop(queue.retry_all()),
            18 => world.note(format!("{:?}", queue.stats())),
            _ => {
                if let Some(outcome) = queue.wait(&file, Generation(u64::MAX)) {
                    world.note(format!("fsync of {file}: {:?}", outcome.await));
                }
            }
        }
    }
}

/// One run; its trace.
fn run(seed: u64) -> Vec<String> {
    let simulation = Simulation::new(seed);
    let world = World::new(&simulation);
    let runner = world.clone();
    let mut config = Config { concurrency: 3, bytes_in_flight: 150, max_bytes: 2000, ..Config::default() };
    config.retry.seed = seed;
    config.retry.transient.retries = Some(6);
    let run = move |attempt| {
        let world = runner.clone();
        async move { world.persist(attempt).await }
    };
    let queue = Arc::new(Queue::new(config, Arc::new(run), simulation.clone()));
    for _ in 0..CLIENTS {
        simulation.start(client(world.clone(), Arc::clone(&queue)));
    }
    simulation.run();
    assert_eq!(simulation.clients_left(), 0, "a client waits for ever");

    let deadline = simulation.time() + Duration::from_hours(10);
    let draining = Arc::clone(&queue);
    let left = simulation.block_on(async move { draining.drain(deadline).await });
    assert!(left.iter().all(|job| job.state == State::Failed), "{left:?}");
    world.check_end(&left.iter().map(|job| job.key).collect::<Vec<_>>());
    world.trace()
}

#[test]
fn nothing_is_lost_and_nothing_comes_back() {
    for seed in 0..400 {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1000..1020 {
        let (first, second) = (run(seed), run(seed));
        assert!(first.len() > 100, "{first:?}");
        assert_eq!(first, second);
    }
    assert_ne!(run(1), run(2));
}

/// A file that is appended to faster than it uploads is stored all the same, and others have their turn.
#[test]
fn a_file_that_changes_all_the_time_does_not_starve_itself_or_others() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed);
        let world = World::new(&simulation);
        let runner = world.clone();
        let run = move |attempt| {
            let world = runner.clone();
            async move { world.persist(attempt).await }
        };
        let config = Config { concurrency: 1, ..Config::default() };
        let queue = Arc::new(Queue::new(config, Arc::new(run), simulation.clone()));
        let (writing, writer) = (Arc::clone(&queue), world.clone());
        simulation.start(async move {
            let other = writer.change(1).expect("it is there");
            let other = writing.enqueue(1, other, Order::default()).expect("there is room");
            for _ in 0..1500 {
                let generation = writer.change(0).expect("it is there");
                drop(writing.enqueue(0, generation, Order::waited()));
                writer.sleep(10).await;
            }
            assert!(other.is_over(), "the other file waits");
            assert!(writer.stored(0).is_some(), "the busy file is never stored");
        });
        simulation.run();
        assert_eq!(simulation.clients_left(), 0);
    }
}

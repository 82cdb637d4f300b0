//! What the benches measure: the queue and its journal, and what one would use instead.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use staithe_persist::{
    Action, Attempt, Config, Core, DiskJournal, Durability, Entry, Failure, Generation, IntentId, Journal,
    Order, Queue,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};

/// Attempts at once, of every contender.
const CONCURRENCY: usize = 32;

/// Bytes of a journaled record.
const RECORD: usize = 128;

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("two threads")
}

fn config() -> Config {
    Config { concurrency: CONCURRENCY, ..Config::default() }
}

/// Enqueues and completes so many jobs on the state machine alone, a thousand at a time.
pub(crate) fn core_jobs(jobs: u64) -> Duration {
    let (mut core, mut actions) = (Core::new(config()), Vec::new());
    let start = Instant::now();
    let mut done = 0;
    for batch in 0..jobs.div_ceil(1000) {
        for key in batch * 1000..jobs.min((batch + 1) * 1000) {
            core.enqueue(start, key, Generation(1), Order::default()).expect("there is room");
        }
        loop {
            core.take_actions(&mut actions);
            if actions.is_empty() {
                break;
            }
            for action in std::mem::take(&mut actions) {
                if let Action::Start { attempt, .. } = action {
                    core.begin_commit(attempt);
                    core.commit_over(start, attempt);
                    core.finished(start, attempt, Ok(()));
                    done += 1;
                }
            }
        }
    }
    assert_eq!(done, jobs);
    start.elapsed()
}

/// The same on the queue, with a task for every attempt, up to the barrier.
pub(crate) fn queue_jobs(runtime: &Runtime, jobs: u64) -> Duration {
    let run = |attempt: Attempt<u64>| async move {
        attempt.begin_commit().await.map(drop).map_err(Failure::permanent)
    };
    let queue = Queue::new(config(), Arc::new(run), runtime.handle().clone());
    runtime.block_on(async move {
        tokio::spawn(async move {
            let start = Instant::now();
            for key in 0..jobs {
                drop(queue.enqueue(key, Generation(1), Order::default()).expect("there is room"));
                if key % 256 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            assert!(queue.barrier().await.expect("the queue lives").is_empty());
            start.elapsed()
        })
        .await
        .expect("it does not panic")
    })
}

/// What one would write without it: a map of what is wanted, a channel, a semaphore, a task a job. It coalesces what
/// has not started, and bounds concurrency; it cannot cancel, order, retry, hold or tell.
pub(crate) fn channel_jobs(runtime: &Runtime, jobs: u64) -> Duration {
    runtime.block_on(async move {
        let wanted = Arc::new(Mutex::new(HashMap::new()));
        let (sender, mut receiver) = mpsc::unbounded_channel::<u64>();
        let (done, mut all_done) = mpsc::unbounded_channel::<()>();
        let map = Arc::clone(&wanted);
        let room = Arc::new(Semaphore::new(CONCURRENCY));
        let dispatcher = tokio::spawn(async move {
            while let Some(key) = receiver.recv().await {
                let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
                let (map, done) = (Arc::clone(&map), done.clone());
                tokio::spawn(async move {
                    let generation: Option<u64> = map.lock().expect("not poisoned").remove(&key);
                    assert!(generation.is_some());
                    drop((permit, done));
                });
            }
        });
        let start = Instant::now();
        let enqueued = tokio::spawn(async move {
            for key in 0..jobs {
                let before = wanted.lock().expect("not poisoned").insert(key, 1);
                if before.is_none() {
                    sender.send(key).expect("the dispatcher lives");
                }
                if key % 256 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        enqueued.await.expect("it does not panic");
        dispatcher.await.expect("it does not panic");
        assert!(all_done.recv().await.is_none());
        start.elapsed()
    })
}

/// A queue of so many jobs, of which all but 32 wait; how long a cancel of all takes, to its answers.
pub(crate) fn cancel_subtree(jobs: u64, running: bool) -> Duration {
    let mut core = Core::new(Config { concurrency: if running { CONCURRENCY } else { 1 }, ..config() });
    let now = Instant::now();
    for key in 0..jobs * 2 {
        core.enqueue(now, key, Generation(1), Order::default()).expect("there is room");
    }
    let mut actions = Vec::new();
    core.take_actions(&mut actions);
    let attempts: Vec<_> = actions
        .drain(..)
        .filter_map(|action| if let Action::Start { attempt, .. } = action { Some(attempt) } else { None })
        .collect();
    let start = Instant::now();
    core.cancel_where(now, |key| key % 2 == 0);
    for attempt in attempts {
        core.finished(now, attempt, Err(Failure::transient("stopped")));
    }
    core.take_actions(&mut actions);
    let elapsed = start.elapsed();
    let answered = |action: &Action<u64>| matches!(action, Action::Cancelled { answers, .. } if answers.len() as u64 == jobs);
    assert!(actions.iter().any(answered));
    elapsed
}

/// The least that a cancel by predicate can be: a map that keeps what does not match.
pub(crate) fn retain_subtree(jobs: u64) -> Duration {
    let mut map: HashMap<u64, Arc<u64>> = (0..jobs * 2).map(|key| (key, Arc::new(key))).collect();
    let start = Instant::now();
    map.retain(|key, _| key % 2 == 1);
    let elapsed = start.elapsed();
    assert_eq!(map.len() as u64, jobs);
    elapsed
}

/// So many records from each of so many threads.
pub(crate) fn on_threads(threads: u64, records: u64, write: impl Fn(u64) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let write = &write;
            scope.spawn(move || (0..records).for_each(|n| write(thread * records + n)));
        }
    });
    start.elapsed()
}

/// Records of the journal.
pub(crate) fn journal(dir: &Path, threads: u64, records: u64, durability: Durability) -> Duration {
    let journal = DiskJournal::open(dir).expect("a new directory");
    let record = Bytes::from(vec![7; RECORD]);
    on_threads(threads, records, |_| {
        let id = journal.reserve();
        journal.write(&[Entry::Record(id, record.clone())], durability).expect("there is space");
    })
}

/// The whole promise: an intent is recorded and synced, its job is enqueued, and completes it when it has committed.
pub(crate) fn journaled_enqueue(dir: &Path, runtime: &Runtime, threads: u64, records: u64) -> Duration {
    let journal = Arc::new(DiskJournal::open(dir).expect("a new directory"));
    let completing = Arc::clone(&journal);
    let run = move |attempt: Attempt<IntentId>| {
        let journal = Arc::clone(&completing);
        async move {
            let committing = attempt.begin_commit().await.map_err(Failure::permanent)?;
            let done = [Entry::Complete(*attempt.key())];
            let written = journal.write(&done, Durability::Buffered).map_err(Failure::permanent);
            drop(committing);
            written
        }
    };
    let queue = Queue::new(config(), Arc::new(run), runtime.handle().clone());
    let record = Bytes::from(vec![7; RECORD]);
    let elapsed = on_threads(threads, records, |_| {
        let id = journal.reserve();
        journal.write(&[Entry::Record(id, record.clone())], Durability::Synced).expect("there is space");
        drop(queue.enqueue(id, Generation(1), Order::default()).expect("there is room"));
    });
    assert!(runtime.block_on(queue.barrier()).expect("the queue lives").is_empty());
    assert!(journal.pending().expect("it can be read").is_empty());
    elapsed
}

/// The same records in a keyspace of the database that the journal is made of.
pub(crate) fn raw(dir: &Path, threads: u64, records: u64, mode: PersistMode) -> Duration {
    let database = Database::builder(dir).worker_threads(1).open().expect("a new directory");
    let keyspace = database.keyspace("records", KeyspaceCreateOptions::default).expect("a new keyspace");
    let record = vec![7; RECORD];
    on_threads(threads, records, |n| {
        let mut batch = database.batch().durability(Some(mode));
        batch.insert(&keyspace, n.to_be_bytes(), record.as_slice());
        batch.commit().expect("there is space");
    })
}

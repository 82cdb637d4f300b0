//! The queue on tokio, end to end.
#![cfg(all(feature = "tokio", not(loom)))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use staithe_persist::{
    After, Answer, Attempt, Config, Failure, Generation, Order, Outcome, Queue, Refused, Retargeted, State,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

const G1: Generation = Generation(1);
const G2: Generation = Generation(2);

fn config() -> Config {
    Config { concurrency: 2, ..Config::default() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

/// Commits as soon as it has a permit of `go`; notes what it has committed in `log`.
struct Store {
    go: Semaphore,
    started: Notify,
    log: std::sync::Mutex<Vec<(u64, u64)>>,
    runs: AtomicU32,
}

impl Store {
    fn new(permits: usize) -> Arc<Self> {
        let (started, runs) = (Notify::new(), AtomicU32::new(0));
        Arc::new(Self { go: Semaphore::new(permits), started, log: std::sync::Mutex::default(), runs })
    }

    fn queue(self: &Arc<Self>) -> Queue<u64> {
        let store = Arc::clone(self);
        let run = move |attempt: Attempt<u64>| {
            let store = Arc::clone(&store);
            async move { store.run(attempt).await }
        };
        Queue::new(config(), Arc::new(run), Handle::current())
    }

    async fn run(&self, attempt: Attempt<u64>) -> Result<(), Failure> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.started.notify_one();
        tokio::select! {
            permit = self.go.acquire() => permit.map_err(Failure::permanent)?.forget(),
            () = attempt.stopped() => return Err(Failure::transient("stopped")),
        }
        let _committing = attempt.begin_commit().await.map_err(Failure::permanent)?;
        self.log.lock().unwrap().push((*attempt.key(), attempt.generation().0));
        Ok(())
    }

    fn log(&self) -> Vec<(u64, u64)> {
        self.log.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn ten_overwrites_are_one_upload() {
    let store = Store::new(0);
    let queue = store.queue();
    let hold = queue.hold([7]);
    let tickets: Vec<_> =
        (1..=10).map(|g| queue.enqueue(7, Generation(g), Order::default()).unwrap()).collect();
    drop(hold);
    store.go.add_permits(10);
    for ticket in tickets {
        assert_eq!(ticket.outcome().await, Outcome::Done(Generation(10)));
    }
    assert_eq!(store.log(), [(7, 10)]);
    assert_eq!(queue.stats().coalesced, 9);
}

#[tokio::test]
async fn create_then_delete_is_no_request_at_all() {
    let store = Store::new(1);
    let queue = store.queue();
    let hold = queue.hold([7]);
    let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
    assert_eq!(queue.cancel(&7).answer().await, Some(Answer::NotStarted));
    drop(hold);
    assert_eq!(ticket.outcome().await, Outcome::Cancelled);
    assert_eq!((store.log(), store.runs.load(Ordering::SeqCst)), (vec![], 0));
}

#[tokio::test]
async fn a_running_attempt_is_asked_to_stop_and_waited_for() {
    let store = Store::new(0);
    let queue = store.queue();
    let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
    store.started.notified().await;
    assert_eq!(queue.cancel(&7).answer().await, Some(Answer::Aborted));
    assert_eq!(ticket.outcome().await, Outcome::Cancelled);
    assert!(queue.jobs().is_empty() && store.log().is_empty());
}

#[tokio::test]
async fn what_is_committing_is_waited_for_and_answered_too_late() {
    let (at_the_door, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (arrived, leave) = (Arc::clone(&at_the_door), Arc::clone(&go));
    let run = move |attempt: Attempt<u64>| {
        let (arrived, leave) = (Arc::clone(&arrived), Arc::clone(&leave));
        async move {
            let committing = attempt.begin_commit().await.map_err(Failure::permanent)?;
            arrived.notify_one();
            // The guard outlives the future: the attempt is not over before it.
            tokio::spawn(async move {
                leave.notified().await;
                drop(committing);
            });
            Ok(())
        }
    };
    let queue = Queue::new(config(), Arc::new(run), Handle::current());
    let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
    at_the_door.notified().await;
    let mut hold = queue.hold([7]);
    let cancelling = queue.cancel(&7);
    assert!(futures::poll!(Box::pin(hold.quiet())).is_pending());
    assert_eq!(queue.job(&7).unwrap().state, State::Committing);
    go.notify_one();
    assert_eq!(cancelling.answer().await, Some(Answer::TooLate(Outcome::Done(G1))));
    hold.quiet().await;
    assert_eq!(ticket.outcome().await, Outcome::Done(G1));
}

#[tokio::test]
async fn a_rename_holds_and_retargets_and_the_old_name_is_never_written() {
    let store = Store::new(0);
    let queue = store.queue();
    let tickets = [1, 2].map(|key| queue.enqueue(key, G1, Order::default()).unwrap());
    store.started.notified().await;
    let mut hold = queue.hold_where(|key| *key < 10);
    hold.quiet().await;
    store.go.add_permits(100);
    let found = queue.retarget_all([(1, G2), (2, G2), (3, G2)]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|(_, found)| matches!(found, Retargeted::Outdated)), "{found:?}");
    drop(hold);
    for ticket in tickets {
        assert_eq!(ticket.outcome().await, Outcome::Done(G2));
    }
    let mut log = store.log();
    log.sort_unstable();
    assert_eq!(log, [(1, 2), (2, 2)]);
}

#[tokio::test]
async fn a_panic_is_a_permanent_failure_that_stays_until_it_is_acknowledged() {
    let run = |_: Attempt<u64>| async { panic!("out of {}", "luck") };
    let queue: Queue<u64> = Queue::new(config(), Arc::new(run), Handle::current());
    let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
    let child = queue.enqueue(8, G1, Order::default().after(After::done(7))).unwrap();
    let Outcome::Failed(failure) = ticket.outcome().await else { panic!("it did not fail") };
    assert_eq!(failure.to_string(), "the attempt panicked: out of luck");
    assert!(matches!(child.outcome().await, Outcome::Failed(_)));
    assert_eq!(queue.barrier().await.unwrap().len(), 2);
    assert_eq!(queue.acknowledge(&7), Some(failure));
    assert_eq!(queue.failures().len(), 1);
}

#[tokio::test]
async fn what_failed_is_tried_again() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let run = move |attempt: Attempt<u64>| {
        let early = counted.fetch_add(1, Ordering::SeqCst) < 5;
        async move {
            if early {
                return Err(Failure::transient("a bad connection"));
            }
            attempt.begin_commit().await.map(drop).map_err(Failure::permanent)
        }
    };
    let mut config = config();
    config.retry.transient.cap = Duration::from_millis(2);
    let queue = Queue::new(config, Arc::new(run), Handle::current());
    let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
    assert_eq!(ticket.outcome().await, Outcome::Done(G1));
    assert_eq!(runs.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn room_is_a_guard() {
    let store = Store::new(0);
    let run = Arc::clone(&store);
    let run = move |attempt: Attempt<u64>| {
        let store = Arc::clone(&run);
        async move { store.run(attempt).await }
    };
    let config = Config { max_jobs: 2, ..config() };
    let queue = Queue::new(config, Arc::new(run), Handle::current());
    let first = queue.reserve(10).await.unwrap();
    let second = queue.reserve(10).await.unwrap();
    assert_eq!(queue.enqueue(1, G1, Order::default()).unwrap_err(), Refused::Full);
    let mut third = Box::pin(queue.reserve(10));
    assert!(futures::poll!(&mut third).is_pending());
    drop(first);
    drop(queue.enqueue_with(second, 2, G1, Order::default().bytes(7)).unwrap());
    let third = third.await.unwrap();
    assert_eq!(queue.stats().bytes, 17);
    drop(third);
    assert_eq!(queue.stats().bytes, 7);
}

#[tokio::test]
async fn a_drain_reports_what_remains_and_takes_nothing_more() {
    let store = Store::new(1);
    let queue = store.queue();
    let tickets: Vec<_> = (1..=5).map(|key| queue.enqueue(key, G1, Order::default()).unwrap()).collect();
    let (first, _, rest) = futures::future::select_all(tickets).await;
    assert_eq!(first, Outcome::Done(G1));
    let left = queue.drain(Instant::now()).await;
    drop(rest);
    assert_eq!((left.len(), store.log().len()), (4, 1));
    assert_eq!(queue.enqueue(9, G1, Order::default()).unwrap_err(), Refused::Closed);
}

#[tokio::test]
async fn a_drain_ends_when_nothing_is_left() {
    let store = Store::new(100);
    let queue = store.queue();
    for key in 1..=50 {
        drop(queue.enqueue(key, G1, Order::default()).unwrap());
    }
    assert_eq!(queue.drain(soon()).await, []);
    assert_eq!(store.log().len(), 50);
}

#[tokio::test]
async fn a_dropped_queue_says_so_to_those_who_wait() {
    let store = Store::new(0);
    let queue = store.queue();
    let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
    let barrier = queue.barrier();
    drop(queue);
    assert_eq!(ticket.outcome().await, Outcome::Abandoned);
    assert_eq!(barrier.await, Err(Refused::Closed));
}

#[test]
fn a_runtime_that_ends_first_ends_the_queue() {
    let store = Store::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let queue = {
        let _entered = runtime.enter();
        store.queue()
    };
    for key in 0..1000 {
        drop(queue.enqueue(key, G1, Order::default()).unwrap());
    }
    runtime.shutdown_timeout(Duration::from_mins(1));
    assert_eq!(queue.enqueue(5000, G1, Order::default()).unwrap_err(), Refused::Closed);
}

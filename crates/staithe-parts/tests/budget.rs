//! The budget, alone and under queues that compete.

use bytes::Bytes;
use futures::FutureExt;
use staithe_parts::{Budget, Fetch, PartQueue, PlannerConfig, Pressure, Priority};
use std::collections::VecDeque;
use std::sync::Arc;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn permits_return_their_bytes_when_dropped() {
    let budget = Budget::new(100);
    let account = budget.account();
    let mut whole = account.try_acquire(80, Priority::Demand).unwrap();
    let half = whole.split(30);
    assert_eq!((whole.bytes(), half.bytes(), budget.pressure()), (50, 30, Pressure::Moderate));
    assert!(account.try_acquire(30, Priority::Demand).is_none());
    drop(whole);
    assert_eq!(budget.stats().used, 30);
    let over = account.try_acquire(500, Priority::Progress).unwrap();
    assert_eq!((budget.stats().used, budget.stats().overdrafts, budget.pressure()), (530, 1, Pressure::High));
    let other = budget.account();
    assert!(other.try_acquire(1, Priority::Progress).unwrap().merge(over).is_err());
    drop((half, account, other));
    assert_eq!((budget.stats().used, budget.stats().peak, budget.stats().accounts), (0, 531, 0));
}

#[test]
fn read_ahead_is_held_to_a_fair_share() {
    let budget = Budget::new(100);
    let (one, two) = (budget.account(), budget.account());
    let _held = two.try_acquire(10, Priority::ReadAhead).unwrap();
    // Nobody else holds anything: all of it for the one, half for a newcomer.
    assert_eq!((two.allowance(), one.allowance()), (100, 50));
    assert!(one.try_acquire(60, Priority::ReadAhead).is_none());
    let _half = one.try_acquire(50, Priority::ReadAhead).unwrap();
    assert!(one.try_acquire(1, Priority::ReadAhead).is_none());
    assert!(one.try_acquire(40, Priority::Demand).is_some());
}

/// Sixteen sequential readers on a budget for two: all finish, evenly, within the bound.
#[test]
fn many_readers_share_a_small_budget_without_starving() {
    const READERS: usize = 16;
    let size = 16 * MIB;
    let budget = Budget::new(8 * MIB);
    let queues: Vec<_> =
        (0..READERS).map(|_| PartQueue::<u8, ()>::new(size, 1, PlannerConfig::default(), &budget)).collect();
    let mut progress = [0u64; READERS];
    let mut flights: VecDeque<Fetch<u8, ()>> = VecDeque::new();
    let mut fetched = 0;
    while progress.iter().any(|at| *at < size) {
        let before = progress;
        for (queue, at) in queues.iter().zip(&mut progress) {
            let mut read = queue.read(*at, 128 * KIB);
            let mut polled = (&mut read).now_or_never();
            flights.extend(queue.take_fetches());
            while polled.is_none() {
                // The oldest flight lands; it may be anybody's.
                let fetch = flights.pop_front().expect("a read waits, so something is in flight");
                fetched += fetch.len();
                let body = Bytes::from(vec![0; fetch.len() as usize]);
                if fetch.push(fetch.range().start, &1, body).is_ok() {
                    fetch.done();
                }
                polled = (&mut read).now_or_never();
                flights.extend(queue.take_fetches());
            }
            *at += polled.unwrap().unwrap().len() as u64;
        }
        assert!(progress.iter().zip(before).all(|(now, was)| *now > was || *now == size));
    }
    let stats = budget.stats();
    assert!(stats.peak <= 8 * MIB + READERS as u64 * 256 * KIB, "{stats:?}");
    assert!(fetched <= READERS as u64 * size * 11 / 10, "{} MiB fetched", fetched / MIB);
    drop((flights, queues));
    assert_eq!(budget.stats().used, 0);
}

/// A read that is not the oldest waits for memory, and is told when there is some.
#[test]
fn a_second_read_waits_for_memory_and_then_goes_on() {
    let budget = Budget::new(1000);
    let hog = budget.account().try_acquire(900, Priority::Demand).unwrap();
    let queue = PartQueue::<u8, ()>::new(10_000, 1, PlannerConfig::default(), &budget);
    let woken = Arc::new(Flag::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let mut context = std::task::Context::from_waker(&waker);
    let (mut first, mut second) = (queue.read(0, 500), queue.read(5000, 500));
    assert!(first.poll_unpin(&mut context).is_pending());
    assert!(second.poll_unpin(&mut context).is_pending());
    let granted: Vec<_> = queue.take_fetches();
    assert!(granted.iter().map(Fetch::range).eq(std::iter::once(0..500)));
    assert_eq!(budget.stats().waiting, 1);
    drop(hog);
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
    assert!(second.poll_unpin(&mut context).is_pending());
    assert_eq!(queue.take_fetches()[0].range(), 5000..5500);
    assert_eq!(budget.stats().waiting, 0);
}

#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

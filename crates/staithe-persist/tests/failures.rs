//! What a listing says of failures that are over.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use staithe_persist::{Action, AttemptId, Config, Core, Failure, Gate, Generation, Order, State};

/// The attempt that the core has just started.
fn started(core: &mut Core<u64>) -> AttemptId {
    let mut actions = Vec::new();
    core.take_actions(&mut actions);
    let start = actions.into_iter().find_map(|action| match action {
        Action::Start { attempt, .. } => Some(attempt),
        _ => None,
    });
    start.unwrap()
}

#[test]
fn a_job_whose_later_try_was_committed_is_not_shown_as_failed() {
    let (mut core, now) = (Core::new(Config::default()), Instant::now());
    core.enqueue(now, 7, Generation(1), Order::default()).unwrap();
    let first = started(&mut core);
    core.finished(now, first, Err(Failure::transient("away")));
    assert!(core.job(&7, now).unwrap().failure.is_some());
    let later = now + Duration::from_mins(1);
    core.tick(later);
    let second = started(&mut core);
    // It changes while it is stored, and is to wait for what else comes.
    let again = Order::default().lets_finish().not_before(later + Duration::from_mins(1));
    core.enqueue(later, 7, Generation(2), again).unwrap();
    assert_eq!(core.begin_commit(second), Gate::Open);
    core.commit_over(later, second);
    core.finished(later, second, Ok(()));
    let job = core.job(&7, later).unwrap();
    assert_eq!((job.state, job.committed, job.failure), (State::RetryAt, Some(Generation(1)), None));
}

//! What runs on tokio: the driver, supervised tasks, the steps of a shutdown. Time stands still and is passed by hand.

#![cfg(all(feature = "tokio", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use staithe_lifecycle::{
    Budget, Closed, Config, Gate, Outcome, Phase, Prober, StepEnd, Steps, Supervisor, TokioClock, Watcher,
    What,
};
use tokio::runtime::Handle;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

type Answer = BoxFuture<'static, Outcome<&'static str>>;

/// Answers by the script, the last line for ever, and notes when it was asked.
struct Script {
    answers: Mutex<Vec<fn() -> Answer>>,
    asked: Mutex<Vec<(Instant, bool)>>,
}

impl Script {
    fn new(answers: &[fn() -> Answer]) -> Arc<Self> {
        let answers = answers.iter().rev().copied().collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: Mutex::default() })
    }
}

impl Prober<&'static str> for Script {
    fn probe(&self, fresh: bool) -> BoxFuture<'_, Outcome<&'static str>> {
        self.asked.lock().unwrap().push((Instant::now(), fresh));
        let mut answers = self.answers.lock().unwrap();
        let last = answers.len() == 1;
        let answer = if last { answers[0] } else { answers.pop().unwrap() };
        drop(answers);
        answer()
    }
}

fn gone() -> Answer {
    async { Outcome::permanent("gone", "404") }.boxed()
}

fn fine() -> Answer {
    async { Outcome::Ok }.boxed()
}

fn never() -> Answer {
    pending().boxed()
}

fn panics() -> Answer {
    panic!("on purpose")
}

fn watcher() -> Watcher<&'static str> {
    let watcher = Watcher::with_clock(Config::default(), TokioClock);
    watcher.ready();
    watcher
}

fn tell(watcher: &Watcher<&'static str>, outcome: Outcome<&'static str>) {
    watcher.report(Instant::now().into_std(), outcome);
}

#[tokio::test(start_paused = true)]
async fn a_driven_watcher_condemns_by_its_prober() {
    let (watcher, script) = (watcher(), Script::new(&[gone, never, panics, gone]));
    let running = tokio::spawn(watcher.run(Arc::clone(&script)));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    tell(&watcher, Outcome::permanent("gone", "404"));
    assert_eq!(watcher.condemned().await, Some("gone"));
    assert_eq!(watcher.phase(), Phase::Condemned);
    let asked = script.asked.lock().unwrap().clone();
    // One without an answer, one that panics, five that agree.
    assert_eq!(asked.len(), 7);
    assert!(asked.iter().all(|(_, fresh)| *fresh));
    assert!(asked[6].0 - begun >= SECOND * 10);
    assert!(asked.windows(2).all(|two| two[1].0 - two[0].0 >= SECOND * 17 / 10), "{asked:?}");
    watcher.exited("unmounted");
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_driven_watcher_recovers_by_itself() {
    let (watcher, script) = (watcher(), Script::new(&[fine]));
    let running = tokio::spawn(watcher.run(Arc::clone(&script)));
    tokio::task::yield_now().await;
    for _ in 0..3 {
        tell(&watcher, Outcome::transient("reset"));
    }
    let begun = Instant::now();
    assert_eq!(watcher.phase(), Phase::Degraded);
    watcher.wait_for(|phase| phase == Phase::Healthy).await;
    assert!(begun.elapsed() >= SECOND * 5 && begun.elapsed() < SECOND * 6);
    assert!(script.asked.lock().unwrap().iter().all(|(_, fresh)| !fresh));
    watcher.exited("unmounted");
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_drives_last_drives() {
    let (watcher, first, second) = (watcher(), Script::new(&[gone]), Script::new(&[gone]));
    let old = tokio::spawn(watcher.run(Arc::clone(&first)));
    tokio::task::yield_now().await;
    let new = tokio::spawn(watcher.run(Arc::clone(&second)));
    old.await.unwrap();
    tell(&watcher, Outcome::permanent("gone", "404"));
    assert_eq!(watcher.condemned().await, Some("gone"));
    assert_eq!((first.asked.lock().unwrap().len(), second.asked.lock().unwrap().len()), (0, 5));
    watcher.exited("unmounted");
    new.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_left_in_time_or_says_who_is_inside() {
    let gate = Gate::new(&["read"]);
    let guard = gate.enter_owned(gate.label("read")).unwrap();
    gate.close();
    assert_eq!(gate.left_within(SECOND).await.unwrap_err().who, [("read", 1)]);
    let leaving = tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        drop(guard);
    });
    gate.left_within(SECOND * 2).await.unwrap();
    leaving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn steps_are_taken_in_order_whatever_becomes_of_them() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        async move { order.lock().unwrap().push(name) }
    };
    struct Dropped(Arc<AtomicU32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = Arc::new(AtomicU32::new(0));
    let (dropped, left) = (Dropped(Arc::clone(&drops)), Dropped(Arc::clone(&drops)));
    let (first, last, late) = (note("first"), note("last"), note("late"));
    let reports = Steps::new()
        .step("first", SECOND, first.map(Ok::<_, String>))
        .step("slow", SECOND, async move {
            let _dropped = dropped;
            pending::<Result<(), String>>().await
        })
        .step("panics", SECOND, async { if true { panic!("on purpose") } else { Ok::<(), String>(()) } })
        .step_detached("detached", SECOND * 2, async move {
            tokio::time::sleep(SECOND * 3).await;
            late.await;
            drop(left);
            Ok::<_, String>(())
        })
        .step_detached("fails", SECOND, async { Err("no") })
        .step_detached("panics too", SECOND, async {
            if true { panic!("{}", 7) } else { Ok::<(), String>(()) }
        })
        .step_blocking("blocks and fails", SECOND, || Err("disk"))
        .step_blocking("blocks and panics", SECOND, || if true { panic!("8") } else { Ok::<(), String>(()) })
        .step("last", SECOND, last.map(Ok::<_, String>))
        .run()
        .await;
    let ends: Vec<_> = reports.iter().map(|report| report.end.clone()).collect();
    assert_eq!(
        ends,
        [
            StepEnd::Done,
            StepEnd::Overrun,
            StepEnd::Panicked("on purpose".into()),
            StepEnd::Overrun,
            StepEnd::Failed("no".into()),
            StepEnd::Panicked("7".into()),
            StepEnd::Failed("disk".into()),
            StepEnd::Panicked("8".into()),
            StepEnd::Done
        ]
    );
    assert_eq!((reports[1].took, reports[3].took), (SECOND, SECOND * 2));
    assert_eq!((&*order.lock().unwrap(), drops.load(Ordering::SeqCst)), (&vec!["first", "last"], 1));
    // What is detached goes on.
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!((&*order.lock().unwrap(), drops.load(Ordering::SeqCst)), (&vec!["first", "last", "late"], 2));
}

fn supervisor(restarts: u32) -> Supervisor {
    Supervisor::new(Handle::current(), Budget { restarts, within: SECOND * 60 })
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_started_again_and_given_up_beyond_its_budget() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let supervisor = supervisor(2).on_incident(move |incident| {
        log.lock().unwrap().push(incident.what.clone());
        panic!("the callback, on purpose");
    });
    let runs = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&runs);
    let factory = move || {
        // The factory's own panic is the task's.
        assert!(counting.fetch_add(1, Ordering::SeqCst) != 0, "the factory");
        async { panic!("the task") }
    };
    supervisor.spawn("fragile", factory).unwrap();
    while !supervisor.running().is_empty() {
        tokio::time::sleep(SECOND / 100).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let panicked = |what: &str| What::Panicked(what.into());
    let all = [panicked("the factory"), panicked("the task"), panicked("the task"), What::GivenUp];
    assert_eq!(*told.lock().unwrap(), all);
    let incidents = supervisor.incidents();
    assert!(incidents.iter().all(|incident| &*incident.name == "fragile"));
    assert_eq!(incidents.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_of_a_while() {
    let supervisor = supervisor(2);
    let task = || async {
        tokio::time::sleep(SECOND * 40).await;
        panic!("once in a while");
    };
    supervisor.spawn("slow", task).unwrap();
    tokio::time::sleep(SECOND * 60 * 60).await;
    assert_eq!(supervisor.running().len(), 1, "{:?}", supervisor.incidents().last());
    assert_eq!(supervisor.incidents().len(), 64);
}

#[tokio::test(start_paused = true)]
async fn one_that_need_not_be_asked_is_dropped_where_it_waits_and_started_again_before() {
    let supervisor = supervisor(3);
    let runs = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&runs);
    let task = move || {
        let counts = Arc::clone(&counts);
        async move {
            assert!(counts.fetch_add(1, Ordering::SeqCst) > 0, "the first run fails");
            pending::<()>().await;
        }
    };
    supervisor.spawn_until_end("waits", task).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((runs.load(Ordering::SeqCst), supervisor.incidents().len()), (2, 1));
    assert!(supervisor.end(SECOND).await.is_empty());
    assert!(supervisor.spawn_until_end("late", pending::<()>).is_err());
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_those_that_stop_and_drops_the_others() {
    let supervisor = supervisor(2);
    let stopping = supervisor.stopping();
    assert!(!stopping.is_stopping());
    let polite = stopping.clone();
    supervisor
        .spawn("polite", move || {
            let stopping = polite.clone();
            async move {
                stopping.wait().await;
                tokio::time::sleep(SECOND).await;
            }
        })
        .unwrap();
    supervisor.spawn("over", || async {}).unwrap();
    supervisor.spawn("deaf", pending).unwrap();
    tokio::task::yield_now().await;
    let begun = Instant::now();
    assert_eq!(supervisor.end(SECOND * 3).await, ["deaf".into()]);
    assert_eq!(begun.elapsed(), SECOND * 3);
    assert_eq!(supervisor.spawn("late", pending), Err(Closed));
    while !supervisor.running().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(supervisor.end(SECOND).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_dropped_leaves_no_task() {
    let supervisor = supervisor(2);
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let task = move || {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
        }
    };
    supervisor.spawn("waits", task).unwrap();
    tokio::task::yield_now().await;
    drop(supervisor);
    while Arc::strong_count(&alive) > 1 {
        tokio::task::yield_now().await;
    }
}

//! A volume that is watched: it becomes slow, is suspected once by mistake, and is deleted.
//!
//! Run with `cargo run -p staithe-lifecycle --example lifecycle_basic`; it takes some seconds.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use staithe_lifecycle::{Budget, Config, Gate, Outcome, Phase, Prober, Steps, Supervisor, Watcher};
use tokio::runtime::Handle;
use tokio::time::sleep;

/// What may be said for good of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Gone,
}

const WORKS: u8 = 0;
const UNREACHABLE: u8 = 1;
const DELETED: u8 = 2;

/// The volume, as if behind a network.
struct Volume(AtomicU8);

impl Volume {
    fn ask(&self) -> Outcome<Verdict> {
        match self.0.load(Ordering::SeqCst) {
            WORKS => Outcome::Ok,
            UNREACHABLE => Outcome::transient("the connection was refused"),
            _ => Outcome::permanent(Verdict::Gone, "404: no such volume"),
        }
    }
}

impl Prober<Verdict> for Volume {
    fn probe(&self, fresh: bool) -> BoxFuture<'_, Outcome<Verdict>> {
        async move {
            println!("    a probe{}", if fresh { ", on a connection of its own" } else { "" });
            self.ask()
        }
        .boxed()
    }
}

/// A tenth of a second stands for one here.
fn config() -> Config {
    let second = Duration::from_millis(100);
    Config {
        window: second * 10,
        recovery: second * 5,
        first_probe: second,
        probe_every: second * 6,
        confirm_over: second * 10,
        ..Config::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let volume = Arc::new(Volume(AtomicU8::new(WORKS)));
    let watcher: Watcher<Verdict> = Watcher::new(config());
    let _log = watcher.on_change(|record| println!("  {}", record.moved));

    // What drives the watcher is a supervised task: should it panic, it is started again.
    let supervisor = Supervisor::new(Handle::current(), Budget::default());
    let (driven, probed) = (watcher.clone(), Arc::clone(&volume));
    supervisor.spawn("watcher", move || driven.run(Arc::clone(&probed)))?;

    let gate = Gate::new(&["read"]);
    let read = gate.label("read");
    let operation = || -> Result<(), staithe_lifecycle::Closed> {
        let _inside = gate.enter(read)?;
        watcher.report(Instant::now(), volume.ask());
        Ok(())
    };

    println!("it starts, and works");
    watcher.ready();
    operation()?;

    println!("it cannot be reached for a while, and nobody does anything after that");
    volume.0.store(UNREACHABLE, Ordering::SeqCst);
    for _ in 0..3 {
        operation()?;
    }
    volume.0.store(WORKS, Ordering::SeqCst);
    watcher.wait_for(|phase| phase == Phase::Healthy).await;

    println!("one server is wrong about it, once");
    watcher.report(Instant::now(), Outcome::permanent(Verdict::Gone, "404: no such volume"));
    sleep(Duration::from_millis(5)).await;
    operation()?;

    println!("it is deleted");
    volume.0.store(DELETED, Ordering::SeqCst);
    operation()?;
    let verdict = watcher.condemned().await;

    println!("{verdict:?}: shut down");
    let (draining, leaving) = (watcher.clone(), gate.clone());
    let reports = Steps::new()
        .step("drain", Duration::from_secs(1), async move {
            draining.drain("it is gone");
            leaving.close();
            leaving.left_within(Duration::from_millis(500)).await
        })
        .step("unmount", Duration::from_secs(1), async { Ok::<_, String>(()) })
        .run()
        .await;
    println!("  {:?}", reports.iter().map(|report| (&report.name, &report.end)).collect::<Vec<_>>());
    watcher.exited("unmounted");
    println!("  tasks left: {:?}", supervisor.end(Duration::from_secs(1)).await);
    Ok(())
}

//! Files that are written, overwritten, renamed and removed while their uploads run.
//!
//! Run with `cargo run -p staithe-persist --example persist_basic`.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use staithe_persist::{Attempt, Config, Failure, Generation, Order, Queue};
use tokio::runtime::Handle;

type Inode = u64;

/// The names that files have now. A job knows its inode, never a name.
type Names = Arc<Mutex<HashMap<Inode, String>>>;

async fn upload(names: Names, attempt: Attempt<Inode>) -> Result<(), Failure> {
    // The bytes go up; nobody can see them yet.
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
        () = attempt.stopped() => println!("  {attempt:?} stops, and removes its parts"),
    }
    let _committing = attempt.begin_commit().await.map_err(Failure::permanent)?;
    let name = names.lock().unwrap_or_else(PoisonError::into_inner).get(attempt.key()).cloned();
    println!("  inode {} of {:?} is stored as {name:?}", attempt.key(), attempt.generation());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let names: Names = Arc::new(Mutex::new(HashMap::from([(1, "a/one".into()), (2, "a/two".into())])));
    let seen = Arc::clone(&names);
    let run = move |attempt| upload(Arc::clone(&seen), attempt);
    let queue = Queue::new(Config { concurrency: 2, ..Config::default() }, Arc::new(run), Handle::current());

    // Ten overwrites are one upload: the first attempt is outdated at once.
    let mut last = None;
    for write in 1..=10 {
        last = Some(queue.enqueue(1, Generation(write), Order::default())?);
    }
    if let Some(ticket) = last {
        println!("ten writes: {:?}", ticket.outcome().await);
    }

    // The directory is renamed while a file in it goes up: it is never stored under the old name.
    let ticket = queue.enqueue(2, Generation(1), Order::waited())?;
    let mut hold = queue.hold([1, 2]);
    hold.quiet().await;
    for name in names.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
        *name = name.replacen("a/", "c/", 1);
    }
    println!("renamed: {:?}", queue.retarget_all([(1, Generation(11)), (2, Generation(2))]));
    drop(hold);
    println!("after the rename: {:?}", ticket.outcome().await);

    // Created and removed before it was committed: no effect at all.
    drop(queue.enqueue(3, Generation(1), Order::default())?);
    println!("removed: {:?}", queue.cancel(&3).answer().await);

    let left = queue.drain(Instant::now() + Duration::from_secs(5)).await;
    println!("{} jobs left; {:?}", left.len(), queue.stats());
    Ok(())
}

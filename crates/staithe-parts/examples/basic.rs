//! Reads an object through a part queue on tokio: a slow store, parallel ranges, and a change of version.
//!
//! Run with `cargo run -p staithe-parts --example parts_basic`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use bytes::Bytes;
use staithe_parts::{Budget, Fetch, PartQueue, PlannerConfig, ReadError};

type Ticket = Fetch<u64, std::io::ErrorKind>;

const SIZE: u64 = 64 << 20;
const CHUNK: u64 = 64 << 10;

/// A store that takes 5 ms to answer and then sends chunks of 64 KiB.
async fn download(fetch: Ticket, version: u64) {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let range = fetch.range();
    for at in range.clone().step_by(CHUNK as usize) {
        let chunk = Bytes::from(vec![0u8; (range.end - at).min(CHUNK) as usize]);
        if let Err(stop) = fetch.push(at, &version, chunk) {
            println!("  the fetch of {range:?} stops: {stop}");
            return;
        }
        tokio::task::yield_now().await;
    }
    fetch.done();
}

#[tokio::main]
async fn main() -> Result<(), ReadError<u64, std::io::ErrorKind>> {
    let budget = Budget::new(32 << 20);
    let queue = PartQueue::new(SIZE, 1, PlannerConfig::default(), &budget);

    let (mut at, mut requests) = (0, 0);
    while at < SIZE {
        let slices = queue
            .read_with(at, 128 << 10, |fetch| {
                requests += 1;
                drop(tokio::spawn(download(fetch, 1)));
            })
            .await?;
        at += slices.len() as u64;
    }
    println!("read {at} bytes in {requests} requests; {:?}", budget.stats());

    // The object is replaced: bytes of the new version never reach a reader of the old one.
    let changed = PartQueue::new(SIZE, 1, PlannerConfig::default(), &budget);
    let outcome = changed.read_with(0, 4096, |fetch| drop(tokio::spawn(download(fetch, 2)))).await;
    println!(
        "after the change: {}",
        outcome.map_or_else(|e| e.to_string(), |s| format!("{} bytes", s.len()))
    );
    Ok(())
}

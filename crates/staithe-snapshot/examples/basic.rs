//! A name space that is replaced whole while it is read and changed, kept on disk, and found again.
//!
//! Run with `cargo run -p staithe-snapshot --example snapshot_basic`.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::thread;

use staithe_snapshot::{Cause, Config, Delta, Loading, SnapshotCell};

/// Paths and sizes.
type Names = BTreeMap<String, u64>;

enum Change {
    Put(String, u64),
    Remove(String),
}

impl Delta<Names> for Change {
    fn apply(&self, names: &mut Names) -> Result<(), Cause> {
        match self {
            Self::Put(path, size) => drop(names.insert(path.clone(), *size)),
            Self::Remove(path) => drop(names.remove(path)),
        }
        Ok(())
    }
}

fn load(loading: &Loading) -> Result<Names, Cause> {
    let mut names = Names::new();
    for n in 0..1000 {
        // Cancelled, or overtaken by more changes than can be replayed?
        loading.check()?;
        loading.report(n, 1000);
        names.insert(format!("new/{n}"), n);
    }
    Ok(names)
}

fn main() -> Result<(), Cause> {
    let first = Names::from([("old/a".to_string(), 1)]);
    let cell: SnapshotCell<Names, Change> = SnapshotCell::with_config(first, Config::default());

    // An open file keeps what it was opened in, and says who it is.
    let open = cell.load_as("open file old/a");

    // A whole new name space, while others change the one there is.
    let published = thread::scope(|scope| {
        let staging = cell.stage()?;
        scope.spawn(|| cell.change(Change::Put("mine".into(), 7)).map(drop));
        scope.spawn(|| cell.change(Change::Remove("old/a".into())).map(drop));
        let names = load(&staging.loading())?;
        let many = |names: &Names| if names.len() < 1000 { Err("too few names") } else { Ok(()) };
        Ok::<_, Cause>(staging.publish(names, many)?)
    })?;
    println!("epoch {}: {} names", published.epoch(), published.len());
    let now = cell.load();
    println!("mine, changed while it loaded: {:?}", now.get("mine"));
    println!("the open file still sees old/a: {:?}", open.get("old/a"));
    println!("the oldest state: {:?}", cell.oldest());

    // A loader that fails leaves everything as it was.
    let failed = cell.apply(|_| Err("the manifest is not to be had"), |_| Ok::<_, Cause>(()));
    println!("refused: {:?}", failed.map(drop));
    println!("still epoch {}", cell.epoch());

    drop((open, published, now));
    cell.reclaimer().settle();
    println!("{} old states in memory", cell.stats().old);
    Ok(())
}

//! Mounts a bucket that lives in memory: `cargo run -p staithe-fuse --example fuse_basic -- MOUNTPOINT [DIRECTORY]`.
//! With a directory, that is the bucket. Ends when it is unmounted.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{Filesystem, FsConfig};
use staithe_fuse::{FuseConfig, FuseMount};
use staithe_store::{DirectoryOptions, DirectoryStore, MemoryStore, ObjectStore};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mountpoint = args.next().ok_or("usage: basic MOUNTPOINT [DIRECTORY]")?;
    let directory = args.next();
    let state = std::env::temp_dir().join(format!("staithe-basic-{}", std::process::id()));
    tokio::runtime::Runtime::new()?.block_on(async {
        let store: Arc<dyn ObjectStore> = match directory {
            Some(directory) => Arc::new(DirectoryStore::open(directory, DirectoryOptions::default())?),
            None => Arc::new(MemoryStore::default()),
        };
        let fs = Filesystem::open(store, FsConfig::new(state)).await?;
        let config = FuseConfig { allow_other: true, ..FuseConfig::new(mountpoint, "memory://") };
        let mount = FuseMount::mount(fs.clone(), tokio::runtime::Handle::current(), &config)?;
        mount.ended().await;
        mount.unmount(Duration::from_secs(5)).await?;
        let report = fs.drain(Duration::from_secs(30)).await;
        println!("not stored: {:?}", report.kept);
        Ok(())
    })
}

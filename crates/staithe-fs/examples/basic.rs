//! A filesystem over a bucket in memory, without a mount: `cargo run -p staithe-fs --example fs_basic`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{Caller, Filesystem, FsConfig, Ino, Lookup, OpenMode, RenameMode};
use staithe_store::MemoryStore;

fn main() -> Result<(), Box<dyn Error>> {
    let state = std::env::temp_dir().join(format!("staithe-fs-basic-{}", std::process::id()));
    tokio::runtime::Runtime::new()?.block_on(async {
        let fs = Filesystem::open(Arc::new(MemoryStore::default()), FsConfig::new(&state)).await?;
        let (me, mode) =
            (Caller { uid: 0, gid: 0 }, OpenMode { read: true, write: true, ..OpenMode::default() });
        let (_, file) = fs.create(Ino::ROOT, "draft", 0o644, mode, me).await?;
        fs.write(file.handle, 0, b"stored when it is closed")?;
        fs.flush(file.handle).await?;
        fs.release(file.handle);
        fs.rename(Ino::ROOT, "draft", Ino::ROOT, "final", RenameMode::Replace).await?;
        if let Lookup::Found(entry) = fs.lookup(Ino::ROOT, "final").await? {
            println!("final has {} bytes", entry.attr.size);
        }
        let report = fs.drain(Duration::from_secs(5)).await;
        println!("left behind: {:?}", report.kept);
        Ok::<_, Box<dyn Error>>(())
    })?;
    std::fs::remove_dir_all(state)?;
    Ok(())
}

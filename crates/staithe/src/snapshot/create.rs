//! `staithe snapshot create`: write down what a bucket holds.

use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::time::SystemTime;

use bytesize::ByteSize;
use staithe_fs::{FsError, FsErrorKind, Inventory, Taken, take_inventory, take_manifest};
use staithe_store::ObjectStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::failed;
use crate::bar::Bar;
use crate::control::wait_for;
use crate::failure::{DONE, Failure, chain};
use crate::options::CreateOptions;
use crate::source::{self, Access, Source};
use crate::{places, settings};

/// Writes a manifest; 0 if it is at its place.
///
/// # Errors
/// One sentence; a manifest that was there before is as it was.
pub(crate) fn run(options: &CreateOptions) -> Result<u8, Failure> {
    let as_of = options.as_of.as_deref().map(moment).transpose()?;
    let inventory = options.from_inventory.as_deref().map(Inventory::open).transpose();
    let inventory = inventory.map_err(|error| failed(&error))?;
    let name = match (&options.source, &inventory) {
        (Some(name), _) => name.clone(),
        (None, Some(inventory)) => format!("s3://{}", inventory.bucket),
        (None, None) => return Err(Failure::usage("there is no SOURCE to write down")),
    };
    let source = Source::parse(&name).map_err(Failure::usage)?;
    settings::check_store(&source, &options.store)?;
    if let Some(inventory) = &inventory {
        check_bucket(&source, inventory)?;
    }
    let target = places::full_path(&options.output);
    let bar = Bar::of_objects();
    let (taken, pins) = wait_for(async {
        let opened = source::open(&source, &options.store, Access { may_write: false, tries_again: false })
            .await
            .map_err(|e| cannot(&e))?;
        let store = opened.store;
        store.probe().await.map_err(|e| cannot(&e))?;
        let taken = match inventory {
            Some(inventory) => taken_from(inventory, &*store, &source, &target, &bar).await?,
            None => listed(&*store, &source, as_of, &target, &bar).await?,
        };
        Ok((taken, store.capabilities().versions))
    })?;
    drop(bar);
    let (objects, bytes, place) = (taken.objects, size(taken.bytes), options.output.display());
    let limit = if pins {
        ""
    } else {
        "; the bucket tells of no versions: what is replaced there cannot be read then"
    };
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{objects} objects, {bytes}, are listed in {place}{limit}");
    Ok(DONE)
}

fn cannot(error: &dyn std::error::Error) -> Failure {
    Failure::failed(chain(error))
}

fn show(bar: &Bar, taken: Taken) {
    bar.show(taken.objects, taken.objects, size(taken.bytes));
}

/// Ends with the first signal that ends a program.
async fn asked_to_end() -> Failure {
    let ended = |error: &std::io::Error| Failure::caused("signals cannot be received", error);
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return ended(&error),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => if let Err(error) = interrupted { return ended(&error) },
    }
    Failure::failed("stopped; nothing was written")
}

/// Lists what there is. Not taken to its end, it leaves nothing.
async fn listed(
    store: &dyn ObjectStore,
    source: &Source,
    as_of: Option<SystemTime>,
    target: &Path,
    bar: &Bar,
) -> Result<Taken, Failure> {
    tokio::select! {
        biased;
        stopped = asked_to_end() => Err(stopped),
        taken = take_manifest(store, source.prefix(), as_of, target, |taken| show(bar, taken)) => {
            taken.map_err(|e| cannot(&e))
        }
    }
}

/// Reads an inventory, in a thread that may block.
async fn taken_from(
    inventory: Inventory,
    store: &dyn ObjectStore,
    source: &Source,
    target: &Path,
    bar: &Bar,
) -> Result<Taken, Failure> {
    let (volume, url) = (store.volume(), store.url());
    let (prefix, target) = (source.prefix().to_owned(), target.to_owned());
    let (tell, mut told) = watch::channel(Taken::default());
    let mut taking = tokio::task::spawn_blocking(move || {
        take_inventory(&inventory, volume, url, &prefix, &target, |taken| {
            let stopped = |_| FsError::new(FsErrorKind::Invalid, "stopped; nothing was written");
            tell.send(taken).map_err(stopped)
        })
    });
    let mut stopped = pin!(asked_to_end());
    loop {
        tokio::select! {
            taken = &mut taking => return taken.map_err(|e| cannot(&e))?.map_err(|e| cannot(&e)),
            Ok(()) = told.changed() => show(bar, *told.borrow_and_update()),
            stopped = &mut stopped => {
                drop(told);
                // It hears of that at its next word.
                let _ = taking.await;
                return Err(stopped);
            }
        }
    }
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn moment(text: &str) -> Result<SystemTime, Failure> {
    humantime::parse_rfc3339_weak(text).map_err(|_| {
        Failure::usage(format!("--as-of {text:?} is no time; write it in UTC, as 2026-01-31T12:00:00Z"))
    })
}

fn check_bucket(source: &Source, inventory: &Inventory) -> Result<(), Failure> {
    match source {
        Source::S3 { bucket, .. } if *bucket == inventory.bucket => Ok(()),
        Source::S3 { bucket, .. } => Err(Failure::usage(format!(
            "the inventory is of the bucket {:?}, not of {bucket:?}",
            inventory.bucket
        ))),
        _ => Err(Failure::usage("an inventory is of a bucket: name that, as s3://bucket[/prefix]")),
    }
}

//! `staithe snapshot create`: write down what a bucket holds.

use std::io::Write as _;
use std::time::SystemTime;

use bytesize::ByteSize;
use staithe_fs::{Inventory, Taken, take_inventory, take_manifest};

use super::failed;
use crate::bar::Bar;
use crate::control::wait_for;
use crate::failure::{DONE, Failure, chain};
use crate::options::CreateOptions;
use crate::source::{self, Source};
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
    let show = |taken: Taken| bar.show(taken.objects, taken.objects, size(taken.bytes));
    let cannot = |error: &dyn std::error::Error| Failure::failed(chain(error));
    let taken = wait_for(async {
        let opened = source::open(&source, &options.store, false).await.map_err(|e| cannot(&e))?;
        let store = opened.store;
        store.probe().await.map_err(|e| cannot(&e))?;
        let taken = match &inventory {
            Some(inventory) => {
                take_inventory(inventory, store.volume(), store.url(), source.prefix(), &target, show)
            }
            None => take_manifest(&*store, source.prefix(), as_of, &target, show).await,
        };
        taken.map_err(|e| cannot(&e))
    })?;
    drop(bar);
    let (objects, place) = (taken.objects, options.output.display());
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{objects} objects, {}, are listed in {place}", size(taken.bytes));
    Ok(DONE)
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

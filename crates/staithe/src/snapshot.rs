//! `staithe snapshot`: manifests of what a bucket holds, and which one a mount shows.

mod create;
mod show;
mod swap;

use std::path::Path;
use std::time::SystemTime;

use staithe_fs::{FsError, ManifestReader};

use crate::failure::{Failure, chain};
use crate::options::SnapshotCommand;

/// Does what `command` says.
///
/// # Errors
/// One sentence.
pub(crate) fn run(command: &SnapshotCommand) -> Result<u8, Failure> {
    match command {
        SnapshotCommand::Create(options) => create::run(options),
        SnapshotCommand::List(options) => show::list(options),
        SnapshotCommand::Diff(options) => show::diff(options),
        SnapshotCommand::Swap(options) => swap::run(options),
    }
}

fn open(file: &Path) -> Result<ManifestReader, Failure> {
    ManifestReader::open(file).map_err(|error| failed(&error))
}

fn failed(error: &FsError) -> Failure {
    Failure::failed(chain(error))
}

/// A time as people and scripts read it.
fn told(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

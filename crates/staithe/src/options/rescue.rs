//! The command line of `staithe rescue`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::StoreOptions;

#[derive(Debug, Args)]
pub(crate) struct RescueOptions {
    /// The state directory of a mount that has ended
    pub(crate) state_dir: PathBuf,
    /// A directory that is empty, or missing; or another volume: `s3://bucket[/prefix]` or `file:///directory`
    #[arg(short, long, value_name = "DIR|SOURCE")]
    pub(crate) output: OsString,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Where it is written down that this was done: a file, or syslog [default: audit.log in the state directory, if it is
    /// there]
    #[arg(long, value_name = "PATH|syslog")]
    pub(crate) audit_log: Option<PathBuf>,
    /// One JSON object a file, and one that sums them up; sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

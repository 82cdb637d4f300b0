//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::Failure;

mod reload;
mod rescue;
mod snapshot;

pub(crate) use reload::ReloadOptions;
pub(crate) use rescue::RescueOptions;
pub(crate) use snapshot::{
    CreateOptions, DiffOptions, ListOptions, SnapshotCommand, SnapshotOptions, SwapOptions,
};

const SOURCES: &str = "s3://bucket[/prefix], file:///directory or memory://";

#[derive(Debug, Parser)]
#[command(name = "staithe", version, about = "Mount an object-store bucket as a local filesystem", long_about = None)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount SOURCE on MOUNTPOINT; runs until it is unmounted
    Mount(Box<MountOptions>),
    /// Unmount, and wait until everything is stored
    Umount(UmountOptions),
    /// Check FUSE, permissions, credentials, and what the store supports
    Doctor(DoctorOptions),
    /// Show what a mount's daemon is doing
    Status(StatusOptions),
    /// Show what a mount's daemon is doing, a line every second
    #[command(
        after_help = "Columns: the phase; requests to the store a second, tries counted one by one (err: those that \
        failed, and not because something is not there); open files; files with something that is not in the store, \
        and its bytes; jobs under way or waiting, and those that have failed; staging files, parts of files in memory, \
        disk cache, memory of the process."
    )]
    Top(TopOptions),
    /// Wait until the store has everything that it lacks now
    Sync(SyncOptions),
    /// Show what a mount has still to store, and say what is to become of it
    Jobs(JobsOptions),
    /// Fetch files into the cache of their mount
    Warm(WarmOptions),
    /// Forget what a mount remembers of names and attributes, so that it asks the store
    Refresh(RefreshOptions),
    /// Change settings of a mount while it is in use, and have it read its credentials again
    #[command(
        after_help = "What else `staithe mount` takes cannot change while it is mounted, and is refused. What \
        is not named stays as it is. If anything is refused, also the credentials by the store, nothing changes."
    )]
    Reload(ReloadOptions),
    /// Compare what is here of a mount with what the store has, and mend what differs
    Verify(VerifyOptions),
    /// Bring out what a mount that has ended never stored, to a directory or another bucket
    #[command(
        after_help = "Nothing in STATE_DIR changes. Files go under their keys, with the prefix of their mount; what \
        is not all here is NAME.partial, what has the name of something else NAME.conflict-1. To store everything \
        where it belongs, mount the same source again instead."
    )]
    Rescue(RescueOptions),
    /// Write down what a bucket holds, and compare what was written down
    Snapshot(SnapshotOptions),
}

#[derive(Debug, Args)]
pub(crate) struct MountOptions {
    #[arg(help = SOURCES)]
    pub(crate) source: String,
    /// An empty directory
    pub(crate) mountpoint: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    #[command(flatten)]
    pub(crate) access: AccessOptions,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    /// When a close returns
    #[arg(long, value_name = "MODE", default_value = "through")]
    pub(crate) write_mode: WriteMode,
    /// The most bytes that files may have here which the store does not have; writers then wait [default: what the
    /// disk has]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) staging_size: Option<String>,
    /// What becomes of a commit that lost a race with another client
    #[arg(long, value_name = "HOW", default_value = "keep-both")]
    pub(crate) on_conflict: Conflict,
    /// Show what this manifest lists, each object in the version that it names; nothing can be changed then
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Where bytes are kept that the store does not have yet
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// How log lines look, on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Which log lines are written
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// Return when the mount is ready
    #[arg(long)]
    pub(crate) background: bool,
    /// Set on the process that --background starts
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    #[command(flatten)]
    pub(crate) fate: FateOptions,
}

#[derive(Debug, Args)]
pub(crate) struct StoreOptions {
    /// The S3 server
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// The region to sign for
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The profile of the AWS configuration files
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// The bucket in the path instead of the host name (default with an endpoint)
    #[arg(long)]
    pub(crate) path_style: bool,
    /// Send requests without a signature, for public buckets
    #[arg(long)]
    pub(crate) no_sign_request: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AccessOptions {
    /// Refuse every change
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Let other users in
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Owner of what names none [default: yours]
    #[arg(long, value_name = "ID")]
    pub(crate) uid: Option<u32>,
    /// Group of what names none [default: yours]
    #[arg(long, value_name = "ID")]
    pub(crate) gid: Option<u32>,
    /// Mode of files that name none, in octal
    #[arg(long, value_name = "MODE", default_value = "644")]
    pub(crate) file_mode: String,
    /// Mode of directories that name none, in octal
    #[arg(long, value_name = "MODE", default_value = "755")]
    pub(crate) dir_mode: String,
    /// Where attributes come from [default: full, or listing with --read-only or --snapshot]
    #[arg(long, value_name = "WHERE")]
    pub(crate) attributes: Option<AttributesFrom>,
}

#[derive(Debug, Args)]
pub(crate) struct CacheOptions {
    /// Keep what was fetched in this directory on the local disk, across restarts [default: nowhere]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// The most that it may take of its disk; what was used least recently goes first [default: 10GiB]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) cache_size: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LimitOptions {
    /// For how long names and attributes are believed: a duration, 0 or forever [default: 1s, or forever with
    /// --snapshot]
    #[arg(long, value_name = "DUR", allow_hyphen_values = true)]
    pub(crate) metadata_ttl: Option<String>,
    /// The same for names that are absent [default: as --metadata-ttl]
    #[arg(long, value_name = "DUR", allow_hyphen_values = true)]
    pub(crate) negative_ttl: Option<String>,
    /// Memory for read-ahead and small bodies
    #[arg(long, value_name = "SIZE", default_value = "512MiB", allow_hyphen_values = true)]
    pub(crate) memory_limit: String,
    /// How long one operation may wait for the store
    #[arg(long, value_name = "DUR", default_value = "60s", allow_hyphen_values = true)]
    pub(crate) op_deadline: String,
    /// How long unmounting may wait for what is not stored yet
    #[arg(long, value_name = "DUR", default_value = "30s", allow_hyphen_values = true)]
    pub(crate) drain_deadline: String,
}

/// What becomes of a mount in trouble, and who hears of it.
#[derive(Debug, Args)]
pub(crate) struct FateOptions {
    /// What becomes of the mount when its bucket was deleted for good
    #[arg(long, value_name = "HOW", default_value = "unmount")]
    pub(crate) on_volume_gone: OnGone,
    /// Where it is written down what an operator must be able to prove: a file, or syslog [default: audit.log in the
    /// state directory]
    #[arg(long, value_name = "PATH|syslog")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Serve figures for Prometheus over HTTP at this address
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// Store what an earlier mount left unfinished in a bucket that was deleted and made anew since
    #[arg(long)]
    pub(crate) accept_new_volume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UmountOptions {
    /// Where it is mounted
    pub(crate) mountpoint: PathBuf,
    /// Store everything first, however long that takes; if something cannot be stored, leave it mounted
    #[arg(long)]
    pub(crate) flush: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    #[arg(help = SOURCES)]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Where it is mounted, or any path in it
    pub(crate) mountpoint: PathBuf,
    /// One JSON object; sizes in bytes, times in seconds
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopOptions {
    /// Where it is mounted, or any path in it
    pub(crate) mountpoint: PathBuf,
    /// How often, at least 100ms
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) every: String,
    /// End after so many lines
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// One JSON object a line: counts of the time between two looks, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SyncOptions {
    /// Where it is mounted, or any path in it
    pub(crate) mountpoint: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct JobsOptions {
    /// Where it is mounted, or a path in it: the jobs there and below
    pub(crate) mountpoint: PathBuf,
    /// One JSON object; sizes in bytes, times in seconds
    #[arg(long, conflicts_with_all = ["retry", "cancel"])]
    pub(crate) json: bool,
    /// Try again now what failed, was cancelled or waits for its next try, at these paths and below, or all of it
    #[arg(long, value_name = "PATH", num_args = 0.., conflicts_with = "cancel")]
    pub(crate) retry: Option<Vec<PathBuf>>,
    /// Stop storing what is at these paths and below; the bytes stay here
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) cancel: Option<Vec<PathBuf>>,
}

#[derive(Debug, Args)]
pub(crate) struct WarmOptions {
    /// Files, and directories with all that is below them, in one mount
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// How many files at once
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
}

#[derive(Debug, Args)]
pub(crate) struct RefreshOptions {
    /// Files, and directories with all that is below them, in any mounts; a mount point is the whole mount
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// Where it is mounted, or a path in it: what is there and below
    pub(crate) path: PathBuf,
    /// Mend what can be mended without losing a byte
    #[arg(long)]
    pub(crate) repair: bool,
    /// One JSON object a difference, and one that sums them up
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttributesFrom {
    Full,
    Listing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WriteMode {
    /// When the store has the file
    Through,
    /// When the journal in the state directory has it, which is stored soon after
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnGone {
    /// Nothing is mounted any more
    Unmount,
    /// It stays, and every operation fails, so that nobody writes to what is below it
    ErrorRoot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Conflict {
    KeepBoth,
    Overwrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Reads the command line; `None` if it asked for help or the version, which is printed.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Option<Command>, Failure> {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => Ok(Some(cli.command)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A closed standard output is no reason to fail.
            let _ = error.print();
            Ok(None)
        }
        Err(error) => Err(Failure::usage(sentence(&error))),
    }
}

/// The parser's complaint as one sentence: what comes before its hints.
fn sentence(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command was given; `staithe --help` lists them".to_owned();
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:"));
    let lines =
        lines.filter(|l| !l.is_empty() && !l.starts_with("tip:") && !l.starts_with("For more information"));
    let sentence = lines.collect::<Vec<_>>().join(" ");
    sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_complaint_is_one_line() {
        let error = Cli::try_parse_from(["staithe", "mount", "memory://"]).unwrap_err();
        let sentence = sentence(&error);
        assert!(sentence.contains("<MOUNTPOINT>") && !sentence.contains('\n'), "{sentence}");
        assert!(!sentence.starts_with("error:"), "{sentence}");
    }
}

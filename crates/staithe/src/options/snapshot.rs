//! The command line of `staithe snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StoreOptions;

#[derive(Debug, Args)]
pub(crate) struct SnapshotOptions {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

/// What to do with manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write a manifest of what SOURCE holds
    Create(CreateOptions),
    /// Show what a manifest lists
    List(ListOptions),
    /// Show what differs between two manifests
    Diff(DiffOptions),
    /// Show another manifest in a mount that shows one
    Swap(SwapOptions),
}

#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    /// `s3://bucket[/prefix]`, `file:///directory` or `memory://` [with --from-inventory: s3:// and the bucket it lists]
    #[arg(required_unless_present = "from_inventory")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// The manifest; one that is there is replaced when the new one is whole
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// What the bucket held then, of a bucket that keeps versions: 2026-01-31T12:00:00Z, or the same without T and Z
    #[arg(long, value_name = "TIME", conflicts_with = "from_inventory")]
    pub(crate) as_of: Option<String>,
    /// Take it from an S3 Inventory (CSV) whose data files lie beside its manifest.json, or in data beside that
    #[arg(long, value_name = "MANIFEST.JSON")]
    pub(crate) from_inventory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    /// A manifest
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SwapOptions {
    /// Where it is mounted, or any path in it
    pub(crate) mountpoint: PathBuf,
    /// A manifest of the same volume and prefix
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DiffOptions {
    /// The earlier manifest
    pub(crate) first: PathBuf,
    /// The later one
    pub(crate) second: PathBuf,
    /// One JSON object a line; sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

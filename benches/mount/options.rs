//! The command line of the bench.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::rows::Row;
use crate::subject::Subject;

/// Measures staithe's mount beside others on one S3 server, and prints one table.
#[derive(Debug, Parser)]
#[command(name = "mount")]
pub(crate) struct Options {
    /// What is measured; everything by default
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Beside what; everything that is installed by default
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Option<Vec<Subject>>,
    /// The ways to the server; both by default
    #[arg(long, value_enum, value_delimiter = ',')]
    links: Vec<Link>,
    /// Sizes and counts are multiplied by this
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// Every figure is the median of so many
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: usize,
    /// For how long every mount believes names and attributes
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,
    /// The daemon; by default the workspace's, built first if need be
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// One more option for staithe's mount
    #[arg(long = "staithe-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) staithe_args: Vec<String>,
    /// Bytes a second of every connection on the far link
    #[arg(long, default_value_t = 100 << 20, value_name = "BYTES")]
    pub(crate) far_bandwidth: u64,
    /// Serve a filesystem that has nothing to do, here
    #[arg(long, hide = true, value_name = "PATH")]
    pub(crate) bare: Option<PathBuf>,
    /// Length of its files
    #[arg(long, hide = true, default_value_t = 1 << 30)]
    pub(crate) bare_size: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Options {
    /// Staithe and its peers, in the order of the table.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        let wanted = |s: &Subject| *s == Subject::Staithe || self.wants(*s);
        Subject::ALL.into_iter().filter(wanted).collect()
    }

    /// Whether it takes part.
    pub(crate) fn wants(&self, subject: Subject) -> bool {
        subject == Subject::Staithe || self.peers.as_ref().is_none_or(|peers| peers.contains(&subject))
    }

    /// Whether the row is measured.
    pub(crate) fn wants_row(&self, row: Row) -> bool {
        self.rows.is_empty() || self.rows.contains(&row)
    }

    /// The ways to the server, the fast one first.
    pub(crate) fn links(&self) -> Vec<Link> {
        let wanted = |link: &Link| self.links.is_empty() || self.links.contains(link);
        [Link::Fast, Link::Far].into_iter().filter(wanted).collect()
    }
}

/// The way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// Loopback as it is
    Fast,
    /// 20 ms a request, 100 MiB/s a connection unless `--far-bandwidth` says otherwise
    Far,
}

impl Link {
    /// How long every request waits.
    pub(crate) fn latency(self) -> Duration {
        match self {
            Self::Fast => Duration::ZERO,
            Self::Far => Duration::from_millis(20),
        }
    }

    /// Bytes a second of every connection.
    pub(crate) fn bandwidth(self, options: &Options) -> Option<u64> {
        match self {
            Self::Fast => None,
            Self::Far => Some(options.far_bandwidth),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fast => "fast",
            Self::Far => "far",
        })
    }
}

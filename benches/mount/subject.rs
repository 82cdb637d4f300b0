//! What is measured: staithe, its peers, and the ceilings above them.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use staithe_testkit::{DaemonOptions, MountedDaemon, REGION, S3Server};
use tempfile::TempDir;

use crate::data::{self, SCRATCH, SHARED, Sizes};
use crate::options::{Link, Options};
use crate::process::{self, Machine, PeerMount};
use crate::rows::{Done, Row, Unit};
use crate::stored::{Left, Stored};
use crate::table::Figures;
use crate::trees::Trees;
use crate::{Result, bare, http};

/// Memory that is sure to be there when bytes begin to move.
const BACKED: usize = 3 << 30;

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// This workspace's mount
    Staithe,
    /// The same with --write-mode back, at rows that write
    StaitheBack,
    /// s3fs-fuse
    S3fs,
    /// rclone mount, which keeps nothing on disk
    RcloneOff,
    /// rclone mount with its full file cache
    RcloneFull,
    /// Ranged GETs and uploads in parts over plain sockets: no client of an object store can be faster
    Http,
    /// A filesystem over /dev/fuse that has nothing to do: no daemon can be faster
    Fuse,
    /// A local file in the page cache
    Local,
}

impl Subject {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 8] = [
        Self::Staithe,
        Self::StaitheBack,
        Self::S3fs,
        Self::RcloneOff,
        Self::RcloneFull,
        Self::Http,
        Self::Fuse,
        Self::Local,
    ];

    /// Whether it is one of the mounts that staithe is compared with.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::S3fs | Self::RcloneOff | Self::RcloneFull)
    }

    /// Its program, if that is missing.
    pub(crate) fn absent(self) -> Option<&'static str> {
        let program = match self {
            Self::S3fs => "s3fs",
            Self::RcloneOff | Self::RcloneFull => "rclone",
            Self::Staithe | Self::StaitheBack | Self::Http | Self::Fuse | Self::Local => return None,
        };
        (!process::is_installed(program)).then_some(program)
    }

    /// Whether the row makes sense for it.
    pub(crate) fn can(self, row: Row) -> bool {
        match self {
            Self::StaitheBack => row.writes(),
            Self::Http => http::can(row),
            Self::Fuse => bare::can(row),
            _ => true,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Staithe => "staithe",
            Self::StaitheBack => "staithe back",
            Self::S3fs => "s3fs",
            Self::RcloneOff => "rclone off",
            Self::RcloneFull => "rclone full",
            Self::Http => "raw http",
            Self::Fuse => "bare fuse",
            Self::Local => "local file",
        })
    }
}

/// Where something is mounted, and by whom.
enum Mounted {
    Staithe { daemon: Box<MountedDaemon>, _disk: TempDir },
    Peer(PeerMount),
    Local { path: PathBuf, _directory: TempDir },
}

impl Mounted {
    fn path(&self) -> &Path {
        match self {
            Self::Staithe { daemon, .. } => daemon.path(),
            Self::Peer(mount) => mount.path(),
            Self::Local { path, .. } => path,
        }
    }

    fn pid(&self) -> Option<u32> {
        match self {
            Self::Staithe { daemon, .. } => Some(daemon.pid()),
            Self::Peer(mount) => Some(mount.pid()),
            Self::Local { .. } => None,
        }
    }
}

/// All that one measurement needs.
pub(crate) struct Bench<'a> {
    pub(crate) server: &'a S3Server,
    pub(crate) binary: Option<&'a Path>,
    pub(crate) options: &'a Options,
    pub(crate) link: Link,
    pub(crate) sizes: Sizes,
    pub(crate) trees: Trees,
}

impl Bench<'_> {
    /// Makes the server as near, or as far, as the link says.
    pub(crate) fn set_link(&self, link: Link) {
        self.server.modes().set_latency(link.latency());
        self.server.modes().set_bandwidth(link.bandwidth(self.options));
    }

    /// Measures a row once.
    pub(crate) fn round(&self, row: Row, subject: Subject) -> Result<Figures> {
        let bucket = if row.writes() { SCRATCH } else { SHARED };
        if row.writes() {
            data::prepare_scratch(self.server, row, &self.sizes)?;
        }
        if subject == Subject::Http {
            let (before, machine) = (self.server.requests().tally(), Machine::now()?);
            let done = http::run(row, self.server.address(), bucket, &self.sizes, self.link)?;
            let busy = Machine::now()?.busy_since(&machine);
            let (stored, written) = self.await_stored(row, subject, &done)?;
            let traffic = self.server.requests().tally().since(&before).total();
            return Ok(Figures { done, stored, written, traffic, busy, cpu: None, peak_memory: None });
        }
        let mounted = self.mount(subject, bucket, row)?;
        row.warm_up(mounted.path())?;
        if row.unit() == Unit::MibPerSecond {
            process::back_memory(BACKED)?;
        }
        let before = self.server.requests().tally();
        let cpu_before = mounted.pid().map(process::cpu_seconds).transpose()?;
        let machine = Machine::now()?;
        let done = row.run(mounted.path(), &self.sizes, &self.trees)?;
        let busy = Machine::now()?.busy_since(&machine);
        let (stored, written) = self.await_stored(row, subject, &done)?;
        let cpu_after = mounted.pid().map(process::cpu_seconds).transpose()?;
        let traffic = self.server.requests().tally().since(&before).total();
        Ok(Figures {
            done,
            stored,
            written,
            traffic,
            busy,
            cpu: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
            peak_memory: mounted.pid().map(process::peak_memory).transpose()?,
        })
    }

    /// Waits until the store has what the row has written, now that the last close has returned: when that was, and how
    /// many bytes it is.
    fn await_stored(&self, row: Row, subject: Subject, done: &Done) -> Result<(Stored, u64)> {
        if !row.writes() {
            return Ok((Stored::Nothing, 0));
        }
        let left = Left::by(row, done, &self.sizes, &self.trees);
        let has_store = !matches!(subject, Subject::Local | Subject::Fuse);
        let stored = if has_store { left.wait(self.server, done)? } else { Stored::Nothing };
        Ok((stored, left.written))
    }

    fn mount(&self, subject: Subject, bucket: &str, row: Row) -> Result<Mounted> {
        match subject {
            Subject::Staithe => return self.mount_staithe(bucket, row, "through"),
            Subject::StaitheBack => return self.mount_staithe(bucket, row, "back"),
            _ => {}
        }
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("mnt");
        std::fs::create_dir(&path)?;
        let mut command = match subject {
            Subject::S3fs => self.s3fs(bucket, &path, directory.path(), row)?,
            Subject::RcloneOff => self.rclone(bucket, &path, directory.path(), "off"),
            Subject::RcloneFull => self.rclone(bucket, &path, directory.path(), "full"),
            Subject::Fuse => bare::command(&path, row.file_size(&self.sizes))?,
            _ => {
                data::copy_locally(self.server, bucket, &path, row.prefix())?;
                return Ok(Mounted::Local { path, _directory: directory });
            }
        };
        // Bundles and proxies that are meant for other servers.
        for name in ["AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(name);
        }
        Ok(Mounted::Peer(PeerMount::start(command, path, directory)?))
    }

    fn mount_staithe(&self, bucket: &str, row: Row, write_mode: &str) -> Result<Mounted> {
        let binary = self.binary.ok_or("there is no binary of staithe")?;
        let ttl = humantime::format_duration(self.options.ttl).to_string();
        let daemon = DaemonOptions::new(binary, format!("s3://{bucket}"))
            .args(["--log-level", "warn", "--metadata-ttl"].map(OsString::from))
            .arg(ttl)
            .args(["--write-mode", write_mode].map(OsString::from))
            .args(&self.options.staithe_args)
            .env(self.server.env());
        let disk = tempfile::tempdir()?;
        let daemon = if row.caches() {
            // On one disk, as files that can be written to must be.
            let state = disk.path().join("state");
            std::fs::create_dir(&state)?;
            daemon.state_dir(state).arg("--cache-dir").arg(disk.path().join("cache"))
        } else {
            daemon
        };
        Ok(Mounted::Staithe { daemon: Box::new(daemon.start()?), _disk: disk })
    }

    fn s3fs(&self, bucket: &str, path: &Path, directory: &Path, row: Row) -> Result<Command> {
        let cache = directory.join("tmp");
        std::fs::create_dir(&cache)?;
        let mut command = Command::new("s3fs");
        command.arg(bucket).arg(path).arg("-f");
        for option in [
            format!("url={}", self.server.endpoint()),
            format!("endpoint={REGION}"),
            "use_path_request_style".to_owned(),
            format!("stat_cache_expire={}", self.options.ttl.as_secs()),
            format!("tmpdir={}", cache.display()),
        ] {
            command.arg("-o").arg(option);
        }
        if row.caches() {
            command.arg("-o").arg(format!("use_cache={}", directory.join("cache").display()));
        }
        let keys = self.server.key_pair();
        command.env("AWSACCESSKEYID", &keys.access_key).env("AWSSECRETACCESSKEY", &keys.secret_key);
        Ok(command)
    }

    fn rclone(&self, bucket: &str, path: &Path, directory: &Path, mode: &str) -> Command {
        let ttl = humantime::format_duration(self.options.ttl).to_string();
        let keys = self.server.key_pair();
        let mut command = Command::new("rclone");
        command.arg("mount").arg(format!(":s3:{bucket}")).arg(path);
        command.args(["--config", "/dev/null", "--vfs-cache-mode", mode]);
        command.arg("--cache-dir").arg(directory.join("cache"));
        command.args(["--dir-cache-time", &ttl, "--attr-timeout", &ttl, "--poll-interval", "0"]);
        command.args(["--s3-provider", "Other", "--s3-region", REGION, "--s3-no-check-bucket"]);
        command.args(["--s3-endpoint", &self.server.endpoint()]);
        command.args(["--s3-access-key-id", &keys.access_key]);
        command.args(["--s3-secret-access-key", &keys.secret_key]);
        command
    }
}

//! What is done to a mount, and how long it took.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::Result;
use crate::data::{MANY, Sizes};
use crate::process;
use crate::trees::Trees;
use crate::{reads, writes};

/// What a program that reads or writes in bulk passes to one call.
pub(crate) const PIECE: usize = 1 << 20;
/// Length of a random read.
pub(crate) const RANDOM: usize = 128 << 10;
/// Small operations, each of which may wait for the store, end after this, however few they were.
pub(crate) const AT_MOST: Duration = Duration::from_secs(5);
/// What is read for the first byte.
pub(crate) const FIRST: usize = 4 << 10;

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// One big file, from its beginning to its end
    Read,
    /// Four files at once
    Read4,
    /// 64 files at once
    Read64,
    /// The big file a second time
    ReadAgain,
    /// The same, from a cache on the local disk: the kernel has no page of it
    ReadDisk,
    /// 128 KiB at random places of the big file
    Random,
    /// Open, and the first 4 KiB
    FirstByte,
    /// One big file, close included
    Write,
    /// Four files at once, close included
    Write4,
    /// Files of 4 KiB, one after another
    Create,
    /// The same, ten times as many, in a directory that is made for them
    CreateMany,
    /// 1 KiB again and again to one file that stays open, close included
    Append,
    /// Open, 1 KiB to the end of one file, close, again and again
    AppendEach,
    /// `tar -x` of a tree of small files
    Untar,
    /// `git clone` of a repository on the local disk
    Clone,
    /// 4 KiB at random places of a file, each with fsync, as fio does it
    Fsync,
    /// A directory of them, read: its names, then each file
    Cat,
    /// `ls -lR` of a fresh mount
    ListCold,
    /// `ls -lR` again
    ListWarm,
    /// `find` in a fresh mount: names only
    FindCold,
    /// `du -a` of a fresh mount
    DuCold,
    /// `du -a` again
    DuWarm,
    /// stat of one file that was just looked at
    StatWarm,
    /// stat of every file of the tree, in two threads, all just looked at
    StatStorm,
    /// Names that are not there, a few again and again, as an interpreter looks for its modules
    Missing,
    /// Files within their directory
    Rename,
    /// Files
    Unlink,
}

/// What a figure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    MibPerSecond,
    PerSecond,
    /// Less is better.
    Milliseconds,
}

/// Work that was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Calls, files, or MiB where there is one long file.
    pub(crate) ops: u64,
    pub(crate) time: Duration,
}

impl Done {
    pub(crate) fn time_per_op(&self) -> Duration {
        self.time.div_f64(self.ops.max(1) as f64)
    }
}

impl Row {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 27] = [
        Self::Read,
        Self::Read4,
        Self::Read64,
        Self::ReadAgain,
        Self::ReadDisk,
        Self::Random,
        Self::FirstByte,
        Self::Write,
        Self::Write4,
        Self::Create,
        Self::CreateMany,
        Self::Append,
        Self::AppendEach,
        Self::Untar,
        Self::Clone,
        Self::Fsync,
        Self::Cat,
        Self::ListCold,
        Self::ListWarm,
        Self::FindCold,
        Self::DuCold,
        Self::DuWarm,
        Self::StatWarm,
        Self::StatStorm,
        Self::Missing,
        Self::Rename,
        Self::Unlink,
    ];

    /// What its figures say.
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Read
            | Self::Read4
            | Self::Read64
            | Self::ReadAgain
            | Self::ReadDisk
            | Self::Write
            | Self::Write4 => Unit::MibPerSecond,
            Self::FirstByte => Unit::Milliseconds,
            _ => Unit::PerSecond,
        }
    }

    /// Whether it changes the bucket, and gets a fresh one.
    pub(crate) fn writes(self) -> bool {
        self.prefix() == "dir/"
    }

    /// The program that does it, where that is not this one.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Self::Untar => Some("tar"),
            Self::Clone => Some("git"),
            Self::Fsync => Some("fio"),
            _ => None,
        }
    }

    /// The same, if it is missing.
    pub(crate) fn absent(self) -> Option<&'static str> {
        self.program().filter(|program| !process::is_installed(program))
    }

    /// Whether it wants a cache on the local disk, where a mount has one.
    pub(crate) fn caches(self) -> bool {
        self == Self::ReadDisk
    }

    /// How many small files a row that writes finds.
    pub(crate) fn prepared(self, sizes: &Sizes) -> usize {
        if matches!(self, Self::Rename | Self::Unlink) { sizes.renamed_files } else { 0 }
    }

    /// What begins with this is all that it touches.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Read | Self::ReadAgain | Self::ReadDisk | Self::Random | Self::StatWarm => "big",
            Self::Read4 | Self::FirstByte => "four/",
            Self::Read64 => "many/",
            Self::Cat => "small/",
            Self::ListCold
            | Self::ListWarm
            | Self::FindCold
            | Self::DuCold
            | Self::DuWarm
            | Self::StatStorm
            | Self::Missing => "tree/",
            Self::Write
            | Self::Write4
            | Self::Create
            | Self::CreateMany
            | Self::Append
            | Self::AppendEach
            | Self::Untar
            | Self::Clone
            | Self::Fsync
            | Self::Rename
            | Self::Unlink => "dir/",
        }
    }

    /// The length of each file that it reads.
    pub(crate) fn file_size(self, sizes: &Sizes) -> u64 {
        match self {
            Self::Read4 | Self::FirstByte => sizes.each_of_four,
            Self::Read64 => sizes.each_of_many,
            _ => sizes.big,
        }
    }

    /// What must have happened before the clock starts.
    pub(crate) fn warm_up(self, root: &Path) -> Result<()> {
        match self {
            Self::ListWarm | Self::StatStorm => reads::walk("ls", "-lR", root),
            Self::DuWarm => reads::walk("du", "-a", root),
            Self::ReadAgain => reads::read(&root.join("big")).map(drop),
            Self::ReadDisk => {
                reads::read(&root.join("big"))?;
                reads::forget_pages()
            }
            Self::StatWarm => Ok(fs::metadata(root.join("big")).map(drop)?),
            _ => Ok(()),
        }
    }

    /// Does the work below `root`.
    pub(crate) fn run(self, root: &Path, sizes: &Sizes, trees: &Trees) -> Result<Done> {
        let (start, dir) = (Instant::now(), root.join("dir"));
        let ops = match self {
            Self::Read | Self::ReadAgain | Self::ReadDisk => reads::read(&root.join("big"))? / PIECE as u64,
            Self::Read4 => reads::read_at_once(&root.join("four"), 4)? / PIECE as u64,
            Self::Read64 => reads::read_at_once(&root.join("many"), MANY)? / PIECE as u64,
            Self::Random => return reads::random(&root.join("big"), sizes),
            Self::FirstByte => reads::first_bytes(root)?,
            Self::Write => writes::write(&dir.join("written"), sizes.written)? / PIECE as u64,
            Self::Write4 => writes::write_at_once(&dir, 4, sizes.each_of_four)? / PIECE as u64,
            Self::Create => writes::create(&dir, sizes.small_files)?,
            Self::CreateMany => {
                fs::create_dir(dir.join("made"))?;
                writes::create(&dir.join("made"), sizes.many_files)?
            }
            Self::Append => writes::append(&dir.join("log"), sizes.appends)?,
            Self::AppendEach => writes::append_each(&dir.join("log"), sizes.small_files)?,
            Self::Untar => writes::untar(&dir, trees)?,
            Self::Clone => writes::clone(&dir, trees)?,
            Self::Fsync => return writes::fsync(&dir),
            Self::Cat => reads::cat(&root.join("small"), sizes.small_files)?,
            Self::ListCold | Self::ListWarm => reads::walk_all("ls", "-lR", root, sizes)?,
            Self::FindCold => reads::walk_all("find", "-H", root, sizes)?,
            Self::DuCold | Self::DuWarm => reads::walk_all("du", "-a", root, sizes)?,
            Self::StatStorm => reads::storm(root, sizes)?,
            Self::Missing => reads::missing(&root.join("tree"), sizes)?,
            Self::StatWarm => reads::stat_again(&root.join("big"), sizes.stats)?,
            Self::Rename => writes::rename(&dir, sizes.renamed_files)?,
            Self::Unlink => writes::unlink(&dir, sizes.renamed_files)?,
        };
        Ok(Done { ops, time: start.elapsed() })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Read4 => "read, 4 files",
            Self::Read64 => "read, 64 files",
            Self::ReadAgain => "read, again",
            Self::ReadDisk => "read, from disk",
            Self::Random => "random 128 KiB",
            Self::FirstByte => "first byte",
            Self::Write => "write + close",
            Self::Write4 => "write, 4 files",
            Self::Create => "create 4 KiB",
            Self::CreateMany => "mkdir + create",
            Self::Append => "append 1 KiB",
            Self::AppendEach => "append + close",
            Self::Untar => "untar",
            Self::Clone => "git clone",
            Self::Fsync => "4 KiB + fsync",
            Self::Cat => "cat 4 KiB",
            Self::ListCold => "ls -lR, cold",
            Self::ListWarm => "ls -lR, warm",
            Self::FindCold => "find, cold",
            Self::DuCold => "du -a, cold",
            Self::DuWarm => "du -a, warm",
            Self::StatWarm => "stat, warm",
            Self::StatStorm => "stat, 2 threads",
            Self::Missing => "stat, missing",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
        })
    }
}

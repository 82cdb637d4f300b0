//! What is done to a mount, and how long it took.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::fs::{Advice, fadvise};

use crate::Result;
use crate::data::{FILES_A_DIRECTORY, MANY, SMALL, Sizes, noise};

/// What a program that reads or writes in bulk passes to one call.
const PIECE: usize = 1 << 20;
/// Length of a random read.
pub(crate) const RANDOM: usize = 128 << 10;
/// Random reads, and looks at missing names, end after this, however few they were.
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
    /// Files of 4 KiB, one after another
    Create,
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
    pub(crate) const ALL: [Self; 20] = [
        Self::Read,
        Self::Read4,
        Self::Read64,
        Self::ReadAgain,
        Self::ReadDisk,
        Self::Random,
        Self::FirstByte,
        Self::Write,
        Self::Create,
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
            Self::Read | Self::Read4 | Self::Read64 | Self::ReadAgain | Self::ReadDisk | Self::Write => {
                Unit::MibPerSecond
            }
            Self::FirstByte => Unit::Milliseconds,
            _ => Unit::PerSecond,
        }
    }

    /// Whether it changes the bucket, and gets a fresh one.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Create | Self::Rename | Self::Unlink)
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
            Self::Write | Self::Create | Self::Rename | Self::Unlink => "dir/",
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
            Self::ListWarm | Self::StatStorm => walk("ls", "-lR", root),
            Self::DuWarm => walk("du", "-a", root),
            Self::ReadAgain => read(&root.join("big")).map(drop),
            Self::ReadDisk => {
                read(&root.join("big"))?;
                forget_pages()
            }
            Self::StatWarm => Ok(fs::metadata(root.join("big")).map(drop)?),
            _ => Ok(()),
        }
    }

    /// Does the work below `root`.
    pub(crate) fn run(self, root: &Path, sizes: &Sizes) -> Result<Done> {
        let start = Instant::now();
        let ops = match self {
            Self::Read | Self::ReadAgain | Self::ReadDisk => read(&root.join("big"))? / PIECE as u64,
            Self::Read4 => read_at_once(&root.join("four"), 4)? / PIECE as u64,
            Self::Read64 => read_at_once(&root.join("many"), MANY)? / PIECE as u64,
            Self::Random => return random(&root.join("big"), sizes),
            Self::FirstByte => first_bytes(root)?,
            Self::Write => write(&root.join("dir/written"), sizes.written)? / PIECE as u64,
            Self::Create => each(sizes.small_files, |n| {
                let mut file = File::create(root.join(format!("dir/{n:05}")))?;
                Ok(file.write_all(&noise(SMALL))?)
            })?,
            Self::Cat => cat(&root.join("small"), sizes.small_files)?,
            Self::ListCold | Self::ListWarm => {
                walk("ls", "-lR", root)?;
                sizes.tree_files as u64
            }
            Self::FindCold => {
                walk("find", "-H", root)?;
                sizes.tree_files as u64
            }
            Self::DuCold | Self::DuWarm => {
                walk("du", "-a", root)?;
                sizes.tree_files as u64
            }
            Self::StatStorm => storm(root, sizes)?,
            Self::Missing => missing(&root.join("tree"), sizes)?,
            Self::StatWarm => each(sizes.stats, |_| Ok(fs::metadata(root.join("big")).map(drop)?))?,
            Self::Rename => each(sizes.renamed_files, |n| {
                Ok(fs::rename(root.join(format!("dir/{n:05}")), root.join(format!("dir/to-{n:05}")))?)
            })?,
            Self::Unlink => {
                each(sizes.renamed_files, |n| Ok(fs::remove_file(root.join(format!("dir/{n:05}")))?))?
            }
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
            Self::Create => "create 4 KiB",
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

fn each(count: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<u64> {
    (0..count).try_for_each(&mut work)?;
    Ok(count as u64)
}

/// As `cat *` does: the names, in order, and then every file.
fn cat(directory: &Path, expected: usize) -> Result<u64> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>();
    let mut names = names?;
    names.sort();
    for name in &names {
        if fs::read(name)?.len() != SMALL {
            return Err("a small file is short".into());
        }
    }
    if names.len() == expected { Ok(expected as u64) } else { Err("a small file is missing".into()) }
}

fn read(path: &Path) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

/// Writes everything to the disk, and makes the kernel drop what it has of any file.
fn forget_pages() -> Result<()> {
    // What a cache writes behind the reader's back gets a moment to arrive.
    thread::sleep(Duration::from_millis(500));
    rustix::fs::sync();
    Ok(fs::write("/proc/sys/vm/drop_caches", "1")?)
}

fn read_at_once(directory: &Path, files: usize) -> Result<u64> {
    thread::scope(|scope| {
        let readers: Vec<_> = (0..files)
            .map(|n| directory.join(n.to_string()))
            .map(|path| scope.spawn(move || read(&path)))
            .collect();
        readers.into_iter().map(|reader| reader.join().map_err(|_| "a reader panicked")?).sum()
    })
}

/// Distinct places of the big file, in no order.
pub(crate) fn random_places(sizes: &Sizes) -> Vec<u64> {
    let mut places: Vec<u64> = (0..sizes.big / RANDOM as u64).map(|n| n * RANDOM as u64).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut places);
    places.truncate(sizes.random_reads);
    places
}

fn random(path: &Path, sizes: &Sizes) -> Result<Done> {
    let places = random_places(sizes);
    let file = File::open(path)?;
    fadvise(&file, 0, None, Advice::Random)?;
    let mut piece = vec![0; RANDOM];
    let start = Instant::now();
    let mut ops = 0;
    for place in places {
        file.read_exact_at(&mut piece, place)?;
        ops += 1;
        if start.elapsed() > AT_MOST {
            break;
        }
    }
    Ok(Done { ops, time: start.elapsed() })
}

fn first_bytes(root: &Path) -> Result<u64> {
    each(4, |n| {
        let mut piece = vec![0; FIRST];
        Ok(File::open(root.join(format!("four/{n}")))?.read_exact(&mut piece)?)
    })
}

fn write(path: &Path, len: u64) -> Result<u64> {
    let piece = noise(PIECE);
    let mut file = File::create(path)?;
    for _ in 0..len / PIECE as u64 {
        file.write_all(&piece)?;
    }
    // Closed here; whether it was stored is asked of the store afterwards.
    drop(file);
    Ok(len)
}

fn walk(program: &str, option: &str, root: &Path) -> Result<()> {
    let done = Command::new(program).arg(option).arg(root.join("tree")).stdout(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
}

/// stat of ten names that are not there, in turn, for a while.
fn missing(directory: &Path, sizes: &Sizes) -> Result<u64> {
    let names: Vec<_> = (0..10).map(|n| directory.join(format!("{n}.py"))).collect();
    let start = Instant::now();
    let mut ops = 0;
    for name in names.iter().cycle().take(sizes.stats) {
        match fs::metadata(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => ops += 1,
            other => return Err(format!("a name that is not there: {other:?}").into()),
        }
        if start.elapsed() > AT_MOST {
            break;
        }
    }
    Ok(ops)
}

/// stat of every file of the tree, in two threads that share them.
fn storm(root: &Path, sizes: &Sizes) -> Result<u64> {
    let half = |first: usize| {
        (first..sizes.tree_files).step_by(2).try_for_each(|n| {
            let path = root.join("tree").join(format!("{:03}/{n:05}", n / FILES_A_DIRECTORY));
            fs::metadata(path).map(drop)
        })
    };
    let done = thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(0).and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
    });
    Ok(done.map(|()| sizes.tree_files as u64)?)
}

//! The work of rows that only look.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use crate::Result;
use crate::data::{FILES_A_DIRECTORY, SMALL, Sizes};
use crate::rows::{AT_MOST, Done, FIRST, PIECE, RANDOM};

/// As `cat *` does: the names, in order, and then every file.
pub(crate) fn cat(directory: &Path, expected: usize) -> Result<u64> {
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

pub(crate) fn read(path: &Path) -> Result<u64> {
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
pub(crate) fn forget_pages() -> Result<()> {
    // What a cache writes behind the reader's back gets a moment to arrive.
    thread::sleep(Duration::from_millis(500));
    rustix::fs::sync();
    Ok(fs::write("/proc/sys/vm/drop_caches", "1")?)
}

pub(crate) fn read_at_once(directory: &Path, files: usize) -> Result<u64> {
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

pub(crate) fn random(path: &Path, sizes: &Sizes) -> Result<Done> {
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

pub(crate) fn first_bytes(root: &Path) -> Result<u64> {
    let mut piece = vec![0; FIRST];
    for n in 0..4 {
        File::open(root.join(format!("four/{n}")))?.read_exact(&mut piece)?;
    }
    Ok(4)
}

/// stat of one file, so many times.
pub(crate) fn stat_again(path: &Path, times: usize) -> Result<u64> {
    for _ in 0..times {
        fs::metadata(path)?;
    }
    Ok(times as u64)
}

pub(crate) fn walk(program: &str, option: &str, root: &Path) -> Result<()> {
    let done = Command::new(program).arg(option).arg(root.join("tree")).stdout(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
}

/// As [`walk`]; how many files it has met.
pub(crate) fn walk_all(program: &str, option: &str, root: &Path, sizes: &Sizes) -> Result<u64> {
    walk(program, option, root)?;
    Ok(sizes.tree_files as u64)
}

/// stat of ten names that are not there, in turn, for a while.
pub(crate) fn missing(directory: &Path, sizes: &Sizes) -> Result<u64> {
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
pub(crate) fn storm(root: &Path, sizes: &Sizes) -> Result<u64> {
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

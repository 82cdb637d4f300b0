//! The work of rows that change something.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{SMALL, noise};
use crate::rows::{AT_MOST, Done, PIECE};
use crate::trees::{self, Trees};

/// What is appended at once.
pub(crate) const APPENDED: usize = 1 << 10;
/// What is written at a random place.
pub(crate) const REWRITTEN: usize = 4 << 10;

/// One file, piece by piece. How long it is.
pub(crate) fn write(path: &Path, len: u64) -> Result<u64> {
    let piece = noise(PIECE);
    let mut file = File::create(path)?;
    for _ in 0..len / PIECE as u64 {
        file.write_all(&piece)?;
    }
    // Closed here; whether it was stored is asked of the store afterwards.
    drop(file);
    Ok(len)
}

/// So many files, each in a thread of its own.
pub(crate) fn write_at_once(directory: &Path, files: usize, len: u64) -> Result<u64> {
    thread::scope(|scope| {
        let writers: Vec<_> = (0..files)
            .map(|n| directory.join(n.to_string()))
            .map(|path| scope.spawn(move || write(&path, len)))
            .collect();
        writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked")?).sum()
    })
}

/// Small files, one after another, for a while.
pub(crate) fn create(directory: &Path, files: usize) -> Result<u64> {
    let bytes = noise(SMALL);
    for_a_while(files, |n| Ok(File::create(directory.join(format!("{n:05}")))?.write_all(&bytes)?))
}

/// One file that stays open.
pub(crate) fn append(path: &Path, times: usize) -> Result<u64> {
    let bytes = noise(APPENDED);
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    for _ in 0..times {
        file.write_all(&bytes)?;
    }
    Ok(times as u64)
}

/// One file that is opened and closed each time, for a while.
pub(crate) fn append_each(path: &Path, times: usize) -> Result<u64> {
    let bytes = noise(APPENDED);
    for_a_while(times, |_| Ok(OpenOptions::new().create(true).append(true).open(path)?.write_all(&bytes)?))
}

/// How many files the archive had.
pub(crate) fn untar(directory: &Path, trees: &Trees) -> Result<u64> {
    trees::run(Command::new("tar").arg("-xf").arg(trees.archive()).arg("-C").arg(directory))?;
    Ok(trees.archived_files() as u64)
}

/// How many files the repository had.
pub(crate) fn clone(directory: &Path, trees: &Trees) -> Result<u64> {
    trees.clone_to(&directory.join("clone"))?;
    Ok(trees.cloned_files() as u64)
}

/// As fio does it, for a while. The last write is ours, so that the store can be asked for it.
pub(crate) fn fsync(directory: &Path) -> Result<Done> {
    let path = directory.join("random");
    let size = fs::metadata(&path)?.len();
    let mut fio = Command::new("fio");
    fio.args(["--name=fsync", "--rw=randwrite", "--ioengine=psync", "--fsync=1", "--minimal"]);
    fio.args(["--terse-version=3", "--eta=never", "--allow_file_create=0", "--fallocate=none"]);
    fio.arg(format!("--filename={}", path.display())).arg(format!("--size={size}"));
    fio.arg(format!("--bs={REWRITTEN}")).arg(format!("--runtime={}", AT_MOST.as_secs()));
    let said = fio.output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    // Of what fio writes in a line, the 47th is KiB written, and the 50th in how many milliseconds.
    let fields: Vec<_> =
        text.lines().rfind(|line| line.starts_with("3;")).unwrap_or_default().split(';').collect();
    let [Some(kib), _, _, Some(millis)] =
        [46, 47, 48, 49].map(|n| fields.get(n).and_then(|f| f.parse::<u64>().ok()))
    else {
        return Err(format!("fio failed: {}", String::from_utf8_lossy(&said.stderr).trim()).into());
    };
    let file = OpenOptions::new().write(true).open(&path)?;
    let start = Instant::now();
    file.write_all_at(&noise(REWRITTEN), 0)?;
    file.sync_all()?;
    let ops = (kib << 10) / REWRITTEN as u64 + 1;
    Ok(Done { ops, time: Duration::from_millis(millis) + start.elapsed() })
}

/// Within their directory.
pub(crate) fn rename(directory: &Path, files: usize) -> Result<u64> {
    for n in 0..files {
        fs::rename(directory.join(format!("{n:05}")), directory.join(format!("to-{n:05}")))?;
    }
    Ok(files as u64)
}

/// One after another.
pub(crate) fn unlink(directory: &Path, files: usize) -> Result<u64> {
    for n in 0..files {
        fs::remove_file(directory.join(format!("{n:05}")))?;
    }
    Ok(files as u64)
}

/// How often it was done.
fn for_a_while(times: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<u64> {
    let start = Instant::now();
    for n in 0..times {
        work(n)?;
        if start.elapsed() > AT_MOST {
            return Ok(n as u64 + 1);
        }
    }
    Ok(times as u64)
}

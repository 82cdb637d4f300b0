//! Trees that are made once, on the local disk: an archive and a repository, and what is to come of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::Result;
use crate::data::{Sizes, noise};
use crate::rows::Row;

/// Files in one directory of a tree.
const FILES_A_DIRECTORY: usize = 25;
/// Lengths of files in a tree go up to this.
const LONGEST: usize = 16 << 10;
/// What git is not to learn from whoever measures.
const GIT: [(&str, &str); 6] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_AUTHOR_NAME", "bench"),
    ("GIT_AUTHOR_EMAIL", "bench@localhost"),
    ("GIT_COMMITTER_NAME", "bench"),
    ("GIT_COMMITTER_EMAIL", "bench@localhost"),
];

/// Files by their path, with their lengths; `None` for one whose length depends on where it lies.
pub(crate) type Files = BTreeMap<String, Option<u64>>;

/// What rows unpack and clone.
pub(crate) struct Trees {
    directory: TempDir,
    unpacked: Files,
    cloned: Files,
    cloned_files: usize,
}

impl Trees {
    /// Those that the rows need, of files between 1 and 16 KiB.
    pub(crate) fn new(rows: &[Row], sizes: &Sizes) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (archived, source) = (directory.path().join("archived"), directory.path().join("source"));
        let cloned_files = sizes.cloned_files;
        let mut trees = Self { directory, unpacked: Files::new(), cloned: Files::new(), cloned_files };
        if rows.contains(&Row::Untar) {
            grow(&archived, sizes.archived_files)?;
            trees.unpacked = files_below(&archived)?;
            run(Command::new("tar").arg("-cf").arg(trees.archive()).arg("-C").arg(&archived).arg("."))?;
        }
        if rows.contains(&Row::Clone) {
            grow(&source, cloned_files)?;
            commit(&source)?;
            let clone = trees.directory.path().join("clone");
            trees.clone_to(&clone)?;
            trees.cloned = files_below(&clone)?;
            // It says which kind of names and modes the file system has.
            trees.cloned.insert(".git/config".to_owned(), None);
        }
        Ok(trees)
    }

    /// A tar file.
    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.path().join("archive.tar")
    }

    /// How many files it has.
    pub(crate) fn archived_files(&self) -> usize {
        self.unpacked.len()
    }

    /// Its files.
    pub(crate) fn unpacked(&self) -> &Files {
        &self.unpacked
    }

    /// How many files a clone has, but git's own.
    pub(crate) fn cloned_files(&self) -> usize {
        self.cloned_files
    }

    /// The files of a clone.
    pub(crate) fn cloned(&self) -> &Files {
        &self.cloned
    }

    /// Clones the repository. By copying, on the local disk too.
    pub(crate) fn clone_to(&self, path: &Path) -> Result<()> {
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--no-hardlinks", "--template="]);
        run(git.arg(self.directory.path().join("source")).arg(path).envs(GIT))
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let said = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if said.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy();
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&said.stderr).trim()).into())
}

fn grow(root: &Path, files: usize) -> Result<()> {
    let mut lengths = fastrand::Rng::with_seed(7);
    for n in 0..files {
        let directory = root.join(format!("{:03}", n / FILES_A_DIRECTORY));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{n:05}")), noise(lengths.usize(1 << 10..=LONGEST)))?;
    }
    Ok(())
}

fn commit(source: &Path) -> Result<()> {
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "."],
        &["commit", "--quiet", "-m", "All of it"],
        &["gc", "--quiet"],
    ] {
        run(Command::new("git").arg("-C").arg(source).args(arguments).envs(GIT))?;
    }
    Ok(())
}

fn files_below(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(root)?.to_string_lossy().into_owned();
            files.insert(path, Some(entry.metadata()?.len()));
        }
    }
    Ok(files)
}

//! Which mount a path belongs to, without a question to any mount of ours: one that is stuck would not answer.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use staithe_fuse::MountEntry;

use crate::failure::Failure;

/// As many links as the kernel follows (`MAXSYMLINKS`, `path_resolution(7)`).
const LINKS_MAX: u32 = 40;

/// How long after the first one a second look is taken.
const SECOND_LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// A path in a mount of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) mount: MountEntry,
    /// Below the root of the filesystem; empty for that itself.
    pub(crate) below: PathBuf,
}

/// Finds the staithe mount that `path` belongs to, and tells where in it. Links on the way to the mount are
/// followed, those in it are not.
///
/// # Errors
/// One sentence: it belongs to none.
pub(crate) fn locate(path: &Path) -> Result<Place, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|e| Failure::caused(format!("{} cannot be found", path.display()), &e))?;
    let look = || {
        let table =
            staithe_fuse::mounts().map_err(|e| Failure::caused("the mount table cannot be read", &e))?;
        let real = resolve(&absolute, &table);
        Ok::<_, Failure>((place(&real, &table), real))
    };
    let (mut found, mut real) = look()?;
    if found.is_none() {
        // While others mount and unmount, the table may lack what is there: that nothing is is worth a second look.
        std::thread::sleep(SECOND_LOOK);
        (found, real) = look()?;
    }
    found.ok_or_else(|| Failure::failed(format!("nothing of staithe is mounted on {}", real.display())))
}

/// A place as the keys have it.
///
/// # Errors
/// One sentence: `path`, which it is of, is not UTF-8.
pub(crate) fn key_path(path: &Path, place: &Place) -> Result<String, Failure> {
    let text = place.below.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::failed(format!("{} is not UTF-8, as all names in a bucket are", path.display()))
    })
}

/// Where a path without links lies, if that is in a mount of ours.
fn place(real: &Path, table: &[MountEntry]) -> Option<Place> {
    let mount = covering(real, table).filter(|m| m.is_staithe())?;
    let below = real.strip_prefix(&mount.mountpoint).ok()?;
    let root = mount.root.strip_prefix("/").unwrap_or(&mount.root).to_owned();
    // A directory of it that is mounted again is served by the daemon that serves the whole.
    let whole = table.iter().rfind(|m| m.is_staithe() && m.minor == mount.minor && m.root == Path::new("/"));
    Some(Place { mount: whole.unwrap_or(mount).clone(), below: root.join(below) })
}

/// The visible mount that a path without links lies in: the deepest, and of several at one place the last.
fn covering<'t>(path: &Path, table: &'t [MountEntry]) -> Option<&'t MountEntry> {
    let above = table.iter().filter(|m| path.starts_with(&m.mountpoint));
    above.max_by_key(|m| m.mountpoint.as_os_str().len())
}

/// The path without links, as far as that can be told without asking a mount of ours; what is not there stays.
fn resolve(absolute: &Path, table: &[MountEntry]) -> PathBuf {
    let mut real = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(absolute).collect();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        let is_ours = covering(&next, table).is_some_and(MountEntry::is_staithe);
        let link = if is_ours || links == LINKS_MAX { None } else { fs::read_link(&next).ok() };
        let Some(target) = link else {
            real = next;
            continue;
        };
        links += 1;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(part);
        }
    }
    real
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn entry(mountpoint: &Path, fs_type: &str, minor: u32, root: &str) -> MountEntry {
        MountEntry {
            minor,
            root: PathBuf::from(root),
            mountpoint: mountpoint.to_owned(),
            fs_type: fs_type.to_owned(),
            source: "memory://".to_owned(),
            user_id: None,
        }
    }

    #[test]
    fn paths_are_found_through_links_and_under_other_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for name in ["mnt", "dir", "bound"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        symlink("../mnt/in", base.join("dir/link")).unwrap();
        symlink(base.join("dir"), base.join("there")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        let ours = staithe_fuse::FS_TYPE;
        let table = [
            entry(Path::new("/"), "ext4", 1, "/"),
            entry(&base.join("mnt"), ours, 2, "/"),
            entry(&base.join("mnt/over"), "tmpfs", 3, "/"),
            entry(&base.join("bound"), ours, 2, "/a/b"),
        ];
        for (path, below) in [
            ("mnt", Some("")),
            ("mnt/x/y", Some("x/y")),
            ("mnt/x/../y", Some("y")),
            ("mnt/../dir", None),
            ("there/link/z", Some("in/z")),
            ("loop/x", None),
            ("mnt/over/x", None),
            ("mntx", None),
            ("missing/x", None),
            ("bound/c", Some("a/b/c")),
        ] {
            let found = place(&resolve(&base.join(path), &table), &table);
            let wanted = below.map(|b| Place { mount: table[1].clone(), below: PathBuf::from(b) });
            assert_eq!(found, wanted, "{path}");
        }
    }
}

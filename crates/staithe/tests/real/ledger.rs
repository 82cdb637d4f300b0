//! What a program was told that it is done, and so what a mount and its bucket may show after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::{Bucket, close};

const FILE_TYPE: u32 = 0o170_000;
const LINK_TYPE: u32 = 0o120_000;

/// What a name can mean.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File { bytes: Vec<u8>, mode: u32 },
    Link(String),
    Dir { mode: u32 },
}

impl Node {
    /// A file as programs make it.
    pub(crate) fn file(bytes: impl Into<Vec<u8>>) -> Self {
        Self::File { bytes: bytes.into(), mode: 0o644 }
    }

    fn with_bytes(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut changed = self.clone();
        if let Self::File { bytes, .. } = &mut changed {
            change(bytes);
        }
        changed
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { bytes, mode } => {
                write!(f, "file of {} bytes {:?} {mode:o}", bytes.len(), &bytes[..bytes.len().min(6)])
            }
            Self::Link(target) => write!(f, "link to {target:?}"),
            Self::Dir { mode } => write!(f, "directory {mode:o}"),
        }
    }
}

/// Names, and what they mean.
pub(crate) type Tree = BTreeMap<String, Node>;

/// Everything below a directory of this machine.
pub(crate) fn tree_of(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let reading = |path: &str, e: io::Error| io::Error::new(e.kind(), format!("reading {path:?}: {e}"));
        for entry in fs::read_dir(root.join(&dir)).map_err(|e| reading(&dir, e))? {
            let name = entry?.file_name().into_string().unwrap();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let node = node_at(&root.join(&path)).map_err(|e| reading(&path, e))?;
            if matches!(node, Node::Dir { .. }) {
                dirs.push(path.clone());
            }
            tree.insert(path, node);
        }
    }
    Ok(tree)
}

fn node_at(path: &Path) -> io::Result<Node> {
    let meta = fs::symlink_metadata(path)?;
    let mode = meta.permissions().mode() & 0o7777;
    Ok(if meta.is_dir() {
        Node::Dir { mode }
    } else if meta.is_symlink() {
        Node::Link(fs::read_link(path)?.into_os_string().into_string().unwrap())
    } else {
        Node::File { bytes: fs::read(path)?, mode }
    })
}

/// Fails unless a bucket has what a mount of it shows, and nothing else.
pub(crate) fn assert_stored(bucket: &Bucket, shown: &Tree, when: &str) {
    let keys = bucket.keys();
    let mut left: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    for (path, node) in shown {
        let key = if matches!(node, Node::Dir { .. }) { format!("{path}/") } else { path.clone() };
        let said = bucket.meta(&key).and_then(|meta| meta.metadata.get("mode")?.parse::<u32>().ok());
        let stored = bucket.get(&key);
        left.remove(key.as_str());
        match node {
            // Without a marker it is there as long as it has anything in it.
            Node::Dir { .. } if stored.is_none() => {
                assert!(keys.iter().any(|k| k.starts_with(&key)), "{when}: {key} is not in the bucket");
            }
            Node::Dir { mode } => {
                assert!(said.is_none_or(|said| said & 0o7777 == *mode), "{when}: {key} has another mode");
            }
            Node::File { bytes, mode } => {
                assert!(stored.as_ref() == Some(bytes), "{when}: {key} has other bytes in the bucket");
                assert!(said.is_none_or(|said| said & 0o7777 == *mode), "{when}: {key} has another mode");
            }
            Node::Link(target) => {
                assert_eq!(said.map(|said| said & FILE_TYPE), Some(LINK_TYPE), "{when}: {key}");
                assert_eq!(stored.as_deref(), Some(target.as_bytes()), "{when}: {key}");
            }
        }
    }
    assert!(left.is_empty(), "{when}: only in the bucket: {left:?}");
}

/// What is promised of each name. A change that is under way when the daemon ends may have been made or not.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Everything that a name may mean; the newest last.
    may: BTreeMap<String, Vec<Option<Node>>>,
    /// The names of a rename under way, old and new.
    moving: Vec<(String, String)>,
}

impl Ledger {
    /// Of what is there before the first change.
    pub(crate) fn of(tree: Tree) -> Self {
        let may = tree.into_iter().map(|(path, node)| (path, vec![Some(node)])).collect();
        Self { may, moving: Vec::new() }
    }

    fn begin(&mut self, path: &str, node: Option<Node>) {
        self.may.entry(path.to_owned()).or_insert_with(|| vec![None]).push(node);
    }

    fn done(&mut self, path: &str) {
        let may = self.may.get_mut(path).unwrap();
        may.drain(..may.len() - 1);
    }

    fn now(&self, path: &str) -> Option<Node> {
        self.may.get(path).and_then(|may| may.last().cloned()).flatten()
    }

    /// Makes one change of one name, which holds when `act` has returned.
    fn change(
        &mut self,
        path: &str,
        node: Option<Node>,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.begin(path, node);
        act()?;
        self.done(path);
        Ok(())
    }

    pub(crate) fn mkdir(&mut self, root: &Path, path: &str) -> io::Result<()> {
        self.change(path, Some(Node::Dir { mode: 0o755 }), || fs::create_dir(root.join(path)))
    }

    pub(crate) fn symlink(&mut self, root: &Path, path: &str, target: &str) -> io::Result<()> {
        self.change(path, Some(Node::Link(target.to_owned())), || symlink(target, root.join(path)))
    }

    pub(crate) fn unlink(&mut self, root: &Path, path: &str) -> io::Result<()> {
        self.change(path, None, || fs::remove_file(root.join(path)))
    }

    pub(crate) fn rmdir(&mut self, root: &Path, path: &str) -> io::Result<()> {
        self.change(path, None, || fs::remove_dir(root.join(path)))
    }

    pub(crate) fn chmod(&mut self, root: &Path, path: &str, mode: u32) -> io::Result<()> {
        let changed = match self.now(path).unwrap() {
            Node::File { bytes, .. } => Node::File { bytes, mode },
            Node::Dir { .. } => Node::Dir { mode },
            link @ Node::Link(_) => link,
        };
        self.change(path, Some(changed), || {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode))
        })
    }

    /// Cuts a file by its name.
    pub(crate) fn cut(&mut self, root: &Path, path: &str, len: usize) -> io::Result<()> {
        let cut = self.now(path).unwrap().with_bytes(|bytes| bytes.truncate(len));
        self.change(path, Some(cut), || Ok(nix::unistd::truncate(&root.join(path), len as i64)?))
    }

    /// Makes a file, or writes it anew; nothing holds until it is closed or synced.
    pub(crate) fn open(&mut self, root: &Path, path: &str, bytes: &[u8]) -> io::Result<File> {
        let empty = self.now(path).unwrap_or_else(|| Node::file("")).with_bytes(Vec::clear);
        self.begin(path, Some(empty.clone()));
        let file = File::create(root.join(path))?;
        self.begin(path, Some(empty.with_bytes(|all| all.extend(bytes))));
        file.write_all_at(bytes, 0)?;
        Ok(file)
    }

    /// Makes a file, or writes it anew, to the end of its close(2).
    pub(crate) fn write(&mut self, root: &Path, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(root, path, bytes)?;
        close(file)?;
        self.done(path);
        Ok(())
    }

    /// The same with an fsync(2), and more bytes after it.
    pub(crate) fn write_synced(&mut self, root: &Path, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(root, path, bytes)?;
        file.sync_all()?;
        self.done(path);
        let longer = self.now(path).unwrap().with_bytes(|all| all.extend(b"more"));
        self.begin(path, Some(longer));
        file.write_all_at(b"more", bytes.len() as u64)?;
        close(file)?;
        self.done(path);
        Ok(())
    }

    /// Changes bytes in the middle of a file.
    pub(crate) fn edit(&mut self, root: &Path, path: &str, at: usize, bytes: &[u8]) -> io::Result<()> {
        let edited = self.now(path).unwrap().with_bytes(|all| {
            all[at..at + bytes.len()].copy_from_slice(bytes);
        });
        self.change(path, Some(edited), || {
            let file = File::options().write(true).open(root.join(path))?;
            file.write_all_at(bytes, at as u64)?;
            file.sync_all()?;
            close(file)
        })
    }

    /// Renames a file, or a directory with all that is in it.
    pub(crate) fn rename(&mut self, root: &Path, from: &str, to: &str) -> io::Result<()> {
        let below = format!("{from}/");
        let paths: Vec<String> =
            self.may.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in paths {
            let Some(node) = self.now(&path) else { continue };
            let moved = format!("{to}{}", &path[from.len()..]);
            self.begin(&moved, Some(node));
            self.begin(&path, None);
            self.moving.push((path, moved));
        }
        fs::rename(root.join(from), root.join(to))?;
        for (path, moved) in std::mem::take(&mut self.moving) {
            self.done(&path);
            self.done(&moved);
        }
        Ok(())
    }

    /// Whether a name is that of a copy that a rename had just made when the daemon ended: of what the store had, which lacks
    /// what is to be stored later. The old name has that.
    fn is_a_copy(&self, path: &str, seen: &Tree) -> bool {
        matches!(&self.moving[..], [(from, to)] if to == path && seen.contains_key(from) && seen.contains_key(to))
    }

    /// Fails unless every name means what it may.
    pub(crate) fn check(&self, seen: &Tree, when: &str) {
        for (path, node) in seen {
            assert!(self.may.contains_key(path), "{when}: {path} came from nowhere: {node:?}");
        }
        for (path, may) in &self.may {
            let is = seen.get(path).cloned();
            assert!(
                may.contains(&is) || self.is_a_copy(path, seen),
                "{when}: {path} is {is:?}, and may be {may:?}"
            );
        }
        // A file may have both names, a directory is here or there.
        let is_tree = self.moving.len() > 1;
        let whole: BTreeSet<_> = self
            .moving
            .iter()
            .map(|(from, to)| (seen.contains_key(from), self.may[to].last() == Some(&seen.get(to).cloned())))
            .collect();
        assert!(!whole.contains(&(false, false)), "{when}: a file lost its name in {:?}", self.moving);
        assert!(!is_tree || whole.len() == 1, "{when}: a directory is half here, half there: {whole:?}");
        assert!(!is_tree || !whole.contains(&(true, true)), "{when}: a directory is here and there");
    }
}

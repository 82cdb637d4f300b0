//! What is compared after each step, and at the end.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use staithe_fs::{Filesystem, FsConfig, FsErrorKind as K, Ino, Kind, LocalFile, Lookup, OpenMode};

use super::Run;
use super::steps::NAMES;
use super::world::{self, READ};

impl Run {
    pub(crate) async fn check(&mut self, is_stored: bool) {
        self.check_tree(&self.w.fs).await;
        for open in &self.m.open {
            let node = &self.m.nodes[open.node];
            let wanted = node.bytes.as_ref().unwrap();
            if let Some(local) = &open.local {
                self.lent.set(self.lent.get() + 1);
                let bytes = content(local);
                assert!(bytes == *wanted, "{bytes:?} is in the lent file instead of {wanted:?}");
                continue;
            }
            match self.w.read(open.handle, 0, 1000).await {
                Err(error) if !open.read => assert_eq!(error.kind(), K::BadHandle),
                Ok(bytes) => assert!(bytes == *wanted, "{bytes:?} was read instead of {wanted:?}"),
                Err(error) => assert!(node.lost && error.kind() == K::Stale, "{error:?}"),
            }
        }
        if !is_stored {
            return;
        }
        for (path, id) in &self.m.tree {
            let node = &self.m.nodes[*id];
            let Some(bytes) = node.bytes.as_ref().filter(|_| !node.dirty) else { continue };
            assert_eq!(self.w.stored(path).await.as_ref(), Some(bytes), "{path} in the bucket");
            let mode = self.w.meta(path).await.unwrap().metadata.get("mode").cloned();
            let wanted = (0o100_000 | u32::from(node.mode)).to_string();
            assert!(mode.is_none_or(|m| m == wanted), "mode of {path} in the bucket");
        }
        assert!(self.w.bucket.object_count() <= self.m.tree.len(), "more objects than names");
    }

    /// Closes everything and stores it; another filesystem sees the same then.
    pub(crate) async fn end(&mut self, state: &std::path::Path) {
        while !self.m.open.is_empty() {
            self.store(0, true).await;
        }
        self.m.nodes.iter_mut().for_each(|n| n.dirty = false);
        let report = self.w.fs.drain(Duration::from_secs(5)).await;
        assert!(report.kept.is_empty(), "{report:?}");
        self.check(true).await;
        let other = tempfile::tempdir().unwrap();
        let (_, _, fresh) = world::open(&self.w.bucket, FsConfig::new(other.path())).await.unwrap();
        self.check_tree(&fresh).await;
        let left = std::fs::read_dir(state.join("staging")).unwrap().count();
        assert_eq!(left, 0, "staging files are left");
    }

    /// Every directory, by its listing and by lookups of every name.
    async fn check_tree(&self, fs: &Filesystem) {
        let dirs = self.m.tree.keys().map(String::as_str).chain([""]).filter(|p| self.m.is_dir(p));
        for dir in dirs {
            let mut ino = Ino::ROOT;
            for name in dir.split('/').filter(|n| !n.is_empty()) {
                let Lookup::Found(entry) = fs.lookup(ino, name).await.unwrap() else {
                    panic!("directory {dir} is missing")
                };
                ino = entry.attr.ino;
            }
            let stream = fs.opendir(ino).await.unwrap();
            let mut listed: Vec<String> =
                fs.readdir(stream, 0, 100).await.unwrap().into_iter().map(|i| i.name).collect();
            fs.releasedir(stream);
            listed.retain(|n| n != "." && n != "..");
            listed.sort();
            let path = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let wanted: Vec<&str> =
                NAMES.into_iter().filter(|n| self.m.tree.contains_key(&path(n))).collect();
            assert_eq!(listed, wanted, "listing of {dir:?}");
            for name in NAMES {
                let found = fs.lookup(ino, name).await.unwrap();
                let node = self.m.tree.get(&path(name)).map(|id| &self.m.nodes[*id]);
                match (found, node) {
                    (Lookup::Absent { .. }, None) => {}
                    (Lookup::Found(entry), Some(node)) => {
                        let kind = if node.bytes.is_some() { Kind::File } else { Kind::Directory };
                        assert_eq!((entry.attr.kind, entry.attr.mode), (kind, node.mode), "{}", path(name));
                        if let Some(bytes) = &node.bytes {
                            assert_eq!(entry.attr.size, bytes.len() as u64, "size of {}", path(name));
                            check_bytes(fs, entry.attr.ino, bytes).await;
                        }
                    }
                    (found, node) => panic!("{}: {found:?} for {node:?}", path(name)),
                }
            }
        }
    }
}

async fn check_bytes(fs: &Filesystem, ino: Ino, wanted: &[u8]) {
    let opened = fs.open_file(ino, OpenMode { read: true, ..READ }).await.unwrap();
    let bytes = match &opened.local {
        Some(local) => content(local),
        None => fs.read(opened.handle, 0, 1000).await.unwrap().0.concat(),
    };
    fs.release(opened.handle);
    assert!(bytes == wanted, "{bytes:?} was read instead of {wanted:?}");
}

fn content(local: &LocalFile) -> Vec<u8> {
    let file = File::from(local.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; 1000];
    let len = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(len);
    bytes
}

//! What there should be: paths, nodes and handles, in memory.

use std::collections::BTreeMap;

use staithe_fs::{HandleId, LocalFile};

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// `None`: a directory.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) mode: u16,
    pub(crate) dirty: bool,
    /// Another client has replaced or removed it while it was open here.
    pub(crate) lost: bool,
}

pub(crate) struct Open {
    pub(crate) handle: HandleId,
    pub(crate) node: usize,
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// What a kernel reads in place of the handle.
    pub(crate) local: Option<LocalFile>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) nodes: Vec<Node>,
    pub(crate) tree: BTreeMap<String, usize>,
    pub(crate) open: Vec<Open>,
}

impl Model {
    pub(crate) fn node(&mut self, path: &str) -> Option<&mut Node> {
        self.tree.get(path).map(|id| &mut self.nodes[*id])
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || self.tree.get(path).is_some_and(|id| self.nodes[*id].bytes.is_none())
    }

    pub(crate) fn add(&mut self, path: &str, bytes: Option<Vec<u8>>, mode: u16, dirty: bool) -> usize {
        self.nodes.push(Node { bytes, mode, dirty, lost: false });
        self.tree.insert(path.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub(crate) fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.tree.keys().any(|p| p.starts_with(&below))
    }

    pub(crate) fn is_open(&self, id: usize) -> bool {
        self.open.iter().any(|open| open.node == id)
    }

    /// Whether the rename is one; if so, it is done.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(&source) = self.tree.get(from) else { return false };
        if from == to {
            return true;
        }
        let is_dir = self.nodes[source].bytes.is_none();
        if is_dir && to.starts_with(&format!("{from}/")) {
            return false;
        }
        if let Some(&target) = self.tree.get(to) {
            let target_is_dir = self.nodes[target].bytes.is_none();
            if is_dir != target_is_dir || (is_dir && self.has_children(to)) {
                return false;
            }
        }
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.tree.keys().filter(|p| *p == from || p.starts_with(&below)).cloned().collect();
        for path in moved {
            let id = self.tree.remove(&path).unwrap();
            self.tree.insert(format!("{to}{}", &path[from.len()..]), id);
        }
        true
    }
}

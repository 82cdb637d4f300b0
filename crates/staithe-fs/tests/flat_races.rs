//! Random changes made here while a tree is walked and its flat pages are held back at random places; a tree in
//! memory says what every directory has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use staithe_fs::{Ino, RenameMode, Ttl};
use staithe_store::MemoryOptions;
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op};
use tokio::task::JoinHandle;
use world::{ROOT, World};

const DIRECTORIES: usize = 8;
const NAMES: [&str; 4] = ["f0", "f1", "f2", "s"];

#[derive(Debug, Clone)]
enum Step {
    /// The walker lists his next directory.
    Walk,
    /// A listing of no matter which kind of the whole tree is held back: before the store answers, or after.
    Hold(bool),
    /// What is held back goes on.
    Open,
    Create(usize, usize),
    Unlink(usize, usize),
    Mkdir(usize, usize),
    Rmdir(usize, usize),
    Move((usize, usize), (usize, usize)),
    /// A directory of the first level becomes another one's subdirectory, or a subdirectory one of the first level.
    MoveDown(usize, usize),
    MoveUp(usize),
}

/// Paths of files, and of directories with a slash at their end.
type Tree = BTreeSet<String>;

fn entries(tree: &Tree, dir: &str) -> Vec<String> {
    let below = tree.iter().filter_map(|path| path.strip_prefix(dir)).filter(|rest| !rest.is_empty());
    below.filter(|rest| rest.trim_end_matches('/').find('/').is_none()).map(String::from).collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn moved(tree: &Tree, from: &str, to: &str) -> Tree {
    tree.iter()
        .map(|path| path.strip_prefix(from).map_or(path.clone(), |rest| format!("{to}{rest}")))
        .collect()
}

struct Run {
    w: Arc<World>,
    tree: Tree,
    /// What the walker has yet to list.
    todo: Vec<String>,
    gate: Option<Gate>,
    walking: Option<JoinHandle<()>>,
}

fn dir(at: usize) -> String {
    format!("d{at}/")
}

impl Run {
    async fn new() -> Self {
        let options = MemoryOptions { page_max: 6, ..MemoryOptions::default() };
        let w = World::with(options, |c| {
            (c.live.metadata_ttl, c.live.negative_ttl) = (Ttl::Forever, Ttl::Forever);
        })
        .await;
        let mut tree = Tree::new();
        for at in 0..DIRECTORIES {
            for name in ["f0", "f1", "s/g"] {
                w.put(&format!("{}{name}", dir(at)), "x").await;
                tree.insert(format!("{}{name}", dir(at)));
            }
            tree.extend([dir(at), format!("{}s/", dir(at))]);
        }
        let mut run = Self { w: Arc::new(w), tree, todo: Vec::new(), gate: None, walking: None };
        run.w.entries(Ino::ROOT).await;
        run.todo = run.tree.iter().rev().filter(|path| path.ends_with('/')).cloned().collect();
        run
    }

    /// The inode of a directory of the tree.
    async fn ino(&self, path: &str) -> Option<Ino> {
        if path.is_empty() {
            return Some(Ino::ROOT);
        }
        if self.tree.contains(path) { Some(self.w.ino(path).await) } else { None }
    }

    async fn walk(&mut self) {
        self.open().await;
        let Some(path) = self.todo.pop() else { return };
        let Some(ino) = self.ino(&path).await else { return };
        let Some(gate) = self.gate.clone() else {
            assert_eq!(sorted(self.w.entries(ino).await), entries(&self.tree, &path), "{path}");
            return;
        };
        let w = self.w.clone();
        let walking = tokio::spawn(async move { drop(w.entries(ino).await) });
        let done = async {
            while !walking.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = gate.arrived(1) => self.walking = Some(walking),
            () = done => {}
        }
    }

    fn hold(&mut self, before: bool) {
        if self.gate.is_some() {
            return;
        }
        let gate = Gate::new();
        let action =
            if before { FaultAction::HoldBefore(gate.clone()) } else { FaultAction::HoldAfter(gate.clone()) };
        self.w.faults.add(Fault::new(action).on(Op::List).key(str::is_empty).times(1));
        self.gate = Some(gate);
    }

    async fn open(&mut self) {
        let Some(walking) = self.walking.take() else { return };
        if let Some(gate) = self.gate.take() {
            gate.open();
        }
        walking.await.unwrap();
    }

    async fn step(&mut self, step: &Step) {
        let name = |at: usize, name: usize| format!("{}{}", dir(at), NAMES[name]);
        match *step {
            Step::Walk => self.walk().await,
            Step::Hold(before) => self.hold(before),
            Step::Open => self.open().await,
            Step::Create(at, n) if !self.is_taken(&name(at, n)) => {
                let Some(_) = self.ino(&dir(at)).await else { return };
                self.w.create(&dir(at), NAMES[n], b"new").await.unwrap();
                self.tree.insert(name(at, n));
            }
            Step::Unlink(at, n) if self.tree.contains(&name(at, n)) => {
                let parent = self.ino(&dir(at)).await.unwrap();
                self.w.fs.unlink(parent, NAMES[n]).await.unwrap();
                self.tree.remove(&name(at, n));
            }
            Step::Mkdir(at, n) if !self.is_taken(&name(at, n)) => {
                let Some(parent) = self.ino(&dir(at)).await else { return };
                self.w.fs.lookup(parent, NAMES[n]).await.unwrap();
                self.w.fs.mkdir(parent, NAMES[n], 0o755, ROOT).await.unwrap();
                self.tree.insert(format!("{}/", name(at, n)));
            }
            Step::Rmdir(at, n) => {
                let path = format!("{}/", name(at, n));
                if self.tree.contains(&path) && entries(&self.tree, &path).is_empty() {
                    let parent = self.ino(&dir(at)).await.unwrap();
                    self.w.fs.rmdir(parent, NAMES[n]).await.unwrap();
                    self.tree.remove(&path);
                }
            }
            Step::Move((at, n), (to, m))
                if self.tree.contains(&name(at, n)) && !self.is_taken(&name(to, m)) =>
            {
                let from = self.ino(&dir(at)).await.unwrap();
                let Some(parent) = self.ino(&dir(to)).await else { return };
                self.w.fs.rename(from, NAMES[n], parent, NAMES[m], RenameMode::Replace).await.unwrap();
                self.tree.remove(&name(at, n));
                self.tree.insert(name(to, m));
            }
            Step::MoveDown(at, to) => self.move_dir(&dir(at), &format!("{}s/", dir(to))).await,
            Step::MoveUp(at) => self.move_dir(&format!("{}s/", dir(at)), "e/").await,
            _ => {}
        }
    }

    async fn move_dir(&mut self, from: &str, to: &str) {
        if !self.tree.contains(from) || self.is_taken(to.trim_end_matches('/')) || to.starts_with(from) {
            return;
        }
        let split = |path: &str| {
            let path = path.trim_end_matches('/');
            let at = path.rfind('/').map_or(0, |at| at + 1);
            (path[..at].to_owned(), path[at..].to_owned())
        };
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let Some(parent) = self.ino(&to_dir).await else { return };
        let from_dir = self.ino(&from_dir).await.unwrap();
        self.w.fs.rename(from_dir, &from_name, parent, &to_name, RenameMode::Replace).await.unwrap();
        self.tree = moved(&self.tree, from, to);
    }

    fn is_taken(&self, path: &str) -> bool {
        self.tree.contains(path) || self.tree.contains(&format!("{path}/"))
    }

    async fn check(&mut self) {
        self.open().await;
        if let Some(gate) = self.gate.take() {
            gate.open();
        }
        let dirs: Vec<String> = self.tree.iter().filter(|path| path.ends_with('/')).cloned().collect();
        for path in dirs.iter().map(String::as_str).chain([""]) {
            let ino = self.ino(path).await.unwrap();
            assert_eq!(sorted(self.w.entries(ino).await), entries(&self.tree, path), "in the end: {path:?}");
        }
    }
}

async fn run(steps: &[Step]) -> bool {
    let mut run = Run::new().await;
    for (i, step) in steps.iter().enumerate() {
        eprintln!("{i}: {step:?}");
        let step = run.step(step);
        tokio::time::timeout(Duration::from_secs(20), step).await.expect("nothing waits for long");
    }
    let was_flat =
        run.w.log.table().0.iter().filter(|r| r.operation == Op::List && r.key.is_empty()).count() > 2;
    run.check().await;
    was_flat
}

fn step() -> impl Strategy<Value = Step> {
    let (d, n) = (|| 0..DIRECTORIES, || 0..NAMES.len());
    prop_oneof![
        12 => Just(Step::Walk),
        3 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::Open),
        2 => (d(), n()).prop_map(|(d, n)| Step::Create(d, n)),
        2 => (d(), n()).prop_map(|(d, n)| Step::Unlink(d, n)),
        2 => (d(), n()).prop_map(|(d, n)| Step::Mkdir(d, n)),
        1 => (d(), n()).prop_map(|(d, n)| Step::Rmdir(d, n)),
        2 => ((d(), n()), (d(), n())).prop_map(|(a, b)| Step::Move(a, b)),
        1 => (d(), d()).prop_map(|(a, b)| Step::MoveDown(a, b)),
        1 => d().prop_map(Step::MoveUp),
    ]
}

proptest! {
    // `PROPTEST_CASES` asks for more.
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_changed_during_a_walk_is_seen(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&steps));
    }
}

#[tokio::test]
async fn the_walks_here_are_flat_ones() {
    assert!(run(&vec![Step::Walk; 12]).await);
}

/// Walkers and writers on threads of their own; in the end everything is as the bucket has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn walkers_and_writers_in_parallel() {
    for round in 0..20 {
        let run = Run::new().await;
        let w = run.w.clone();
        // A kernel looks a name up once at a time, whoever wants it.
        for path in &run.todo {
            w.ino(path).await;
        }
        let walker = |skip: usize| {
            let (w, todo) = (w.clone(), run.todo.clone());
            tokio::spawn(async move {
                for path in todo.iter().rev().skip(skip) {
                    if let Some(ino) = w.try_ino(path).await {
                        w.entries(ino).await;
                    }
                }
            })
        };
        let writer = |at: usize| {
            let w = w.clone();
            tokio::spawn(async move {
                for i in (at..DIRECTORIES).step_by(2) {
                    let parent = w.ino(&dir(i)).await;
                    w.create(&dir(i), "new", b"new").await.unwrap();
                    w.fs.unlink(parent, "f0").await.unwrap();
                    w.fs.rename(parent, "f1", parent, "f9", RenameMode::Replace).await.unwrap();
                    w.fs.rename(parent, "s", parent, "t", RenameMode::Replace).await.unwrap();
                }
            })
        };
        let all = [walker(0), walker(2), writer(0), writer(1)];
        for one in all {
            one.await.unwrap();
        }
        for at in 0..DIRECTORIES {
            let shown = sorted(w.entries(w.ino(&dir(at)).await).await);
            assert_eq!(shown, ["f9", "new", "t/"], "round {round}, {}", dir(at));
            assert_eq!(w.list(&format!("{}t", dir(at))).await, ["g"], "round {round}");
        }
    }
}

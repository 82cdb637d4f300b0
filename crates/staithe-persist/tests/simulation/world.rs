//! Files with names, a store with faults, and what must never be seen in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use staithe_persist::{Attempt, Failure, Generation, Runtime};

use crate::FILES;
use crate::runtime::Simulation;

/// A directory and a name in it, never used for two files.
pub(crate) type Path = (u32, u64);

#[derive(Clone)]
pub(crate) struct World {
    simulation: Simulation,
    state: Arc<Mutex<Inside>>,
    pub(crate) renames: Arc<futures::lock::Mutex<()>>,
}

#[derive(Default)]
struct Inside {
    names: BTreeMap<u64, Path>,
    generations: BTreeMap<u64, u64>,
    /// Attempts for less than this were outdated by a rename or an unlink that has ended.
    floors: BTreeMap<u64, Generation>,
    store: BTreeMap<Path, (u64, Generation)>,
    /// Files whose last change was asked to be stored.
    dirty: BTreeMap<u64, Generation>,
    running: BTreeSet<u64>,
    names_used: u64,
    /// A runner's panic is the queue's to catch: what must not happen is noted, and looked at in the end.
    wrong: Vec<String>,
    trace: Vec<String>,
}

impl World {
    pub(crate) fn new(simulation: &Simulation) -> Self {
        let world = Self { simulation: simulation.clone(), state: Arc::default(), renames: Arc::default() };
        for file in 0..FILES {
            world.create(file);
        }
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().unwrap()
    }

    pub(crate) fn dice(&self, sides: u32) -> u32 {
        self.simulation.dice(sides)
    }

    pub(crate) fn note(&self, what: impl Debug) {
        let line = format!("{:?} {what:?}", self.simulation.elapsed());
        self.lock().trace.push(line);
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Up to so many milliseconds.
    pub(crate) fn sleep(&self, most: u32) -> impl Future<Output = ()> + Send + 'static {
        let wait = Duration::from_millis(u64::from(self.dice(most + 1)));
        self.simulation.sleep_until(self.simulation.time() + wait)
    }

    fn create(&self, file: u64) {
        let dir = self.dice(3);
        let mut state = self.lock();
        state.names_used += 1;
        let name = (dir, state.names_used);
        state.names.insert(file, name);
    }

    pub(crate) fn names(&self) -> BTreeMap<u64, Path> {
        self.lock().names.clone()
    }

    /// The file is written: its next generation. `None` while it has no name.
    pub(crate) fn change(&self, file: u64) -> Option<Generation> {
        let mut state = self.lock();
        state.names.get(&file)?;
        let generation = state.raise(file);
        state.dirty.insert(file, generation);
        Some(generation)
    }

    /// Gives it a new name; what is stored moves with it, at once.
    pub(crate) fn rename(&self, file: u64, to: u32) -> Option<Generation> {
        let mut state = self.lock();
        state.names_used += 1;
        let new = (to, state.names_used);
        let old = state.names.get(&file).copied()?;
        state.names.insert(file, new);
        let generation = state.raise(file);
        let dirty = state.dirty.get(&file).copied();
        if let Some((_, stored)) = state.store.remove(&old) {
            let stored = if dirty == Some(stored) { generation } else { stored };
            state.store.insert(new, (file, stored));
        }
        if let Some(dirty) = state.dirty.get_mut(&file) {
            *dirty = generation;
        }
        Some(generation)
    }

    pub(crate) fn unlink(&self, file: u64) -> Option<Generation> {
        let mut state = self.lock();
        state.names.remove(&file)?;
        state.dirty.remove(&file);
        Some(state.raise(file))
    }

    /// Nothing for less than this may be committed from now on.
    pub(crate) fn outdate(&self, file: u64, generation: Generation) {
        self.lock().floors.insert(file, generation);
    }

    /// Removes whatever the store has of a file.
    pub(crate) fn delete(&self, file: u64) {
        self.lock().store.retain(|_, (of, _)| *of != file);
    }

    /// The file may be created anew.
    pub(crate) fn forget(&self, file: u64) {
        self.create(file);
    }

    pub(crate) fn stored(&self, file: u64) -> Option<Generation> {
        self.lock().store.values().find(|(of, _)| *of == file).map(|(_, generation)| *generation)
    }

    /// What an attempt does: prepare, pass the door, resolve the name, make it visible. Each may fail.
    pub(crate) async fn persist(&self, attempt: Attempt<u64>) -> Result<(), Failure> {
        let (file, generation) = (*attempt.key(), attempt.generation());
        let first = self.lock().running.insert(file);
        self.require(first, "two attempts of one file at once", &attempt);
        let _running = Running { world: self.clone(), file };
        let result = self.upload(&attempt, file, generation).await;
        self.note(format!("{attempt:?}: {result:?}"));
        result
    }

    async fn upload(&self, attempt: &Attempt<u64>, file: u64, generation: Generation) -> Result<(), Failure> {
        for part in 0..3 {
            attempt.progress(part, 3);
            let stopped = futures::future::select(Box::pin(attempt.stopped()), Box::pin(self.sleep(15)));
            drop(stopped.await);
            if attempt.is_stopped() {
                // Removes what it made, which takes its time.
                self.sleep(15).await;
                return Err(Failure::transient("stopped"));
            }
            match self.dice(40) {
                0..=2 => return Err(Failure::transient("a bad connection")),
                3 => {
                    let wait = Duration::from_millis(u64::from(self.dice(300)));
                    return Err(Failure::throttled("slow down").retry_after(wait));
                }
                4 if self.dice(8) == 0 => return Err(Failure::permanent("forbidden")),
                5 if self.dice(8) == 0 => std::panic::resume_unwind(Box::new("a mistake")),
                _ => {}
            }
        }
        let committing = attempt.begin_commit().await.map_err(Failure::transient)?;
        let (fresh, path) = {
            let state = self.lock();
            let floor = state.floors.get(&file).copied().unwrap_or_default();
            (generation >= floor, state.names.get(&file).copied())
        };
        self.require(fresh, "a stale attempt commits", attempt);
        self.sleep(10).await;
        if self.dice(12) == 0 {
            committing.abandon();
            self.sleep(10).await;
            return Err(Failure::transient("precondition failed"));
        }
        // Lost on the way there, or on the way back.
        let fault = self.dice(16);
        if fault != 0
            && let Some(path) = path
        {
            let floor = self.lock().floors.get(&file).copied().unwrap_or_default();
            self.require(generation >= floor, "an effect after the cancel was answered", attempt);
            self.lock().store.insert(path, (file, generation));
        }
        self.sleep(10).await;
        if fault <= 1 { Err(Failure::transient("no answer")) } else { Ok(()) }
    }

    fn require(&self, holds: bool, what: &str, attempt: &Attempt<u64>) {
        if !holds {
            self.lock().wrong.push(format!("{what}: {attempt:?}"));
        }
    }

    /// Every name that is there has the last content asked for, unless that failed; nothing else is there.
    pub(crate) fn check_end(&self, failed: &[u64]) {
        let state = self.lock();
        assert!(state.wrong.is_empty(), "{:#?}\n{:#?}", state.wrong, state.trace);
        for (path, (file, _)) in &state.store {
            assert_eq!(state.names.get(file), Some(path), "{path:?} has come back\n{:#?}", state.trace);
        }
        for (file, generation) in &state.dirty {
            let stored = state.store.get(&state.names[file]).map(|(_, generation)| *generation);
            assert!(
                stored == Some(*generation) || failed.contains(file),
                "file {file} is {stored:?}, not {generation:?}\n{:#?}",
                state.trace
            );
        }
    }
}

struct Running {
    world: World,
    file: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.lock().running.remove(&self.file);
    }
}

impl Inside {
    fn raise(&mut self, file: u64) -> Generation {
        let generation = self.generations.entry(file).or_default();
        *generation += 1;
        Generation(*generation)
    }
}

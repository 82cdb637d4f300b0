//! F1 under load: threads on one mount, threads on a second one, and another client write, rename and remove names in
//! the same directories. Whatever anybody observes was true within the time that it may be out of date, and what a
//! mount did itself it sees at once, whichever thread asks.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use real::{BUCKET, Bucket, at, daemon, start, store};
use staithe_testkit::{MountedDaemon, S3Server, Versioning, wait_until};

const DIRECTORIES: [&str; 2] = ["d", "e"];
/// Names that an actor has in each directory.
const NAMES: usize = 3;
/// Threads on the first mount, and on the second one.
const THREADS: [usize; 2] = [8, 2];
/// How long a machine may keep an answer from the one who asked.
const SLACK: Duration = Duration::from_secs(5);

/// One change of a name: what it means from then on.
struct Change {
    began: Instant,
    done: Option<Instant>,
    /// The length of the file, which tells its versions apart; `None`: no such name.
    value: Option<u64>,
}

/// All that was ever done to the names.
#[derive(Default)]
struct History(Mutex<BTreeMap<String, Vec<Change>>>);

impl History {
    /// Does something that gives names new meanings.
    fn change(&self, values: &[(&str, Option<u64>)], work: impl FnOnce()) {
        let began = Instant::now();
        for (name, value) in values {
            let change = Change { began, done: None, value: *value };
            self.0.lock().unwrap().entry((*name).to_owned()).or_default().push(change);
        }
        work();
        let done = Instant::now();
        for (name, _) in values {
            let mut all = self.0.lock().unwrap();
            all.get_mut(*name).unwrap().last_mut().unwrap().done = Some(done);
        }
    }

    /// Whether the name had this value at some time between the two.
    fn had(&self, name: &str, value: Option<u64>, from: Instant, to: Instant) -> bool {
        let all = self.0.lock().unwrap();
        let Some(changes) = all.get(name) else { return value.is_none() };
        if value == Some(0) {
            // A file that is being written is there, and empty at first.
            let is_being_written =
                |c: &Change| c.value.is_some() && c.began <= to && c.done.is_none_or(|done| done >= from);
            return changes.iter().any(is_being_written);
        }
        let still = |next: Option<&Change>| next.and_then(|c| c.done).is_none_or(|done| done >= from);
        let at_first = value.is_none() && still(changes.first());
        at_first
            || changes
                .iter()
                .enumerate()
                .any(|(i, change)| change.value == value && change.began <= to && still(changes.get(i + 1)))
    }

    fn now(&self) -> BTreeMap<String, u64> {
        let all = self.0.lock().unwrap();
        all.iter().filter_map(|(name, changes)| Some((name.clone(), changes.last()?.value?))).collect()
    }
}

/// Who changes names, and how.
enum Through<'a> {
    Mount(&'a MountedDaemon),
    Client(&'a Bucket),
}

impl Through<'_> {
    fn write(&self, name: &str, len: u64) {
        let bytes = vec![b'x'; len as usize];
        match self {
            Self::Mount(mount) => {
                store(&at(mount, name), bytes).unwrap_or_else(|e| panic!("write {name}: {e}"));
            }
            Self::Client(bucket) => bucket.put(name, bytes),
        }
    }

    fn remove(&self, name: &str) {
        match self {
            Self::Mount(m) => fs::remove_file(at(m, name)).unwrap_or_else(|e| panic!("unlink {name}: {e}")),
            Self::Client(bucket) => bucket.delete(name),
        }
    }

    fn rename(&self, from: &str, to: &str) {
        match self {
            Self::Mount(mount) => {
                let renamed = fs::rename(at(mount, from), at(mount, to));
                renamed.unwrap_or_else(|e| panic!("rename {from} {to}: {e}"));
            }
            Self::Client(bucket) => {
                bucket.put(to, bucket.get(from).unwrap());
                bucket.delete(from);
            }
        }
    }
}

struct Actor<'a> {
    id: usize,
    /// 0 and 1: the mounts; 2: the other client.
    side: usize,
    through: Through<'a>,
    random: fastrand::Rng,
    own: BTreeMap<String, u64>,
}

impl Actor<'_> {
    fn names(id: usize) -> impl Iterator<Item = String> {
        DIRECTORIES.iter().flat_map(move |dir| (0..NAMES).map(move |n| format!("{dir}/{id}-{n}")))
    }

    fn pick(&mut self) -> String {
        let names: Vec<_> = Self::names(self.id).collect();
        names[self.random.usize(..names.len())].clone()
    }

    /// Writes, renames or removes a name of its own.
    fn act(&mut self, history: &History, round: u64) {
        let (name, other) = (self.pick(), self.pick());
        let len = 1 + round * 100 + self.id as u64;
        match self.own.get(&name).copied() {
            Some(value) if other != name && self.random.bool() => {
                let meanings = [(name.as_str(), None), (other.as_str(), Some(value))];
                history.change(&meanings, || self.through.rename(&name, &other));
                self.own.remove(&name);
                self.own.insert(other, value);
            }
            Some(_) if self.random.u8(..3) == 0 => {
                history.change(&[(&name, None)], || self.through.remove(&name));
                self.own.remove(&name);
            }
            _ => {
                history.change(&[(&name, Some(len))], || self.through.write(&name, len));
                self.own.insert(name, len);
            }
        }
    }
}

/// Two mounts of one bucket, and how long what others did may stay unseen there.
struct Storm {
    server: S3Server,
    mounts: [MountedDaemon; 2],
    staleness: Duration,
    history: History,
}

impl Storm {
    fn new(ttl: &str, staleness: Duration) -> Self {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, Versioning::Off));
        let mount =
            || start(daemon(&format!("s3://{BUCKET}")).env(server.env()).args(["--metadata-ttl", ttl]));
        let mounts = [mount(), mount()];
        for dir in DIRECTORIES {
            fs::create_dir(at(&mounts[0], dir)).unwrap();
        }
        wait_until(SLACK, || DIRECTORIES.iter().all(|dir| at(&mounts[1], dir).exists()));
        Self { server, mounts, staleness, history: History::default() }
    }

    /// The earliest time whose truth may still be seen by one side of what another one did.
    fn from(&self, observer: usize, owner: usize, now: Instant) -> Instant {
        if observer == owner { now } else { now.checked_sub(self.staleness).unwrap_or(now) }
    }

    /// The side of the actor that a name belongs to.
    fn owner(name: &str) -> usize {
        let id: usize = name.split(['/', '-']).nth(1).unwrap().parse().unwrap();
        [THREADS[0], THREADS[0] + THREADS[1]].iter().filter(|first| id >= **first).count()
    }

    /// Looks at a name, and then at a directory.
    fn observe(&self, side: usize, name: &str) {
        let mount = &self.mounts[side];
        let began = Instant::now();
        let seen = length(&at(mount, name)).unwrap_or_else(|e| panic!("stat {name}: {e}"));
        let from = self.from(side, Self::owner(name), began);
        assert!(
            self.history.had(name, seen, from, Instant::now()),
            "side {side} saw {name} as {seen:?}, which it was not"
        );
        let dir = name.split('/').next().unwrap();
        let began = Instant::now();
        let listed = names(&at(mount, dir));
        let ended = Instant::now();
        for name in (0..=THREADS.iter().sum::<usize>()).flat_map(Actor::names) {
            let Some(short) = name.strip_prefix(dir).and_then(|n| n.strip_prefix('/')) else { continue };
            let from = self.from(side, Self::owner(&name), began);
            let is_listed = listed.contains(short);
            let values = self.history.0.lock().unwrap().get(&name).map(|all| {
                let values = all.iter().map(|c| c.value).chain([Some(0)]);
                values.filter(|v| v.is_some() == is_listed).collect::<BTreeSet<_>>()
            });
            let fits = |value| self.history.had(&name, value, from, ended);
            let fits = (!is_listed && fits(None)) || values.is_some_and(|v| v.into_iter().any(fits));
            assert!(fits, "side {side}: {name} is listed: {is_listed}, which it was not");
        }
    }

    fn work(&self, actor: &mut Actor<'_>, rounds: u64, failed: &AtomicBool) {
        let everybody = THREADS.iter().sum::<usize>() + 1;
        for round in 0..rounds {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            actor.act(&self.history, round);
            let Some(mount) = self.mounts.get(actor.side) else { continue };
            for name in Actor::names(actor.id) {
                let seen = length(&at(mount, &name)).unwrap_or_else(|e| panic!("stat {name}: {e}"));
                assert_eq!(
                    seen,
                    actor.own.get(&name).copied(),
                    "{name} right after a change, by who made it"
                );
            }
            for _ in 0..2 {
                let other = actor.random.usize(..everybody);
                let names: Vec<_> = Actor::names(other).collect();
                self.observe(actor.side, &names[actor.random.usize(..names.len())]);
            }
        }
    }

    fn run(&self, rounds: u64) {
        let bucket = Bucket::of(&self.server);
        let failed = AtomicBool::new(false);
        thread::scope(|scope| {
            let actors = THREADS[0] + THREADS[1] + 1;
            let threads: Vec<_> = (0..actors)
                .map(|id| {
                    let (bucket, failed) = (&bucket, &failed);
                    scope.spawn(move || {
                        let _tell = OnPanic(failed);
                        let side = Self::owner(&format!("d/{id}-0"));
                        let through = match self.mounts.get(side) {
                            Some(mount) => Through::Mount(mount),
                            None => Through::Client(bucket),
                        };
                        let random = fastrand::Rng::with_seed(id as u64);
                        let mut actor = Actor { id, side, through, random, own: BTreeMap::new() };
                        self.work(&mut actor, rounds, failed);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        self.all_agree(&bucket);
    }

    /// In the end the bucket is what the history says, and so is each mount.
    fn all_agree(&self, bucket: &Bucket) {
        let truth = self.history.now();
        let is_file = |key: &String| !key.ends_with('/');
        let stored: Vec<_> = bucket.keys().into_iter().filter(is_file).collect();
        assert_eq!(stored, truth.keys().cloned().collect::<Vec<_>>());
        for mount in &self.mounts {
            let mut seen = BTreeMap::new();
            let agrees = wait_until(self.staleness + SLACK, || {
                seen = all(mount);
                seen == truth
            });
            assert!(agrees, "{seen:?} is not {truth:?}");
        }
    }
}

/// Tells the other threads to stop.
struct OnPanic<'a>(&'a AtomicBool);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn length(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn names(dir: &PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Every file of a mount with its length.
fn all(mount: &MountedDaemon) -> BTreeMap<String, u64> {
    let below = |dir: &str| {
        let (path, dir) = (at(mount, dir), dir.to_owned());
        let name = move |name| format!("{dir}/{name}");
        names(&path).into_iter().map(name).collect::<Vec<_>>()
    };
    let names = DIRECTORIES.iter().flat_map(|dir| below(dir));
    names.filter_map(|name| Some((name.clone(), length(&at(mount, &name)).unwrap()?))).collect()
}

/// Nothing is remembered: every observation, of whoever's change, is of the time of the call.
#[test]
fn without_a_ttl_every_observation_is_of_its_time() {
    Storm::new("0", Duration::ZERO).run(30);
}

/// What this mount did is seen at once by all of its threads; what others did, when its time has passed.
#[test]
fn with_a_ttl_only_the_changes_of_others_are_late() {
    let ttl = Duration::from_millis(500);
    Storm::new("500ms", ttl + SLACK).run(60);
}

/// Nobody else is there: even a mount that believes for ever is never wrong about its own changes.
#[test]
fn believing_for_ever_is_right_about_own_changes() {
    let storm = Storm::new("forever", Duration::ZERO);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS[0])
            .map(|id| {
                let (storm, failed) = (&storm, &failed);
                scope.spawn(move || {
                    let _tell = OnPanic(failed);
                    let (through, random) =
                        (Through::Mount(&storm.mounts[0]), fastrand::Rng::with_seed(id as u64));
                    let mut actor = Actor { id, side: 0, through, random, own: BTreeMap::new() };
                    storm.work(&mut actor, 60, failed);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(all(&storm.mounts[0]), storm.history.now());
}

//! A soak: workers that know what every file of theirs must hold, and a store that is in ever other trouble.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures::TryStreamExt as _;
use futures::executor::block_on;
use staithe_store::{GetRequest, Key, MemoryStore, ObjectStore as _};
use staithe_testkit::{Fault, S3Server, When};

use crate::{BUCKET, Result, mounted, server};

/// Programs at once.
const WORKERS: u64 = 4;
/// Files of each.
const FILES: u64 = 20;
/// The longest file, in bytes.
const LONGEST: usize = 3 << 20;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Soaked {
    operations: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
    lost: AtomicU64,
    troubles: AtomicU64,
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} operations through {} troubles: {} failed, {} wrong, {} lost",
            of(&self.operations),
            of(&self.troubles),
            of(&self.failed),
            of(&self.wrong),
            of(&self.lost)
        )
    }
}

/// What every file must hold, by its path: the seed of its bytes, and how many there are.
type Ledger = Mutex<BTreeMap<String, (u64, usize)>>;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Soaks a mount in write-back for so long.
pub(crate) fn run(binary: &Path, lasting: Duration, seed: u64) -> Result<Soaked> {
    let server = server()?;
    let options = ["--write-mode=back", "--op-deadline=10min", "--drain-deadline=5min"];
    let mut mount = mounted(binary, &server, &options)?;
    for worker in 0..WORKERS {
        fs::create_dir(mount.path().join(format!("worker-{worker}")))?;
    }
    let (soaked, ends) = (Soaked::default(), AtomicBool::new(false));
    let ledgers: Vec<Ledger> = (0..WORKERS).map(|_| Ledger::default()).collect();
    thread::scope(|scope| {
        for (worker, ledger) in (0..).zip(&ledgers) {
            let root = mount.path().join(format!("worker-{worker}"));
            let (soaked, ends) = (&soaked, &ends);
            scope.spawn(move || work(&root, ledger, seed + worker, soaked, ends));
        }
        trouble(&server, lasting, &mut Rng::with_seed(seed), &soaked);
        ends.store(true, Ordering::Relaxed);
    });
    let code = mount.terminate()?;
    if code != 0 {
        return Err(format!("exit code {code}; {}", mount.stderr()).into());
    }
    let bucket = server.store(BUCKET).ok_or("the bucket is gone")?;
    for (worker, ledger) in ledgers.iter().enumerate() {
        for (name, (seed, len)) in &*ledger.lock().map_err(|_| "a worker panicked")? {
            let key = format!("worker-{worker}/{name}");
            if stored(&bucket, &key) != Some(bytes(*seed, *len)) {
                eprintln!("lost: {key}");
                soaked.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(soaked)
}

fn stored(bucket: &MemoryStore, key: &str) -> Option<Vec<u8>> {
    let request = GetRequest { key: Key::new(key).ok()?, range: None, version: None };
    let answer = block_on(bucket.get(request)).ok()?;
    let chunks: Vec<_> = block_on(answer.body.try_collect()).ok()?;
    Some(chunks.concat())
}

/// One trouble after the other, with some calm between them.
fn trouble(server: &S3Server, lasting: Duration, rng: &mut Rng, soaked: &Soaked) {
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        let for_so_long = Duration::from_millis(rng.u64(500..8_000));
        let (seed, kind) = (rng.u64(..), rng.u8(0..8));
        let any = |share| When::any().with_probability(share, seed);
        match kind {
            0 => {
                server.stop();
                thread::sleep(for_so_long);
                while server.restart().is_err() {
                    thread::sleep(Duration::from_millis(100));
                }
            }
            1 => drop(server.faults().inject(any(0.3), Fault::slow_down(None))),
            2 => drop(server.faults().inject(any(0.2), Fault::ResetAfter)),
            3 => drop(server.faults().inject(any(0.1), Fault::BlackHole)),
            4 => drop(server.faults().inject(any(1.0), Fault::no_such_bucket())),
            5 => drop(server.faults().inject(any(0.5), Fault::CutBody { after: 1000 })),
            6 => drop(server.faults().inject(any(1.0), Fault::expired_token())),
            _ => server.modes().set_latency(Duration::from_millis(300)),
        }
        soaked.troubles.fetch_add(1, Ordering::Relaxed);
        thread::sleep(for_so_long);
        server.faults().clear();
        server.modes().set_latency(Duration::ZERO);
        thread::sleep(Duration::from_millis(rng.u64(200..3_000)));
    }
}

fn work(root: &Path, ledger: &Ledger, seed: u64, soaked: &Soaked, ends: &AtomicBool) {
    let mut rng = Rng::with_seed(seed);
    while !ends.load(Ordering::Relaxed) {
        soaked.operations.fetch_add(1, Ordering::Relaxed);
        match step(root, ledger, &mut rng) {
            Ok(true) => {}
            Ok(false) => drop(soaked.wrong.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                eprintln!("{}: {error}", root.display());
                soaked.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One operation; whether what it saw is right.
fn step(root: &Path, ledger: &Ledger, rng: &mut Rng) -> std::io::Result<bool> {
    let name = |rng: &mut Rng| format!("f{}", rng.u64(0..FILES));
    let (of, path) = {
        let of = name(rng);
        let path = root.join(&of);
        (of, path)
    };
    let mut known = ledger.lock().map_err(|_| std::io::Error::other("a worker panicked"))?;
    match rng.u8(0..10) {
        0..=3 => {
            let len = if rng.u8(0..10) == 0 { rng.usize(0..LONGEST) } else { rng.usize(0..50_000) };
            let seed = rng.u64(..);
            fs::write(&path, bytes(seed, len))?;
            known.insert(of, (seed, len));
            Ok(true)
        }
        4..=6 => match (fs::read(&path), known.get(&of)) {
            (Ok(read), Some((seed, len))) => Ok(read == bytes(*seed, *len)),
            (Err(error), None) if error.kind() == ErrorKind::NotFound => Ok(true),
            (Err(error), _) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(false),
        },
        7 => match (fs::remove_file(&path), known.remove(&of)) {
            (Ok(()), Some(_)) => Ok(true),
            (Err(error), None) if error.kind() == ErrorKind::NotFound => Ok(true),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Ok(false),
        },
        8 => {
            let to = name(rng);
            match (fs::rename(&path, root.join(&to)), known.remove(&of)) {
                (Ok(()), Some(file)) => {
                    known.insert(to, file);
                    Ok(true)
                }
                (Err(error), None) if error.kind() == ErrorKind::NotFound => Ok(true),
                (Err(error), _) => Err(error),
                (Ok(()), None) => Ok(false),
            }
        }
        _ => {
            let mut names = fs::read_dir(root)?
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names.iter().eq(known.keys()))
        }
    }
}

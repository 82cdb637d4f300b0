//! What a mount does while its store is in trouble, on a real mount of a real server: how long it takes to end after its
//! bucket is deleted, and to be healthy after an outage; what it asks while it is degraded and idle; and whether
//! anything is lost or wrong in a soak with random faults.
//!
//! ```text
//! cargo bench -p staithe-benches --bench fate -- --binary target/release/staithe --soak 10min
//! ```

#![allow(missing_docs, clippy::print_stdout, reason = "a program")]

mod soak;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use staithe_testkit::{DaemonOptions, Fault, MountedDaemon, S3Server, Versioning, When, wait_until};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const BUCKET: &str = "bucket";
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Parser)]
#[command(name = "fate")]
struct Options {
    /// The daemon
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Every figure is the median of so many
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// For how long the soak runs; 0: not at all
    #[arg(long, default_value = "10min", value_parser = humantime::parse_duration)]
    soak: Duration,
    /// What the soak draws its faults from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    println!("| | |\n|---|---|");
    println!("| deletion, until the daemon has ended | {} |", median(&options, deletion)?);
    println!("| outage of 20 s, from the server's return until healthy | {} |", median(&options, recovery)?);
    println!("| degraded and idle, a black hole | {} requests in a minute |", idle(&options.binary)?);
    if !options.soak.is_zero() {
        let soaked = soak::run(&options.binary, options.soak, options.seed)?;
        println!("| soak of {} s | {soaked} |", options.soak.as_secs());
    }
    Ok(())
}

fn median(options: &Options, measure: impl Fn(&Path) -> Result<Duration>) -> Result<String> {
    let mut all = Vec::new();
    for _round in 0..options.rounds.max(1) {
        all.push(measure(&options.binary)?);
    }
    all.sort();
    let (least, middle, most) = (all[0], all[all.len() / 2], all[all.len() - 1]);
    let seconds = Duration::as_secs_f64;
    Ok(format!("{:.1} s ({:.1} to {:.1})", seconds(&middle), seconds(&least), seconds(&most)))
}

/// A server with a bucket.
fn server() -> Result<S3Server> {
    let server = S3Server::start_blocking()?;
    server.create_bucket(BUCKET, Versioning::Off);
    Ok(server)
}

fn mounted(binary: &Path, server: &S3Server, options: &[&str]) -> Result<MountedDaemon> {
    let daemon = DaemonOptions::new(binary, format!("s3://{BUCKET}")).env(server.env());
    Ok(daemon.args(options.iter().copied()).start()?)
}

/// The phase that the audit log tells of last.
fn phase(mount: &MountedDaemon) -> String {
    let text = fs::read_to_string(mount.state_dir().join("audit.log")).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| line.split_once("\"to\":\"")?.1.split('"').next());
    last.unwrap_or("starting").to_owned()
}

fn becomes(mount: &MountedDaemon, wanted: &str) -> Result<()> {
    if wait_until(PATIENCE, || phase(mount) == wanted) {
        return Ok(());
    }
    Err(format!("it is {}, and not {wanted}; {}", phase(mount), mount.stderr()).into())
}

/// From the deletion until the daemon has ended, with a program that looks at the mount all the time.
fn deletion(binary: &Path) -> Result<Duration> {
    let server = server()?;
    let mut mount = mounted(binary, &server, &["--metadata-ttl=0"])?;
    let path = mount.path().join("looked-at");
    let looking = std::thread::spawn(move || {
        // Until it is unmounted: then nothing is there at all, and nothing is asked.
        for _ in 0..50 {
            let _ = fs::metadata(&path);
        }
    });
    let began = Instant::now();
    server.delete_bucket(BUCKET);
    let code = mount.wait(PATIENCE)?;
    let took = began.elapsed();
    let _ = looking.join();
    if code == 143 { Ok(took) } else { Err(format!("exit code {code}; {}", mount.stderr()).into()) }
}

/// From the return of a server that was away for 20 s until the mount is healthy, with nobody using it.
fn recovery(binary: &Path) -> Result<Duration> {
    let server = server()?;
    let mut mount = mounted(binary, &server, &["--metadata-ttl=0", "--op-deadline=5s"])?;
    server.stop();
    let _ = fs::metadata(mount.path().join("looked-at"));
    becomes(&mount, "degraded")?;
    std::thread::sleep(Duration::from_secs(20));
    let began = Instant::now();
    server.restart()?;
    becomes(&mount, "healthy")?;
    let took = began.elapsed();
    mount.terminate()?;
    Ok(took)
}

/// What is asked in a minute of a store that swallows requests, with a file that waits to be stored.
fn idle(binary: &Path) -> Result<u64> {
    let server = server()?;
    let options = ["--write-mode=back", "--metadata-ttl=1h", "--op-deadline=5s", "--drain-deadline=1s"];
    let mut mount = mounted(binary, &server, &options)?;
    fs::write(mount.path().join("file"), "stored")?;
    let synced = wait_until(PATIENCE, || server.store(BUCKET).is_some_and(|bucket| has_any(&bucket)));
    if !synced {
        return Err("the file is not stored".into());
    }
    server.faults().inject(When::any(), Fault::BlackHole);
    fs::write(mount.path().join("file"), "not stored")?;
    let _ = fs::metadata(mount.path().join("looked-at"));
    becomes(&mount, "degraded")?;
    // What was under way when it began.
    std::thread::sleep(Duration::from_secs(15));
    let before = server.requests().tally();
    std::thread::sleep(Duration::from_mins(1));
    let asked = server.requests().tally().since(&before).total().requests;
    server.faults().clear();
    mount.terminate()?;
    Ok(asked)
}

fn has_any(bucket: &staithe_store::MemoryStore) -> bool {
    use staithe_store::ObjectStore as _;
    let listed = futures::executor::block_on(bucket.list(staithe_store::ListRequest::default()));
    listed.is_ok_and(|page| !page.objects.is_empty())
}

//! The kernel hears of remote changes that it could not know, from a thread that serves no requests.

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use real::{BUCKET, Bucket, at, daemon, noise, start};
use staithe_testkit::{S3Server, Versioning, wait_until};

const OLD: usize = 24 << 20;
const NEW: usize = 1000;
const ROUNDS: u32 = 4;

/// The kernel may believe for ever here, so only a notification makes it look again; and it is sent while other
/// requests of the same directory and file are under way, which would never end if a request had to send it.
#[test]
fn a_change_found_by_a_read_reaches_a_kernel_that_believes_for_ever() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    bucket.put("dir/other", noise(2, 5000));
    // All of them before anybody lists: a listing is believed for ever, too.
    for round in 0..ROUNDS {
        bucket.put(&format!("dir/movie{round}"), noise(round, OLD));
    }
    let mount =
        start(daemon(&format!("s3://{BUCKET}")).env(server.env()).args(["--metadata-ttl", "forever"]));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    fs::read_dir(at(&mount, "dir")).unwrap().for_each(drop);
                    // The name may be between two versions at this instant.
                    let _ = fs::read(at(&mount, "dir/other"));
                    let _ = File::open(at(&mount, "dir/movie0")).map(|f| f.read_at(&mut [0; 100], 0));
                }
            });
        }
        for round in 0..ROUNDS {
            let key = format!("dir/movie{round}");
            let path = at(&mount, &key);
            let player = File::open(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), OLD as u64);
            bucket.put(&key, noise(9, NEW));
            let mut piece = vec![0; 1 << 20];
            let met =
                (0..OLD).step_by(piece.len()).find_map(|at| player.read_at(&mut piece, at as u64).err());
            let error = met.unwrap_or_else(|| panic!("round {round}: the old version was read to its end"));
            assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
            let told = wait_until(Duration::from_secs(20), || {
                fs::metadata(&path).is_ok_and(|m| m.len() == NEW as u64)
            });
            assert!(told, "round {round}: the kernel still believes {:?}", fs::metadata(&path));
        }
        stop.store(true, Ordering::Release);
    });
}

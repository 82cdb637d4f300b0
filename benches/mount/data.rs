//! What lies in the buckets.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use futures::executor::block_on;
use staithe_store::{Key, ListRequest, NewObject, ObjectStore, Payload, PutCondition};
use staithe_testkit::{S3Server, Versioning};

use crate::Result;
use crate::options::Link;
use crate::rows::Row;

/// The bucket with what is only read.
pub(crate) const SHARED: &str = "bench-shared";
/// The bucket that every row that writes finds anew.
pub(crate) const SCRATCH: &str = "bench-scratch";
/// Length of a small file.
pub(crate) const SMALL: usize = 4 << 10;
/// Files read at once, where many are.
pub(crate) const MANY: usize = 64;
/// Files in one directory of the tree.
pub(crate) const FILES_A_DIRECTORY: usize = 100;

const MIB: u64 = 1 << 20;

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Length of the big file.
    pub(crate) big: u64,
    /// Length of each of the four files.
    pub(crate) each_of_four: u64,
    /// Length of each of the many files.
    pub(crate) each_of_many: u64,
    /// Length of the file that is written.
    pub(crate) written: u64,
    /// Length of the file that is written to at random places.
    pub(crate) rewritten: u64,
    /// Small files read or created.
    pub(crate) small_files: usize,
    /// Small files created in a directory that is made for them.
    pub(crate) many_files: usize,
    /// What is appended to a file that stays open.
    pub(crate) appends: usize,
    /// Files in an archive.
    pub(crate) archived_files: usize,
    /// Files in a repository.
    pub(crate) cloned_files: usize,
    /// Files in the tree.
    pub(crate) tree_files: usize,
    /// Files renamed or unlinked.
    pub(crate) renamed_files: usize,
    /// Calls of stat.
    pub(crate) stats: usize,
    /// Random reads at most.
    pub(crate) random_reads: usize,
}

impl Sizes {
    /// The sizes of a link; there are fewer small files at the end of a long one.
    pub(crate) fn new(scale: f64, link: Link) -> Self {
        let scaled = |n: f64| (n * scale).max(1.0) as usize;
        let few = if link == Link::Far { 0.2 } else { 1.0 };
        let bytes = |mib: f64| MIB * scaled(mib) as u64;
        Self {
            big: bytes(1024.0).max(4 * MIB),
            each_of_four: bytes(256.0).max(MIB),
            each_of_many: bytes(32.0).max(MIB),
            written: bytes(1024.0),
            rewritten: bytes(64.0).max(4 * MIB),
            small_files: scaled(1000.0 * few),
            many_files: scaled(10_000.0 * few),
            appends: scaled(10_000.0),
            archived_files: scaled(5000.0 * few),
            cloned_files: scaled(1000.0 * few),
            tree_files: scaled(10_000.0),
            renamed_files: scaled(200.0 * few),
            stats: scaled(50_000.0),
            random_reads: scaled(1000.0),
        }
    }
}

/// Fills the bucket that is only read.
pub(crate) fn prepare_shared(server: &S3Server, sizes: &Sizes) -> Result<()> {
    server.delete_bucket(SHARED);
    server.create_bucket(SHARED, Versioning::Off);
    put(server, SHARED, "big", sizes.big)?;
    directory(server, SHARED, "four")?;
    for n in 0..4 {
        put(server, SHARED, &format!("four/{n}"), sizes.each_of_four)?;
    }
    directory(server, SHARED, "many")?;
    for n in 0..MANY {
        put(server, SHARED, &format!("many/{n}"), sizes.each_of_many)?;
    }
    directory(server, SHARED, "small")?;
    for n in 0..sizes.small_files {
        put(server, SHARED, &format!("small/{n:05}"), SMALL as u64)?;
    }
    directory(server, SHARED, "tree")?;
    for n in 0..sizes.tree_files {
        let dir = format!("tree/{:03}", n / FILES_A_DIRECTORY);
        if n % FILES_A_DIRECTORY == 0 {
            directory(server, SHARED, &dir)?;
        }
        put(server, SHARED, &format!("{dir}/{n:05}"), SMALL as u64)?;
    }
    Ok(())
}

/// An empty bucket to write to, or one with what the row changes.
pub(crate) fn prepare_scratch(server: &S3Server, row: Row, sizes: &Sizes) -> Result<()> {
    server.delete_bucket(SCRATCH);
    server.create_bucket(SCRATCH, Versioning::Off);
    directory(server, SCRATCH, "dir")?;
    for n in 0..row.prepared(sizes) {
        put(server, SCRATCH, &format!("dir/{n:05}"), SMALL as u64)?;
    }
    if row == Row::Fsync { put(server, SCRATCH, "dir/random", sizes.rewritten) } else { Ok(()) }
}

/// The objects of a bucket below a prefix, as local files below `root`.
pub(crate) fn copy_locally(server: &S3Server, bucket: &str, root: &Path, prefix: &str) -> Result<()> {
    let store = server.store(bucket).ok_or("no such bucket")?;
    let mut page = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
    loop {
        let listed = block_on(store.list(page.clone()))?;
        for object in &listed.objects {
            let path = root.join(object.key.as_str());
            if object.key.as_str().ends_with('/') {
                fs::create_dir_all(&path)?;
                continue;
            }
            let file = File::create(&path)?;
            let piece = noise((object.size as usize).min(MIB as usize));
            for at in (0..object.size).step_by(MIB as usize) {
                let len = (object.size - at).min(MIB) as usize;
                file.write_all_at(&piece[..len], at)?;
            }
        }
        match listed.next {
            Some(next) => page.token = Some(next),
            None => return Ok(()),
        }
    }
}

fn put(server: &S3Server, bucket: &str, key: &str, len: u64) -> Result<()> {
    let store = server.store(bucket).ok_or("no such bucket")?;
    let piece = Bytes::from(noise((len as usize).min(MIB as usize)));
    let chunks = (0..len).step_by(MIB as usize).map(|at| piece.slice(..(len - at).min(MIB) as usize));
    let payload = Payload::new(chunks);
    block_on(store.put(&Key::new(key)?, payload, NewObject::default(), PutCondition::Always))?;
    Ok(())
}

/// A directory marker of the kind that all of them know.
fn directory(server: &S3Server, bucket: &str, path: &str) -> Result<()> {
    let store = server.store(bucket).ok_or("no such bucket")?;
    let new = NewObject { content_type: Some("application/x-directory".to_owned()), ..NewObject::default() };
    let key = Key::new(format!("{path}/"))?;
    block_on(store.put(&key, Payload::default(), new, PutCondition::Always))?;
    Ok(())
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

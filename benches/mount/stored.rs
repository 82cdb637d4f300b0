//! What a row leaves behind, and when the store has it.

use std::thread;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use futures::executor::block_on;
use staithe_store::{GetRequest, Key, ListRequest, ObjectStore};
use staithe_testkit::S3Server;

use crate::Result;
use crate::data::{SCRATCH, SMALL, Sizes, noise};
use crate::rows::{Done, Row};
use crate::trees::{Files, Trees};
use crate::writes::{APPENDED, REWRITTEN};

/// For how long a store that lacks something is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is asked: what asks shares the cores.
const INTERVAL: Duration = Duration::from_millis(20);

/// When the store had everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// There was no store, or nothing to be stored.
    Nothing,
    /// When the last close returned.
    AtOnce,
    /// So long after the row began.
    After(Duration),
    /// Not within [`PATIENCE`].
    NotYet,
}

/// What the bucket has at the end.
pub(crate) struct Left {
    files: Files,
    /// What the one file begins with, where its length tells nothing.
    beginning: Option<Vec<u8>>,
    /// Bytes that were written.
    pub(crate) written: u64,
}

impl Left {
    /// By a row that writes, with as much as it has done.
    pub(crate) fn by(row: Row, done: &Done, sizes: &Sizes, trees: &Trees) -> Self {
        let named = |name: &str, len: u64| Files::from([(name.to_owned(), Some(len))]);
        let numbered = |to: &str, len: usize| -> Files {
            (0..done.ops).map(|n| (format!("{to}{n:05}"), Some(len as u64))).collect()
        };
        let below = |name: &str, files: &Files| -> Files {
            files.iter().map(|(path, len)| (format!("{name}{path}"), *len)).collect()
        };
        let files = match row {
            Row::Write => named("written", sizes.written),
            Row::Write4 => (0..4).map(|n| (n.to_string(), Some(sizes.each_of_four))).collect(),
            Row::Create => numbered("", SMALL),
            Row::CreateMany => numbered("made/", SMALL),
            Row::Append | Row::AppendEach => named("log", done.ops * APPENDED as u64),
            Row::Untar => trees.unpacked().clone(),
            Row::Clone => below("clone/", trees.cloned()),
            Row::Fsync => named("random", sizes.rewritten),
            Row::Rename => numbered("to-", SMALL),
            _ => Files::new(),
        };
        let written = match row {
            Row::Rename => 0,
            Row::Fsync => done.ops * REWRITTEN as u64,
            _ => files.values().flatten().sum(),
        };
        let beginning = (row == Row::Fsync).then(|| noise(REWRITTEN));
        Self { files: below("dir/", &files), beginning, written }
    }

    /// Waits until the store has it; `done` was over just now.
    pub(crate) fn wait(&self, server: &S3Server, done: &Done) -> Result<Stored> {
        let start = Instant::now();
        if self.is_stored(server)? {
            return Ok(Stored::AtOnce);
        }
        while start.elapsed() < PATIENCE {
            thread::sleep(INTERVAL);
            let waited = start.elapsed();
            if self.is_stored(server)? {
                return Ok(Stored::After(done.time + waited));
            }
        }
        Ok(Stored::NotYet)
    }

    fn is_stored(&self, server: &S3Server) -> Result<bool> {
        let store = server.store(SCRATCH).ok_or("no such bucket")?;
        if store.object_count() < self.files.len() {
            return Ok(false);
        }
        let mut page = ListRequest { prefix: "dir/".to_owned(), ..ListRequest::default() };
        let mut found = 0;
        loop {
            let listed = block_on(store.list(page.clone()))?;
            for object in listed.objects.iter().filter(|object| !object.key.as_str().ends_with('/')) {
                match self.files.get(object.key.as_str()) {
                    Some(len) if len.is_none_or(|len| len == object.size) => found += 1,
                    _ => return Ok(false),
                }
            }
            match listed.next {
                Some(next) => page.token = Some(next),
                None => break,
            }
        }
        Ok(found == self.files.len() && self.begins_as_it_should(&*store)?)
    }

    fn begins_as_it_should(&self, store: &impl ObjectStore) -> Result<bool> {
        let (Some(beginning), Some(name)) = (&self.beginning, self.files.keys().next()) else {
            return Ok(true);
        };
        let range = Some(0..beginning.len() as u64);
        let request = GetRequest { key: Key::new(name.clone())?, range, version: None };
        let chunks: Vec<_> = block_on(async { store.get(request).await?.body.try_collect().await })?;
        Ok(chunks.concat() == *beginning)
    }
}

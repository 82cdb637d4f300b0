use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use futures::TryStreamExt as _;
use rangemap::RangeSet;
use staithe_store::{
    ETag, GetRequest, HeadRequest, Key, ListRequest, MemoryOptions, MemoryStore, NewObject, ObjectStore,
    PutCondition, UploadId, Version,
};

use super::*;
use crate::intent::{Intent, MarkerIntent, StoreIntent};
use crate::journal::Journal;
use crate::reserve::Reserve;
use crate::staging::StagedState;
use crate::state_dir::StateDir;

/// A state directory that a run has left.
struct Left {
    dir: tempfile::TempDir,
    out: tempfile::TempDir,
    files: u32,
    intents: Vec<Intent>,
}

fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

fn version() -> Version {
    Version { etag: ETag::new("\"base\""), id: None }
}

fn meta(kind: Kind, mode: u16) -> FileMeta {
    let (uid, gid) = us();
    FileMeta::new(kind, mode, uid, gid, UNIX_EPOCH + Duration::new(1_000_000_000, 5))
}

impl Left {
    fn new() -> Self {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(StateDir::open(dir.path()).unwrap());
        drop(Journal::open(&dir.path().join("journal"), Reserve::new(dir.path())).unwrap());
        Self { dir, out, files: 0, intents: Vec::new() }
    }

    fn stage(&mut self, bytes: &[u8]) -> String {
        self.files += 1;
        let name = format!("staged{}", self.files);
        std::fs::write(self.dir.path().join("staging").join(&name), bytes).unwrap();
        name
    }

    /// A file that was closed, and never stored.
    fn file(&mut self, path: &str, bytes: &[u8]) -> &mut StoreIntent {
        let staging_name = self.stage(bytes);
        let size = bytes.len() as u64;
        let state = StagedState { size, base_size: None, base_limit: 0, dirty: RangeSet::new() };
        let meta = meta(Kind::File, 0o640);
        let intent = StoreIntent { key: key(path), staging_name, state, base: None, meta, is_doubted: false };
        self.intents.push(Intent::Store(Box::new(intent)));
        match self.intents.last_mut() {
            Some(Intent::Store(store)) => store,
            _ => unreachable!(),
        }
    }

    fn marker(&mut self, path: &str, mode: u16) {
        let meta = meta(Kind::Directory, mode);
        self.intents.push(Intent::Marker(Box::new(MarkerIntent { key: key(path), meta, is_new: true })));
    }

    fn say(&mut self) {
        if self.intents.is_empty() {
            return;
        }
        let journal = Journal::open(&self.dir.path().join("journal"), Reserve::new(self.dir.path())).unwrap();
        for intent in self.intents.drain(..) {
            journal.record(intent).unwrap();
        }
    }

    fn place(&self) -> PathBuf {
        self.out.path().join("to")
    }

    async fn rescue(&self, to: RescueTo) -> Result<(RescueReport, Vec<Rescued>)> {
        let before = bytes_below(self.dir.path());
        let mut told = Vec::new();
        let report = rescue(self.dir.path(), to, &mut |rescued: &Rescued| told.push(rescued.clone())).await;
        assert!(bytes_below(self.dir.path()) == before, "the state directory has changed");
        Ok((report?, told))
    }

    async fn brought_out(&mut self) -> (RescueReport, Vec<Rescued>) {
        self.say();
        self.rescue(RescueTo::Directory(self.place())).await.unwrap()
    }

    async fn stored(&mut self, store: &Arc<MemoryStore>) -> (RescueReport, Vec<Rescued>) {
        self.say();
        let scratch = tempfile::tempdir().unwrap();
        let to = RescueTo::Store {
            store: store.clone(),
            prefix: String::from("p/"),
            scratch: scratch.path().to_owned(),
        };
        let rescued = self.rescue(to).await.unwrap();
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0);
        rescued
    }
}

/// Mode, time of modification, bytes.
type Look = (u32, (i64, i64), Vec<u8>);

/// Every file below a directory, and every directory.
fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Look> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            let is_lock = path.file_name().unwrap() == "lock";
            let mtime = if is_lock { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
            let bytes = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            all.insert(path, (meta.mode(), mtime, bytes));
        }
    }
    all
}

fn places(told: &[Rescued]) -> BTreeMap<&str, &str> {
    told.iter().filter_map(|r| Some((r.key.as_str(), r.path.as_deref()?))).collect()
}

async fn object(store: &MemoryStore, at: &str) -> Option<(Vec<u8>, staithe_store::Metadata)> {
    let meta = store.head(HeadRequest::latest(key(at))).await.ok()?;
    let got = store.get(GetRequest { key: key(at), range: None, version: None }).await.unwrap();
    let chunks: Vec<_> = got.body.try_collect().await.unwrap();
    Some((chunks.concat(), meta.metadata))
}

#[tokio::test]
async fn there_is_nothing() {
    let mut left = Left::new();
    let (report, told) = left.brought_out().await;
    assert!(report.is_empty() && report.is_whole() && told.is_empty());
}

#[tokio::test]
async fn what_is_in_the_way_of_something_is_beside_it() {
    let mut left = Left::new();
    left.file("a", b"a file");
    left.file("a/b", b"below it");
    left.file("twice", b"earlier");
    left.file("twice", b"later");
    left.file("d", b"a directory, too");
    left.marker("d/", 0o500);
    left.file("x/../../y", b"up");
    left.file("/z", b"absolute");
    let long = "l".repeat(300);
    left.file(&long, b"long");
    left.file("link", b"/etc").meta.kind = Kind::Symlink;
    left.file("link/passwd", b"not there");
    left.file(".rescue-under-way", b"ours?");
    let (report, told) = left.brought_out().await;
    assert_eq!((report.files, report.directories, report.failed), (11, 1, 0), "{told:?}");
    assert!(report.is_whole());
    let out = left.place();
    let read = |path: &str| std::fs::read_to_string(out.join(path)).unwrap();
    assert_eq!((read("a/b"), read("a.conflict-1")), ("below it".into(), "a file".into()));
    assert_eq!((read("twice"), read("twice.conflict-1")), ("later".into(), "earlier".into()));
    assert_eq!(read("d.conflict-1"), "a directory, too");
    assert_eq!((read("x/%2E%2E/%2E%2E/y"), read("%/z")), ("up".into(), "absolute".into()));
    assert_eq!(read("link/passwd"), "not there");
    assert_eq!(std::fs::read_link(out.join("link.conflict-1")).unwrap(), Path::new("/etc"));
    assert_eq!(read(".rescue-under-way.conflict-1"), "ours?");
    let places = places(&told);
    assert!(places[&long[..]].ends_with("l.shortened"), "{places:?}");
    let dir = out.join("d").metadata().unwrap();
    assert_eq!((dir.permissions().mode() & 0o7777, dir.mtime()), (0o500, 1_000_000_000));
    assert!(!out.join(".rescue-under-way").exists());
}

#[tokio::test]
async fn attributes_come_along() {
    let mut left = Left::new();
    left.marker("d/", 0o750);
    left.marker("d/e/", 0o700);
    let meta = &mut left.file("d/e/f", b"bytes").meta;
    meta.xattrs.insert(String::from("user.k"), vec![0, 255].into());
    meta.mtime = UNIX_EPOCH - Duration::from_millis(1500);
    (meta.mode, meta.uid, meta.gid) = (0o4711, 12, 34);
    left.intents.push(Intent::Attributes(Box::new(AttributesIntent {
        key: key("stored"),
        base: version(),
        size: 7,
        meta: self::meta(Kind::File, 0o600),
    })));
    left.intents.push(Intent::Upload { key: key("large"), upload_id: UploadId::new("u") });
    let (report, told) = left.brought_out().await;
    assert!(report.is_whole(), "{told:?}");
    assert_eq!((report.files, report.directories, report.attributes, report.bytes), (1, 2, 1, 5));
    let file = left.place().join("d/e/f");
    let made = file.metadata().unwrap();
    assert_eq!((made.mtime(), made.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(made.mode() & 0o777, 0o711);
    if rustix::process::geteuid().is_root() {
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o4711, 12, 34));
    }
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(&file, "user.k", &mut value[..]).unwrap(), 2);
    assert_eq!(value[..2], [0, 255]);
    let times: Vec<_> =
        ["d", "d/e"].iter().map(|dir| left.place().join(dir).metadata().unwrap().mtime()).collect();
    assert_eq!(times, [1_000_000_000; 2]);
    let written = std::fs::read(left.place().join(ATTRIBUTES)).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!((&written[0]["key"], &written[0]["mode"]), (&json!("stored"), &json!("0600")));
    assert_eq!(written[0]["metadata"]["mode"], json!("33152"));
    assert!(told.iter().any(|r| r.kind == RescuedKind::Note && r.key == "large"));
}

#[tokio::test]
async fn what_is_not_all_here_says_so() {
    let mut left = Left::new();
    let (size, dirty) = (1 << 20, 300_000..400_000);
    let intent = left.file("big", b"");
    (intent.base, intent.state.size) = (Some(version()), size);
    (intent.state.base_size, intent.state.base_limit) = (Some(900_000), 800_000);
    intent.state.dirty.insert(dirty.clone());
    let staged = left.dir.path().join("staging/staged1");
    let staged = std::fs::File::options().write(true).open(staged).unwrap();
    staged.set_len(size).unwrap();
    staged.write_all_at(&vec![7; 100_000], dirty.start).unwrap();
    staged.write_all_at(&vec![8; 248_576], 800_000).unwrap();
    let (report, told) = left.brought_out().await;
    assert_eq!((report.files, report.partial, report.bytes), (1, 1, 100_000 + size - 800_000));
    assert!(!report.is_whole());
    let missing = told[0].missing.clone().unwrap();
    assert_eq!((missing.ranges, &missing.key[..]), (vec![0..300_000, 400_000..800_000], "big"));
    assert_eq!(missing.fetched, []);
    assert_eq!(missing.version, Some(version()));
    let made = std::fs::read(left.place().join("big.partial")).unwrap();
    assert!(
        made.len() as u64 == size
            && made[300_000..400_000].iter().all(|byte| *byte == 7)
            && made[800_000..].iter().all(|byte| *byte == 8)
    );
    assert!(made[400_000..800_000].iter().all(|byte| *byte == 0));
    assert!(left.place().join("big.partial").metadata().unwrap().blocks() * 512 < 500_000);
    // A file that is shorter than it is said to be was cut later.
    staged.set_len(350_000).unwrap();
    std::fs::remove_dir_all(left.place()).unwrap();
    let (_, told) = left.brought_out().await;
    assert_eq!(told[0].missing.clone().unwrap().ranges.first(), Some(&(0..300_000)));
}

#[tokio::test]
async fn what_was_fetched_of_an_object_is_told_from_what_was_not() {
    let mut left = Left::new();
    let edited = |left: &mut Left, path: &str, etag: &str, dirty: std::ops::Range<u64>, bytes: &[u8]| {
        let intent = left.file(path, bytes);
        intent.base = Some(Version { etag: ETag::new(etag), id: None });
        (intent.state.base_size, intent.state.base_limit) = (Some(12), 12);
        intent.state.dirty.insert(dirty);
    };
    // The MD5 sum of "hello world\n".
    let sum = "\"6f5902ac237024bdd0c176cb93063dc4\"";
    edited(&mut left, "appended", sum, 12..17, b"hello world\nmore\n");
    edited(&mut left, "other", &sum.replace('6', "7"), 12..17, b"hello world\nmore\n");
    edited(&mut left, "edited", sum, 0..5, b"HELLO world\n");
    edited(&mut left, "not fetched", sum, 0..5, b"HELLO\0\0\0\0\0\0\0");
    let (report, told) = left.brought_out().await;
    assert_eq!((report.files, report.partial), (4, 3));
    let missing: BTreeMap<_, _> =
        told.iter().filter_map(|r| Some((&r.key[..], r.missing.clone()?))).collect();
    let ranges = |key: &str| {
        let MissingBytes { ranges, fetched, .. } = &missing[key];
        (ranges.first().cloned(), fetched.first().cloned())
    };
    assert_eq!(ranges("other"), (Some(0..12), Some(0..12)));
    assert_eq!(ranges("edited"), (Some(5..12), Some(5..12)));
    assert_eq!(ranges("not fetched"), (Some(5..12), None));
    let read = |path: &str| std::fs::read_to_string(left.place().join(path)).unwrap();
    assert_eq!(
        (read("appended"), read("edited.partial")),
        ("hello world\nmore\n".into(), "HELLO world\n".into())
    );
}

#[tokio::test]
async fn bytes_without_a_name_are_in_lost_and_found() {
    let mut left = Left::new();
    left.file("named", b"named");
    left.stage(b"nobody's");
    left.stage(b"");
    std::fs::create_dir_all(left.dir.path().join("lost+found/dir")).unwrap();
    std::fs::write(left.dir.path().join("lost+found/aside"), "set aside").unwrap();
    left.file("gone", b"x");
    left.say();
    std::fs::remove_file(left.dir.path().join("staging/staged4")).unwrap();
    let (report, told) = left.brought_out().await;
    assert_eq!((report.files, report.failed), (3, 2), "{told:?}");
    let read = |path: &str| std::fs::read_to_string(left.place().join(path)).unwrap();
    assert_eq!(read("lost+found/staged2"), "nobody's");
    assert_eq!(read("lost+found/aside"), "set aside");
    assert_eq!(read("named"), "named");
    assert_eq!(left.place().join("lost+found").read_dir().unwrap().count(), 2);
}

#[tokio::test]
async fn of_a_damaged_journal_the_rest_is_rescued() {
    let mut left = Left::new();
    for n in 0..5 {
        left.file(&format!("file{n}"), format!("bytes {n}").as_bytes());
    }
    left.say();
    let log = left.dir.path().join("journal/log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(5).position(|window| window == b"file2").unwrap();
    bytes[at] = b'F';
    std::fs::write(&log, bytes).unwrap();
    let (report, told) = left.brought_out().await;
    assert_eq!((report.files, report.damaged, report.is_whole()), (5, 1, false), "{told:?}");
    let read = |path: &str| std::fs::read_to_string(left.place().join(path)).unwrap();
    assert_eq!(
        (read("file1"), read("file3"), read("lost+found/staged3")),
        ("bytes 1".into(), "bytes 3".into(), "bytes 2".into())
    );
    // Without a journal there are bytes yet.
    std::fs::remove_dir_all(left.dir.path().join("journal")).unwrap();
    std::fs::remove_dir_all(left.place()).unwrap();
    let (report, _) = left.rescue(RescueTo::Directory(left.place())).await.unwrap();
    assert_eq!((report.files, report.damaged), (5, 1));
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_refused() {
    let mut left = Left::new();
    left.file("file", b"bytes");
    left.say();
    let refused = async |left: &Left| {
        let refused = left.rescue(RescueTo::Directory(left.place())).await.unwrap_err();
        assert_eq!(refused.kind(), FsErrorKind::Invalid, "{refused}");
        assert!(!left.place().exists());
        refused.to_string()
    };
    for (name, at) in [("journal/log", 8), ("format", 0)] {
        let file = left.dir.path().join(name);
        let before = std::fs::read(&file).unwrap();
        let mut newer = before.clone();
        newer[at] = b'7';
        std::fs::write(&file, newer).unwrap();
        refused(&left).await;
        std::fs::write(&file, before).unwrap();
    }
    let state = StateDir::open(left.dir.path()).unwrap();
    let said = refused(&left).await;
    assert!(said.contains(&format!("process {}", std::process::id())) || said.contains("in use"), "{said}");
    drop(state);
    std::fs::remove_file(left.dir.path().join("lock")).unwrap();
    refused(&left).await;
}

#[tokio::test]
async fn an_output_that_cannot_be_is_refused() {
    let mut left = Left::new();
    left.file("file", b"bytes");
    left.say();
    let inside = left.dir.path().join("new/dir");
    std::fs::write(left.out.path().join("file"), "").unwrap();
    for to in [inside, left.dir.path().to_owned(), left.out.path().to_owned(), left.out.path().join("file")] {
        left.rescue(RescueTo::Directory(to)).await.unwrap_err();
    }
    assert_eq!(left.out.path().read_dir().unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_volume_has_it_as_a_mount_stores_it() {
    let mut left = Left::new();
    let store = Arc::new(MemoryStore::new(MemoryOptions::default()));
    for (taken, bytes) in [("p/taken", "theirs"), ("p/file/below", "theirs"), ("p/dir/", "")] {
        let new = NewObject::default();
        store.put(&key(taken), bytes.as_bytes().to_vec().into(), new, PutCondition::Always).await.unwrap();
    }
    let large = vec![9; 20 << 20];
    left.file("large", &large);
    left.file("taken", b"ours");
    left.file("taken/below", b"ours");
    left.file("file", b"ours");
    left.file("dir/l", b"../taken").meta.kind = Kind::Symlink;
    left.marker("dir/", 0o700);
    left.marker("new/", 0o700);
    left.file("new/empty", b"").meta.xattrs.insert(String::from("user.k"), vec![7].into());
    for n in 0..40 {
        left.file(&format!("many/{n}"), format!("bytes {n}").as_bytes());
    }
    left.stage(b"nobody's");
    let (report, told) = left.stored(&store).await;
    assert!(report.is_whole(), "{told:?}");
    assert_eq!((report.files, report.directories), (47, 2));
    let places = places(&told);
    assert_eq!((places["taken"], places["file"]), ("taken.conflict-1", "file.conflict-1"));
    assert_eq!(places["taken/below"], "taken.conflict-1/below");
    for (at, bytes) in [
        ("p/taken", &b"theirs"[..]),
        ("p/large", &large),
        ("p/file.conflict-1", b"ours"),
        ("p/dir/l", b"../taken"),
        ("p/many/17", b"bytes 17"),
        ("p/lost+found/staged47", b"nobody's"),
    ] {
        assert!(object(&store, at).await.is_some_and(|(found, _)| found == bytes), "{at}");
    }
    let (_, link) = object(&store, "p/dir/l").await.unwrap();
    assert_eq!(link["mode"], (0o120_640).to_string());
    let (_, empty) = object(&store, "p/new/empty").await.unwrap();
    assert_eq!((&empty["mode"][..], &empty["mtime"][..]), ("33184", "1000000000.000000005"));
    assert!(empty.contains_key("xattr"));
    assert_eq!(object(&store, "p/new/").await.unwrap().1["mode"], (0o40_700).to_string());
    assert!(object(&store, "p/dir/").await.unwrap().1.is_empty());
    let listed = store.list(ListRequest::default()).await.unwrap();
    assert!(listed.objects.iter().all(|object| !object.key.as_str().contains(".conflict-host")));
}

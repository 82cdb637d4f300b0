//! What may happen: steps, and random sequences of them.

use proptest::prelude::*;

pub(crate) const NAMES: [&str; 3] = ["a", "b", "d"];

pub(crate) const WRITE_ONLY: usize = 6;

/// A path of one to three names.
pub(crate) type Path = Vec<usize>;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Open for reading and writing, or only for that.
    Create(Path, bool),
    /// One of the files that there are, for writing only, and emptied.
    Empty(usize),
    /// One of the files that there are, for writing too: only for that from [`WRITE_ONLY`] on.
    Open(usize, bool),
    Write(usize, u64, usize, u8),
    Cut(usize, u64),
    CutPath(Path, u64),
    Sync(usize),
    Close(usize),
    Unlink(Path),
    Mkdir(Path),
    Rmdir(Path),
    Rename(Path, Path),
    Chmod(Path, u16),
    Forget(Path),
    RemotePut(Path, usize, u8),
    RemoteDelete(Path),
    /// All that is written goes to the store.
    StoreAll,
    /// The process ends at once, and another one goes on.
    Crash,
}

pub(crate) fn text(path: &Path) -> String {
    path.iter().map(|n| NAMES[*n]).collect::<Vec<_>>().join("/")
}

fn path() -> impl Strategy<Value = Path> {
    prop_oneof![
        4 => prop::collection::vec(0..3_usize, 1),
        3 => prop::collection::vec(0..3_usize, 2),
        1 => prop::collection::vec(0..3_usize, 3),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let (at, size, len) = (0..40_u64, 0..40_u64, 1..20_usize);
    prop_oneof![
        3 => (path(), any::<bool>()).prop_map(|(p, r)| Step::Create(p, r)),
        1 => (0..9_usize).prop_map(Step::Empty),
        5 => (0..9_usize, any::<bool>()).prop_map(|(f, w)| Step::Open(f, w)),
        6 => (0..4_usize, at, len, 1..9_u8).prop_map(|(h, a, l, b)| Step::Write(h, a, l, b)),
        1 => (0..4_usize, size.clone()).prop_map(|(h, s)| Step::Cut(h, s)),
        1 => (path(), size).prop_map(|(p, s)| Step::CutPath(p, s)),
        1 => (0..4_usize).prop_map(Step::Sync),
        5 => (0..4_usize).prop_map(Step::Close),
        1 => path().prop_map(Step::Unlink),
        2 => path().prop_map(Step::Mkdir),
        1 => path().prop_map(Step::Rmdir),
        4 => (path(), path()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (path(), 0..0o1000_u16).prop_map(|(p, m)| Step::Chmod(p, m)),
        1 => path().prop_map(Step::Forget),
        2 => (path(), 0..30_usize, 1..9_u8).prop_map(|(p, l, b)| Step::RemotePut(p, l, b)),
        1 => path().prop_map(Step::RemoteDelete),
    ]
}

pub(crate) fn back_step() -> impl Strategy<Value = Step> {
    prop_oneof![12 => step(), 1 => Just(Step::StoreAll), 1 => Just(Step::Crash)]
}

//! Where files of ours lie.

use std::env;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};

/// Most characters of a source's name in a directory's name.
const SLUG: usize = 40;

/// `$XDG_STATE_HOME/staithe`, or `~/.local/state/staithe` (XDG base directories).
pub(crate) fn state_home() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("staithe"))
}

/// The state directory of a source on a mount point: a name to read, and a hash to tell apart.
pub(crate) fn state_dir(home: &Path, source: &str, mountpoint: &Path) -> PathBuf {
    let slug: String =
        source.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(SLUG).collect();
    let slug = slug.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    home.join(format!("{slug}-{}", hash(&[source.as_bytes(), mountpoint.as_os_str().as_encoded_bytes()])))
}

/// Where running daemons leave their addresses: `/run/staithe` for root, else the user's runtime directory.
pub(crate) fn runtime_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run/staithe"));
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    runtime.map(|dir| dir.join("staithe")).or_else(|| state_home().map(|home| home.join("run")))
}

/// A path that holds in every working directory, without links as far as it exists and answers.
pub(crate) fn full_path(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => absolute,
    }
}

/// Creates a directory and those above it, for their owner only.
pub(crate) fn create_private(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Sixteen hexadecimal digits that tell texts apart (not a secret, not a checksum).
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_readable_and_one_of_a_kind() {
        let home = Path::new("/state");
        let dir = state_dir(home, "s3://bucket/a b", Path::new("/mnt"));
        assert!(dir.to_str().unwrap().starts_with("/state/s3-bucket-a-b-"), "{}", dir.display());
        assert_eq!(dir, state_dir(home, "s3://bucket/a b", Path::new("/mnt")));
        assert_ne!(dir, state_dir(home, "s3://bucket/a b", Path::new("/mnt2")));
    }
}

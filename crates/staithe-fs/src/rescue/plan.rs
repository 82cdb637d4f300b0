//! What there is to rescue, from what the journal says. Pure.
//!
//! Of two intents about one name the later one says the newer, and gets the name; so does a directory before a file.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rangemap::RangeSet;
use staithe_store::{Key, Version, VersionId};

use super::report::{Rescued, RescuedKind};
use crate::api::Kind;
use crate::commit::with_causes;
use crate::intent::{AttributesIntent, Intent, StoreIntent};
use crate::journal::IntentId;
use crate::metadata::FileMeta;

/// All of it, in the order in which it is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By path, those above before those below.
    pub(super) directories: BTreeMap<String, FileMeta>,
    /// The deepest first: what needs a directory has it before a file takes the name.
    pub(super) files: Vec<Item>,
    pub(super) attributes: Vec<AttributesIntent>,
    /// What has no bytes here.
    pub(super) notes: Vec<Rescued>,
    /// The staging files that the journal speaks of.
    pub(super) spoken_of: HashSet<String>,
}

/// A file or a symbolic link that is to be rescued.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) kind: RescuedKind,
    /// Its key, or where it is in the state directory.
    pub(super) key: String,
    /// Where it is to go.
    pub(super) path: String,
    pub(super) meta: FileMeta,
    pub(super) bytes: Local,
    /// The object that it was made from, which has what is not here of it.
    pub(super) base: Option<(Key, Version)>,
}

/// What is said of a file's bytes on the local disk.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) file: PathBuf,
    /// Its size is that of the file, but no more than this, in bytes.
    pub(super) size_most: u64,
    /// How many bytes the base has, and how many of them show, where nothing is dirty.
    pub(super) base_size: u64,
    pub(super) base_limit: u64,
    pub(super) dirty: RangeSet<u64>,
}

impl Local {
    /// All of a file.
    pub(super) fn all_of(file: PathBuf) -> Self {
        Self { file, size_most: u64::MAX, base_size: 0, base_limit: 0, dirty: RangeSet::new() }
    }
}

impl Item {
    /// Bytes that nothing says the name of.
    pub(super) fn lost(file: PathBuf, key: String, modified: SystemTime, (uid, gid): (u32, u32)) -> Self {
        let meta = FileMeta::new(Kind::File, 0o600, uid, gid, modified);
        let name = super::names::split(&key).1;
        let path = format!("lost+found/{name}");
        Self { kind: RescuedKind::Lost, path, key, meta, bytes: Local::all_of(file), base: None }
    }
}

/// What is to be done with what stands in the journal; `staging` is where its files are.
pub(super) fn plan(mut pending: Vec<(IntentId, Intent)>, staging: &Path) -> Plan {
    let mut plan = Plan::default();
    let bases: Vec<Option<Key>> = pending.iter().map(|(_, intent)| base_key(intent)).collect();
    follow_moves(&mut pending, &mut plan.notes);
    let mut files = Vec::new();
    for ((id, intent), base_key) in pending.into_iter().zip(bases) {
        match intent {
            Intent::Store(store) => {
                plan.spoken_of.insert(store.staging_name.clone());
                files.push((id, item(*store, base_key, staging)));
            }
            // They come in the order in which they were said.
            Intent::Marker(marker) => {
                plan.directories.insert(path_of(&marker.key), marker.meta);
            }
            Intent::Attributes(attributes) => plan.attributes.push(*attributes),
            Intent::RenameTree { from_prefix, to_prefix, switched, .. } => {
                let remains = if switched {
                    "what is left below the old name is to go"
                } else {
                    "objects that are below the old name yet belong below the new one"
                };
                let note = format!("it was being renamed to {to_prefix:?}: {remains}");
                plan.notes.push(Rescued::note(from_prefix, note));
            }
            Intent::OldName(old) => {
                let version = told(&old.version);
                let note = format!(
                    "it was renamed to {:?}: if {version} is there yet, it is to go",
                    old.copy.as_str()
                );
                plan.notes.push(Rescued::note(old.key.as_str(), note));
            }
            Intent::Upload { key, upload_id } => {
                let note = format!(
                    "an upload in parts was not completed, and may take room: {:?}",
                    upload_id.as_str()
                );
                plan.notes.push(Rescued::note(key.as_str(), note));
            }
        }
    }
    let depth = |item: &Item| item.path.matches('/').count();
    files.sort_by(|(a, one), (b, other)| {
        (Reverse(depth(one)), &one.path, Reverse(a)).cmp(&(Reverse(depth(other)), &other.path, Reverse(b)))
    });
    plan.files = files.into_iter().map(|(_, item)| item).collect();
    plan
}

/// How a version is told.
pub(super) fn told(version: &Version) -> String {
    let id = version.id.as_ref().map(VersionId::as_str);
    let id = id.map(|id| format!(" ({id})")).unwrap_or_default();
    format!("the version {}{id}", version.etag.as_str())
}

/// What is below the old name of a directory that was being renamed is below its new one from now on, as a start has it.
fn follow_moves(pending: &mut [(IntentId, Intent)], notes: &mut Vec<Rescued>) {
    let moves: Vec<(String, String)> = pending
        .iter()
        .filter_map(|(_, intent)| match intent {
            Intent::RenameTree { from_prefix, to_prefix, settled: false, .. } => {
                Some((from_prefix.clone(), to_prefix.clone()))
            }
            _ => None,
        })
        .collect();
    for (from, to) in moves {
        for (_, intent) in &mut *pending {
            if let Err(error) = intent.move_key(&from, &to) {
                notes.push(Rescued::note(crate::recovery::describe(intent), with_causes(&error)));
            }
        }
    }
}

fn base_key(intent: &Intent) -> Option<Key> {
    match intent {
        Intent::Store(store) => Some(store.key.clone()),
        _ => None,
    }
}

fn item(store: StoreIntent, base_key: Option<Key>, staging: &Path) -> Item {
    let kind = if store.meta.kind == Kind::Symlink { RescuedKind::Symlink } else { RescuedKind::File };
    let base_size = store.state.base_size.unwrap_or(0);
    let bytes = Local {
        file: staging.join(&store.staging_name),
        size_most: store.state.size,
        base_size,
        base_limit: store.state.base_limit.min(base_size),
        dirty: store.state.dirty,
    };
    let (key, path) = (store.key.as_str().to_owned(), path_of(&store.key));
    Item { kind, key, path, meta: store.meta, bytes, base: base_key.zip(store.base) }
}

/// The path of a key: the prefix of its mount is not known here, and stays.
fn path_of(key: &Key) -> String {
    let key = key.as_str();
    key.strip_suffix('/').unwrap_or(key).to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use staithe_store::{ETag, UploadId};

    use super::*;
    use crate::intent::{MarkerIntent, OldNameIntent};
    use crate::staging::StagedState;

    fn key(key: &str) -> Key {
        Key::new(key).unwrap()
    }

    fn version() -> Version {
        Version { etag: ETag::new("\"e\""), id: Some(VersionId::new("v")) }
    }

    fn meta(kind: Kind, mode: u16) -> FileMeta {
        FileMeta::new(kind, mode, 1, 2, UNIX_EPOCH)
    }

    fn store(path: &str, staging: &str) -> Intent {
        let dirty = std::iter::once(5..10).collect();
        Intent::Store(Box::new(StoreIntent {
            key: key(path),
            staging_name: staging.to_owned(),
            state: StagedState { size: 20, base_size: Some(12), base_limit: 12, dirty },
            base: Some(version()),
            meta: meta(Kind::File, 0o644),
            is_doubted: false,
        }))
    }

    fn marker(path: &str, mode: u16) -> Intent {
        let meta = meta(Kind::Directory, mode);
        Intent::Marker(Box::new(MarkerIntent { key: key(path), meta, is_new: true }))
    }

    fn planned(intents: Vec<Intent>) -> Plan {
        let ids = (0..).map(IntentId);
        plan(ids.zip(intents).collect(), Path::new("/s"))
    }

    #[test]
    fn the_later_of_two_comes_first_and_the_deeper_before_both() {
        let plan = planned(vec![store("a", "1"), store("a/b", "2"), store("a", "3"), store("c", "4")]);
        let order: Vec<_> =
            plan.files.iter().map(|item| (&item.path[..], item.bytes.file.to_str().unwrap())).collect();
        assert_eq!(order, [("a/b", "/s/2"), ("a", "/s/3"), ("a", "/s/1"), ("c", "/s/4")]);
        assert_eq!(plan.spoken_of.len(), 4);
        let bytes = &plan.files[0].bytes;
        assert_eq!((bytes.size_most, bytes.base_limit), (20, 12));
    }

    #[test]
    fn what_was_said_of_a_directory_last_stands() {
        let plan = planned(vec![marker("d/e/", 0o755), marker("d/", 0o755), marker("d/", 0o700)]);
        let modes: Vec<_> = plan.directories.iter().map(|(path, meta)| (&path[..], meta.mode)).collect();
        assert_eq!(modes, [("d", 0o700), ("d/e", 0o755)]);
    }

    #[test]
    fn what_is_below_a_renamed_directory_moves_unless_it_was_said_later() {
        for settled in [false, true] {
            let plan = planned(vec![
                store("old/sub/file", "1"),
                marker("old/", 0o755),
                store("older", "2"),
                Intent::RenameTree {
                    from_prefix: String::from("old/"),
                    to_prefix: String::from("new/"),
                    switched: false,
                    settled,
                },
            ]);
            let dir = if settled { "old" } else { "new" };
            assert_eq!(plan.files[0].path, format!("{dir}/sub/file"));
            assert_eq!(plan.files[0].base, Some((key("old/sub/file"), version())));
            assert_eq!(plan.files[1].path, "older");
            assert!(plan.directories.contains_key(dir));
            assert_eq!(plan.notes.len(), 1);
        }
    }

    #[test]
    fn what_has_no_bytes_is_noted() {
        let plan = planned(vec![
            Intent::Upload { key: key("large"), upload_id: UploadId::new("u1") },
            Intent::OldName(Box::new(OldNameIntent {
                key: key("old"),
                version: version(),
                copy: key("new"),
                boot: None,
            })),
            Intent::Attributes(Box::new(AttributesIntent {
                key: key("moded"),
                base: version(),
                size: 3,
                meta: meta(Kind::File, 0o600),
            })),
        ]);
        assert_eq!((plan.files.len(), plan.directories.len(), plan.attributes.len()), (0, 0, 1));
        let said: Vec<_> = plan.notes.iter().map(|note| note.remark.clone().unwrap()).collect();
        assert!(
            said[0].contains("\"u1\"") && said[1].contains("\"new\"") && said[1].contains("(v)"),
            "{said:?}"
        );
    }
}

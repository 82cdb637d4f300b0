//! A manifest in memory: all keys and what is known of them in one piece of memory, in the order of the keys.
//!
//! An object takes its key, what a block says of it (some thirty bytes; as many more for a version id), two bytes for the
//! key's length and eight for where it lies. Looking one up is a binary search; a listing walks, and skips what a
//! common prefix rolls up by another search.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use staithe_store::listing::{self, Entry};
use staithe_store::{Key, ListPage, ListRequest};

use super::decode::{Decoder, footer_counts};
use super::encode::KEY_LENGTH;
use super::format::{FOOTER, Fault, ManifestHeader};
use super::object::{self, ViewObject};
use crate::error::Result;

/// Most entries in a page of a listing, as S3 has it.
const PAGE: u16 = 1000;

/// What a view shows, in memory.
pub struct Manifest {
    header: ManifestHeader,
    file: PathBuf,
    /// For each object: the length of its key, the key, what is known of it.
    arena: Vec<u8>,
    /// Where each object lies in the arena.
    places: Vec<u64>,
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest")
            .field("file", &self.file)
            .field("objects", &self.len())
            .finish_non_exhaustive()
    }
}

impl Manifest {
    /// Reads a manifest file, all of it, and believes it only if it is whole. Blocks on the disk.
    ///
    /// # Errors
    /// As [`ManifestReader::open`](super::ManifestReader::open).
    pub fn load(file: &Path) -> Result<Self> {
        let mut opened = File::open(file).map_err(|e| Fault::Io(e).of(file))?;
        let (mut manifest, room) = Self::with_room(&mut opened).map_err(|fault| fault.of(file))?;
        let input = std::io::BufReader::with_capacity(256 << 10, opened);
        let mut decoder = Decoder::new(input).map_err(|fault| fault.of(file))?;
        manifest.fill(&mut decoder, room).map_err(|fault| fault.of(file))?;
        manifest.header = decoder.header().clone();
        file.clone_into(&mut manifest.file);
        Ok(manifest)
    }

    /// Of nothing, yet.
    pub(super) fn empty() -> Self {
        let header = ManifestHeader::nowhere();
        Self { header, file: PathBuf::new(), arena: Vec::new(), places: Vec::new() }
    }

    /// An empty one with memory for what the end of the file says that there is: one that grows would take twice as
    /// much for a while. How much it may take, in bytes: nothing, if the end of the file says nothing.
    fn with_room(file: &mut File) -> Result<(Self, u64), Fault> {
        let mut manifest = Self::empty();
        let len = file.seek(SeekFrom::End(0))?;
        if len < FOOTER as u64 {
            file.seek(SeekFrom::Start(0))?;
            return Ok((manifest, 0));
        }
        file.seek(SeekFrom::End(-(FOOTER as i64)))?;
        let mut footer = [0; FOOTER];
        file.read_exact(&mut footer)?;
        file.seek(SeekFrom::Start(0))?;
        let Some((objects, bytes)) = footer_counts(&footer) else { return Ok((manifest, 0)) };
        let room = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let has_room = manifest.arena.try_reserve_exact(room(bytes)).is_ok()
            && manifest.places.try_reserve_exact(room(objects)).is_ok();
        if !has_room {
            return Err(Fault::Io(std::io::ErrorKind::OutOfMemory.into()));
        }
        Ok((manifest, bytes))
    }

    /// Takes in all objects. Those that do not fit into `room` bytes of the arena are read all the same, for what is
    /// wrong with the file to be found, and never kept: a small file could stand for more than there is memory.
    fn fill(&mut self, decoder: &mut Decoder<impl std::io::Read>, room: u64) -> Result<(), Fault> {
        let mut fits = true;
        while let Some(decoded) = decoder.advance()? {
            let key = decoded.object.key.as_str();
            let len = KEY_LENGTH as usize + key.len() + decoded.known.len();
            fits &= (self.arena.len() + len) as u64 <= room;
            if !fits {
                continue;
            }
            self.places.push(self.arena.len() as u64);
            // A key has 1,024 bytes at most.
            self.arena.extend_from_slice(&(key.len() as u16).to_le_bytes());
            self.arena.extend_from_slice(key.as_bytes());
            self.arena.extend_from_slice(decoded.known);
        }
        if fits { Ok(()) } else { Err(Fault::Damaged("it takes more memory than it says")) }
    }

    /// What it is a listing of.
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The file that it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What it takes of the memory, in bytes.
    pub fn memory(&self) -> u64 {
        (self.arena.capacity() + self.places.capacity() * size_of::<u64>()) as u64
    }

    /// The object of a key. O(log n).
    pub fn find(&self, key: &Key) -> Option<ViewObject> {
        let at = self.first_from(key.as_str());
        (self.key_at(at)? == key.as_str().as_bytes()).then(|| self.object_at(at)).flatten()
    }

    /// A page of the listing, as a store would give it. O(log n) for each common prefix, O(1) for each object.
    ///
    /// # Errors
    /// `Invalid` for a token that is none of this.
    pub fn list(&self, request: &ListRequest) -> staithe_store::Result<ListPage> {
        // Where the last entry was: most often the next one is wanted.
        let here = Cell::new(None::<usize>);
        listing::page(request, PAGE, |from| {
            let next = here.get().map_or(0, |at| at + 1);
            let is_next = next > 0
                && self.key_at(next - 1).is_some_and(|before| before < from.as_bytes())
                && self.key_at(next).is_none_or(|key| key >= from.as_bytes());
            let at = if is_next { next } else { self.first_from(from) };
            here.set(Some(at));
            Ok(self.object_at(at).map(|object| Entry::Object(object.summary())))
        })
    }

    /// The place of the first key that is `from` or greater.
    fn first_from(&self, from: &str) -> usize {
        self.places.partition_point(|place| self.key_of(*place) < from.as_bytes())
    }

    fn key_at(&self, at: usize) -> Option<&[u8]> {
        self.places.get(at).map(|place| self.key_of(*place))
    }

    /// The key of the object that lies there. All of what is asked for was put there by `fill`.
    fn key_of(&self, place: u64) -> &[u8] {
        let place = place as usize;
        let start = place + KEY_LENGTH as usize;
        let len = u16::from_le_bytes([self.arena[place], self.arena[place + 1]]);
        &self.arena[start..start + usize::from(len)]
    }

    fn object_at(&self, at: usize) -> Option<ViewObject> {
        let key = self.key_at(at)?;
        let known = self.places[at] as usize + KEY_LENGTH as usize + key.len();
        let key = Key::new(std::str::from_utf8(key).ok()?).ok()?;
        object::decode(key, &self.arena[known..]).map(|(object, _)| object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use staithe_store::{MemoryStore, NewObject, ObjectStore as _, PutCondition, Version, VersionId};

    use super::*;
    use crate::view::take_manifest;

    /// A manifest of a bucket in memory, and the bucket.
    fn of(keys: &[String]) -> (MemoryStore, Manifest) {
        let (store, dir) = (MemoryStore::default(), tempfile::tempdir().unwrap());
        let file = dir.path().join("view");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for key in keys {
                let body = key.as_bytes().to_vec().into();
                let key = Key::new(key).unwrap();
                store.put(&key, body, NewObject::default(), PutCondition::Always).await.unwrap();
            }
            take_manifest(&store, "", None, &file, |_| {}).await.unwrap();
        });
        (store, Manifest::load(&file).unwrap())
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        let keys: Vec<_> = (0..3000).map(|n| format!("d{}/{n}", n % 7)).collect();
        let (_, manifest) = of(&keys);
        assert_eq!(manifest.len(), keys.len());
        for key in &keys {
            let found = manifest.find(&Key::new(key).unwrap()).unwrap();
            assert_eq!((found.key.as_str(), found.size), (&**key, key.len() as u64));
        }
        for key in ["d", "d0", "d0/", "d0/00", "zzz", "\0"] {
            assert_eq!(manifest.find(&Key::new(key).unwrap()), None);
        }
        assert_eq!(manifest.arena.capacity(), manifest.arena.len(), "the footer says how much it takes");
    }

    #[test]
    fn ids_of_versions_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("view");
        let mut writer =
            crate::view::file::ManifestWriter::create(&file, &ManifestHeader::nowhere()).unwrap();
        let version = Version { etag: staithe_store::ETag::new("e"), id: Some(VersionId::new("v1")) };
        let object =
            ViewObject { key: Key::new("k").unwrap(), size: 1, version, modified: std::time::UNIX_EPOCH };
        writer.push(&object).unwrap();
        writer.finish().unwrap();
        let manifest = Manifest::load(&file).unwrap();
        let page = manifest.list(&ListRequest::default()).unwrap();
        assert_eq!(page.objects[0].id, Some(VersionId::new("v1")));
        assert_eq!(manifest.find(&object.key), Some(object));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn its_listing_is_the_bucket_s(
            keys in proptest::collection::btree_set("[ab/é]{1,6}", 0..40),
            prefix in "[ab/]{0,3}",
            after in proptest::option::of("[ab/é]{0,4}"),
            delimiter in proptest::option::of(Just('/')),
            max in 1u16..5,
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let (store, manifest) = of(&keys);
            let mut request = ListRequest {
                prefix,
                delimiter,
                start_after: after.filter(|after| !after.is_empty()),
                max_keys: Some(max),
                token: None,
            };
            loop {
                let wanted = futures::executor::block_on(store.list(request.clone())).unwrap();
                let page = manifest.list(&request).unwrap();
                let names = |page: &ListPage| {
                    let objects = page.objects.iter().map(|o| (o.key.clone(), o.size, o.etag.clone(), o.last_modified));
                    (objects.collect::<Vec<_>>(), page.prefixes.clone(), page.next.clone())
                };
                prop_assert_eq!(names(&page), names(&wanted));
                match page.next {
                    Some(next) => request.token = Some(next),
                    None => break,
                }
            }
        }
    }
}

//! placeholder bodies; the signatures are the contract for the adapter.
#![allow(clippy::todo, clippy::unused_async, clippy::needless_pass_by_value, unused_variables, missing_docs)]
use crate::*;
use bytes::Bytes;
use staithe_store::ObjectStore;
use std::sync::Arc;
use std::time::Duration;

/// A filesystem over an object store.
#[derive(Debug)]
pub struct Filesystem {}

impl Filesystem {
    /// Opens the state directory (locked), replays its journal, checks that the volume answers. Runs inside a tokio runtime.
    pub async fn open(store: Arc<dyn ObjectStore>, config: FsConfig) -> Result<Arc<Self>> {
        todo!()
    }
    /// Invalidations for the kernel; one consumer, its own thread (blocking recv on a crossbeam/std channel).
    pub fn invalidations(&self) -> std::sync::mpsc::Receiver<Invalidation> {
        todo!()
    }
    /// From now on every change is refused as read-only; what is open may still be flushed.
    pub fn begin_draining(&self) {
        todo!()
    }
    /// Stores what is dirty, up to the deadline; what remains is kept in the state directory.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        todo!()
    }

    /// Answers from memory, or `None`: then ask [`lookup`](Self::lookup).
    pub fn try_lookup(&self, parent: Ino, name: &str) -> Option<Result<Lookup>> {
        todo!()
    }
    pub async fn lookup(&self, parent: Ino, name: &str) -> Result<Lookup> {
        todo!()
    }
    /// The kernel dropped `count` references to `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        todo!()
    }
    /// An entry of a directory stream was handed to the kernel: counts one reference.
    pub fn entry_taken(&self, ino: Ino) {
        todo!()
    }
    pub fn try_getattr(&self, ino: Ino, handle: Option<HandleId>) -> Option<Result<Attributes>> {
        todo!()
    }
    pub async fn getattr(&self, ino: Ino, handle: Option<HandleId>) -> Result<Attributes> {
        todo!()
    }
    pub async fn setattr(&self, ino: Ino, handle: Option<HandleId>, set: SetAttr) -> Result<Attributes> {
        todo!()
    }
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        todo!()
    }
    /// A new empty regular file, stored before this returns (mknod).
    pub async fn mknod(&self, parent: Ino, name: &str, mode: u16, caller: Caller) -> Result<Entry> {
        todo!()
    }
    pub async fn mkdir(&self, parent: Ino, name: &str, mode: u16, caller: Caller) -> Result<Entry> {
        todo!()
    }
    pub async fn symlink(&self, parent: Ino, name: &str, target: &[u8], caller: Caller) -> Result<Entry> {
        todo!()
    }
    pub async fn unlink(&self, parent: Ino, name: &str) -> Result<()> {
        todo!()
    }
    pub async fn rmdir(&self, parent: Ino, name: &str) -> Result<()> {
        todo!()
    }
    pub async fn rename(
        &self,
        parent: Ino,
        name: &str,
        to_parent: Ino,
        to_name: &str,
        mode: RenameMode,
    ) -> Result<()> {
        todo!()
    }

    pub async fn open_file(&self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        todo!()
    }
    pub async fn create(
        &self,
        parent: Ino,
        name: &str,
        mode: u16,
        open: OpenMode,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        todo!()
    }
    pub fn try_read(&self, handle: HandleId, offset: u64, len: u32) -> Option<Result<ReadData>> {
        todo!()
    }
    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<ReadData> {
        todo!()
    }
    /// Never waits for the store.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<u32> {
        todo!()
    }
    pub async fn flush(&self, handle: HandleId) -> Result<()> {
        todo!()
    }
    pub async fn fsync(&self, handle: HandleId) -> Result<()> {
        todo!()
    }
    pub async fn fallocate(&self, handle: HandleId, offset: u64, len: u64, how: Allocate) -> Result<()> {
        todo!()
    }
    /// Returns at once; what is still dirty is stored in the background.
    pub fn release(self: &Arc<Self>, handle: HandleId) {
        todo!()
    }

    pub async fn opendir(&self, ino: Ino) -> Result<HandleId> {
        todo!()
    }
    /// Up to `max` entries from `offset` (0, or a `next` of an earlier entry). Empty at the end.
    pub async fn readdir(&self, handle: HandleId, offset: u64, max: usize) -> Result<Vec<DirItem>> {
        todo!()
    }
    pub fn releasedir(&self, handle: HandleId) {
        todo!()
    }

    pub fn statfs(&self) -> FsStats {
        todo!()
    }
    pub async fn getxattr(&self, ino: Ino, name: &str) -> Result<Bytes> {
        todo!()
    }
    pub async fn setxattr(&self, ino: Ino, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        todo!()
    }
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<String>> {
        todo!()
    }
    pub async fn removexattr(&self, ino: Ino, name: &str) -> Result<()> {
        todo!()
    }
}

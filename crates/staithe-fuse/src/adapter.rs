//! The kernel's requests, each as one call of the filesystem.
//!
//! Left to `fuser`'s answer "not implemented", which makes the kernel do the work itself: `access` (the mount has
//! `default_permissions`), `lseek` for holes, `copy_file_range`, `ioctl`, `poll`, `bmap`, and locks.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, FileHandle, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use staithe_fs::{
    Caller, Filesystem, FsError, FsErrorKind, HandleId, Ino, Invalidation, Opened, ReadData, Result, SetAttr,
};

use crate::directory::{self, Batch};
use crate::dispatch::{Deadline, Dispatcher, Reply};
use crate::flags;
use crate::kernel::{EXPIRES_SINCE, Line};
use crate::notify;
use crate::passthrough::Passthrough;
use crate::privileges;
use crate::send;
use crate::subject::Subject;

/// Largest WRITE and READ, in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// Background requests (read-ahead, direct I/O) in flight.
const MAX_BACKGROUND: u16 = 64;
/// Background requests from which the kernel holds back.
const CONGESTION_THRESHOLD: u16 = 48;

/// How deep file systems may be stacked on one another for passthrough: this one on one that is on a disk.
const STACK_DEPTH: u32 = 1;

/// Serves one mount.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) fs: Arc<Filesystem>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) line: Arc<Line>,
    pub(crate) batch: Arc<Batch>,
    pub(crate) batch_plus: Arc<Batch>,
    pub(crate) passthrough: Arc<Passthrough>,
    /// Whether the kernel can be told to doubt a name; known from the first request on.
    pub(crate) names_expire: Arc<AtomicBool>,
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

impl Adapter {
    /// The subject of a name; what is no name is answered here.
    fn named<'a, R: Reply>(
        &self,
        operation: &'static str,
        parent: INodeNo,
        name: &'a OsStr,
        reply: R,
    ) -> Option<(Subject<'a>, &'a str, R)> {
        if let Some(name) = name.to_str() {
            return Some((Subject::name(operation, parent.0, name), name, reply));
        }
        let error = FsError::new(FsErrorKind::NameNotUtf8, "a key can carry only UTF-8");
        self.dispatcher.refuse(&Subject::name(operation, parent.0, "?"), reply, &error);
        None
    }

    /// Lets the kernel read cached files and write new ones by itself, where it can. A backing file may not lie on a stacked file system.
    fn ask_for_passthrough(&self, config: &mut KernelConfig) {
        let has = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        if has {
            self.fs.lend_local_files(&Ok(()));
            return;
        }
        self.fs.lend_local_files(&Err("the kernel has none".to_owned()));
        tracing::info!("the kernel has no passthrough: this process serves local files, too");
    }

    pub(crate) fn later<R: Reply, T: Send + 'static>(
        &self,
        subject: Subject<'_>,
        reply: R,
        future: impl Future<Output = Result<T>> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        self.dispatcher.later(subject, reply, Deadline::Usual, future, send);
    }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in flags::WANTED {
            if config.add_capabilities(wanted).is_err() {
                tracing::debug!(?wanted, "the kernel does not have this; going on without");
            }
        }
        self.names_expire.store(config.kernel_abi() >= EXPIRES_SINCE, Ordering::Release);
        if self.fs.can_lend() {
            self.ask_for_passthrough(config);
        } else {
            // It knows the reasons.
            self.fs.lend_local_files(&Ok(()));
        }
        // Each setter answers with the nearest value that would be taken.
        let _ = config.set_max_write(MAX_WRITE).or_else(|nearest| config.set_max_write(nearest));
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(CONGESTION_THRESHOLD);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some((subject, name, reply)) = self.named("lookup", parent, name, reply) else { return };
        let parent = Ino(parent.0);
        let known = || self.fs.try_lookup(parent, name);
        let Some(reply) = self.dispatcher.if_known(&subject, reply, known, send::lookup) else { return };
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.later(subject, reply, async move { fs.lookup(parent, &name).await }, send::lookup);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.dispatcher.quietly(&Subject::inode("forget", ino.0), || self.fs.forget(Ino(ino.0), count));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let subject = Subject::inode("getattr", ino.0);
        let (ino, handle) = (Ino(ino.0), handle.map(|h| HandleId(h.0)));
        let known = || self.fs.try_getattr(ino, handle);
        let Some(reply) = self.dispatcher.if_known(&subject, reply, known, send::attributes) else { return };
        let fs = Arc::clone(&self.fs);
        self.later(subject, reply, async move { fs.getattr(ino, handle).await }, send::attributes);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(flags::set_time), mtime.map(flags::set_time));
        let set = SetAttr { mode, uid, gid, size, atime, mtime };
        let handle = handle.map(|h| HandleId(h.0));
        let future = privileges::change(Arc::clone(&self.fs), Ino(ino.0), handle, set, request.uid());
        self.later(Subject::inode("setattr", ino.0), reply, future, send::attributes);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.readlink(Ino(ino.0)).await };
        self.later(Subject::inode("readlink", ino.0), reply, future, |reply, target| {
            send::link(reply, &target);
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some((subject, name, reply)) = self.named("mknod", parent, name, reply) else { return };
        if let Err(error) = flags::regular_file(mode) {
            return self.dispatcher.refuse(&subject, reply, &error);
        }
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), caller(request));
        let mode = (mode & 0o7777) as u16;
        let future = async move { fs.mknod(Ino(parent.0), &name, mode, caller).await };
        self.later(subject, reply, future, send::entry);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let Some((subject, name, reply)) = self.named("mkdir", parent, name, reply) else { return };
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), caller(request));
        let mode = (mode & 0o7777) as u16;
        let future = async move { fs.mkdir(Ino(parent.0), &name, mode, caller).await };
        self.later(subject, reply, future, send::entry);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some((subject, name, reply)) = self.named("unlink", parent, name, reply) else { return };
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.later(subject, reply, async move { fs.unlink(Ino(parent.0), &name).await }, send::empty);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some((subject, name, reply)) = self.named("rmdir", parent, name, reply) else { return };
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        self.later(subject, reply, async move { fs.rmdir(Ino(parent.0), &name).await }, send::empty);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let Some((subject, name, reply)) = self.named("symlink", parent, name, reply) else { return };
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), caller(request));
        let target = target.as_os_str().as_bytes().to_vec();
        let future = async move { fs.symlink(Ino(parent.0), &name, &target, caller).await };
        self.later(subject, reply, future, send::entry);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some((_, to_name, reply)) = self.named("rename", to_parent, to_name, reply) else { return };
        let Some((subject, name, reply)) = self.named("rename", parent, name, reply) else { return };
        let mode = match flags::rename_mode(flags) {
            Ok(mode) => mode,
            Err(error) => return self.dispatcher.refuse(&subject, reply, &error),
        };
        let (fs, name, to_name) = (Arc::clone(&self.fs), name.to_owned(), to_name.to_owned());
        let future = async move { fs.rename(Ino(parent.0), &name, Ino(to_parent.0), &to_name, mode).await };
        self.dispatcher.later(subject, reply, Deadline::OfSteps, future, send::empty);
    }

    fn link(&self, _: &Request, _ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some((subject, _, reply)) = self.named("link", parent, name, reply) else { return };
        let error = FsError::new(FsErrorKind::NotPermitted, "an object store has no hard links");
        self.dispatcher.refuse(&subject, reply, &error);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, line, ino) = (Arc::clone(&self.fs), Arc::clone(&self.line), Ino(ino.0));
        let (mode, uid) = (flags::open_mode(flags), request.uid());
        let future = async move {
            let (opened, cleared) = privileges::open(fs, ino, mode, uid).await?;
            if cleared {
                // The answer to an open carries no attributes, and the kernel would go on honouring the bits.
                let forget = Invalidation::Attributes { ino };
                tokio::task::spawn_blocking(move || line.get().map(|kernel| notify::tell(kernel, &forget)));
            }
            Ok(opened)
        };
        let (passthrough, fs) = (Arc::clone(&self.passthrough), Arc::clone(&self.fs));
        let send = move |reply, opened: Opened| passthrough.opened(&fs, reply, ino, &opened);
        self.later(Subject::inode("open", ino.0), reply, future, send);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let Some((subject, name, reply)) = self.named("create", parent, name, reply) else { return };
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), caller(request));
        let (mode, open) = ((mode & 0o7777) as u16, flags::open_mode(OpenFlags(flags)));
        let future = async move { fs.create(Ino(parent.0), &name, mode, open, caller).await };
        let (passthrough, fs) = (Arc::clone(&self.passthrough), Arc::clone(&self.fs));
        let send =
            move |reply, (entry, opened): (_, Opened)| passthrough.created(&fs, reply, &entry, &opened);
        self.later(subject, reply, future, send);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let subject = Subject::inode("read", ino.0);
        let handle = HandleId(handle.0);
        let known = || self.fs.try_read(handle, offset, size);
        let (unique, line) = (request.unique(), Arc::clone(&self.line));
        let send = move |reply, data: ReadData| send::data(reply, unique, &line, &data);
        let Some(reply) = self.dispatcher.if_known(&subject, reply, known, &send) else { return };
        let fs = Arc::clone(&self.fs);
        self.later(subject, reply, async move { fs.read(handle, offset, size).await }, send);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _open_flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let subject = Subject::inode("write", ino.0);
        let (ino, handle) = (Ino(ino.0), HandleId(handle.0));
        let clear = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let at_once = || {
            let may = !clear || privileges::are_known_clear(&self.fs, ino, handle);
            may.then(|| self.fs.try_write(handle, offset, data)).flatten()
        };
        let Some(reply) = self.dispatcher.if_known(&subject, reply, at_once, ReplyWrite::written) else {
            return;
        };
        let (fs, data) = (Arc::clone(&self.fs), data.to_vec());
        let future = async move {
            if clear {
                privileges::clear(&fs, ino, handle).await?;
            }
            fs.write_in_turn(handle, offset, &data).await
        };
        self.later(subject, reply, future, ReplyWrite::written);
    }

    fn flush(&self, _: &Request, ino: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.flush(HandleId(handle.0)).await };
        let subject = Subject::inode("flush", ino.0);
        self.dispatcher.later(subject, reply, Deadline::OfSteps, future, send::empty);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let work = || {
            self.passthrough.released(Ino(ino.0), HandleId(handle.0));
            self.fs.release(HandleId(handle.0));
            Ok(())
        };
        self.dispatcher.now(&Subject::inode("release", ino.0), reply, work, send::empty);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.fsync(HandleId(handle.0)).await };
        let subject = Subject::inode("fsync", ino.0);
        self.dispatcher.later(subject, reply, Deadline::OfSteps, future, send::empty);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let subject = Subject::inode("fallocate", ino.0);
        let how = match flags::allocate(mode) {
            Ok(how) => how,
            Err(error) => return self.dispatcher.refuse(&subject, reply, &error),
        };
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.fallocate(HandleId(handle.0), offset, len, how).await };
        self.later(subject, reply, future, send::empty);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.opendir(Ino(ino.0)).await };
        self.later(Subject::inode("opendir", ino.0), reply, future, send::opened_directory);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let (fs, batch) = (Arc::clone(&self.fs), Arc::clone(&self.batch));
        let size = batch.size();
        let future = async move { fs.readdir(HandleId(handle.0), offset, size).await };
        let send = move |reply, items: Vec<_>| directory::send(reply, &batch, &items);
        self.later(Subject::inode("readdir", ino.0), reply, future, send);
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (fs, batch, line) = (Arc::clone(&self.fs), Arc::clone(&self.batch_plus), Arc::clone(&self.line));
        let (size, unique, store) = (batch.size(), request.unique(), Arc::clone(&self.fs));
        let future = async move { fs.readdir(HandleId(handle.0), offset, size).await };
        let send = move |reply, items: Vec<_>| {
            directory::send_plus(reply, unique, &batch, &line, &store, &items);
        };
        self.later(Subject::inode("readdirplus", ino.0), reply, future, send);
    }

    fn releasedir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let work = || {
            self.fs.releasedir(HandleId(handle.0));
            Ok(())
        };
        self.dispatcher.now(&Subject::inode("releasedir", ino.0), reply, work, send::empty);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let future = async move { fs.fsync_dir().await };
        self.later(Subject::inode("fsyncdir", ino.0), reply, future, send::empty);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let work = || Ok(self.fs.statfs());
        self.dispatcher.now(&Subject::inode("statfs", ino.0), reply, work, send::stats);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.get_attribute(Ino(ino.0), name, size, reply);
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.set_attribute(Ino(ino.0), name, value, flags, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.list_attributes(Ino(ino.0), size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_attribute(Ino(ino.0), name, reply);
    }
}

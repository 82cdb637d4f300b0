//! The other ceiling: a filesystem over `/dev/fuse` that has nothing to do. Every file is of one length, and every
//! read is answered at once with the same bytes; nothing that the kernel asks for is remembered for it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request,
};
use rustix::fs::{major, minor};

use crate::Result;
use crate::options::Options;
use crate::rows::Row;

/// The most that the kernel asks for at once, as in staithe's mount.
const LARGEST: usize = 1 << 20;
/// Inode numbers from here on are files; the one before is every directory below the root.
const FILES: u64 = 3;

/// Whether the row can be done with it.
pub(crate) fn can(row: Row) -> bool {
    matches!(row, Row::Read | Row::Read4 | Row::Read64 | Row::StatWarm)
}

/// This program once more, as the filesystem at `path`.
pub(crate) fn command(path: &Path, file_size: u64) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--bench").arg("--bare").arg(path).arg("--bare-size").arg(file_size.to_string());
    Ok(command)
}

/// Serves the mount that was asked for with [`command`], until it is unmounted.
pub(crate) fn serve(path: &Path, options: &Options) -> Result<()> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("bare".to_owned()), MountOption::RO];
    config.n_threads = Some(thread::available_parallelism()?.get());
    let bare = Bare { size: options.bare_size, bytes: vec![0x5a; LARGEST] };
    let session = fuser::spawn_mount(bare, path, &config)?;
    read_ahead(path)?;
    Ok(session.join()?)
}

/// INIT can only lower what the kernel reads ahead.
fn read_ahead(path: &Path) -> io::Result<()> {
    let device = fs::metadata(path)?.dev();
    let setting = format!("/sys/class/bdi/{}:{}/read_ahead_kb", major(device), minor(device));
    fs::write(setting, (LARGEST >> 10).to_string())
}

struct Bare {
    size: u64,
    bytes: Vec<u8>,
}

impl Bare {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino.0 {
            FILES.. => (FileType::RegularFile, 0o444, self.size),
            _ => (FileType::Directory, 0o555, 0),
        };
        let time = UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Bare {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [InitFlags::FUSE_ASYNC_READ, InitFlags::FUSE_MAX_PAGES, InitFlags::FUSE_PARALLEL_DIROPS]
        {
            // A kernel without it has a lower ceiling.
            let _ = config.add_capabilities(wanted);
        }
        let largest = LARGEST as u32;
        let _ = config.set_max_write(largest).or_else(|nearest| config.set_max_write(nearest));
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_string_lossy();
        let ino = match (parent, &*name) {
            (_, "big") => FILES,
            (INodeNo::ROOT, "four" | "many") => FILES - 1,
            (INodeNo::ROOT, _) => return reply.error(Errno::ENOENT),
            (_, name) => match name.parse::<u64>() {
                Ok(n) => FILES + 1 + n,
                Err(_) => return reply.error(Errno::ENOENT),
            },
        };
        reply.entry(&Duration::ZERO, &self.attributes(INodeNo(ino)), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attributes(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(LARGEST);
        reply.data(&self.bytes[..left.min(size as usize).min(LARGEST)]);
    }
}

//! Multipart uploads: a directory each in the hidden area, with a file that says what it is for and one a part.
//!
//! Parts are not synced: what a power loss takes of them changes their tag, and then they do not complete.
//! The object made of them is synced like any other.

use std::io::Read;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{Attributes, file_tag, modified_ns, time_of};
use super::blocking::Cancel;
use super::commit::{Commit, Leaf};
use super::place::Place;
use super::root::{Root, open_beneath};
use super::session::errno_of;
use super::temp::TempFile;
use super::{entries, errno};
use crate::{
    ErrorKind, Key, MultipartUpload, NewObject, PageToken, PartNumber, PartReceipt, Payload, PutCondition,
    Result, StoreError, UploadId, UploadPage, Version, Written, checks,
};

/// The file of an upload whose bytes are the key, and whose attribute is what the object will carry.
const ABOUT: &str = "about";

pub(super) fn create(root: &Root, key: &Key, new: &NewObject, cancel: &Cancel) -> Result<MultipartUpload> {
    const OP: &str = "create_multipart";
    root.check_alive(OP)?;
    let failed = |errno| errno::error(OP, Some(key), "beginning the upload", errno);
    let place = Place::for_write(OP, key)?;
    if place.marker {
        return Err(checks::fail(ErrorKind::Invalid, OP, key, "a directory marker is put, not uploaded"));
    }
    let mut about = TempFile::new(root, OP, key)?;
    about.write(&Payload::from(key.as_str().as_bytes().to_vec()), cancel)?;
    about.seal(new)?;
    let initiated = Some(time_of(modified_ns(&about.stat()?)));
    let id = uuid::Uuid::new_v4().simple().to_string();
    let aside = root.session.fresh("upload-");
    let dir = &root.session.dir;
    rustix::fs::mkdirat(dir, &aside, Mode::from_raw_mode(0o700)).map_err(failed)?;
    rustix::fs::renameat(dir, &about.name, dir, format!("{aside}/{ABOUT}")).map_err(failed)?;
    cancel.check(OP)?;
    rustix::fs::renameat(dir, &aside, &root.session.uploads, &id).map_err(failed)?;
    Ok(MultipartUpload { key: key.clone(), id: UploadId::new(id), initiated })
}

/// An upload in progress, opened.
struct Open {
    dir: OwnedFd,
    about: About,
}

struct About {
    key: String,
    new: NewObject,
    stat: Stat,
}

fn no_upload(operation: &'static str, upload: &MultipartUpload) -> StoreError {
    let text = format!("there is no upload {} of this object", upload.id);
    checks::fail(ErrorKind::NotFound, operation, &upload.key, text)
}

fn open(root: &Root, operation: &'static str, upload: &MultipartUpload) -> Result<Open> {
    root.check_alive(operation)?;
    let id = upload.id.as_str();
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(no_upload(operation, upload));
    }
    let opened = open_beneath(&root.session.uploads, id, OFlags::DIRECTORY)
        .and_then(|dir| Ok(Open { about: about(&dir)?, dir }));
    match opened {
        Ok(open) if open.about.key == upload.key.as_str() => Ok(open),
        Ok(_) | Err(Errno::NOENT) => Err(no_upload(operation, upload)),
        Err(errno) => Err(errno::error(operation, Some(&upload.key), "opening the upload", errno)),
    }
}

fn about(dir: &OwnedFd) -> Result<About, Errno> {
    let fd = open_beneath(dir, ABOUT, OFlags::empty())?;
    let new = Attributes::read(&fd)?.unwrap_or_default().new;
    let stat = rustix::fs::fstat(&fd)?;
    let mut key = String::new();
    std::fs::File::from(fd).read_to_string(&mut key).map_err(|error| errno_of(&error))?;
    Ok(About { key, new, stat })
}

fn part_name(number: PartNumber) -> String {
    format!("part-{:05}", number.get())
}

pub(super) fn upload_part(
    root: &Root,
    upload: &MultipartUpload,
    number: PartNumber,
    body: &Payload,
    cancel: &Cancel,
) -> Result<PartReceipt> {
    const OP: &str = "upload_part";
    let open = open(root, OP, upload)?;
    let mut temp = TempFile::new(root, OP, &upload.key)?;
    temp.write(body, cancel)?;
    keep_part(root, OP, upload, &open, number, &temp, cancel)
}

pub(super) fn copy_part(
    root: &Root,
    upload: &MultipartUpload,
    number: PartNumber,
    from: &Key,
    version: &Version,
    range: &Range<u64>,
    cancel: &Cancel,
) -> Result<PartReceipt> {
    const OP: &str = "upload_part_copy";
    let open = open(root, OP, upload)?;
    let source = root.open_object(OP, &Place::for_read(OP, from)?)?;
    checks::tag_matches(OP, from, &version.etag, Some(&source.meta.version.etag))?;
    checks::part_copy_range(&root.caps, from, range, source.meta.size)?;
    let mut temp = TempFile::new(root, OP, &upload.key)?;
    temp.append(&source.fd, range.start, range.end - range.start, cancel)?;
    unwritten(OP, from, &source.fd, &source.stat)?;
    keep_part(root, OP, upload, &open, number, &temp, cancel)
}

/// Fails if the file was written in place since it was opened.
pub(super) fn unwritten(operation: &'static str, key: &Key, fd: &OwnedFd, opened: &Stat) -> Result<()> {
    let stat = rustix::fs::fstat(fd)
        .map_err(|errno| errno::error(operation, Some(key), "looking at the source", errno))?;
    if (stat.st_size, modified_ns(&stat)) == (opened.st_size, modified_ns(opened)) {
        return Ok(());
    }
    let text = "the source was written in place while it was copied";
    Err(checks::fail(ErrorKind::VersionMismatch, operation, key, text))
}

fn keep_part(
    root: &Root,
    operation: &'static str,
    upload: &MultipartUpload,
    open: &Open,
    number: PartNumber,
    temp: &TempFile<'_>,
    cancel: &Cancel,
) -> Result<PartReceipt> {
    temp.date()?;
    cancel.check(operation)?;
    match rustix::fs::renameat(&root.session.dir, &temp.name, &open.dir, part_name(number)) {
        Ok(()) => {
            let stat = temp.stat()?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            Ok(PartReceipt { number, etag: file_tag(&stat), size, crc64: None })
        }
        Err(Errno::NOENT) => Err(no_upload(operation, upload)),
        Err(errno) => Err(errno::error(operation, Some(&upload.key), "keeping the part", errno)),
    }
}

pub(super) fn complete(
    root: &Root,
    upload: &MultipartUpload,
    receipts: &[PartReceipt],
    condition: &PutCondition,
    cancel: &Cancel,
) -> Result<Written> {
    const OP: &str = "complete_multipart";
    let open = open(root, OP, upload)?;
    checks::parts_ascend(&upload.key, receipts)?;
    let mut parts = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        // Opened one by one and closed again: there may be more of them than a process may have files.
        let (_, stat) = part(&open, upload, receipt)?;
        parts.push(u64::try_from(stat.st_size).unwrap_or(0));
    }
    checks::part_sizes(&root.caps, &upload.key, &parts)?;
    let mut temp = TempFile::new(root, OP, &upload.key)?;
    for (receipt, size) in receipts.iter().zip(parts) {
        let (fd, _) = part(&open, upload, receipt)?;
        temp.append(&fd, 0, size, cancel)?;
    }
    temp.seal(&open.about.new)?;
    let place = Place::for_write(OP, &upload.key)?;
    let commit = Commit { root, operation: OP, place: &place, condition, cancel };
    let written = commit.run(&Leaf::File(&temp), || self::open(root, OP, upload).map(drop))?;
    remove(root, upload);
    Ok(written)
}

/// The part that a receipt names, if it is the one that the receipt was given for.
fn part(open: &Open, upload: &MultipartUpload, receipt: &PartReceipt) -> Result<(OwnedFd, Stat)> {
    let opened = open_beneath(&open.dir, &part_name(receipt.number), OFlags::empty())
        .and_then(|fd| rustix::fs::fstat(&fd).map(|stat| (fd, stat)));
    match opened {
        Ok((fd, stat)) if file_tag(&stat) == receipt.etag => Ok((fd, stat)),
        Ok(_) | Err(Errno::NOENT) => Err(checks::part_missing(&upload.key, receipt)),
        Err(errno) => Err(errno::error("complete_multipart", Some(&upload.key), "opening a part", errno)),
    }
}

pub(super) fn abort(root: &Root, upload: &MultipartUpload) -> Result<()> {
    match open(root, "abort_multipart", upload) {
        Ok(_) => remove(root, upload),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Takes the upload away in one step, then frees its space; what remains of it is swept with the session.
fn remove(root: &Root, upload: &MultipartUpload) {
    let aside = root.session.fresh("trash-");
    let moved = rustix::fs::renameat(&root.session.uploads, upload.id.as_str(), &root.session.dir, &aside);
    if moved.is_ok() {
        let _ = std::fs::remove_dir_all(root.session.path_of(&aside));
    }
}

/// All uploads below a prefix, a page at a time. O(uploads) each page.
pub(super) fn list(root: &Root, prefix: &str, token: Option<&PageToken>) -> Result<UploadPage> {
    const OP: &str = "list_multiparts";
    root.check_alive(OP)?;
    let after = match token {
        Some(token) => {
            let position = token.as_str().split_once('/');
            Some(position.map(|(id, key)| (key, id)).ok_or_else(|| checks::foreign_token(OP, token))?)
        }
        None => None,
    };
    let failed = |errno| errno::error(OP, None, "listing the uploads", errno);
    let mut ids = Vec::new();
    entries::for_each(&root.session.uploads, |entry| {
        ids.push(entry.name.to_owned());
        true
    })
    .map_err(failed)?;
    let mut uploads = Vec::new();
    for id in ids {
        let about =
            match open_beneath(&root.session.uploads, &id, OFlags::DIRECTORY).and_then(|dir| about(&dir)) {
                Ok(about) => about,
                Err(Errno::NOENT | Errno::NOTDIR) => continue, // it ended meanwhile
                Err(errno) => return Err(failed(errno)),
            };
        let wanted = about.key.starts_with(prefix)
            && after.is_none_or(|after| (about.key.as_str(), id.as_str()) > after);
        if let (true, Ok(key)) = (wanted, Key::new(&about.key)) {
            let initiated = Some(time_of(modified_ns(&about.stat)));
            uploads.push(MultipartUpload { key, id: UploadId::new(id), initiated });
        }
    }
    uploads.sort_unstable_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
    let page = usize::from(root.options.page_max);
    let more = uploads.len() > page;
    uploads.truncate(page);
    let last = uploads.last().filter(|_| more);
    let next = last.map(|last| PageToken::new(format!("{}/{}", last.id, last.key)));
    Ok(UploadPage { uploads, next })
}

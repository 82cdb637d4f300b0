//! Directory streams: how many entries to ask for, and how they are put into a reply.

use std::sync::atomic::{AtomicUsize, Ordering};

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus, RequestId};
use staithe_fs::{DirItem, Filesystem, Kind};

use crate::attributes::{bare, common_ttl, file_attr, file_type};
use crate::direntplus::Records;
use crate::errno::ALREADY_ANSWERED;
use crate::kernel::Line;
use crate::send::GENERATION;

const FIRST: usize = 32;
const MOST: usize = 1024;

/// How many entries fit a reply, learned from the replies: a request does not say how large its buffer is
/// (one page on older kernels, the caller's own since 6.16).
#[derive(Debug)]
pub(crate) struct Batch(AtomicUsize);

impl Default for Batch {
    fn default() -> Self {
        Self(AtomicUsize::new(FIRST))
    }
}

impl Batch {
    /// How many to ask for.
    pub(crate) fn size(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Of `offered` entries `fitted` went in.
    fn learn(&self, offered: usize, fitted: usize) {
        let size = if fitted < offered { fitted.max(1) } else { (self.size().max(offered) * 2).min(MOST) };
        if fitted < offered || offered >= self.size() {
            self.0.store(size, Ordering::Relaxed);
        }
    }
}

/// Answers READDIR.
pub(crate) fn send(mut reply: ReplyDirectory, batch: &Batch, items: &[DirItem]) {
    let fits = |item: &&DirItem| !reply.add(INodeNo(item.ino), item.next, file_type(shown(item)), &item.name);
    let fitted = items.iter().take_while(fits_mut(fits)).count();
    batch.learn(items.len(), fitted);
    reply.ok();
}

fn fits_mut<'a>(mut fits: impl FnMut(&&'a DirItem) -> bool) -> impl FnMut(&&'a DirItem) -> bool {
    move |item| fits(item)
}

/// Answers READDIRPLUS, and counts a reference for each entry that went in with its attributes.
pub(crate) fn send_plus(
    mut reply: ReplyDirectoryPlus,
    unique: RequestId,
    batch: &Batch,
    line: &Line,
    fs: &Filesystem,
    items: &[DirItem],
) {
    let mut fitted = 0;
    for item in items {
        let (ttl, attr) = match known(item) {
            Some(entry) => (common_ttl(entry), file_attr(&entry.attr)),
            None => (std::time::Duration::ZERO, bare(item.ino, shown(item))),
        };
        if reply.add(attr.ino, item.next, &item.name, &ttl, &attr, GENERATION) {
            break;
        }
        fitted += 1;
    }
    batch.learn(items.len(), fitted);
    let items = &items[..fitted];
    for entry in items.iter().filter_map(known) {
        fs.entry_taken(entry.attr.ino);
    }
    // The kernel takes no reference for the two dots, whatever their numbers say.
    if items.iter().all(|item| is_dot(item) || item.entry.is_some()) {
        return reply.ok();
    }
    let Some(kernel) = line.get() else { return reply.ok() };
    let mut records = Records::default();
    for item in items {
        records.push(item, known(item));
    }
    if let Err(error) = kernel.answer(unique, &records) {
        // As for every reply: the request is gone, with its connection.
        tracing::debug!(%error, "a directory could not be sent");
    }
    reply.error(ALREADY_ANSWERED);
}

/// The kind for a record that cannot leave it open. Only kernels without READDIRPLUS get to see it.
fn shown(item: &DirItem) -> Kind {
    item.kind.unwrap_or(Kind::File)
}

fn is_dot(item: &DirItem) -> bool {
    item.name == "." || item.name == ".."
}

fn known(item: &DirItem) -> Option<&staithe_fs::Entry> {
    item.entry.as_ref().filter(|_| !is_dot(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_becomes_what_a_reply_holds() {
        let batch = Batch::default();
        batch.learn(FIRST, FIRST);
        assert_eq!(batch.size(), 2 * FIRST);
        batch.learn(64, 22);
        assert_eq!(batch.size(), 22);
        batch.learn(3, 3);
        assert_eq!(batch.size(), 22, "the end of a directory says nothing");
        for _ in 0..20 {
            batch.learn(batch.size(), batch.size());
        }
        assert_eq!(batch.size(), MOST);
    }
}

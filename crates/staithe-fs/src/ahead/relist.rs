//! Going on behind the time of a listing: who goes through a large directory in order is longer at it than a listing
//! is believed. Then the names that come next are listed again, a page at a time, instead of each being asked about
//! like a name that nobody knows.

use std::sync::Arc;
use std::time::Instant;

use staithe_store::{ListPage, ListRequest};

use super::small_body;
use super::walk::{Coming, Following};
use crate::directory::merge;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::lookup::{Dent, deadline};

impl Filesystem {
    /// Lists what comes from `name` on, if somebody going through the directory in order has come to it and nothing
    /// is remembered of it. Says whether the listing was taken in. At most one LIST.
    ///
    /// # Errors
    /// `Stale` when the directory is gone; the store's errors.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most a filled cache.
    pub(crate) async fn list_on(&self, dir: &Arc<Inode>, name: &str) -> Result<bool> {
        let now = Instant::now();
        if self.names.lookup(dir.ino.0, name, now).is_answer() {
            return Ok(false);
        }
        let before = self.ahead.walks.lock().before_next(dir.ino, name).map(str::to_owned);
        let Some(before) = before else { return Ok(false) };
        let prefix = self.prefix_below(&self.inodes.path(dir.ino)?);
        self.outdate_flat(dir.ino);
        let token = self.names.begin(dir.ino.0);
        let until = deadline(self.metadata_ttl(), now);
        let Ok(mut listing) = self.names.listing(token, until) else {
            return Ok(false);
        };
        let request = ListRequest {
            start_after: Some(format!("{prefix}{before}")),
            prefix,
            delimiter: Some('/'),
            ..ListRequest::default()
        };
        let page = self.store.list(request.clone()).await?;
        let entries = certain(merge(dir, &request.prefix, &page), &request.prefix, &page);
        // Its names only: the listing is not of the whole directory and never completed.
        if listing.page(entries.iter().cloned()).is_err() {
            return Ok(false);
        }
        let coming =
            |(name, dent): &(Arc<str>, Dent)| Coming { name: name.to_string(), body: small_body(dent) };
        // Beyond the page the next one of these listings tells, once the walk is there.
        let following = Following { names: entries.iter().map(coming).collect(), ends: true };
        self.walks(|walks| walks.listed(dir.ino, following));
        self.recall(dir.ino, &entries).await;
        Ok(true)
    }
}

/// What a page alone is sure of: whether a file is hidden by a directory of its name may stand on the next one.
fn certain(mut entries: Vec<(Arc<str>, Dent)>, prefix: &str, page: &ListPage) -> Vec<(Arc<str>, Dent)> {
    if page.next.is_none() {
        return entries;
    }
    let objects = page.objects.iter().map(|o| o.key.as_str());
    let last = objects.chain(page.prefixes.iter().map(String::as_str)).max().unwrap_or_default();
    let is_certain = |(name, dent): &(Arc<str>, Dent)| {
        matches!(dent, Dent::Directory { .. }) || *format!("{prefix}{name}/") < *last
    };
    entries.retain(is_certain);
    entries
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use staithe_store::{ETag, Key, ObjectSummary, PageToken};

    use super::*;

    #[test]
    fn a_file_that_a_directory_on_the_next_page_may_hide_is_not_certain() {
        let object = |key: &str| ObjectSummary {
            key: Key::new(key).unwrap(),
            size: 1,
            etag: ETag::new("e"),
            id: None,
            last_modified: SystemTime::UNIX_EPOCH,
        };
        let names = ["x", "x!", "z"];
        let certain_of = |next: Option<PageToken>| {
            let objects: Vec<_> = names.iter().map(|n| object(&format!("d/{n}"))).collect();
            let entries = names.map(|n| (Arc::from(n), Dent::from(&object(n)))).to_vec();
            let page = ListPage { objects, prefixes: Vec::new(), next };
            certain(entries, "d/", &page).into_iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(certain_of(Some(PageToken::new("more"))), ["x", "x!"], "z/ may follow z");
        assert_eq!(certain_of(None), names);
    }
}

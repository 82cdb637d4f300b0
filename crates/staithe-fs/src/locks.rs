//! Path locks: which names an operation may change while it talks to the store.
//!
//! Invariants:
//! 1. Requests stand in one line, in the order of their arrival; a request holds its scopes as soon as it
//!    overlaps no earlier one. So nobody starves, and scopes taken together cannot deadlock.
//! 2. A guard's drop leaves the line and never blocks; a waiter that is cancelled leaves it too.
//!
//! Lock order: an inode's commit lock, then path locks, then an inode's state. Never the other way round.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What an operation may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One name: what it means, and the object at its key.
    Name(String),
    /// A name and everything below it.
    Subtree(String),
}

impl Scope {
    fn path(&self) -> &str {
        match self {
            Self::Name(path) | Self::Subtree(path) => path,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.path(), other.path());
        a == b
            || (matches!(self, Self::Subtree(_)) && is_below(b, a))
            || (matches!(other, Self::Subtree(_)) && is_below(a, b))
    }
}

/// Whether `path` lies strictly below the directory `ancestor` (the root is the empty path).
pub(crate) fn is_below(path: &str, ancestor: &str) -> bool {
    if ancestor.is_empty() {
        return !path.is_empty();
    }
    path.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
}

#[derive(Debug, Default)]
struct Line {
    next_ticket: u64,
    requests: Vec<(u64, Vec<Scope>)>,
}

/// The line of all operations that change names.
#[derive(Debug, Default)]
pub(crate) struct PathLocks {
    line: Mutex<Line>,
    left: Notify,
}

/// Holds its scopes until dropped.
#[derive(Debug)]
pub(crate) struct PathGuard<'a> {
    locks: &'a PathLocks,
    ticket: u64,
}

impl PathLocks {
    /// Waits until no earlier request overlaps. O(requests in line) a wake-up.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(crate) async fn acquire(&self, scopes: Vec<Scope>) -> PathGuard<'_> {
        let guard = self.enqueue(scopes);
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.is_first(guard.ticket) {
                return guard;
            }
            left.await;
        }
    }

    fn enqueue(&self, scopes: Vec<Scope>) -> PathGuard<'_> {
        let mut line = self.line.lock();
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.requests.push((ticket, scopes));
        PathGuard { locks: self, ticket }
    }

    fn is_first(&self, ticket: u64) -> bool {
        let line = self.line.lock();
        let Some(at) = line.requests.iter().position(|(t, _)| *t == ticket) else { return true };
        let mine = &line.requests[at].1;
        line.requests[..at]
            .iter()
            .all(|(_, theirs)| !theirs.iter().any(|t| mine.iter().any(|m| m.overlaps(t))))
    }
}

impl Drop for PathGuard<'_> {
    fn drop(&mut self) {
        self.locks.line.lock().requests.retain(|(t, _)| *t != self.ticket);
        self.locks.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn name(p: &str) -> Scope {
        Scope::Name(p.into())
    }

    fn tree(p: &str) -> Scope {
        Scope::Subtree(p.into())
    }

    #[test]
    fn scopes_overlap_by_path_parts() {
        assert!(name("a").overlaps(&name("a")));
        assert!(!name("a").overlaps(&name("a/b")));
        assert!(tree("a").overlaps(&name("a/b/c")));
        assert!(name("a/b/c").overlaps(&tree("a")));
        assert!(!tree("a").overlaps(&name("ab")));
        assert!(tree("").overlaps(&name("x")));
        assert!(tree("a/b").overlaps(&tree("a")));
    }

    #[tokio::test]
    async fn a_later_request_does_not_overtake_one_that_waits() {
        let locks = PathLocks::default();
        let first = locks.acquire(vec![name("a/x")]).await;
        let mut second = Box::pin(locks.acquire(vec![tree("a")]));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(locks.acquire(vec![name("a/y")]));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(locks.acquire(vec![name("b")]).now_or_never().is_some());
        drop(first);
        let held = second.as_mut().now_or_never();
        assert!(held.is_some());
        assert!(third.as_mut().now_or_never().is_none());
        drop(held);
        assert!(third.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_leaves_the_line() {
        let locks = PathLocks::default();
        let first = locks.acquire(vec![name("a")]).await;
        let mut second = Box::pin(locks.acquire(vec![tree("")]));
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        assert!(locks.acquire(vec![name("b")]).now_or_never().is_some());
        drop(first);
        assert!(locks.line.lock().requests.is_empty());
    }
}

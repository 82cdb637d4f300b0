//! Changes that can be made again: of the live state, and of one that was loading meanwhile.

use std::convert::Infallible;
use std::fmt;

use crate::Epoch;
use crate::error::{Cause, Detail};

/// A change of a `T` that can be made again, on a state that was loaded meanwhile.
///
/// It is made once on the live state, and once on each state that replaces one it was not yet part of. It must not call
/// the cell: the last ones are replayed while publishers wait.
pub trait Delta<T>: Send + 'static {
    /// Makes the change.
    ///
    /// # Errors
    /// It cannot be made on this state: the update, or the replacement, is refused whole.
    fn apply(&self, state: &mut T) -> Result<(), Cause>;

    /// Bytes that it takes in a log, for the log's bound.
    fn weight(&self) -> usize
    where
        Self: Sized,
    {
        size_of::<Self>()
    }
}

/// For a cell whose state is only ever replaced whole. There is no value of it.
#[derive(Clone, Copy, Debug)]
pub struct NoDelta(Infallible);

impl<T> Delta<T> for NoDelta {
    fn apply(&self, _: &mut T) -> Result<(), Cause> {
        match self.0 {}
    }
}

type Change<T> = dyn Fn(&mut T) -> Result<(), Cause> + Send;

/// A closure as a delta.
pub struct Edit<T> {
    change: Box<Change<T>>,
    weight: usize,
}

impl<T> Edit<T> {
    /// A change that always succeeds. What the closure owns on the heap is not weighed; [`Edit::weighing`] says it.
    pub fn new(change: impl Fn(&mut T) + Send + 'static) -> Self {
        Self::fallible(move |state| {
            change(state);
            Ok(())
        })
    }

    /// A change that may be refused.
    pub fn fallible<F>(change: F) -> Self
    where
        F: Fn(&mut T) -> Result<(), Cause> + Send + 'static,
    {
        Self { weight: size_of::<Self>() + size_of::<F>(), change: Box::new(change) }
    }

    /// The same, with this many bytes beside the closure itself.
    #[must_use]
    pub fn weighing(mut self, bytes: usize) -> Self {
        self.weight = self.weight.saturating_add(bytes);
        self
    }
}

impl<T: 'static> Delta<T> for Edit<T> {
    fn apply(&self, state: &mut T) -> Result<(), Cause> {
        (self.change)(state)
    }

    fn weight(&self) -> usize {
        self.weight
    }
}

impl<T> fmt::Debug for Edit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit").field("weight", &self.weight).finish_non_exhaustive()
    }
}

/// What has changed since a replacement began to load. A pure structure.
#[derive(Debug)]
pub(crate) struct Log<D> {
    entries: Vec<(Epoch, D)>,
    bytes: usize,
    most_entries: usize,
    most_bytes: usize,
    /// The last state that came without a delta.
    replaced: Option<Epoch>,
    /// Entries and bytes that were too many. Nothing is logged any more.
    overflow: Option<(usize, usize)>,
}

impl<D> Log<D> {
    pub(crate) fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self { entries: Vec::new(), bytes: 0, most_entries, most_bytes, replaced: None, overflow: None }
    }

    /// Notes a change. If it is too much, the whole log comes back, to be dropped elsewhere.
    pub(crate) fn push(&mut self, epoch: Epoch, delta: D, weight: usize) -> Vec<(Epoch, D)> {
        if self.overflow.is_some() {
            return vec![(epoch, delta)];
        }
        self.bytes = self.bytes.saturating_add(weight);
        self.entries.push((epoch, delta));
        if self.entries.len() > self.most_entries || self.bytes > self.most_bytes {
            self.overflow = Some((self.entries.len(), self.bytes));
            return std::mem::take(&mut self.entries);
        }
        Vec::new()
    }

    pub(crate) fn replaced(&mut self, by: Epoch) {
        self.replaced = Some(by);
    }

    pub(crate) fn overflow(&self) -> Option<Detail> {
        self.overflow.map(|(entries, bytes)| Detail::Overflowed { entries, bytes })
    }

    /// Why a state as of this epoch may not be published, whatever is replayed on it.
    pub(crate) fn verdict(&self, as_of: Epoch, overwrite: bool) -> Result<(), Detail> {
        if let Some(overflowed) = self.overflow() {
            return Err(overflowed);
        }
        match self.replaced {
            Some(by) if by > as_of && !overwrite => Err(Detail::Overtaken { by }),
            _ => Ok(()),
        }
    }

    /// What is to be replayed next; the room in the log is free again.
    pub(crate) fn take(&mut self) -> Vec<(Epoch, D)> {
        self.bytes = 0;
        std::mem::take(&mut self.entries)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

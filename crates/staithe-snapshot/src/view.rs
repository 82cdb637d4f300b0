//! A part of the state, for a component that must not see the rest.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::Epoch;
use crate::bell::{Bell, Changed};
use crate::error::Error;
use crate::shared::Shared;
use crate::snapshot::{Opaque, Snapshot};

/// A cell whose state's type is not known here.
pub(crate) trait Source: Send + Sync {
    fn load(&self) -> (Epoch, Opaque);
    fn epoch(&self) -> Epoch;
    fn bell(&self) -> &Arc<Bell>;
}

impl<T: Send + Sync + 'static, D: Send + 'static> Source for Shared<T, D> {
    fn load(&self) -> (Epoch, Opaque) {
        let snapshot = self.current.load();
        (snapshot.epoch(), snapshot)
    }

    fn epoch(&self) -> Epoch {
        self.current.peek(Snapshot::epoch)
    }

    fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

type Look<P> = Arc<dyn for<'a> Fn(&'a (dyn Any + Send + Sync)) -> &'a P + Send + Sync>;

/// What a component may see of a cell: a part of its state. It neither names nor reaches the rest, and cannot publish.
pub struct View<P: ?Sized> {
    source: Arc<dyn Source>,
    look: Look<P>,
}

impl<P: ?Sized + 'static> View<P> {
    pub(crate) fn new<T: Send + Sync + 'static>(
        source: Arc<dyn Source>,
        part: impl Fn(&T) -> &P + Send + Sync + 'static,
    ) -> Self {
        let look: Look<P> = Arc::new(move |opaque| match opaque.downcast_ref::<Snapshot<T>>() {
            Some(snapshot) => part(snapshot),
            None => unreachable!("a view is made for the type of its cell"),
        });
        Self { source, look }
    }

    /// The part in the current state. Wait-free, as [`crate::SnapshotCell::load`]; the whole state is kept by it.
    pub fn load(&self) -> Part<P> {
        let (epoch, snapshot) = self.source.load();
        Part { epoch, snapshot, look: Arc::clone(&self.look) }
    }

    /// The current epoch, of the whole state.
    pub fn epoch(&self) -> Epoch {
        self.source.epoch()
    }

    /// As [`crate::SnapshotCell::changed`]: for a change of the state, of this part or another.
    pub fn changed(&self, since: Epoch) -> Changed {
        Changed::new(Arc::clone(self.source.bell()), since)
    }

    /// Waits until the part differs from what was seen, passing over epochs that changed other parts only.
    ///
    /// # Errors
    /// As [`crate::SnapshotCell::changed`].
    ///
    /// # Cancel safety
    /// As [`crate::SnapshotCell::changed`].
    pub async fn differs(&self, seen: &Part<P>) -> Result<Part<P>, Error>
    where
        P: PartialEq,
    {
        let mut epoch = seen.epoch;
        loop {
            self.changed(epoch).await?;
            let now = self.load();
            if *now != **seen {
                return Ok(now);
            }
            epoch = now.epoch;
        }
    }

    /// A part of the part.
    pub fn view<Q: ?Sized + 'static>(&self, part: impl Fn(&P) -> &Q + Send + Sync + 'static) -> View<Q> {
        let look = Arc::clone(&self.look);
        let look: Look<Q> = Arc::new(move |opaque| part(look(opaque)));
        View { source: Arc::clone(&self.source), look }
    }
}

impl<P: ?Sized> Clone for View<P> {
    fn clone(&self) -> Self {
        Self { source: Arc::clone(&self.source), look: Arc::clone(&self.look) }
    }
}

impl<P: ?Sized> fmt::Debug for View<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("epoch", &self.source.epoch()).finish_non_exhaustive()
    }
}

/// A part of one published state. Dereferences to it.
pub struct Part<P: ?Sized> {
    epoch: Epoch,
    snapshot: Opaque,
    look: Look<P>,
}

impl<P: ?Sized> Part<P> {
    /// The epoch of the state that it is a part of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl<P: ?Sized> Deref for Part<P> {
    type Target = P;

    fn deref(&self) -> &P {
        (self.look)(&*self.snapshot)
    }
}

impl<P: ?Sized> Clone for Part<P> {
    fn clone(&self) -> Self {
        Self { epoch: self.epoch, snapshot: Arc::clone(&self.snapshot), look: Arc::clone(&self.look) }
    }
}

impl<P: fmt::Debug + ?Sized> fmt::Debug for Part<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Part");
        out.field("epoch", &self.epoch).field("part", &&**self).finish_non_exhaustive()
    }
}

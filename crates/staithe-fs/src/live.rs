//! What changes while the filesystem is in use: a part of its configuration, and the store that is asked. Both are one
//! state, and a reload publishes all of it in one step.
//!
//! Invariants:
//! 1. Nothing of a reload that fails is in force. Who looks twice may see two states, each of them whole.
//! 2. When a reload returns, nothing is believed for longer than the times to live that are in force. Where one of them
//!    became shorter, all that was learned before is forgotten, here and in the kernel, as by a refresh of everything;
//!    where none did, it is believed for the rest of its former time.
//! 3. Hence a time to live is read after the question has begun whose answer it is for, and after the change, or under
//!    the moment, that it is told with: the refresh then outdates what it was read for.
//! 4. A try of a request ends with the store that it began with (see `patience`).

use std::sync::Arc;
use std::time::Duration;

use staithe_snapshot::Kind;
use staithe_store::ObjectStore;

use crate::config::{LiveConfig, Ttl};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::remote::kernel_ttl;

/// What is in force.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: LiveConfig,
    pub(crate) store: Arc<dyn ObjectStore>,
}

impl Filesystem {
    /// What is in force of the configuration.
    pub fn live_config(&self) -> LiveConfig {
        self.live.peek(|live| live.config)
    }

    /// For how long names and attributes are believed.
    pub(crate) fn metadata_ttl(&self) -> Ttl {
        self.live.peek(|live| live.config.metadata_ttl)
    }

    /// For how long absence is believed.
    pub(crate) fn negative_ttl(&self) -> Ttl {
        self.live.peek(|live| live.config.negative_ttl)
    }

    /// How long one operation may take.
    pub fn op_deadline(&self) -> Duration {
        self.live.peek(|live| live.config.op_deadline)
    }

    /// Puts `config` in force, and from now on asks `store`, if there is one: the same volume, reached in another way.
    /// Its capabilities are taken to be those of the first one. Requests that are under way end as they began; what is
    /// open stays open; what could not be stored is tried again with it.
    ///
    /// A time to live that becomes shorter holds at once for all that is remembered, here and in the kernel: it is
    /// forgotten. O(1); then O(names and inodes in memory).
    ///
    /// # Errors
    /// `Invalid` for a store of another volume, `Exists` while another reload is under way. Nothing has changed then.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: what has begun comes to its end.
    pub async fn reload(&self, config: LiveConfig, store: Option<Arc<dyn ObjectStore>>) -> Result<()> {
        // Waits for the kernel.
        self.aside(move |fs| fs.reload_blocking(config, store)).await
    }

    fn reload_blocking(&self, config: LiveConfig, store: Option<Arc<dyn ObjectStore>>) -> Result<()> {
        let staging = self.live.stage().map_err(refused)?;
        let (old, current) = self.live.peek(|live| (live.config, Arc::clone(&live.store)));
        let is_other = store.is_some();
        let store = store.unwrap_or(current);
        self.check_volume(&*store)?;
        let publish = || {
            staging.publish(Live { config, store }, |_| Ok::<_, FsError>(())).map_err(refused)?;
            Ok(())
        };
        if is_shorter(config, old) {
            self.refresh_around(publish)?;
        } else {
            publish()?;
        }
        if config.on_conflict != old.on_conflict {
            self.admit_no_conditions();
        }
        if is_other {
            self.retry_failed(&self.inodes.dirty());
        }
        Ok(())
    }

    fn check_volume(&self, store: &dyn ObjectStore) -> Result<()> {
        let (other, ours) = (store.volume(), &self.volume);
        if *other == **ours {
            return Ok(());
        }
        Err(FsError::new(FsErrorKind::Invalid, format!("{other} is another volume than {ours}")))
    }
}

/// Whether something may be believed for a shorter time than before.
fn is_shorter(new: LiveConfig, old: LiveConfig) -> bool {
    let shorter = |new, old| kernel_ttl(new) < kernel_ttl(old);
    shorter(new.metadata_ttl, old.metadata_ttl) || shorter(new.negative_ttl, old.negative_ttl)
}

fn refused(error: staithe_snapshot::Error) -> FsError {
    match error.kind() {
        Kind::Busy => FsError::new(FsErrorKind::Exists, "another reload is under way; try again later"),
        _ => FsError::caused(FsErrorKind::Io, "the configuration cannot be put in force", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shorter_than_a_longer_one_and_than_for_ever() {
        let of =
            |metadata_ttl, negative_ttl| LiveConfig { metadata_ttl, negative_ttl, ..LiveConfig::default() };
        let second = Ttl::For(Duration::from_secs(1));
        let in_order = [Ttl::Zero, Ttl::For(Duration::from_millis(1)), second, Ttl::Forever];
        for (n, new) in in_order.into_iter().enumerate() {
            for (m, old) in in_order.into_iter().enumerate() {
                assert_eq!(is_shorter(of(new, second), of(old, second)), n < m, "{old:?} to {new:?}");
                assert_eq!(is_shorter(of(second, new), of(second, old)), n < m, "{old:?} to {new:?}");
            }
        }
    }
}

//! Changing a mount while it is in use: its settings, as far as they may change, and its credentials.
//!
//! Invariants:
//! 1. All of a reload is checked before anything of it is in force: what may change, the values, and last the
//!    credentials, with which the store must have answered. What is refused has changed nothing.
//! 2. One reload at a time; one that is being put in force comes to its end, also if nobody waits for it any more.
//! 3. Whoever asks what is in force waits for no reload.

mod settings;

use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{Filesystem, PinnedStore};
use staithe_s3::S3Store;
use staithe_store::ObjectStore;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::control::{InForce, Reloaded};
use crate::failure::Failure;
use crate::telemetry::Logging;

pub(crate) use settings::{LiveSettings, OPTIONS};

/// A variable that comes before all files: whoever has it has no use for a profile.
const KEY_IN_ENVIRONMENT: &str = "AWS_ACCESS_KEY_ID";

/// What a mount is made of, for a reload.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) fs: Arc<Filesystem>,
    /// The view that is shown; `None`: what the bucket holds.
    pub(crate) view: Option<Arc<PinnedStore>>,
    /// The store that credentials are renewed of, the one in force; `None`: it has none.
    pub(crate) signed: parking_lot::Mutex<Option<S3Store>>,
    pub(crate) read_only: bool,
    pub(crate) logging: Logging,
}

/// The settings of a mount that may change.
#[derive(Debug)]
pub(crate) struct Live {
    mounted: Mounted,
    in_force: watch::Sender<Now>,
    turn: Arc<Mutex<()>>,
}

/// What is in force.
#[derive(Debug, Clone)]
struct Now {
    settings: LiveSettings,
    reloads: u64,
    reloaded: Option<Instant>,
}

impl Live {
    /// Those that it was mounted with.
    pub(crate) fn new(mounted: Mounted, settings: LiveSettings) -> Self {
        let now = Now { settings, reloads: 0, reloaded: None };
        Self { mounted, in_force: watch::Sender::new(now), turn: Arc::default() }
    }

    /// What is in force.
    pub(crate) fn settings(&self) -> LiveSettings {
        self.in_force.borrow().settings.clone()
    }

    /// The same, as it is told.
    pub(crate) fn told(&self) -> InForce {
        let Now { settings, reloads, reloaded } = self.in_force.borrow().clone();
        let reloaded_seconds_ago = reloaded.map(|at| at.elapsed().as_secs());
        InForce { reloads, reloaded_seconds_ago, ..settings.told(self.mounted.signed().is_some()) }
    }

    /// Changes what `options` name, and looks for the credentials anew.
    ///
    /// # Errors
    /// One sentence, and nothing has changed: an option that cannot change or has a wrong value (wrong usage);
    /// credentials that are not to be found, or that the store does not take; a store that does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing, or everything.
    pub(crate) async fn reload(self: &Arc<Self>, options: &[(String, String)]) -> Result<Reloaded, Failure> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (old, before) = (self.settings(), self.told());
        let new = old.with(options)?;
        options.iter().try_for_each(|(name, _)| self.mounted.refuse_useless(name))?;
        let signed = self.mounted.renewed(&new, old.op_deadline.max(new.op_deadline)).await?;
        let credentials = signed.is_some();
        let this = Arc::clone(self);
        let publishing = tokio::spawn(async move {
            let _turn = turn;
            this.publish(new, signed).await
        });
        publishing.await.map_err(|e| Failure::caused("the reload was cut off", &e))??;
        let reloaded = Reloaded { changes: settings::changes(&before, &self.told()), credentials };
        tracing::info!("reloaded: {reloaded}");
        Ok(reloaded)
    }

    /// Whether there are other credentials where they are looked for than those in force. Asks nothing of the store.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub(crate) async fn finds_other_credentials(&self) -> bool {
        let Some(signed) = self.mounted.signed() else { return false };
        signed.finds_other_credentials(self.settings().profile).await
    }

    async fn publish(&self, new: LiveSettings, signed: Option<S3Store>) -> Result<(), Failure> {
        let store = signed.clone().map(|signed| self.mounted.shown(signed));
        let published = self.mounted.fs.reload(new.fs(), store).await;
        published.map_err(|e| Failure::caused("nothing has changed", &e))?;
        if signed.is_some() {
            *self.mounted.signed.lock() = signed;
        }
        self.mounted.logging.set(new.log_level);
        self.in_force.send_modify(|now| {
            *now = Now { settings: new, reloads: now.reloads + 1, reloaded: Some(Instant::now()) };
        });
        Ok(())
    }
}

impl Mounted {
    fn signed(&self) -> Option<S3Store> {
        self.signed.lock().clone()
    }

    /// Refuses an option that would change nothing here.
    fn refuse_useless(&self, name: &str) -> Result<(), Failure> {
        let why = match name {
            "--on-conflict" if self.read_only => "decides nothing in a mount that stores nothing",
            "--profile" if self.signed().is_none() => "is only for mounts that have credentials",
            "--profile" if std::env::var_os(KEY_IN_ENVIRONMENT).is_some() => {
                "would change nothing: the daemon has AWS_ACCESS_KEY_ID in its environment, which comes first"
            }
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("{name} {why}")))
    }

    /// The store with credentials that are looked for anew, once it has answered with them.
    async fn renewed(&self, settings: &LiveSettings, patience: Duration) -> Result<Option<S3Store>, Failure> {
        let Some(signed) = self.signed() else { return Ok(None) };
        let renewing = signed.renewed(settings.profile.clone());
        let late = |_| Failure::failed("nothing has changed: the store does not answer");
        let renewed = timeout(patience, renewing).await.map_err(late)?;
        renewed.map(Some).map_err(|e| Failure::caused("nothing has changed", &e))
    }

    /// What the mount shows of a store.
    fn shown(&self, store: S3Store) -> Arc<dyn ObjectStore> {
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        match &self.view {
            Some(view) => Arc::new(view.over(store)),
            None => store,
        }
    }
}

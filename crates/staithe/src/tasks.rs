//! What a daemon does beside serving: tasks that are started again when they panic. If a vital one panics too often, that
//! ends the mount: what nobody watches over any more must not look as if somebody did.

use std::sync::Arc;
use std::time::Duration;

use staithe_lifecycle::{Budget, Incident, Supervisor, What};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The task without which a mount ends.
pub(crate) const VITAL: &str = "watch over the volume";

/// The tasks of a daemon.
pub(crate) struct Tasks {
    supervisor: Arc<Supervisor>,
    given_up: watch::Receiver<Option<Arc<str>>>,
}

impl Tasks {
    /// None yet. `tell` hears of every panic, and must not wait for anything. Must run inside a tokio runtime.
    pub(crate) fn new(tell: impl Fn(&Incident) + Send + Sync + 'static) -> Self {
        let (gives_up, given_up) = watch::channel(None);
        let heard = move |incident: &Incident| {
            tell(incident);
            if incident.what == What::GivenUp && &*incident.name == VITAL {
                gives_up.send_replace(Some(Arc::clone(&incident.name)));
            }
        };
        let supervisor = Supervisor::new(Handle::current(), Budget::default()).on_incident(heard);
        Self { supervisor: Arc::new(supervisor), given_up }
    }

    /// Has this done until the end begins, or it returns.
    pub(crate) fn spawn<F, R>(&self, name: &'static str, task: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        // An error says that the end has begun.
        let _ = self.supervisor.spawn_until_end(name, task);
    }

    /// Who they are, and what has happened to them.
    pub(crate) fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    /// Returns once a vital task is not started again: its name.
    pub(crate) async fn given_up(&mut self) -> Arc<str> {
        match self.given_up.wait_for(Option::is_some).await {
            Ok(task) => task.clone().unwrap_or_default(),
            // The supervisor is gone, and so are its tasks.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends them.
    pub(crate) fn end(&self, within: Duration) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let supervisor = Arc::clone(&self.supervisor);
        async move {
            let left = supervisor.end(within).await;
            if left.is_empty() { Ok(()) } else { Err(format!("dropped: {}", left.join(", "))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_vital_task_that_panics_is_started_again_and_ends_the_mount_when_it_does_so_too_often() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let mut tasks = Tasks::new(move |incident| {
            if &*incident.name == VITAL {
                hears.lock().push(incident.what.clone());
            }
        });
        let runs = Arc::new(AtomicU32::new(0));
        let counts = Arc::clone(&runs);
        tasks.spawn("metrics", || async { panic!("as often as it likes") });
        tasks.spawn(VITAL, move || {
            let counts = Arc::clone(&counts);
            async move { panic!("run {}", counts.fetch_add(1, Ordering::SeqCst)) }
        });
        tasks.spawn("calm", std::future::pending);
        assert_eq!(&*tasks.given_up().await, VITAL);
        let (runs, told) = (runs.load(Ordering::SeqCst), told.lock().clone());
        assert_eq!(runs, Budget::default().restarts + 1);
        assert_eq!((&told[0], told.last()), (&What::Panicked("run 0".to_owned()), Some(&What::GivenUp)));
        assert_eq!(told.len() as u32, runs + 1);
        assert_eq!(tasks.supervisor().running().iter().map(|name| &**name).collect::<Vec<_>>(), ["calm"]);
        tasks.end(Duration::from_secs(1)).await.unwrap();
        assert!(tasks.supervisor().running().is_empty());
    }
}

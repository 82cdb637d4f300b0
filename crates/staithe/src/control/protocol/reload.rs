//! What may be changed while it is mounted, and what became of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to change.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reload {
    /// Options as `staithe mount` has them, and their values. The daemon refuses what it does not know.
    pub(crate) options: Vec<(String, String)>,
}

/// What became of a reload that the store did not refuse.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reloading {
    /// All of it is in force.
    Done(Reloaded),
    /// It makes no sense, for the reason that this sentence gives, and nothing has changed.
    Refused(String),
}

/// What a reload has done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    pub(crate) changes: Vec<Change>,
    /// Whether there are credentials, which were read again.
    pub(crate) credentials: bool,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Change { setting, from, to }) in self.changes.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{setting} {from} -> {to}")?;
        }
        let nothing = if self.changes.is_empty() { "nothing changed" } else { "" };
        let credentials = if self.credentials { "; credentials read again" } else { "" };
        write!(f, "{nothing}{credentials}")
    }
}

/// A setting that is another one now.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) setting: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The settings that a reload changes, each as its option has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InForce {
    pub(crate) metadata_ttl: String,
    pub(crate) negative_ttl: String,
    pub(crate) op_deadline: String,
    pub(crate) drain_deadline: String,
    pub(crate) on_conflict: String,
    pub(crate) log_level: String,
    /// `null`: there are no credentials that could be in one.
    pub(crate) profile: Option<String>,
    /// How often they were reloaded.
    pub(crate) reloads: u64,
    /// `null`: never.
    pub(crate) reloaded_seconds_ago: Option<u64>,
}

impl InForce {
    /// Each by its name.
    pub(crate) fn each(&self) -> Vec<(&'static str, &str)> {
        let mut all = vec![
            ("metadata-ttl", &*self.metadata_ttl),
            ("negative-ttl", &*self.negative_ttl),
            ("op-deadline", &*self.op_deadline),
            ("drain-deadline", &*self.drain_deadline),
            ("on-conflict", &*self.on_conflict),
            ("log-level", &*self.log_level),
        ];
        all.extend(self.profile.as_deref().map(|profile| ("profile", profile)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_has_done_is_told_in_one_line() {
        let change = |setting: &str, from: &str, to: &str| Change {
            setting: setting.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let said = |changes, credentials| Reloaded { changes, credentials }.to_string();
        assert_eq!(said(vec![], false), "nothing changed");
        assert_eq!(said(vec![], true), "nothing changed; credentials read again");
        let changes = vec![change("metadata-ttl", "1s", "10s"), change("log-level", "info", "debug")];
        assert_eq!(said(changes, false), "metadata-ttl 1s -> 10s, log-level info -> debug");
    }
}

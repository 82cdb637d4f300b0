//! The settings that may change while it is mounted: which these are, what may be given for them, how they are told.

use std::time::Duration;

use clap::ValueEnum;
use staithe_fs::{LiveConfig, OnConflict, Ttl};

use crate::control::{Change, InForce};
use crate::failure::Failure;
use crate::options::{Conflict, LogLevel, MountOptions};
use crate::settings::{duration, ttl};

/// Their options.
pub(crate) const OPTIONS: [&str; 7] = [
    "--metadata-ttl",
    "--negative-ttl",
    "--op-deadline",
    "--drain-deadline",
    "--on-conflict",
    "--log-level",
    "--profile",
];

/// For how long names and attributes are believed unless something else is asked for.
const METADATA_TTL: &str = "1s";

/// What they are, or are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSettings {
    pub(crate) metadata_ttl: Ttl,
    /// `None`: as the one above.
    pub(crate) negative_ttl: Option<Ttl>,
    pub(crate) op_deadline: Duration,
    pub(crate) drain_deadline: Duration,
    pub(crate) on_conflict: Conflict,
    pub(crate) log_level: LogLevel,
    /// `None`: as the environment says.
    pub(crate) profile: Option<String>,
}

impl LiveSettings {
    /// Checks those of `staithe mount`.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub(crate) fn check(options: &MountOptions) -> Result<Self, Failure> {
        let limits = &options.limits;
        Ok(Self {
            metadata_ttl: ttl("--metadata-ttl", limits.metadata_ttl.as_deref().unwrap_or(METADATA_TTL))?,
            negative_ttl: limits
                .negative_ttl
                .as_deref()
                .map(|text| ttl("--negative-ttl", text))
                .transpose()?,
            op_deadline: op_deadline(&limits.op_deadline)?,
            drain_deadline: drain_deadline(&limits.drain_deadline)?,
            on_conflict: options.on_conflict,
            log_level: options.log_level,
            profile: options.store.profile.clone(),
        })
    }

    /// The same but for `changes`: options as `staithe mount` has them, and their values.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong, or cannot change.
    pub(crate) fn with(&self, changes: &[(String, String)]) -> Result<Self, Failure> {
        let mut new = self.clone();
        changes.iter().try_for_each(|(name, value)| new.set(name, value))?;
        Ok(new)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        match name {
            "--metadata-ttl" => self.metadata_ttl = ttl(name, value)?,
            "--negative-ttl" => self.negative_ttl = Some(ttl(name, value)?),
            "--op-deadline" => self.op_deadline = op_deadline(value)?,
            "--drain-deadline" => self.drain_deadline = drain_deadline(value)?,
            "--on-conflict" => self.on_conflict = choice(name, value)?,
            "--log-level" => self.log_level = choice(name, value)?,
            "--profile" => self.profile = Some(value.to_owned()),
            _ => {
                let sentence = "cannot change while it is mounted; unmount, and mount again with it";
                return Err(Failure::usage(format!("{name} {sentence}")));
            }
        }
        Ok(())
    }

    /// The filesystem's part.
    pub(crate) fn fs(&self) -> LiveConfig {
        LiveConfig {
            on_conflict: match self.on_conflict {
                Conflict::KeepBoth => OnConflict::KeepBoth,
                Conflict::Overwrite => OnConflict::Overwrite,
            },
            metadata_ttl: self.metadata_ttl,
            negative_ttl: self.negative_ttl.unwrap_or(self.metadata_ttl),
            op_deadline: self.op_deadline,
        }
    }

    /// As their options have them. `has_profile`: whether the source has credentials to be found in one.
    pub(crate) fn told(&self, has_profile: bool) -> InForce {
        let by_environment = || std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
        let profile = || self.profile.clone().unwrap_or_else(by_environment);
        InForce {
            metadata_ttl: ttl_in_words(self.metadata_ttl),
            negative_ttl: ttl_in_words(self.fs().negative_ttl),
            op_deadline: in_words(self.op_deadline),
            drain_deadline: in_words(self.drain_deadline),
            on_conflict: name_of(&self.on_conflict),
            log_level: name_of(&self.log_level),
            profile: has_profile.then(profile),
            reloads: 0,
            reloaded_seconds_ago: None,
        }
    }
}

/// What differs between two of them.
pub(crate) fn changes(old: &InForce, new: &InForce) -> Vec<Change> {
    let both = old.each().into_iter().zip(new.each());
    let changed = both.filter(|((_, from), (_, to))| from != to);
    let change = |((setting, from), (_, to)): ((&str, &str), (&str, &str))| Change {
        setting: setting.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
    };
    changed.map(change).collect()
}

fn op_deadline(text: &str) -> Result<Duration, Failure> {
    let deadline = duration("--op-deadline", text, "30s or 5min")?;
    if deadline.is_zero() {
        return Err(Failure::usage("--op-deadline must be longer than 0"));
    }
    Ok(deadline)
}

fn drain_deadline(text: &str) -> Result<Duration, Failure> {
    duration("--drain-deadline", text, "30s, 5min or 0")
}

fn choice<T: ValueEnum>(option: &str, text: &str) -> Result<T, Failure> {
    T::from_str(text, false).map_err(|_| {
        let all: Vec<_> = T::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        let names: Vec<_> = all.iter().map(clap::builder::PossibleValue::get_name).collect();
        Failure::usage(format!("{option} {text:?} is none of {}", names.join(", ")))
    })
}

fn name_of(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn ttl_in_words(ttl: Ttl) -> String {
    match ttl {
        Ttl::Zero => "0".to_owned(),
        Ttl::For(time) => in_words(time),
        Ttl::Forever => "forever".to_owned(),
    }
}

fn in_words(time: Duration) -> String {
    if time.is_zero() { "0".to_owned() } else { humantime::format_duration(time).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> LiveSettings {
        LiveSettings {
            metadata_ttl: Ttl::For(Duration::from_secs(1)),
            negative_ttl: None,
            op_deadline: Duration::from_mins(1),
            drain_deadline: Duration::from_secs(30),
            on_conflict: Conflict::KeepBoth,
            log_level: LogLevel::Info,
            profile: None,
        }
    }

    fn given(options: &[(&str, &str)]) -> Vec<(String, String)> {
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_option_changes_its_setting_and_is_told_as_it_was_given() {
        let values = ["1h", "0", "5m", "0", "overwrite", "debug", "other"];
        let old = settings();
        for (name, value) in OPTIONS.into_iter().zip(values) {
            let new = old.with(&given(&[(name, value)])).unwrap();
            assert_ne!(new, old);
            let changes = changes(&old.told(true), &new.told(true));
            let told = changes.iter().find(|change| format!("--{}", change.setting) == name).unwrap();
            assert_eq!(told.to, value);
        }
    }

    #[test]
    fn absence_is_believed_as_names_are_until_somebody_says_otherwise() {
        let longer = settings().with(&given(&[("--metadata-ttl", "forever")])).unwrap();
        assert_eq!(longer.fs().negative_ttl, Ttl::Forever);
        let apart = longer.with(&given(&[("--negative-ttl", "2s")])).unwrap();
        let apart = apart.with(&given(&[("--metadata-ttl", "5s")])).unwrap();
        assert_eq!(apart.fs().negative_ttl, Ttl::For(Duration::from_secs(2)));
    }

    #[test]
    fn what_cannot_change_and_what_is_wrong_is_named() {
        for (name, value, word) in [
            ("--cache-dir", "/c", "cannot change while it is mounted"),
            ("--later", "", "cannot change while it is mounted"),
            ("--metadata-ttl", "soon", "no duration"),
            ("--op-deadline", "0", "longer than 0"),
            ("--on-conflict", "fight", "keep-both, overwrite"),
            ("--log-level", "loud", "warn"),
        ] {
            let refused = settings().with(&given(&[("--profile", "p"), (name, value)])).unwrap_err();
            assert!(refused.sentence.starts_with(name) && refused.sentence.contains(word), "{refused}");
        }
    }
}

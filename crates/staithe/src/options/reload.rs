//! The command line of `staithe reload`: the options of `staithe mount`, each to be left out. All of them are known, so
//! that the daemon can refuse by name what cannot change; shown are those that can.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use super::MountOptions;
use crate::live::OPTIONS;

const MOUNTPOINT: &str = "mountpoint";
/// Where in the help of an option of `staithe mount` its default begins, which is none here.
const DEFAULT: &str = " [default";

#[derive(Debug)]
pub(crate) struct ReloadOptions {
    pub(crate) mountpoint: PathBuf,
    /// What was given, by its name, with its value.
    pub(crate) changes: Vec<(String, String)>,
}

impl Args for ReloadOptions {
    fn augment_args(command: Command) -> Command {
        let mountpoint = Arg::new(MOUNTPOINT)
            .value_name("MOUNTPOINT")
            .help("Where it is mounted, or any path in it")
            .required(true)
            .value_parser(value_parser!(PathBuf));
        command.arg(mountpoint).args(options().into_iter().map(as_change))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ReloadOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mountpoint = matches.get_one::<PathBuf>(MOUNTPOINT).cloned().unwrap_or_default();
        let is_given =
            |option: &Arg| matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine);
        let given = options().into_iter().filter(is_given);
        let changes = given.map(|option| change(&option, matches)).collect::<Result<_, _>>()?;
        Ok(Self { mountpoint, changes })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The options of `staithe mount`.
fn options() -> Vec<Arg> {
    let mount = MountOptions::augment_args(Command::new("mount"));
    mount.get_arguments().filter(|argument| argument.get_long().is_some()).cloned().collect()
}

fn name(option: &Arg) -> String {
    format!("--{}", option.get_long().unwrap_or_default())
}

fn as_change(option: Arg) -> Arg {
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.split(DEFAULT).next().unwrap_or_default().to_owned();
    let can_change = OPTIONS.contains(&&*name(&option));
    option.default_value(None::<&'static str>).help(help).hide(!can_change)
}

fn change(option: &Arg, matches: &ArgMatches) -> Result<(String, String), Error> {
    let name = name(option);
    let raw = matches.get_raw(option.get_id().as_str()).and_then(|mut values| values.next());
    match raw.unwrap_or_default().to_str() {
        Some(value) => Ok((name, value.to_owned())),
        None => Err(Error::raw(ErrorKind::InvalidUtf8, format!("the value of {name} must be UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> ReloadOptions {
        let command = ReloadOptions::augment_args(Command::new("reload"));
        let matches = command.try_get_matches_from([&["reload"], arguments].concat()).unwrap();
        ReloadOptions::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn only_what_is_given_is_a_change_and_every_option_of_a_mount_may_be_given() {
        assert_eq!(parsed(&["/mnt"]).changes, []);
        let given = parsed(&["--log-level=debug", "/mnt", "--read-only", "--metadata-ttl", "-1"]);
        let change = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(given.mountpoint, PathBuf::from("/mnt"));
        assert!(given.changes.contains(&change("--log-level", "debug")));
        assert!(given.changes.contains(&change("--metadata-ttl", "-1")));
        assert!(given.changes.contains(&change("--read-only", "true")), "{:?}", given.changes);
        assert_eq!(given.changes.len(), 3);
    }

    #[test]
    fn what_can_change_is_an_option_of_a_mount_and_shown_without_its_default() {
        let names: Vec<_> = options().iter().map(name).collect();
        assert!(OPTIONS.iter().all(|option| names.iter().any(|name| name == option)), "{names:?}");
        let help = ReloadOptions::augment_args(Command::new("reload")).render_help().to_string();
        for name in names {
            assert_eq!(help.contains(&format!("{name} ")), OPTIONS.contains(&&*name), "{name}: {help}");
        }
        assert!(!help.contains(DEFAULT.trim()), "{help}");
    }
}

//! How a run that did not work out ends: one sentence and an exit code.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::process::ExitCode;

/// Everything is stored.
pub(crate) const DONE: u8 = 0;
/// Could not start, or could not do it.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Unmounted, and something is kept in the state directory.
pub(crate) const KEPT: u8 = 75;

/// The store refuses the credentials for good.
pub(crate) const REFUSED: u8 = 77;
/// The volume was deleted.
pub(crate) const GONE: u8 = 143;

/// One sentence and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) sentence: String,
}

impl Failure {
    /// The command line makes no sense.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self { code: USAGE, sentence: sentence.into() }
    }

    /// It could not be done.
    pub(crate) fn failed(sentence: impl Into<String>) -> Self {
        Self { code: FAILED, sentence: sentence.into() }
    }

    /// It could not be done, because of `error` and its causes.
    pub(crate) fn caused(what: impl Into<String>, error: &dyn Error) -> Self {
        Self::failed(format!("{}: {}", what.into(), chain(error)))
    }

    /// Says it on standard error.
    pub(crate) fn tell(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "staithe: {}", self.sentence.replace('\n', " "))
    }
}

/// An error with its causes, in one line. A cause that the line says already is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let link = error.to_string();
        if !text.contains(&link) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {link}");
        }
        cause = error.source();
    }
    text
}

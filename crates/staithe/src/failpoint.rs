//! Where a test wants this daemon to end. Only in builds with debug assertions: a released one reads nothing of it.

use staithe_fs::{Step, abort_at};

use crate::failure::Failure;

/// `STEP:N`: the daemon ends, as by kill -9, when it passes that step for the `N`th time.
const ABORT_AT: &str = "STAITHE_ABORT_AT";

/// Arms the step that the environment names, if it names one.
///
/// # Errors
/// One sentence for what names no step: a test must not pass because nothing happened.
pub(crate) fn arm() -> Result<(), Failure> {
    let Ok(text) = std::env::var(ABORT_AT) else { return Ok(()) };
    let armed = text.split_once(':').and_then(|(name, nth)| {
        let step = Step::ALL.iter().find(|step| step.name() == name)?;
        Some((*step, nth.parse().ok()?))
    });
    let (step, nth) = armed.ok_or_else(|| Failure::usage(format!("{ABORT_AT} names no step: {text:?}")))?;
    abort_at(step, nth);
    Ok(())
}

//! `staithe reload`: change settings of a mount while it is in use, and have it read its credentials again.

use std::io::Write as _;

use crate::control::{Reload, Reloading, Request, ask, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::locate;
use crate::options::ReloadOptions;

/// Reloads; 0 if all of it is in force.
///
/// # Errors
/// One sentence; nothing has changed.
pub(crate) fn run(options: &ReloadOptions) -> Result<u8, Failure> {
    let place = locate(&options.mountpoint)?;
    let request = Request::Reload(Reload { options: options.changes.clone() });
    match wait_for(ask::<Reloading>(&place.mount, &request, |_| Ok(())))? {
        Reloading::Refused(sentence) => Err(Failure::usage(sentence)),
        Reloading::Done(reloaded) => {
            // A closed standard output is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{reloaded}");
            Ok(DONE)
        }
    }
}

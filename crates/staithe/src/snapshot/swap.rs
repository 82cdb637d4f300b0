//! `staithe snapshot swap`: have a mount show another manifest.

use std::io::Write as _;

use crate::control::{Request, Swap, View, ask, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::locate;
use crate::options::SwapOptions;
use crate::places;

/// Swaps; 0 if whoever looks at the mount now sees the new view.
///
/// # Errors
/// One sentence; the mount shows what it showed before.
pub(crate) fn run(options: &SwapOptions) -> Result<u8, Failure> {
    let place = locate(&options.mountpoint)?;
    let file = places::full_path(&options.file);
    let file = file.to_str().ok_or_else(|| Failure::usage("the name of the manifest must be UTF-8"))?;
    let request = Request::Swap(Swap { file: file.to_owned() });
    let view = wait_for(ask::<View>(&place.mount, &request, |_| Ok(())))?;
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{} objects of {}, epoch {}", view.objects, view.shows, view.epoch);
    Ok(DONE)
}

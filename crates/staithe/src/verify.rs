//! `staithe verify`: whether what is here of a mount agrees with what the store has.

use std::fmt::Display;
use std::io::Write as _;

use serde_json::json;
use staithe_fuse::MountEntry;

use crate::bar::Bar;
use crate::control::{Differing, Request, Verify, VerifyNews, Verifying, ask, understand, wait_for};
use crate::failure::{DONE, Failure};
use crate::locate::{key_path, locate};
use crate::options::VerifyOptions;

/// Compares; 0 if nothing differs any more.
///
/// # Errors
/// One sentence: something differs still (it is on standard output already), nothing of ours is mounted there, or its
/// daemon does not answer.
pub(crate) fn run(options: &VerifyOptions) -> Result<u8, Failure> {
    let place = locate(&options.path)?;
    let path = key_path(&options.path, &place)?;
    let request = Request::Verify(Verify { path, repair: options.repair });
    let (verifying, is_stopped) = wait_for(watch(&place.mount, &request, options.json))?;
    if options.json {
        let Verifying { compared, differences, repaired, .. } = verifying;
        let summary = json!({"compared": compared, "differences": differences, "repaired": repaired});
        say(&json!({ "summary": summary }));
    }
    judge(verifying, is_stopped, options)
}

/// Follows the work to its end, or to Ctrl-C, which ends it; how far it came, and whether it was that.
async fn watch(mount: &MountEntry, request: &Request, is_json: bool) -> Result<(Verifying, bool), Failure> {
    let (bar, mut last) = (Bar::new(), Verifying::default());
    let hear = |news| {
        match understand(news)? {
            VerifyNews::Difference(differing) => bar.aside(|| tell(&differing, is_json)),
            VerifyNews::Progress(verifying) => {
                last = verifying;
                let message = format!("{} compared, {} differ", last.compared, last.differences);
                bar.show(last.bytes, last.bytes_most.max(last.bytes), message);
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        done = ask(mount, request, hear) => return Ok((done?, false)),
        // Hanging up ends the work.
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
    Ok((last, true))
}

fn tell(differing: &Differing, is_json: bool) {
    if is_json {
        return say(&json!(differing));
    }
    // Names may hold anything, also what a terminal would obey.
    let plain = |text: &str| text.replace(char::is_control, " ");
    let Differing { path, detail, repaired, left, .. } = differing;
    let outcome = match (repaired, left) {
        (Some(what), _) => format!("; {}", plain(what)),
        (None, Some(why)) => format!("; left as it is: {}", plain(why)),
        (None, None) => String::new(),
    };
    say(&format_args!("{path:?}: {}{outcome}", plain(detail)));
}

fn judge(verifying: Verifying, is_stopped: bool, options: &VerifyOptions) -> Result<u8, Failure> {
    let Verifying { compared, differences, repaired, .. } = verifying;
    let mut summary = format!("{compared} compared, {differences} differ");
    if repaired > 0 {
        summary = format!("{summary}, {repaired} mended");
    }
    if is_stopped {
        return Err(Failure::failed(format!("stopped after {summary}")));
    }
    if differences == repaired {
        if !options.json {
            say(&summary);
        }
        return Ok(DONE);
    }
    let hint = if options.repair { "" } else { "; --repair mends what can be mended" };
    Err(Failure::failed(format!("{summary}{hint}")))
}

fn say(what: &dyn Display) {
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{what}");
}

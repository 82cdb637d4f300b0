//! `staithe doctor`: what would go wrong, before anybody mounts.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use rustix::fs::Access;
use staithe_store::{Capabilities, ObjectStore};

use crate::failure::{DONE, FAILED, Failure, chain};
use crate::options::DoctorOptions;
use crate::source::{self, Source};
use crate::survey::Survey;
use crate::{places, settings};

/// The oldest kernel whose FUSE has what is asked for at mount (`max_pages`, for requests of 1 MiB).
const OLDEST_KERNEL: (u32, u32) = (4, 20);

/// Checks this machine and the source; 0 if a mount would work, 1 if not.
///
/// # Errors
/// Wrong usage.
pub(crate) fn run(options: &DoctorOptions) -> Result<u8, Failure> {
    let source = Source::parse(&options.source).map_err(Failure::usage)?;
    settings::check_store(&source, &options.store)?;
    let mut report = Report::default();
    machine(&mut report);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::caused("the runtime cannot start", &e))?;
    runtime.block_on(volume(&mut report, &source, options));
    Ok(if report.failed { FAILED } else { DONE })
}

/// Findings, printed as they come.
#[derive(Debug, Default)]
struct Report {
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Note,
    Bad,
}

impl Report {
    fn say(&mut self, verdict: Verdict, what: &str, finding: impl Display) {
        self.failed |= verdict == Verdict::Bad;
        let verdict = match verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "FAIL",
        };
        // A closed standard output is no reason to fail.
        let _ = writeln!(std::io::stdout(), "{verdict:4}  {what:22}  {finding}");
    }
}

use Verdict::{Bad, Good, Note};

fn machine(report: &mut Report) {
    let root = rustix::process::geteuid().is_root();
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => report.say(Good, "/dev/fuse", "can be opened"),
        Err(error) if root => report.say(Bad, "/dev/fuse", format_args!("{error}; load the `fuse` module")),
        Err(error) => report.say(Note, "/dev/fuse", format_args!("{error}; fusermount3 may still open it")),
    }
    let helper = std::process::Command::new("fusermount3").arg("--version").output();
    match (helper, root) {
        (Ok(_), _) => report.say(Good, "fusermount3", "is installed"),
        (Err(_), true) => report.say(Good, "fusermount3", "is not installed; root does not need it"),
        (Err(error), false) => {
            report.say(Bad, "fusermount3", format_args!("{error}; install the package `fuse3`"));
        }
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            report.say(Bad, "kernel", format_args!("{release} is too old; 4.20 or newer is needed"));
        }
        Some(_) => report.say(Good, "kernel", &release),
        None => report.say(Note, "kernel", format_args!("{release}; its version cannot be read")),
    }
    match places::state_home() {
        None => report.say(Bad, "state directory", "there is no home directory; mount with --state-dir"),
        Some(home) if writable(&home) => report.say(Good, "state directory", home.display()),
        Some(home) => {
            report.say(
                Bad,
                "state directory",
                format_args!("{} is not writable; mount with --state-dir", home.display()),
            );
        }
    }
}

async fn volume(report: &mut Report, source: &Source, options: &DoctorOptions) {
    let store =
        match source::open(source, &options.store, source::Access { may_write: true, tries_again: false })
            .await
        {
            Ok(opened) => opened.store,
            Err(error) => return report.say(Bad, "store", chain(&error)),
        };
    match store.probe().await {
        Ok(info) => {
            let region = info.region.map(|r| format!(", region {r}")).unwrap_or_default();
            report.say(Good, "store", format_args!("{} answers{region}", store.url()));
        }
        Err(error) => return report.say(Bad, "store", chain(&error)),
    }
    capabilities(report, store.capabilities());
    keys(report, &*store, source).await;
}

fn capabilities(report: &mut Report, can: &Capabilities) {
    let table = [
        (
            "create if absent",
            can.put_if_absent,
            "two clients that create a file at once overwrite each other",
        ),
        ("replace if unchanged", can.put_if_match, "a change by another client is overwritten unseen"),
        ("copy if unchanged", can.copy_if_match, "a rename may carry a newer version along"),
        ("delete if unchanged", can.delete_if_match, "a delete may take a newer version along"),
        ("versions", can.versions, "an open file whose object is replaced ends with ESTALE"),
        ("copy of parts", can.part_copy, "renaming a file over 5 GiB downloads and uploads it"),
        ("file beside prefix", can.file_beside_prefix, "a key is a file or a directory, never both"),
    ];
    for (what, has, without) in table {
        if has {
            report.say(Good, what, "yes");
        } else {
            report.say(Note, what, format_args!("no: {without}"));
        }
    }
    report.say(Good, "largest object", bytesize::ByteSize(can.object_size_max));
}

async fn keys(report: &mut Report, store: &dyn ObjectStore, source: &Source) {
    let mut survey = match Survey::of(store, source.prefix()).await {
        Ok(survey) => survey,
        Err(error) => return report.say(Bad, "listing", chain(&error)),
    };
    if let Some(Err(error)) = source.directory().map(|directory| survey.add_strangers(directory)) {
        report.say(Note, "hidden", format_args!("not all of the directory can be looked at: {error}"));
    }
    report.say(Good, "objects", survey.objects);
    for (reason, group) in &survey.hidden {
        report.say(Note, "hidden", format_args!("{} because {reason}", group.count));
        for key in &group.examples {
            report.say(Note, "", format_args!("{key:?}"));
        }
    }
}

/// Whether the directory, or the nearest one above it that exists, may be written.
fn writable(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(|dir| rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("4.19"), Some((4, 19)));
        assert_eq!(version("rolling"), None);
    }
}

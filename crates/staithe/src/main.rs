//! `staithe`: mount an object-store bucket as a local filesystem that stays correct when the world changes
//! underneath it.
//!
//! The binary composes: `options` (command line) -> `settings` (checked) -> `source` (a store) -> `daemon` (the life of
//! a mount). `background` detaches it, `registry` lets other commands find it, `control` is how they talk to it
//! (`status`, `top`, `sync`, `jobs`, `warm`, `refresh`, `reload`, `verify`), `doctor` looks before anybody mounts,
//! `snapshot` writes down what a bucket holds, `rescue` brings out what was never stored. `live` is what may change
//! while it is mounted, `fate` watches over the bucket, `tasks` are what goes on beside serving, and `end` is the way out; `audit`, `systemd` and `metrics` tell others of it.
//! `fstab` is mount(8)'s way in.
//! What the library crates refuse to know is here and nowhere else: flags, environment, exit codes, log formats.

mod audit;
mod background;
mod bar;
mod control;
mod daemon;
mod doctor;
mod end;
#[cfg(debug_assertions)]
mod failpoint;
mod failure;
mod fate;
mod fstab;
mod jobs;
mod live;
mod locate;
mod metrics;
mod options;
mod places;
mod refresh;
mod registry;
mod reload;
mod rescue;
mod settings;
mod snapshot;
mod source;
mod status;
mod survey;
mod sync;
mod systemd;
mod tasks;

mod telemetry;
mod top;
mod umount;
mod verify;
mod warm;

use std::ffi::OsString;
use std::process::ExitCode;

use failure::Failure;
use options::Command;

fn main() -> ExitCode {
    let arguments = match fstab::arguments(std::env::args_os().collect()) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => return failure.tell(),
    };
    let command = match options::parse(&arguments) {
        Ok(Some(command)) => command,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => return failure.tell(),
    };
    match run(command, &arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.tell(),
    }
}

fn run(command: Command, arguments: &[OsString]) -> Result<u8, Failure> {
    match command {
        Command::Mount(options) => {
            let settings = settings::Settings::check(*options)?;
            if settings.background {
                return background::start(&settings, arguments);
            }
            if settings.detached {
                return background::be_detached(settings);
            }
            daemon::run(settings)
        }
        Command::Warm(options) => warm::run(&options),
        Command::Refresh(options) => refresh::run(&options),
        Command::Umount(options) => umount::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Sync(options) => sync::run(&options),
        Command::Jobs(options) => jobs::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Rescue(options) => rescue::run(&options),
        Command::Snapshot(options) => snapshot::run(&options.command),
        Command::Reload(options) => reload::run(&options),
        Command::Top(options) => top::run(&options),
    }
}

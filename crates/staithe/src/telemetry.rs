//! Log lines, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::options::{LogFormat, LogLevel};

/// Starts logging. Our own crates at `level`; what they are built on only with warnings, or as little.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let own = match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if level < LogLevel::Warn { own } else { "warn" };
    let filter = EnvFilter::new(format!("{others},staithe={own}"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Records of the `log` crate are not taken in: the FUSE session reports each answer that the kernel does not
    // take, and one kind of those is meant.
    let set = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            tracing::subscriber::set_global_default(lines.finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(lines.json().finish()),
    };
    if set.is_err() {
        eprintln!("staithe: logging had been started before");
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
        tracing::error!(place, "panic: {text}");
    }));
}

//! Log lines, on standard error.

use std::fmt;
use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, reload};

use crate::options::{LogFormat, LogLevel};

/// Logging that has started. Its level can be changed.
pub(crate) struct Logging(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Logging").finish_non_exhaustive()
    }
}

impl Logging {
    /// Writes at `level` from now on.
    pub(crate) fn set(&self, level: LogLevel) {
        // It fails when nobody logs any more, which ends with the process.
        if let Err(error) = self.0(filter(level)) {
            tracing::error!(%error, "the log level stays as it is");
        }
    }
}

/// Our own crates at `level`; what they are built on only with warnings, or as little.
fn filter(level: LogLevel) -> EnvFilter {
    let own = match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if level < LogLevel::Warn { own } else { "warn" };
    EnvFilter::new(format!("{others},staithe={own}"))
}

/// Starts logging.
pub(crate) fn start(format: LogFormat, level: LogLevel) -> Logging {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(std::io::stderr);
    // Records of the `log` crate are not taken in: the FUSE session reports each answer that the kernel does not
    // take, and one kind of those is meant.
    let (set, logging) = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = lines.reload_handle();
            let logging = Logging(Box::new(move |filter| handle.reload(filter)));
            (tracing::subscriber::set_global_default(lines.finish()), logging)
        }
        LogFormat::Json => {
            let lines = lines.json().with_filter_reloading();
            let handle = lines.reload_handle();
            let logging = Logging(Box::new(move |filter| handle.reload(filter)));
            (tracing::subscriber::set_global_default(lines.finish()), logging)
        }
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
    logging
}

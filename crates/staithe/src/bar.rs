//! Progress on standard error, where somebody sees it.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar; it goes when it is dropped.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Bytes of a total. Shows nothing unless standard error is a terminal.
    pub(crate) fn new() -> Self {
        Self::with("[{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {msg}")
    }

    /// A number of objects of which nobody knows how many there will be. Shows nothing unless standard error is a
    /// terminal.
    pub(crate) fn of_objects() -> Self {
        Self::with("{spinner} {human_pos} objects, {per_sec}, {msg}")
    }

    fn with(template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(template) {
            // Plain characters: a line that is measured as too long would be cleared with the one above it.
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Some(bar))
    }

    /// Writes lines where the bar is; it comes back below them.
    pub(crate) fn aside(&self, write: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(crate) fn show(&self, done: u64, total: u64, message: String) {
        let Some(bar) = &self.0 else { return };
        bar.set_message(message);
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

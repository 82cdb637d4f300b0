//! A command's side: finds the daemon of a mount, asks, and hears the replies.

use std::io;
use std::path::Path;
use std::time::Duration;

use staithe_fuse::MountEntry;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::address::connect_to;
use super::lines::{line_of, read_line};
use super::protocol::{LINE_MAX, Reply, Request};
use crate::failure::Failure;
use crate::registry::Found;

/// How long a daemon may take to accept, and to take a request in.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for a place in a line that is full.
const PAUSE: Duration = Duration::from_millis(50);

/// A request on its way. Dropping it ends the request.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: BufReader<UnixStream>,
    /// Whom it is with, for sentences.
    mountpoint: String,
}

impl Conversation {
    /// Asks the daemon that serves `mount`.
    ///
    /// # Errors
    /// One sentence: it cannot be found, is dead, or does not answer.
    pub(crate) async fn begin(mount: &MountEntry, request: &Request) -> Result<Self, Failure> {
        let mountpoint = mount.mountpoint.display().to_string();
        let line = line_of(&request.enveloped());
        let line = line.map_err(|e| Failure::caused("the request cannot be written down", &e))?;
        if line.len() as u64 > LINE_MAX {
            return Err(Failure::failed("the request is too long; name fewer paths, or their directories"));
        }
        let daemon = Found::of(mount).ok_or_else(|| {
            Failure::failed(format!(
                "the daemon of {mountpoint} cannot be found; ask as the user who mounted it"
            ))
        })?;
        let begun = timeout(PATIENCE, begin(&daemon.socket(), &line)).await;
        match begun.unwrap_or_else(|late| Err(late.into())) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream), mountpoint }),
            Err(error) => Err(unreached(&mountpoint, &error)),
        }
    }

    /// The next reply.
    ///
    /// # Errors
    /// One sentence: nothing came for so long, or the daemon has ended.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Reply, Failure> {
        let mountpoint = &self.mountpoint;
        let line = match timeout(patience, read_line(&mut self.stream)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => {
                return Err(Failure::failed(format!(
                    "the daemon of {mountpoint} ended before it had answered"
                )));
            }
            Ok(Err(error)) => {
                return Err(Failure::caused(format!("the daemon of {mountpoint} cannot be heard"), &error));
            }
            Err(_) => {
                return Err(Failure::failed(format!(
                    "the daemon of {mountpoint} does not answer (nothing came for {} seconds)",
                    patience.as_secs()
                )));
            }
        };
        serde_json::from_slice(&line).map_err(|e| {
            Failure::caused(format!("the answer of the daemon of {mountpoint} makes no sense"), &e)
        })
    }
}

async fn begin(socket: &Path, line: &[u8]) -> io::Result<UnixStream> {
    let mut stream = loop {
        match connect_to(socket).await {
            // Too many others wait to be accepted.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            other => break other?,
        }
    };
    match stream.write_all(line).await {
        // It was turned away, and may have been told why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(stream),
        other => other.map(|()| stream),
    }
}

fn unreached(mountpoint: &str, error: &io::Error) -> Failure {
    Failure::failed(match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("the daemon of {mountpoint} has died; `staithe umount {mountpoint}`, then mount it again")
        }
        io::ErrorKind::NotFound => {
            format!(
                "the daemon of {mountpoint} takes no commands; it is ending, or could not listen (see its log)"
            )
        }
        io::ErrorKind::TimedOut => {
            format!(
                "the daemon of {mountpoint} does not answer (it took nothing for {} seconds)",
                PATIENCE.as_secs()
            )
        }
        _ => return Failure::caused(format!("the daemon of {mountpoint} cannot be reached"), error),
    })
}

//! A command's side: finds the daemon of a mount, asks, and hears the replies.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
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

/// How long a daemon may take to say that it is at work.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long a daemon at work may say nothing; it has something to say several times a second.
const SILENCE: Duration = Duration::from_secs(30);

/// Runs what a command says to daemons.
///
/// # Errors
/// The command's, or that there can be no runtime.
pub(crate) fn wait_for<T>(talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::caused("the runtime cannot start", &e))?.block_on(talk)
}

/// Asks the daemon that serves `mount` something that it says news of while it is at it; its answer.
///
/// # Errors
/// One sentence: the daemon's, or that it has none.
///
/// # Cancel safety
/// Dropping the future ends the request.
pub(crate) async fn ask<T: DeserializeOwned>(
    mount: &MountEntry,
    request: &Request,
    mut hear: impl FnMut(Value) -> Result<(), Failure>,
) -> Result<T, Failure> {
    let mut conversation = Conversation::begin(mount, request).await?;
    let mut patience = ANSWER;
    loop {
        match conversation.next(patience).await? {
            Reply::News(news) => {
                hear(news)?;
                patience = SILENCE;
            }
            Reply::Done(done) => return understand(done),
            Reply::Error(sentence) => return Err(Failure::failed(sentence)),
        }
    }
}

/// What a daemon said.
///
/// # Errors
/// One sentence: it is something else than was asked for.
pub(crate) fn understand<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|e| Failure::caused("the daemon's answer cannot be understood", &e))
}

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

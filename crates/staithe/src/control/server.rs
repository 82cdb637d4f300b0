//! The daemon's side: accepts, reads a request, answers it, within bounds.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::address::listen_at;
use super::answers::{News, Served, answer};
use super::lines::{line_of, read_line};
use super::protocol::{Reply, Request};

/// Connections at once; one more is told so and closed.
pub(crate) const CONNECTIONS_MAX: usize = 16;
/// How long a client may take for its request, and for reading the last reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of news on their way to a client.
const NEWS_AHEAD: usize = 4;
/// How long to leave accepting alone when the process has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening daemon. To be ended; dropped, it goes on until the runtime ends.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`, which must be ours alone. Must run inside a tokio runtime.
    pub(crate) fn start(path: PathBuf, served: Served) -> io::Result<Self> {
        let listener = listen_at(&path)?;
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, Arc::new(served), stopped));
        Ok(Self { path, stop, accepting })
    }

    /// Ends every connection, whatever it is doing, and takes the socket away.
    pub(crate) async fn end(self) {
        // Gone before it is deaf: who finds no socket knows that the daemon is ending.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a control socket was left behind");
        }
        drop(self.stop);
        // An error is a panic, which has been reported; all is dropped then, too.
        let _ = self.accepting.await;
    }
}

async fn accept(listener: UnixListener, served: Arc<Served>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(converse(stream, Arc::clone(&served)));
                }
                Ok((stream, _)) => turn_away(&stream),
                Err(error) => {
                    tracing::warn!(%error, "a control connection cannot be accepted");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Says why, if it can be said at once.
fn turn_away(stream: &UnixStream) {
    let text = format!("the daemon has {CONNECTIONS_MAX} control connections already; try again later");
    if let Ok(line) = line_of(&Reply::Error(text)) {
        let _ = stream.try_write(&line);
    }
}

async fn converse(stream: UnixStream, served: Arc<Served>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let request = match timeout(PATIENCE, read_line(&mut read)).await {
        Ok(Ok(Some(line))) => Request::parse(&line),
        Ok(Ok(None)) => return,
        Ok(Err(error)) => Err(format!("the request cannot be read: {error}")),
        Err(_) => Err(format!("no request came within {} seconds", PATIENCE.as_secs())),
    };
    let request = match request {
        Ok(request) => request,
        Err(sentence) => {
            tracing::debug!(sentence, "a control request was refused");
            return last_word(&mut write, Err(sentence)).await;
        }
    };
    tokio::select! {
        () = hung_up(read) => {}
        () = reply(&served, request, &mut write) => {}
    }
}

/// Waits until the client has no more to say, which ends its request; what it says till then is not heard.
async fn hung_up(mut read: BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 1024];
    while read.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
}

/// The news, as fast as they are read, and the answer; a client that stops reading does not hold up the work.
async fn reply(served: &Arc<Served>, request: Request, write: &mut OwnedWriteHalf) {
    let (tell, mut told) = mpsc::channel(NEWS_AHEAD);
    let mut answering = pin!(answer(served, request, News(tell)));
    let mut passing_on = pin!(pass_on(&mut told, write));
    let mut passed_on = None;
    let outcome = loop {
        tokio::select! {
            outcome = &mut answering => break outcome,
            done = &mut passing_on, if passed_on.is_none() => match done {
                Ok(write) => passed_on = Some(write),
                Err(_) => return,
            },
        }
    };
    let rest = async {
        let write = match passed_on {
            Some(write) => write,
            None => passing_on.await?,
        };
        last_word(write, outcome).await;
        io::Result::Ok(())
    };
    // Late, or gone: there is nobody to be told.
    let _ = timeout(PATIENCE, rest).await;
}

/// Writes what is told until nobody tells any more.
async fn pass_on<'w>(
    told: &mut mpsc::Receiver<Vec<u8>>,
    write: &'w mut OwnedWriteHalf,
) -> io::Result<&'w mut OwnedWriteHalf> {
    while let Some(line) = told.recv().await {
        write.write_all(&line).await?;
    }
    Ok(write)
}

async fn last_word(write: &mut OwnedWriteHalf, outcome: Result<Value, String>) {
    let reply = match outcome {
        Ok(value) => Reply::Done(value),
        Err(sentence) => Reply::Error(sentence),
    };
    let Ok(line) = line_of(&reply) else { return };
    // Late, or gone: there is nobody to be told.
    let _ = timeout(PATIENCE, write.write_all(&line)).await;
}

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
                    let served = Arc::clone(&served);
                    let answer = |request, news| async move { answer(&served, request, news).await };
                    connections.spawn(converse(stream, answer));
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

/// Hears one request and replies with what `answer` makes of it.
async fn converse<F>(stream: UnixStream, answer: impl FnOnce(Request, News) -> F)
where
    F: Future<Output = Result<Value, String>>,
{
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
    let (tell, told) = mpsc::channel(NEWS_AHEAD);
    tokio::select! {
        () = hung_up(read) => {}
        () = reply(answer(request, News(tell)), told, &mut write) => {}
    }
}

/// Waits until the client has no more to say, which ends its request; what it says till then is not heard.
async fn hung_up(mut read: BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 1024];
    while read.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
}

/// The news, as fast as they are read, and the answer; a client that stops reading does not hold up the work.
async fn reply(
    answering: impl Future<Output = Result<Value, String>>,
    told: mpsc::Receiver<Vec<u8>>,
    write: &mut OwnedWriteHalf,
) {
    let mut answering = pin!(answering);
    let mut passing_on = pin!(pass_on(told, write));
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
async fn pass_on(
    mut told: mpsc::Receiver<Vec<u8>>,
    write: &mut OwnedWriteHalf,
) -> io::Result<&mut OwnedWriteHalf> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const ASKED: &[u8] = b"{\"v\":1,\"request\":{\"status\":{}}}\n";
    const SOON: Duration = Duration::from_secs(10);

    /// Counts itself out when it is dropped.
    struct Work(Arc<AtomicUsize>);

    impl Drop for Work {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::AcqRel);
        }
    }

    #[tokio::test]
    async fn whoever_hangs_up_ends_the_request() {
        let running = Arc::new(AtomicUsize::new(1));
        let (mut client, server) = UnixStream::pair().unwrap();
        let work = Work(Arc::clone(&running));
        let serving = tokio::spawn(converse(server, move |_, news: News| async move {
            let _work = work;
            news.tell(&"begun");
            std::future::pending().await
        }));
        client.write_all(ASKED).await.unwrap();
        let mut reader = BufReader::new(&mut client);
        assert_eq!(read_line(&mut reader).await.unwrap().unwrap(), br#"{"news":"begun"}"#);
        assert_eq!(running.load(Ordering::Acquire), 1);
        // Closing the sending side is enough.
        client.shutdown().await.unwrap();
        timeout(SOON, serving).await.unwrap().unwrap();
        assert_eq!(running.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_misses_news_but_not_the_answer() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (done, worked) = oneshot::channel();
        let serving = tokio::spawn(converse(server, move |_, news: News| async move {
            let line = "n".repeat(10_000);
            for _ in 0..1000 {
                news.tell(&line);
                tokio::task::yield_now().await;
            }
            done.send(()).unwrap();
            Ok(Value::from("answer"))
        }));
        client.write_all(ASKED).await.unwrap();
        timeout(SOON, worked).await.unwrap().unwrap();
        let mut reader = BufReader::new(&mut client);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader).await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines.pop().unwrap(), br#"{"done":"answer"}"#);
        assert!(lines.len() < 1000, "{}", lines.len());
        assert!(lines.iter().all(|line| line.starts_with(b"{\"news\":\"n")));
        timeout(SOON, serving).await.unwrap().unwrap();
    }
}

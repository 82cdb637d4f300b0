use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exchange::Exchanges;
use crate::socket::{Line, Socket};

/// A port that is being served.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    stop: CancellationToken,
    stopped: mpsc::Receiver<()>,
}

impl Listener {
    /// Binds the port and serves it on this runtime.
    pub(crate) fn bind(
        address: SocketAddr,
        exchanges: Exchanges,
        connections: Arc<AtomicU64>,
        runtime: &Handle,
    ) -> io::Result<Self> {
        // std sets SO_REUSEADDR, so that a port can be taken again at once.
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(entered);
        let stop = CancellationToken::new();
        let (done, stopped) = mpsc::channel();
        let accepting = accept(listener, exchanges, connections, stop.clone());
        runtime.spawn(async move {
            accepting.await;
            // Nobody waits once the server itself is gone.
            let _ = done.send(());
        });
        Ok(Self { address, stop, stopped })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection, and returns when both are closed. Blocks for that long.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        // An error means that the task is gone, and the port with it.
        let _ = self.stopped.recv();
    }
}

async fn accept(
    listener: TcpListener,
    exchanges: Exchanges,
    connections: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let number = connections.fetch_add(1, Ordering::Relaxed);
                open.spawn(serve(stream, exchanges.clone(), number));
            }
            Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
        }
    }
    drop(listener);
    open.shutdown().await;
}

async fn serve(stream: TcpStream, exchanges: Exchanges, number: u64) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection was closed before it was served");
        return;
    }
    let line = Arc::new(Line::default());
    line.limit(exchanges.modes.now().bandwidth);
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&line)));
    let service = service_fn(|request| {
        let (exchanges, line) = (exchanges.clone(), Arc::clone(&line));
        async move { exchanges.serve(request, number, line).await }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(socket, service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, number, "a connection ended");
    }
}

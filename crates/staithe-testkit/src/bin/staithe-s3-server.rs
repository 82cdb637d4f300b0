//! A stand-alone S3 server with its data in memory, to put a mount or a client to the test by hand.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use staithe_testkit::{REGION, S3Server, ServerConfig, Versioning};
use tokio::signal::unix::{SignalKind, signal};

/// An S3 server over HTTP with its data in memory, with latency and bandwidth as you like them.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// A bucket to create: NAME, or NAME:versioned
    #[arg(long = "bucket", value_name = "NAME[:versioned]", value_parser = bucket)]
    buckets: Vec<(String, Versioning)>,
    /// How long every request waits before its effect, like 20ms
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    latency: Duration,
    /// The most that a connection moves in a second, each way, like 100MiB
    #[arg(long)]
    bandwidth: Option<ByteSize>,
    /// Threads that serve
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Serve unsigned requests too
    #[arg(long)]
    anonymous: bool,
    /// Where the data is kept
    #[arg(long, value_enum, default_value = "memory")]
    data: Data,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Data {
    /// In this process; gone when it ends
    Memory,
}

fn bucket(text: &str) -> Result<(String, Versioning), String> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), Versioning::Off)),
        Some((name, "versioned")) => Ok((name.to_owned(), Versioning::On)),
        Some((_, other)) => Err(format!("a bucket is NAME or NAME:versioned, not {other:?}")),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> std::io::Result<()> {
    let Data::Memory = args.data;
    let config = ServerConfig {
        listen: args.listen,
        latency: args.latency,
        bandwidth: args.bandwidth.map(|size| size.as_u64()),
        threads: args.threads,
        ..ServerConfig::default()
    };
    let server = S3Server::start_with(config)?;
    server.credentials().allow_anonymous(args.anonymous);
    for (name, versioning) in &args.buckets {
        server.create_bucket(name, *versioning);
    }
    announce(&server);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = term.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    })
}

#[allow(clippy::print_stdout, reason = "the variables are this program's output")]
fn announce(server: &S3Server) {
    for (name, value) in server.env() {
        println!("export {name}={value}");
    }
    println!("# ready: {} in {REGION}, path-style", server.endpoint());
}

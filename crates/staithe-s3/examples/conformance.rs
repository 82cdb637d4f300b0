//! Runs the port's conformance suite against any bucket, and prints the report.
//!
//! `cargo run --example conformance -- BUCKET [ENDPOINT_URL [PREFIX]]`, with credentials in the environment or
//! a profile. Everything happens below PREFIX (`staithe-conformance/`), which should be empty.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use staithe_s3::{S3Config, S3Store};
use staithe_store::{ObjectStore, conformance};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let bucket = args.next().ok_or("usage: conformance BUCKET [ENDPOINT_URL [PREFIX]]")?;
    let endpoint_url = args.next();
    let prefix = args.next().unwrap_or_else(|| "staithe-conformance/".to_owned());
    let config = S3Config { endpoint_url, scratch_prefix: prefix.clone(), ..S3Config::new(bucket) };
    let store = S3Store::connect(config).await?;
    println!("{:#?}", store.capabilities());
    println!("checksum of uploads: {:?}", store.upload_checksum());
    let report = conformance::run(Arc::new(store), &prefix).await;
    println!("{report}");
    Ok(if report.failures().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! Stores, reads and removes one object.
//!
//! `cargo run --example s3_basic -- BUCKET [ENDPOINT_URL]`, with credentials in the environment or a profile.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;

use futures::TryStreamExt;
use staithe_s3::{S3Config, S3Store};
use staithe_store::{DeleteRequest, GetRequest, Key, NewObject, ObjectStore, Payload, PutCondition};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let bucket = args.next().ok_or("usage: basic BUCKET [ENDPOINT_URL]")?;
    let config = S3Config { endpoint_url: args.next(), ..S3Config::new(bucket) };
    let store = S3Store::connect(config).await?;
    println!("{} can do: {:#?}", store.url(), store.capabilities());

    let key = Key::new("staithe-example")?;
    let new = NewObject::default();
    let written = store.put(&key, Payload::from("hello, quay"), new, PutCondition::Always).await?;
    println!("stored version {:?}", written.version);

    let request = GetRequest { key: key.clone(), range: Some(7..11), version: Some(written.version) };
    let answer = store.get(request).await?;
    println!("bytes {:?} of {}", answer.range, answer.meta.size);
    let chunks: Vec<_> = answer.body.try_collect().await?;
    println!("read {:?}", Payload::new(chunks).to_bytes());

    store.delete(DeleteRequest::latest(key)).await?;
    Ok(())
}

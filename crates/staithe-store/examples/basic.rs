//! Stores an object, reads a part of it, and prints what was asked of the store.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use futures::TryStreamExt;
use staithe_store::decorators::RequestLog;
use staithe_store::{
    GetRequest, Key, ListRequest, MemoryStore, NewObject, ObjectStore, Payload, PutCondition,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = RequestLog::new(Arc::new(MemoryStore::default()));
    let key = Key::new("ships/cutty-sark")?;
    let written =
        store.put(&key, "launched 1869".into(), NewObject::default(), PutCondition::IfAbsent).await?;

    let request = GetRequest { key, range: Some(9..13), version: Some(written.version) };
    let chunks: Vec<_> = store.get(request).await?.body.try_collect().await?;
    println!("{}", String::from_utf8_lossy(&Payload::new(chunks).to_bytes()));

    let page = store.list(ListRequest { delimiter: Some('/'), ..ListRequest::default() }).await?;
    println!("{:?}", page.prefixes);
    print!("{}", store.table());
    Ok(())
}

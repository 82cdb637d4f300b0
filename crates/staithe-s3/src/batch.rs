//! Deletes of many objects at once, and one by one where the server or the keys do not allow that.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::types::{Delete, Error as Entry, ObjectIdentifier};
use futures::{StreamExt, stream};
use staithe_store::{DeleteFailure, DeleteRequest, ErrorKind, Key, Result, StoreError};

use crate::bucket::is_verdict;
use crate::classify::{Condition, Meaning, Shape, classify};
use crate::encoding::fits_xml;
use crate::failure::{Failure, meaning_in_words};
use crate::link::{Call, Link};
use crate::upload::content_md5;

/// Single deletes in flight at once.
const SINGLES: usize = 16;

/// Whether this server takes batches; learned from its first refusal.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    refused: AtomicBool,
}

impl Link {
    /// Deletes what it can and answers what it could not; fails only if nothing was tried, or if nothing is of use for as
    /// long as it is: the bucket is gone, the credentials are refused.
    pub(crate) async fn delete_batch(&self, batches: &Batches, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let (plain, odd): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| fits_xml(key));
        if plain.len() < 2 || batches.refused.load(Ordering::Relaxed) {
            return self.delete_each(keys.iter().collect()).await;
        }
        let mut failures = match self.delete_together(&plain).await {
            Ok(failures) => failures,
            Err(failure) if failure.meaning == Meaning::Kind(ErrorKind::Unsupported) => {
                batches.refused.store(true, Ordering::Relaxed);
                tracing::info!("the server takes no batch deletes; deleting one by one from now on");
                self.delete_each(plain).await?
            }
            Err(failure) => return Err(failure.error),
        };
        failures.extend(self.delete_each(odd).await?);
        Ok(failures)
    }

    async fn delete_together(&self, keys: &[&Key]) -> Result<Vec<DeleteFailure>, Failure> {
        let identifiers = keys.iter().map(|key| ObjectIdentifier::builder().key(key.as_str()).build());
        let identifiers = identifiers.collect::<Result<Vec<_>, _>>();
        let delete =
            identifiers.and_then(|objects| Delete::builder().quiet(true).set_objects(Some(objects)).build());
        let delete = delete.map_err(|error| {
            StoreError::new(ErrorKind::Invalid, "delete_batch", "the batch cannot be built")
                .with_source(error)
        })?;
        let call = Call::new("delete_batch", None, self.patience.server_work);
        let answer = self
            .call(call, || {
                let batch = self.client.delete_objects().bucket(&self.bucket).delete(delete.clone());
                batch
                    .customize()
                    .mutate_request(|request| {
                        // The SDK sends a CRC; older servers insist on the MD5.
                        if let Some(md5) = request.body().bytes().map(content_md5) {
                            request.headers_mut().insert("content-md5", md5);
                        }
                    })
                    .send()
            })
            .await?;
        Ok(answer.errors().iter().filter_map(refused_entry).collect())
    }

    async fn delete_each(&self, keys: Vec<&Key>) -> Result<Vec<DeleteFailure>> {
        let deletes: Vec<_> = keys.into_iter().map(|key| self.delete_one(key)).collect();
        let failures = stream::iter(deletes).buffer_unordered(SINGLES).filter_map(std::future::ready);
        let failures: Vec<_> = failures.collect().await;
        match failures.iter().find(|failure| is_verdict(failure.error.kind())) {
            Some(failure) => Err(failure.error.clone()),
            None => Ok(failures),
        }
    }

    async fn delete_one(&self, key: &Key) -> Option<DeleteFailure> {
        let outcome = self.delete(&DeleteRequest::latest(key.clone())).await;
        outcome.err().map(|failure| DeleteFailure { key: key.clone(), error: failure.error })
    }
}

/// An entry of the answer, unless it says that there was nothing to delete.
fn refused_entry(entry: &Entry) -> Option<DeleteFailure> {
    let key = Key::new(entry.key()?).ok()?;
    let code = entry.code();
    let kind = classify(&Shape::Answer { status: 0, code }).kind(Condition::Unconditional);
    if kind == ErrorKind::NotFound {
        return None;
    }
    let message = format!("{} ({})", meaning_in_words(kind), code.unwrap_or("no code"));
    let error = StoreError::new(kind, "delete_batch", message).with_key(&key);
    Some(DeleteFailure { key, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_failures() {
        let entry = |code: &str| Entry::builder().key("k").code(code).build();
        assert!(refused_entry(&entry("NoSuchKey")).is_none());
        let failure = refused_entry(&entry("AccessDenied")).unwrap();
        assert_eq!((failure.key.as_str(), failure.error.kind()), ("k", ErrorKind::Forbidden));
    }
}

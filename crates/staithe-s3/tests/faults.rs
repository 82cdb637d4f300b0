//! What the store makes of a network and a server that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod served;

use std::time::Duration;

use futures::TryStreamExt;
use staithe_s3::{S3Config, S3Store};
use staithe_store::{
    ErrorKind, GetRequest, HeadRequest, Key, NewObject, ObjectStore, Payload, PutCondition, Result,
};
use staithe_testkit::{Fault, Operation, S3Server, Versioning, When};

const SIZE: usize = 300_000;

fn key() -> Key {
    Key::new("cargo").unwrap()
}

async fn loaded() -> (S3Server, S3Store) {
    let server = S3Server::start().await.unwrap();
    server.create_bucket(served::BUCKET, Versioning::Off);
    let store = served::open(&server).await;
    put(&store, PutCondition::Always).await.unwrap();
    (server, store)
}

async fn put(store: &S3Store, condition: PutCondition) -> Result<()> {
    store.put(&key(), Payload::from(vec![7; SIZE]), NewObject::default(), condition).await.map(drop)
}

async fn get(store: &S3Store) -> Result<usize> {
    let answer = store.get(GetRequest { key: key(), range: None, version: None }).await?;
    Ok(answer.body.try_collect::<Vec<_>>().await?.iter().map(bytes::Bytes::len).sum())
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let (server, store) = loaded().await;
    for fault in [Fault::internal_error(), Fault::slow_down(None), Fault::ResetBefore, Fault::ResetAfter] {
        for operation in [Operation::GetObject, Operation::PutObject] {
            let injected = server.faults().inject(When::operation(operation).times(2), fault.clone());
            put(&store, PutCondition::Always).await.unwrap();
            assert_eq!(get(&store).await.unwrap(), SIZE);
            assert_eq!(injected.hits(), 2, "{operation:?} {fault:?}");
            injected.remove();
        }
    }
}

#[tokio::test]
async fn tries_are_bounded() {
    let (server, store) = loaded().await;
    let attempts = u64::from(served::config(&server).max_attempts);
    let injected = server.faults().inject(When::operation(Operation::GetObject), Fault::slow_down(None));
    assert_eq!(get(&store).await.unwrap_err().kind(), ErrorKind::Throttled);
    assert_eq!(injected.hits(), attempts);
}

#[tokio::test]
async fn once_open_trying_again_may_be_left_to_the_caller_but_not_conflicts() {
    let (server, _) = loaded().await;
    let config = S3Config { max_attempts_once_open: Some(1), ..served::config(&server) };
    let busy =
        server.faults().inject(When::operation(Operation::HeadBucket).times(2), Fault::internal_error());
    let store = S3Store::connect(config).await.unwrap();
    assert_eq!(busy.hits(), 2, "it opens as patiently as ever");
    let injected = server.faults().inject(When::operation(Operation::GetObject), Fault::internal_error());
    assert_eq!(get(&store).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(injected.hits(), 1);
    let conflict = staithe_testkit::Refusal::new(http_status(409), "ConditionalRequestConflict");
    let when = When::operation(Operation::PutObject).times(3);
    let injected = server.faults().inject(when, Fault::Refuse(conflict));
    put(&store, PutCondition::Always).await.unwrap();
    assert_eq!(injected.hits(), 3);
    let renewed = store.renewed(None).await.unwrap();
    let slow = server.faults().inject(When::operation(Operation::HeadObject), Fault::slow_down(None));
    // An answer to HEAD has no code.
    assert_eq!(renewed.head(HeadRequest::latest(key())).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(slow.hits(), 1);
}

#[tokio::test]
async fn what_does_not_say_that_the_bucket_is_missing_is_no_verdict() {
    let (server, store) = loaded().await;
    let lost = server.faults().inject(When::any(), Fault::lost_proxy());
    let error = store.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("404"), "{error}");
    assert_eq!(lost.hits(), 2, "a HEAD, and a listing, which would have a code");
    let error = S3Store::connect(served::config(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(get(&store).await.unwrap_err().kind(), ErrorKind::Unavailable, "nor is it one on the object");
    lost.remove();
    // Only the HEAD is lost: the listing says that it is there.
    let lost = server.faults().inject(When::operation(Operation::HeadBucket), Fault::lost_proxy());
    store.probe().await.unwrap();
    lost.remove();
    assert!(server.delete_bucket(served::BUCKET));
    let error = store.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VolumeGone);
    assert!(error.to_string().contains("there is no bucket"), "{error}");
}

#[tokio::test]
async fn a_refusal_whose_reason_cannot_be_had_now_is_no_refusal_yet() {
    let (server, store) = loaded().await;
    server.faults().inject(When::operation(Operation::HeadObject), Fault::unknown_credentials());
    let busy = server.faults().inject(When::any(), Fault::slow_down(None));
    let error = store.head(HeadRequest::latest(key())).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    busy.remove();
    server.faults().inject(When::any(), Fault::unknown_credentials());
    let error = store.head(HeadRequest::latest(key())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsRefused);
}

#[tokio::test]
async fn single_deletes_of_a_batch_tell_of_a_bucket_that_is_gone() {
    let (server, store) = loaded().await;
    assert!(server.delete_bucket(served::BUCKET));
    assert_eq!(store.delete_batch(&[key()]).await.unwrap_err().kind(), ErrorKind::VolumeGone);
}

#[tokio::test]
async fn a_probe_waits_for_no_other_request() {
    let (server, _) = loaded().await;
    let store = S3Store::connect(S3Config { max_concurrency: 1, ..served::config(&server) }).await.unwrap();
    let hold = server.faults().hold_requests(When::operation(Operation::GetObject));
    let reading = get(&store);
    let asking = async {
        hold.wait_for(1).await;
        let probed = store.probe().await;
        hold.release();
        probed
    };
    let (read, probed) = futures::join!(reading, asking);
    assert_eq!(read.unwrap(), SIZE);
    probed.unwrap();
}

#[tokio::test]
async fn verdicts_are_not_tried_again() {
    let (server, store) = loaded().await;
    let verdicts = [
        (Fault::access_denied(), ErrorKind::Forbidden),
        (Fault::expired_token(), ErrorKind::CredentialsExpired),
        (Fault::unknown_credentials(), ErrorKind::CredentialsRefused),
        (Fault::no_such_bucket(), ErrorKind::VolumeGone),
    ];
    for (fault, kind) in verdicts {
        let injected = server.faults().inject(When::operation(Operation::GetObject), fault);
        let error = get(&store).await.unwrap_err();
        assert_eq!((error.kind(), injected.hits()), (kind, 1));
        assert_eq!(error.key(), Some(&key()));
        injected.remove();
    }
}

#[tokio::test]
async fn a_head_refused_without_a_reason_gets_the_buckets() {
    let (server, store) = loaded().await;
    let (id, secret) = ("another", "pair");
    server.credentials().add(&staithe_testkit::KeyPair { access_key: id.into(), secret_key: secret.into() });
    let other = S3Config { credentials: Some(served::keys(id, secret)), ..served::config(&server) };
    let other = S3Store::connect(other).await.unwrap();
    server.credentials().set(id, staithe_testkit::Standing::Revoked);
    let refused = other.head(HeadRequest::latest(key())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CredentialsRefused);
    server.credentials().set(id, staithe_testkit::Standing::Expired);
    let expired = other.head(HeadRequest::latest(key())).await.unwrap_err();
    assert_eq!(expired.kind(), ErrorKind::CredentialsExpired);
    server.credentials().set(id, staithe_testkit::Standing::Forbidden);
    assert_eq!(other.head(HeadRequest::latest(key())).await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(other.probe().await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert!(store.head(HeadRequest::latest(key())).await.is_ok());
}

#[tokio::test]
async fn a_cut_body_is_worth_another_get() {
    let (server, store) = loaded().await;
    let when = When::operation(Operation::GetObject).once();
    server.faults().inject(when, Fault::CutBody { after: 1000 });
    let error = get(&store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert_eq!(get(&store).await.unwrap(), SIZE);
}

#[tokio::test]
async fn a_damaged_body_is_found_by_its_checksum() {
    let (server, store) = loaded().await;
    let when = When::operation(Operation::GetObject).once();
    server.faults().inject(when, Fault::CorruptByte { at: 150_000 });
    assert_eq!(get(&store).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(get(&store).await.unwrap(), SIZE);
}

#[tokio::test]
async fn silence_is_a_time_out() {
    let (server, _) = loaded().await;
    let config = S3Config {
        first_byte_timeout: Duration::from_millis(50),
        max_attempts: 2,
        probe_conditions: false,
        ..served::config(&server)
    };
    let store = S3Store::connect(config).await.unwrap();
    let injected = server.faults().inject(When::operation(Operation::HeadObject), Fault::BlackHole);
    let error = store.head(HeadRequest::latest(key())).await.unwrap_err();
    assert_eq!((error.kind(), injected.hits()), (ErrorKind::Timeout, 2));
}

#[tokio::test]
async fn a_retried_conditional_put_meets_its_own_result() {
    let (server, store) = loaded().await;
    store.delete(staithe_store::DeleteRequest::latest(key())).await.unwrap();
    server.faults().inject(When::operation(Operation::PutObject).once(), Fault::ResetAfter);
    let error = put(&store, PutCondition::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(get(&store).await.unwrap(), SIZE);
}

#[tokio::test]
async fn a_conflict_of_conditional_puts_is_tried_again() {
    let (server, store) = loaded().await;
    let conflict = staithe_testkit::Refusal::new(http_status(409), "ConditionalRequestConflict");
    let when = When::operation(Operation::PutObject).once();
    server.faults().inject(when, Fault::Refuse(conflict));
    assert_eq!(put(&store, PutCondition::IfAbsent).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

fn http_status(status: u16) -> http::StatusCode {
    http::StatusCode::from_u16(status).unwrap()
}

#[tokio::test]
async fn a_probe_opens_a_connection_of_its_own() {
    let (server, store) = loaded().await;
    let before = server.connections();
    store.probe().await.unwrap();
    store.probe().await.unwrap();
    assert_eq!(server.connections(), before + 2);
}

#[tokio::test]
async fn batches_are_replaced_where_the_server_takes_none() {
    let (server, store) = loaded().await;
    let refusal = staithe_testkit::Refusal::new(http_status(501), "NotImplemented");
    let injected = server.faults().inject(When::operation(Operation::DeleteObjects), Fault::Refuse(refusal));
    let keys: Vec<_> = (0..5).map(|n| Key::new(format!("k{n}")).unwrap()).chain([key()]).collect();
    for _ in 0..2 {
        assert!(store.delete_batch(&keys).await.unwrap().is_empty());
    }
    assert_eq!(injected.hits(), 1);
    assert_eq!(get(&store).await.unwrap_err().kind(), ErrorKind::NotFound);
}

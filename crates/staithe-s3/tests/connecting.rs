//! What `connect` says of buckets, credentials and servers, and what it finds out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod served;

use staithe_s3::{S3Config, S3Store, UploadChecksum};
use staithe_store::{
    Capabilities, ErrorKind, Key, ListRequest, NewObject, ObjectStore, Payload, PutCondition,
};
use staithe_testkit::{Fault, Operation, Refusal, S3Server, Standing, Versioning, When};

async fn server(versioning: Versioning) -> S3Server {
    let server = S3Server::start().await.unwrap();
    server.create_bucket(served::BUCKET, versioning);
    server
}

async fn kind(config: S3Config) -> ErrorKind {
    S3Store::connect(config).await.unwrap_err().kind()
}

#[tokio::test]
async fn each_obstacle_is_told_as_what_it_is() {
    let server = server(Versioning::Off).await;
    let config = || served::config(&server);
    assert_eq!(kind(S3Config { bucket: "elsewhere".into(), ..config() }).await, ErrorKind::VolumeGone);
    let unknown = Some(served::keys("nobody", "nothing"));
    assert_eq!(kind(S3Config { credentials: unknown, ..config() }).await, ErrorKind::CredentialsRefused);
    let wrong = Some(served::keys(&server.key_pair().access_key, "wrong"));
    assert_eq!(kind(S3Config { credentials: wrong, ..config() }).await, ErrorKind::CredentialsRefused);
    let nowhere = Some("http://127.0.0.1:1".to_owned());
    assert_eq!(kind(S3Config { endpoint_url: nowhere, ..config() }).await, ErrorKind::Unavailable);
    let unnamed = Some("http://no-such-host.invalid".to_owned());
    assert_eq!(kind(S3Config { endpoint_url: unnamed, ..config() }).await, ErrorKind::Unavailable);
    server.credentials().set(&server.key_pair().access_key, Standing::Forbidden);
    assert_eq!(kind(config()).await, ErrorKind::Forbidden);
}

#[tokio::test]
async fn public_buckets_need_no_credentials() {
    let server = server(Versioning::Off).await;
    let config = || S3Config { credentials: None, no_sign_request: true, ..served::config(&server) };
    assert_eq!(kind(config()).await, ErrorKind::Forbidden);
    server.credentials().allow_anonymous(true);
    S3Store::connect(config()).await.unwrap();
}

#[tokio::test]
async fn the_probe_leaves_nothing_behind() {
    for versioning in [Versioning::Off, Versioning::On] {
        for ignores in [false, true] {
            let server = server(versioning).await;
            server.modes().ignore_conditions(ignores);
            let store = served::open(&server).await;
            let can = store.capabilities();
            let found = [can.put_if_absent, can.put_if_match, can.delete_if_match];
            assert_eq!(found, [!ignores; 3], "ignores: {ignores}, {can:#?}");
            assert!(store.list(ListRequest::default()).await.unwrap().objects.is_empty());
            assert!(store.list_multiparts("", None).await.unwrap().uploads.is_empty());
            if can.versions {
                assert!(store.list_versions("", None).await.unwrap().entries.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn an_ignored_condition_is_refused_before_it_is_sent() {
    let server = server(Versioning::Off).await;
    server.modes().ignore_conditions(true);
    let store = served::open(&server).await;
    let before = server.requests().count(Operation::PutObject);
    let (key, body) = (Key::new("k").unwrap(), Payload::from("x"));
    let refused = store.put(&key, body, NewObject::default(), PutCondition::IfAbsent).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(server.requests().count(Operation::PutObject), before);
}

#[tokio::test]
async fn without_the_right_to_write_no_condition_is_promised() {
    let server = server(Versioning::Off).await;
    server.credentials().set(&server.key_pair().access_key, Standing::ReadOnly);
    let store = served::open(&server).await;
    assert!(!store.capabilities().put_if_absent);
}

#[tokio::test]
async fn a_checksum_that_the_server_refuses_is_lowered() {
    let server = server(Versioning::Off).await;
    let refusal = Refusal::new(http::StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    let first_puts = When::operation(Operation::PutObject).times(2);
    let injected = server.faults().inject(first_puts, Fault::Refuse(refusal));
    let store = served::open(&server).await;
    assert_eq!(injected.hits(), 2);
    assert_eq!(store.upload_checksum(), UploadChecksum::Md5);
    assert_eq!(store.capabilities(), &Capabilities::S3);
}

#[tokio::test]
async fn read_only_use_writes_nothing() {
    let server = server(Versioning::Off).await;
    S3Store::connect(S3Config { probe_conditions: false, ..served::config(&server) }).await.unwrap();
    let tally = server.requests().tally();
    assert_eq!(tally.of(Operation::PutObject).requests, 0);
    assert_eq!(tally.total().requests, 2, "one HEAD, one question about versions");
}

#[tokio::test]
async fn a_renewal_asks_the_bucket_and_finds_out_nothing_else() {
    let server = server(Versioning::On).await;
    let refusal = Refusal::new(http::StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    let first_puts = When::operation(Operation::PutObject).times(2);
    server.faults().inject(first_puts, Fault::Refuse(refusal));
    let store = served::open(&server).await;
    let before = server.requests().tally();
    let renewed = store.renewed(None).await.unwrap();
    let tally = server.requests().tally().since(&before);
    assert_eq!((tally.of(Operation::HeadBucket).requests, tally.total().requests), (1, 1));
    assert_eq!((renewed.capabilities(), renewed.volume()), (store.capabilities(), store.volume()));
    assert_eq!(renewed.upload_checksum(), UploadChecksum::Md5);

    server.credentials().set(&server.key_pair().access_key, Standing::Revoked);
    assert_eq!(store.renewed(None).await.unwrap_err().kind(), ErrorKind::CredentialsRefused);
    server.stop();
    assert_eq!(store.renewed(None).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_probe_costs_fourteen_requests() {
    let server = server(Versioning::Off).await;
    served::open(&server).await;
    let tally = server.requests().tally();
    let asked = [Operation::HeadBucket, Operation::GetBucketVersioning].map(|o| tally.of(o).requests);
    assert_eq!(asked, [1, 1]);
    assert_eq!(tally.total().requests - 2, 14);
}

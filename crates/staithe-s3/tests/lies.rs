//! What the store makes of a server that says wrong things of what it stored, or stores wrong things.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod served;

use staithe_s3::{S3Config, S3Store, UploadChecksum};
use staithe_store::{
    Crc64Nvme, ErrorKind, GetRequest, HeadRequest, Key, MultipartUpload, NewObject, ObjectStore, PartNumber,
    PartReceipt, Payload, PutCondition, Result, Written,
};
use staithe_testkit::{Fault, Operation, S3Server, Versioning, When};

const PART: usize = 5 << 20;

fn key() -> Key {
    Key::new("cargo").unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 3 + n / 1000) as u8).collect()
}

fn server() -> S3Server {
    let server = S3Server::start_blocking().unwrap();
    server.create_bucket(served::BUCKET, Versioning::Off);
    server
}

async fn with(server: &S3Server, upload_checksum: UploadChecksum) -> S3Store {
    S3Store::connect(S3Config { upload_checksum, ..served::config(server) }).await.unwrap()
}

async fn put(store: &S3Store) -> Result<Written> {
    store.put(&key(), bytes(100_000).into(), NewObject::default(), PutCondition::Always).await
}

async fn begin(store: &S3Store) -> MultipartUpload {
    store.create_multipart(&key(), NewObject::default()).await.unwrap()
}

async fn part(store: &S3Store, upload: &MultipartUpload, n: u16, len: usize) -> Result<PartReceipt> {
    store.upload_part(upload, PartNumber::new(n).unwrap(), bytes(len).into()).await
}

async fn upload(store: &S3Store) -> Result<Written> {
    let upload = begin(store).await;
    let parts = [part(store, &upload, 1, PART).await?, part(store, &upload, 2, 1000).await?];
    store.complete_multipart(&upload, &parts, PutCondition::Always).await
}

fn found_out(server: &S3Server, fault: Fault, operation: Operation) -> impl Fn(StoreErrorOf<'_>) {
    let injected = server.faults().inject(When::operation(operation).key("cargo"), fault);
    move |(what, outcome)| {
        let error = outcome.expect_err(what);
        assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(&key())), "{what}: {error}");
        assert!(error.to_string().contains("the server says it stored"), "{error}");
        // It is not asked again here: what it did may stand.
        assert_eq!(injected.hits(), 1, "{what}");
        injected.remove();
    }
}

/// What was tried, and how it ended.
type StoreErrorOf<'a> = (&'a str, Result<Written>);

#[tokio::test]
async fn a_wrong_checksum_and_a_lost_byte_are_found_out_wherever_they_happen() {
    let server = server();
    let store = served::open(&server).await;
    for (what, fault) in [
        ("another checksum", Fault::WrongChecksum),
        ("a byte less", Fault::LoseByte { at: 777 }),
        ("the first byte", Fault::LoseByte { at: 0 }),
        ("another byte", Fault::SpoilByte { at: 900 }),
    ] {
        let told = found_out(&server, fault.clone(), Operation::PutObject);
        told((what, put(&store).await));
        let told = found_out(&server, fault.clone(), Operation::UploadPart);
        told((what, upload(&store).await));
        let told = found_out(&server, fault, Operation::CompleteMultipartUpload);
        told((what, upload(&store).await));
    }
    put(&store).await.unwrap();
    upload(&store).await.unwrap();
}

#[tokio::test]
async fn where_the_sum_is_an_md5_the_tag_is_compared() {
    let server = server();
    let store = with(&server, UploadChecksum::Md5).await;
    for fault in [Fault::WrongTag, Fault::LoseByte { at: 99_999 }] {
        let told = found_out(&server, fault.clone(), Operation::PutObject);
        told(("a put", put(&store).await));
    }
    let told = found_out(&server, Fault::WrongTag, Operation::UploadPart);
    told(("a part", upload(&store).await));
    // The tag of the whole is none.
    server.faults().inject(When::operation(Operation::CompleteMultipartUpload), Fault::WrongTag);
    upload(&store).await.unwrap();
    // With another sum, a tag is a tag.
    let store = served::open(&server).await;
    server.faults().inject(When::operation(Operation::PutObject), Fault::WrongTag);
    put(&store).await.unwrap();
    let none = with(&server, UploadChecksum::Off).await;
    put(&none).await.unwrap();
}

#[tokio::test]
async fn the_server_is_told_what_the_whole_must_be_and_refuses_another() {
    let server = server();
    let store = served::open(&server).await;
    let upload = begin(&store).await;
    let parts = [part(&store, &upload, 1, PART).await.unwrap(), part(&store, &upload, 2, 9).await.unwrap()];
    assert!(parts.iter().all(|part| part.crc64.is_some()));
    let refused = |change: fn(&mut PartReceipt)| {
        let mut parts = parts.clone();
        change(&mut parts[1]);
        let (store, upload) = (&store, &upload);
        async move {
            let refused = store.complete_multipart(upload, &parts, PutCondition::Always).await;
            refused.unwrap_err().kind()
        }
    };
    assert_eq!(refused(|part| part.crc64 = Some(Crc64Nvme(1))).await, ErrorKind::Corrupt);
    let shorter = |part: &mut PartReceipt| (part.size, part.crc64) = (8, None);
    assert_eq!(refused(shorter).await, ErrorKind::Invalid);
    let missing = store.head(HeadRequest::latest(key())).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    store.complete_multipart(&upload, &parts, PutCondition::Always).await.unwrap();
}

#[tokio::test]
async fn parts_that_the_server_copies_count_in_the_whole() {
    let server = server();
    let store = served::open(&server).await;
    let source = Key::new("source").unwrap();
    let body = bytes(PART + 10);
    let version =
        store.put(&source, body.clone().into(), NewObject::default(), PutCondition::Always).await.unwrap();
    let upload = begin(&store).await;
    let (one, two) = (PartNumber::new(1).unwrap(), PartNumber::new(2).unwrap());
    let range = 10..body.len() as u64;
    let copied = store.upload_part_copy(&upload, one, &source, &version.version, range).await.unwrap();
    assert_eq!((copied.size, copied.crc64.is_some()), (PART as u64, true));
    let parts = [copied, store.upload_part(&upload, two, Payload::from("end")).await.unwrap()];
    let told = found_out(&server, Fault::LoseByte { at: 5 }, Operation::CompleteMultipartUpload);
    told(("the whole", store.complete_multipart(&upload, &parts, PutCondition::Always).await));
}

#[tokio::test]
async fn the_checksum_of_an_object_is_told_where_it_is_kept() {
    let server = server();
    let store = served::open(&server).await;
    let sum = |store: &S3Store| {
        let store = store.clone();
        async move { store.checksum(HeadRequest::latest(key())).await }
    };
    assert_eq!(sum(&store).await.unwrap_err().kind(), ErrorKind::NotFound);
    put(&store).await.unwrap();
    let one = sum(&store).await.unwrap().unwrap();
    upload(&store).await.unwrap();
    let whole = sum(&store).await.unwrap().unwrap();
    assert_ne!(one, whole);
    let get = store.get(GetRequest { key: key(), range: None, version: None }).await.unwrap();
    let version = Some(get.meta.version);
    assert_eq!(store.checksum(HeadRequest { key: key(), version }).await.unwrap(), Some(whole));
    let none = with(&server, UploadChecksum::Off).await;
    assert_eq!(sum(&none).await.unwrap(), None);
    put(&none).await.unwrap();
    assert_eq!(sum(&store).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_miscomputes_a_checksum_is_given_another_one() {
    let server = server();
    let miscomputes = server.faults().inject(When::any(), Fault::WrongChecksum);
    let store = served::open(&server).await;
    assert_eq!(store.upload_checksum(), UploadChecksum::Md5);
    assert!(store.capabilities().put_if_absent && store.capabilities().put_if_match);
    put(&store).await.unwrap();
    upload(&store).await.unwrap();
    assert_eq!(store.checksum(HeadRequest::latest(key())).await.unwrap(), None);
    let told = found_out(&server, Fault::LoseByte { at: 0 }, Operation::PutObject);
    told(("a put", put(&store).await));
    miscomputes.remove();
    // Wrong once is an accident.
    server.faults().inject(When::operation(Operation::PutObject).once(), Fault::WrongChecksum);
    let store = served::open(&server).await;
    assert_eq!(store.upload_checksum(), UploadChecksum::Crc64Nvme);
    assert!(store.capabilities().put_if_absent);
}

//! Every fault does to a real connection what it says, to the requests that it is told, and to no other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as a test does")]

mod support;

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use staithe_testkit::{Fault, Operation, Standing, When, wait_until};
use support::{Connection, get, open_server, put, send};

const PATIENCE: Duration = Duration::from_secs(30);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn a_refusal_answers_and_has_no_effect() {
    let server = open_server();
    let fault = Fault::slow_down(Some(Duration::from_secs(2)));
    let injected = server.faults().inject(When::operation(Operation::PutObject).once(), fault);
    let refused = put(&server, "/b/k", &pattern(100_000)).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (503, "SlowDown"));
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(server.store("b").unwrap().object_count(), 0);
    assert_eq!(put(&server, "/b/k", b"x").unwrap().status, 200);
    assert_eq!(injected.hits(), 1);
}

#[test]
fn refusals_have_the_status_and_code_of_s3() {
    let server = open_server();
    let table = [
        (Fault::internal_error(), 500, "InternalError"),
        (Fault::access_denied(), 403, "AccessDenied"),
        (Fault::expired_token(), 400, "ExpiredToken"),
        (Fault::unknown_credentials(), 403, "InvalidAccessKeyId"),
        (Fault::no_such_bucket(), 404, "NoSuchBucket"),
    ];
    for (fault, status, code) in table {
        let injected = server.faults().inject(When::any(), fault);
        let answer = get(&server, "/b/k").unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        let head = send(&server, "HEAD /b/k", &[], b"").unwrap();
        assert_eq!((head.status, head.body.len()), (status, 0));
        injected.remove();
    }
    assert_eq!(get(&server, "/b/k").unwrap().code(), "NoSuchKey");
}

#[test]
fn a_reset_before_the_effect_leaves_the_store_alone() {
    let server = open_server();
    server.faults().inject(When::operation(Operation::PutObject).once(), Fault::ResetBefore);
    let error = put(&server, "/b/k", b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.store("b").unwrap().object_count(), 0);
}

#[test]
fn a_reset_after_the_effect_comes_after_it() {
    let server = open_server();
    server.faults().inject(When::operation(Operation::PutObject).once(), Fault::ResetAfter);
    let error = put(&server, "/b/k", b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(get(&server, "/b/k").unwrap().body, b"x");
}

#[test]
fn a_cut_body_promises_more_than_it_sends() {
    let server = open_server();
    let body = pattern(1 << 20);
    put(&server, "/b/k", &body).unwrap();
    for after in [0, 1, 100_000, 300_000] {
        let fault = Fault::CutBody { after: after as u64 };
        server.faults().inject(When::operation(Operation::GetObject).once(), fault);
        let answer = get(&server, "/b/k").unwrap();
        assert_eq!(answer.header("content-length"), body.len().to_string());
        assert!(answer.is_short);
        assert_eq!(answer.body, body[..after]);
        server.faults().clear();
    }
}

#[test]
fn a_stalled_body_sends_its_beginning_and_keeps_the_connection() {
    let server = open_server();
    let body = pattern(1 << 20);
    put(&server, "/b/k", &body).unwrap();
    for after in [0, 1, 100_000] {
        server.faults().inject(When::operation(Operation::GetObject).once(), Fault::StallBody { after });
        let mut connection = Connection::open(&server).unwrap();
        connection.give_up_after(Duration::from_millis(200)).unwrap();
        let error = connection.send("GET /b/k", &[], b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(wait_until(PATIENCE, || server.requests().records().last().unwrap().bytes_out == after));
        assert!(get(&server, "/b/k").unwrap().body == body);
        server.faults().clear();
    }
}

#[test]
fn a_corrupt_byte_is_one_byte() {
    let server = open_server();
    let body = pattern(1 << 20);
    put(&server, "/b/k", &body).unwrap();
    let when = When::operation(Operation::GetObject).key("k").nth(2);
    server.faults().inject(when, Fault::CorruptByte { at: 700_000 });
    assert!(get(&server, "/b/k").unwrap().body == body);
    let corrupt = get(&server, "/b/k").unwrap().body;
    let wrong: Vec<usize> = (0..body.len()).filter(|i| body[*i] != corrupt[*i]).collect();
    assert_eq!(wrong, [700_000]);
}

#[test]
fn a_black_hole_swallows_the_request_and_keeps_the_connection() {
    let server = open_server();
    server.faults().inject(When::operation(Operation::PutObject).once(), Fault::BlackHole);
    let mut connection = Connection::open(&server).unwrap();
    connection.give_up_after(Duration::from_millis(200)).unwrap();
    let error = connection.send("PUT /b/k", &[], b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(server.store("b").unwrap().object_count(), 0);
    assert_eq!(put(&server, "/b/k", b"x").unwrap().status, 200);
}

#[test]
fn delays_take_their_time() {
    let server = open_server();
    let wait = Duration::from_millis(120);
    for fault in [Fault::DelayRequest(wait), Fault::DelayResponse(wait)] {
        server.faults().inject(When::operation(Operation::PutObject).once(), fault);
        let start = Instant::now();
        put(&server, "/b/k", b"x").unwrap();
        assert!(start.elapsed() >= wait);
        server.faults().clear();
    }
    server.modes().set_latency(wait);
    let start = Instant::now();
    get(&server, "/b/k").unwrap();
    assert!(start.elapsed() >= wait);
}

#[test]
fn bandwidth_limits_both_ways_and_ends_with_the_fault() {
    let server = open_server();
    let body = pattern(1 << 20);
    let least = Duration::from_millis(400);
    server.modes().set_bandwidth(Some(2 << 20));
    let start = Instant::now();
    put(&server, "/b/k", &body).unwrap();
    assert!(start.elapsed() >= least, "upload took {:?}", start.elapsed());
    server.modes().set_bandwidth(None);
    let when = When::operation(Operation::GetObject).once();
    server.faults().inject(when, Fault::Bandwidth(2 << 20));
    let mut connection = Connection::open(&server).unwrap();
    let start = Instant::now();
    assert!(connection.send("GET /b/k", &[], b"").unwrap().body == body);
    assert!(start.elapsed() >= least, "download took {:?}", start.elapsed());
    let start = Instant::now();
    assert!(connection.send("GET /b/k", &[], b"").unwrap().body == body);
    assert!(start.elapsed() < least, "the limit outlived its request: {:?}", start.elapsed());
}

#[test]
fn a_held_response_grows_old() {
    let server = open_server();
    put(&server, "/b/k", b"old").unwrap();
    let hold = server.faults().hold_responses(When::operation(Operation::GetObject).once());
    thread::scope(|scope| {
        let reader = scope.spawn(|| get(&server, "/b/k").unwrap().body);
        assert!(hold.wait_for_blocking(1, PATIENCE));
        put(&server, "/b/k", b"new").unwrap();
        hold.release();
        assert_eq!(reader.join().unwrap(), b"old");
    });
    assert_eq!(get(&server, "/b/k").unwrap().body, b"new");
}

#[test]
fn a_held_request_has_no_effect_until_it_is_released() {
    let server = open_server();
    let hold = server.faults().hold_requests(When::mutation());
    thread::scope(|scope| {
        let writer = scope.spawn(|| put(&server, "/b/k", b"x").unwrap().status);
        assert!(hold.wait_for_blocking(1, PATIENCE));
        assert_eq!(get(&server, "/b/k").unwrap().status, 404);
        hold.release();
        assert_eq!(writer.join().unwrap(), 200);
    });
    assert_eq!(get(&server, "/b/k").unwrap().body, b"x");
}

#[test]
fn a_server_may_ignore_the_conditions_of_writes() {
    let server = open_server();
    let absent = [("if-none-match", "*")];
    put(&server, "/b/k", b"1").unwrap();
    assert_eq!(send(&server, "PUT /b/k", &absent, b"2").unwrap().code(), "PreconditionFailed");
    server.modes().ignore_conditions(true);
    assert_eq!(send(&server, "PUT /b/k", &absent, b"2").unwrap().status, 200);
    let other = [("if-match", "\"0123\"")];
    assert_eq!(send(&server, "PUT /b/k", &other, b"3").unwrap().status, 200);
    assert_eq!(send(&server, "DELETE /b/k", &other, b"").unwrap().status, 204);
    server.modes().ignore_conditions(false);
    assert_eq!(send(&server, "PUT /b/k", &absent, b"4").unwrap().status, 200);
}

#[test]
fn a_stopped_server_is_out_of_reach_and_comes_back_with_its_data() {
    let server = open_server();
    put(&server, "/b/k", b"x").unwrap();
    let mut open = Connection::open(&server).unwrap();
    assert_eq!(open.send("GET /b/k", &[], b"").unwrap().body, b"x");
    server.stop();
    assert!(open.send("GET /b/k", &[], b"").is_err());
    assert_eq!(get(&server, "/b/k").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    server.restart().unwrap();
    assert_eq!(get(&server, "/b/k").unwrap().body, b"x");
    let endpoint = server.endpoint();
    server.restart().unwrap();
    assert_eq!(server.endpoint(), endpoint);
    assert_eq!(get(&server, "/b/k").unwrap().body, b"x");
}

#[test]
fn a_deleted_bucket_is_gone_for_everybody() {
    let server = open_server();
    put(&server, "/b/k", b"x").unwrap();
    let store = server.store("b").unwrap();
    assert!(server.delete_bucket("b"));
    assert_eq!(get(&server, "/b/k").unwrap().code(), "NoSuchBucket");
    assert_eq!(store.object_count(), 0);
    assert!(!server.delete_bucket("b"));
}

#[test]
fn unsigned_requests_are_refused_until_they_are_allowed() {
    let server = open_server();
    server.credentials().allow_anonymous(false);
    assert_eq!(get(&server, "/b/k").unwrap().code(), "AccessDenied");
    server.credentials().set("nobody", Standing::Good);
    let signed = [(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=nobody/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
    )];
    assert!(send(&server, "GET /b/k", &signed, b"").unwrap().status >= 400);
}

#[test]
fn the_log_has_every_request_with_its_bytes() {
    let server = open_server();
    let before = server.requests().tally();
    put(&server, "/b/k", &pattern(1000)).unwrap();
    send(&server, "GET /b/k", &[("range", "bytes=0-99")], b"").unwrap();
    get(&server, "/b/missing").unwrap();
    let since = server.requests().tally().since(&before);
    assert_eq!(since.total().requests, 3);
    assert_eq!(since.of(Operation::PutObject).bytes_in, 1000);
    assert_eq!(since.of(Operation::GetObject).requests, 2);
    assert_eq!(since.of(Operation::GetObject).errors, 1);
    assert_eq!(server.requests().count(Operation::HeadObject), 0);
    let records = server.requests().records();
    let ranged = records.iter().find(|r| r.range.is_some()).unwrap();
    assert_eq!(ranged.range.as_deref(), Some("bytes=0-99"));
    assert_eq!((ranged.status, ranged.bytes_out), (Some(206), 100));
    assert_eq!((ranged.bucket.as_deref(), ranged.key.as_deref()), (Some("b"), Some("k")));
    assert_eq!(server.connections(), 3);
}

//! What the server says on the wire, seen without a client library between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as a test does")]

mod support;

use staithe_testkit::{S3Server, Versioning};
use support::{Connection, get, open_server, put, send};

#[test]
fn small_answers_are_not_held_back() {
    let server = open_server();
    put(&server, "/b/k", b"x").unwrap();
    let mut connection = Connection::open(&server).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(connection.send("GET /b/k", &[], b"").unwrap().body, b"x");
    }
    // A delayed acknowledgement costs 40 ms each.
    assert!(start.elapsed().as_millis() < 50 * 40, "50 requests took {:?}", start.elapsed());
    assert_eq!(server.connections(), 2);
}

#[test]
fn ranges_are_those_of_http() {
    let server = open_server();
    put(&server, "/b/k", b"0123456789").unwrap();
    let table = [
        ("bytes=0-0", 206, "0", "bytes 0-0/10"),
        ("bytes=3-", 206, "3456789", "bytes 3-9/10"),
        ("bytes=-4", 206, "6789", "bytes 6-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
    ];
    for (range, status, body, content_range) in table {
        let answer = send(&server, "GET /b/k", &[("range", range)], b"").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
    }
    let beyond = send(&server, "GET /b/k", &[("range", "bytes=10-")], b"").unwrap();
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "InvalidRange"));
    let head = send(&server, "HEAD /b/k", &[], b"").unwrap();
    assert_eq!((head.header("content-length"), head.header("accept-ranges")), ("10", "bytes"));
}

#[test]
fn wrong_checksums_are_refused_and_right_ones_kept() {
    let server = open_server();
    let table = [
        ("x-amz-checksum-crc32", "y/Q5Jg==", "AAAAAA=="),
        ("x-amz-checksum-crc32c", "4waSgw==", "AAAAAA=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg=", "AAAAAAAAAAA="),
        (
            "x-amz-checksum-sha256",
            "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ),
    ];
    for (name, right, wrong) in table {
        let refused = send(&server, "PUT /b/k", &[(name, wrong)], b"123456789").unwrap();
        assert_eq!(refused.code(), "BadDigest", "{name}");
        assert_eq!(get(&server, "/b/k").unwrap().status, 404);
        let taken = send(&server, "PUT /b/k", &[(name, right)], b"123456789").unwrap();
        assert_eq!((taken.status, taken.header(name)), (200, right));
        let plain = get(&server, "/b/k").unwrap();
        assert_eq!(plain.header(name), "");
        let asked = send(&server, "GET /b/k", &[("x-amz-checksum-mode", "ENABLED")], b"").unwrap();
        assert_eq!(asked.header(name), right);
        send(&server, "DELETE /b/k", &[], b"").unwrap();
    }
}

#[test]
fn the_md5_of_a_body_is_checked() {
    let server = open_server();
    let header = |value| [("content-md5", value)];
    let right = header("JfnnlDI7RTiF9RgfG2JNCw==");
    assert_eq!(send(&server, "PUT /b/k", &right, b"123456789").unwrap().status, 200);
    assert_eq!(send(&server, "PUT /b/k", &right, b"12345678x").unwrap().code(), "BadDigest");
    assert_eq!(send(&server, "PUT /b/k", &header("nonsense"), b"x").unwrap().code(), "InvalidDigest");
}

#[test]
fn the_old_listing_pages_over_prefixes() {
    let server = open_server();
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        put(&server, &format!("/b/{key}"), b"x").unwrap();
    }
    let mut marker = String::new();
    let mut names = Vec::new();
    for _ in 0..4 {
        let page = get(&server, &format!("/b?delimiter=/&max-keys=1&marker={marker}")).unwrap();
        let (key, prefix) = (page.element("Key"), page.element("CommonPrefixes"));
        names.push(if key.is_empty() {
            prefix.replace("<Prefix>", "").replace("</Prefix>", "")
        } else {
            key
        });
        marker = page.element("NextMarker");
        assert_eq!(page.element("IsTruncated") == "true", names.len() < 4);
    }
    assert_eq!(names, ["a/", "b", "c/", "d"]);
}

#[test]
fn buckets_are_apart() {
    let server = S3Server::start_blocking().unwrap();
    server.credentials().allow_anonymous(true);
    assert!(server.create_bucket("one", Versioning::Off));
    assert!(server.create_bucket("two", Versioning::On));
    assert!(!server.create_bucket("one", Versioning::On));
    put(&server, "/one/k", b"1").unwrap();
    let written = put(&server, "/two/k", b"2").unwrap();
    assert!(!written.header("x-amz-version-id").is_empty());
    assert_eq!(get(&server, "/one/k").unwrap().body, b"1");
    assert_eq!(get(&server, "/two/k").unwrap().body, b"2");
    assert_eq!(get(&server, "/three/k").unwrap().code(), "NoSuchBucket");
    let copied = send(&server, "PUT /one/copy", &[("x-amz-copy-source", "two/k")], b"").unwrap();
    assert_eq!(copied.status, 200, "{}", copied.text());
    assert_eq!(get(&server, "/one/copy").unwrap().body, b"2");
}

#[test]
fn a_server_can_be_dropped_inside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let server = S3Server::start().await.unwrap();
        let address = server.address();
        drop(server);
        assert!(std::net::TcpStream::connect(address).is_err());
    });
}

//! The same operations, driven by boto3 against this server and against moto, get the same answers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as a test does")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use staithe_testkit::{Moto, S3Server, Standing, Versioning};

/// Where the two differ, and why that is right.
const DIFFERENCES: &[(&str, &str)] = &[
    ("complete again", "S3 forgets an upload that is completed; moto keeps it"),
    ("complete, wrong tag", "moto does not compare tags"),
    ("complete, missing part", "moto leaves out parts that it does not have"),
    ("copy if match, other", "moto ignores conditions on the source of a copy"),
    ("copy part beyond", "moto cuts the range to the source; S3 refuses it"),
    ("copy part of missing", "moto answers 404 without a code"),
    ("delete batch, quiet", "moto does not know the quiet mode"),
    ("delete marker", "moto does not say that the version it removes is a delete marker"),
    ("get marker", "S3 answers 405 to a GET of a delete marker, moto 404"),
    ("list old marker", "moto does not repeat the marker"),
    ("list parts after", "moto forgets that there are more parts"),
    ("put long key", "moto takes keys of any length"),
    ("put with wrong crc32", "moto does not check checksums"),
    ("put with wrong md5", "moto does not check Content-MD5"),
    ("upload part, no upload", "moto fails with 500"),
];

/// Runs the script with these variables, and returns what it prints.
fn boto3(arguments: &[&str], env: Vec<(String, String)>) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boto3_ops.py");
    let output = Command::new("python3")
        .arg(script)
        .args(arguments)
        .envs(env)
        .output()
        .expect("python3 is needed to run boto3; install it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("No module named 'boto"), "boto3 is needed: install it with `pip install boto3`");
    assert!(output.status.success(), "boto3 fails: {said}");
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

fn by_name(answers: &Value) -> BTreeMap<String, Value> {
    let list = answers.as_array().expect("a list of answers");
    list.iter().map(|pair| (pair[0].as_str().expect("a name").to_owned(), pair[1].clone())).collect()
}

#[test]
fn answers_as_moto_does() {
    let moto = Moto::start().expect("moto starts");
    let server = S3Server::start_blocking().unwrap();
    let theirs = by_name(&boto3(&["compare"], moto.env()));
    let ours = by_name(&boto3(&["compare"], server.env()));
    let mut differs = Vec::new();
    for (name, answer) in &ours {
        let same = theirs.get(name) == Some(answer);
        let is_known = DIFFERENCES.iter().any(|(known, _)| known == name);
        match (same, is_known) {
            (true, true) => differs.push(format!("{name}: listed as a difference, and does not differ")),
            (false, false) => {
                let their = theirs.get(name).map(Value::to_string).unwrap_or_default();
                differs.push(format!("{name}:\n  ours   {answer}\n  theirs {their}"));
            }
            _ => {}
        }
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(differs.is_empty(), "{} answers differ:\n{}", differs.len(), differs.join("\n"));
}

#[test]
fn a_key_pair_is_worth_its_standing() {
    let server = S3Server::start_blocking().unwrap();
    server.create_bucket("bucket", Versioning::Off);
    let key = server.key_pair().access_key.clone();
    let table = [
        (Standing::Good, ["", ""]),
        (Standing::ReadOnly, ["", "AccessDenied"]),
        (Standing::Forbidden, ["AccessDenied", "AccessDenied"]),
        (Standing::Expired, ["ExpiredToken", "ExpiredToken"]),
        (Standing::Revoked, ["InvalidAccessKeyId", "InvalidAccessKeyId"]),
        (Standing::Good, ["", ""]),
    ];
    for (standing, codes) in table {
        server.credentials().set(&key, standing);
        assert_eq!(boto3(&["code", "bucket"], server.env()), serde_json::json!(codes), "{standing:?}");
    }
    let mut wrong = server.env();
    wrong.iter_mut().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap().1 = "wrong".into();
    let codes = boto3(&["code", "bucket"], wrong);
    assert_eq!(codes, serde_json::json!(["SignatureDoesNotMatch", "SignatureDoesNotMatch"]));
}

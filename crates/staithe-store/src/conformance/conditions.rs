//! Conditional writes.

use futures::future::join_all;

use super::case::{Case, Context, Verdict, expect, expect_eq, expect_kind, pattern};
use crate::{Capabilities, DeleteRequest, ErrorKind, PutCondition};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("put_if_absent", if_absent, put_if_absent),
        Case::new("put_if_absent_races", if_absent, put_if_absent_races),
        Case::new("put_if_match", if_match, put_if_match),
        Case::new("put_if_match_races", if_match, put_if_match_races),
        Case::new("put_if_match_of_the_missing", if_match, put_if_match_of_the_missing),
        Case::new("delete_if_match", delete_if_match, delete_with_condition),
        Case::new("unsupported_conditions_are_refused", some_unsupported, unsupported_are_refused),
    ]
}

pub(super) fn if_absent(caps: &Capabilities) -> Option<&'static str> {
    (!caps.put_if_absent).then_some("the store honours no If-None-Match")
}

pub(super) fn if_match(caps: &Capabilities) -> Option<&'static str> {
    (!caps.put_if_match).then_some("the store honours no If-Match")
}

fn delete_if_match(caps: &Capabilities) -> Option<&'static str> {
    (!caps.delete_if_match).then_some("the store honours no If-Match on delete")
}

fn some_unsupported(caps: &Capabilities) -> Option<&'static str> {
    let all = caps.put_if_absent && caps.put_if_match && caps.delete_if_match;
    all.then_some("the store honours every condition")
}

async fn put_if_absent(cx: Context) -> Verdict {
    cx.put_if("d/object", "first", PutCondition::IfAbsent).await??;
    let second = cx.put_if("d/object", "second", PutCondition::IfAbsent).await?;
    expect_kind(&second, ErrorKind::AlreadyExists, "a put of an object that exists, if absent")?;
    cx.expect_body("d/object", b"first").await?;
    cx.delete("d/object").await?;
    cx.put_if("d/object", "third", PutCondition::IfAbsent).await??;
    cx.expect_body("d/object", b"third").await?;
    cx.put_if("m/", "", PutCondition::IfAbsent).await??;
    let marker = cx.put_if("m/", "", PutCondition::IfAbsent).await?;
    expect_kind(&marker, ErrorKind::AlreadyExists, "a put of a marker that exists, if absent")
}

const RACERS: u8 = 12;

async fn race(cx: &Context, name: &str, condition: PutCondition, lost: ErrorKind) -> Verdict {
    let puts = (0..RACERS).map(|i| cx.put_if(name, pattern(i, 5000), condition.clone()));
    let mut winners = Vec::new();
    for (i, result) in (0..RACERS).zip(join_all(puts).await) {
        match result? {
            Ok(_) => winners.push(i),
            Err(error) if error.kind() == lost => {}
            // S3 answers some losers with 409 while the winner commits: they may try again.
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
    }
    expect(winners.len() == 1, || format!("{} of {RACERS} racers won: {winners:?}", winners.len()))?;
    cx.expect_body(name, &pattern(winners.first().copied().unwrap_or_default(), 5000)).await
}

async fn put_if_absent_races(cx: Context) -> Verdict {
    for round in 0..5 {
        let name = format!("d{round}/object");
        race(&cx, &name, PutCondition::IfAbsent, ErrorKind::AlreadyExists).await?;
    }
    Ok(())
}

async fn put_if_match(cx: Context) -> Verdict {
    let first = cx.put("object", "first").await?;
    let second = cx.put_if("object", "second", PutCondition::IfMatch(first.etag.clone())).await??;
    cx.expect_body("object", b"second").await?;
    let stale = cx.put_if("object", "third", PutCondition::IfMatch(first.etag)).await?;
    expect_kind(&stale, ErrorKind::VersionMismatch, "a put over a version that was replaced")?;
    cx.expect_body("object", b"second").await?;
    cx.put_if("object", "fourth", PutCondition::IfMatch(second.version.etag)).await??;
    cx.expect_body("object", b"fourth").await
}

async fn put_if_match_races(cx: Context) -> Verdict {
    for round in 0..5 {
        let name = format!("object{round}");
        let base = cx.put(&name, "base").await?;
        race(&cx, &name, PutCondition::IfMatch(base.etag), ErrorKind::VersionMismatch).await?;
    }
    Ok(())
}

async fn put_if_match_of_the_missing(cx: Context) -> Verdict {
    let version = cx.put("object", "first").await?;
    cx.delete("object").await?;
    let put = cx.put_if("object", "second", PutCondition::IfMatch(version.etag)).await?;
    expect_kind(&put, ErrorKind::VersionMismatch, "a put over an object that is gone, if it matches")?;
    cx.expect_gone("object").await
}

async fn delete_with_condition(cx: Context) -> Verdict {
    let first = cx.put("object", "first").await?;
    let second = cx.put("object", "second").await?;
    let request = |etag| -> Verdict<DeleteRequest> {
        Ok(DeleteRequest { key: cx.key("object")?, if_match: Some(etag), version_id: None })
    };
    let stale = cx.store.delete(request(first.etag)?).await;
    expect_kind(&stale, ErrorKind::VersionMismatch, "a delete of a version that was replaced")?;
    cx.expect_body("object", b"second").await?;
    cx.store.delete(request(second.etag.clone())?).await?;
    cx.expect_gone("object").await?;
    let again = cx.store.delete(request(second.etag)?).await;
    expect_kind(&again, ErrorKind::VersionMismatch, "a delete of an object that is gone, if it matches")
}

async fn unsupported_are_refused(cx: Context) -> Verdict {
    let caps = cx.store.capabilities().clone();
    let version = cx.put("object", "first").await?;
    if !caps.put_if_absent {
        let put = cx.put_if("new", "x", PutCondition::IfAbsent).await?;
        expect_kind(&put, ErrorKind::Unsupported, "a put if absent")?;
    }
    if !caps.put_if_match {
        let put = cx.put_if("object", "x", PutCondition::IfMatch(version.etag.clone())).await?;
        expect_kind(&put, ErrorKind::Unsupported, "a put if it matches")?;
    }
    if !caps.delete_if_match {
        let request =
            DeleteRequest { key: cx.key("object")?, if_match: Some(version.etag), version_id: None };
        let delete = cx.store.delete(request).await;
        expect_kind(&delete, ErrorKind::Unsupported, "a delete if it matches")?;
    }
    cx.expect_body("object", b"first").await?;
    expect_eq(&cx.names().await?, &vec!["object".to_owned()], "what a refused condition left")
}

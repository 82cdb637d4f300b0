//! Server-side copies.

use super::case::{Case, Context, Verdict, expect, expect_eq, expect_kind, pattern};
use super::nothing;
use crate::{Capabilities, CopyRequest, ErrorKind, NewObject, PutCondition, Version};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("copy_keeps_bytes_and_metadata", nothing, keeps_bytes_and_metadata),
        Case::new("copy_replaces_metadata", nothing, replaces_metadata),
        Case::new("copy_over_an_object", nothing, over_an_object),
        Case::new("copy_onto_itself", nothing, onto_itself),
        Case::new("copy_of_the_missing", nothing, of_the_missing),
        Case::new("copy_of_a_stale_source", source_condition, of_a_stale_source),
        Case::new("copy_of_a_marker", nothing, of_a_marker),
    ]
}

fn source_condition(caps: &Capabilities) -> Option<&'static str> {
    (!caps.copy_if_match).then_some("the store honours no condition on the source")
}

fn dressed(note: &str) -> NewObject {
    let metadata = [("note".to_owned(), note.to_owned())].into();
    NewObject { metadata, content_type: Some("text/x-staithe".into()) }
}

fn copy(cx: &Context, from: &str, to: &str) -> Verdict<CopyRequest> {
    Ok(CopyRequest { from: cx.key(from)?, from_version: None, to: cx.key(to)?, replace: None })
}

async fn source(cx: &Context, name: &str) -> Verdict<Version> {
    let body = pattern(1, 400_000).into();
    Ok(cx.store.put(&cx.key(name)?, body, dressed("source"), PutCondition::Always).await?.version)
}

async fn keeps_bytes_and_metadata(cx: Context) -> Verdict {
    source(&cx, "a/source").await?;
    let written = cx.store.copy(copy(&cx, "a/source", "b/c/copy")?).await?;
    cx.expect_body("b/c/copy", &pattern(1, 400_000)).await?;
    let meta = cx.head("b/c/copy", None).await??;
    expect_eq(&meta.version, &written.version, "the version after a copy")?;
    expect_eq(&meta.metadata, &dressed("source").metadata, "the metadata of a copy")?;
    expect_eq(&meta.content_type, &dressed("source").content_type, "the type of a copy")?;
    cx.delete("a/source").await?;
    cx.expect_body("b/c/copy", &pattern(1, 400_000)).await
}

async fn replaces_metadata(cx: Context) -> Verdict {
    source(&cx, "source").await?;
    let request = CopyRequest { replace: Some(dressed("copy")), ..copy(&cx, "source", "copy")? };
    cx.store.copy(request).await?;
    cx.expect_body("copy", &pattern(1, 400_000)).await?;
    let meta = cx.head("copy", None).await??;
    expect_eq(&meta.metadata, &dressed("copy").metadata, "the metadata of a copy that replaces it")
}

async fn over_an_object(cx: Context) -> Verdict {
    source(&cx, "source").await?;
    let old = cx.put("target", "old").await?;
    let written = cx.store.copy(copy(&cx, "source", "target")?).await?;
    expect(written.version != old, || "a copy over an object kept its version".into())?;
    cx.expect_body("target", &pattern(1, 400_000)).await
}

async fn onto_itself(cx: Context) -> Verdict {
    let before = source(&cx, "object").await?;
    let refused = cx.store.copy(copy(&cx, "object", "object")?).await;
    expect_kind(&refused, ErrorKind::Invalid, "a copy onto itself that changes nothing")?;
    let from_version = cx.store.capabilities().copy_if_match.then_some(before);
    let replace = Some(dressed("changed"));
    let request = CopyRequest { from_version, replace, ..copy(&cx, "object", "object")? };
    let written = cx.store.copy(request).await?;
    let meta = cx.head("object", None).await??;
    expect_eq(&meta.version, &written.version, "the version after a copy onto itself")?;
    expect_eq(&meta.metadata, &dressed("changed").metadata, "the metadata after a copy onto itself")?;
    cx.expect_body("object", &pattern(1, 400_000)).await
}

async fn of_the_missing(cx: Context) -> Verdict {
    let missing = cx.store.copy(copy(&cx, "missing", "target")?).await;
    expect_kind(&missing, ErrorKind::NotFound, "a copy of a missing object")?;
    cx.expect_gone("target").await?;
    expect_eq(&cx.names().await?, &Vec::new(), "what a copy of a missing object left")
}

async fn of_a_stale_source(cx: Context) -> Verdict {
    let old = cx.put("source", "old").await?;
    let new = cx.put("source", "new").await?;
    let pinned = |etag| -> Verdict<CopyRequest> {
        Ok(CopyRequest { from_version: Some(Version { etag, id: None }), ..copy(&cx, "source", "target")? })
    };
    let stale = cx.store.copy(pinned(old.etag)?).await;
    expect_kind(&stale, ErrorKind::VersionMismatch, "a copy of a version that was replaced")?;
    cx.expect_gone("target").await?;
    cx.store.copy(pinned(new.etag)?).await?;
    cx.expect_body("target", b"new").await
}

async fn of_a_marker(cx: Context) -> Verdict {
    let from = cx.key("from/")?;
    cx.store.put(&from, "".into(), dressed("marker"), PutCondition::Always).await?;
    cx.put("from/file", "x").await?;
    cx.store.copy(copy(&cx, "from/", "to/")?).await?;
    let meta = cx.head("to/", None).await??;
    expect_eq(&meta.metadata, &dressed("marker").metadata, "the metadata of a copied marker")?;
    let replace = Some(dressed("changed"));
    cx.store.copy(CopyRequest { replace, ..copy(&cx, "to/", "to/")? }).await?;
    let meta = cx.head("to/", None).await??;
    expect_eq(&meta.metadata, &dressed("changed").metadata, "the metadata of a marker copied onto itself")
}

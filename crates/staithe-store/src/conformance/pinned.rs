//! Reads that name the version they mean.

use futures::StreamExt;

use super::case::{Case, Context, Verdict, expect, expect_eq, expect_kind, pattern};
use super::nothing;
use crate::{Capabilities, ETag, ErrorKind, GetRequest, Version};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("pinned_read_of_the_latest", nothing, pinned_read_of_the_latest),
        Case::new("pinned_read_of_a_replaced", unversioned, pinned_read_of_a_replaced),
        Case::new("pinned_read_of_a_deleted", unversioned, pinned_read_of_a_deleted),
        Case::new("pinned_read_of_a_foreign_tag", nothing, pinned_read_of_a_foreign_tag),
        Case::new("listing_and_head_agree_on_tags", nothing, listing_and_head_agree_on_tags),
        Case::new("body_is_of_one_version", nothing, body_is_of_one_version),
    ]
}

fn unversioned(caps: &Capabilities) -> Option<&'static str> {
    caps.versions.then_some("old versions stay readable here")
}

async fn pinned_read_of_the_latest(cx: Context) -> Verdict {
    let version = cx.put("object", "body").await?;
    expect_eq(&cx.head("object", Some(version.clone())).await??.version, &version, "a pinned HEAD")?;
    let (meta, body) = cx.get("object", Some(1..3), Some(version.clone())).await??;
    expect_eq(&meta.version, &version, "the version of a pinned GET")?;
    expect_eq(&&body[..], &&b"od"[..], "the body of a pinned GET")
}

async fn pinned_read_of_a_replaced(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    cx.put("object", "new").await?;
    let head = cx.head("object", Some(old.clone())).await?;
    expect_kind(&head, ErrorKind::VersionMismatch, "a pinned HEAD of a replaced object")?;
    let get = cx.get("object", None, Some(old)).await?;
    expect_kind(&get, ErrorKind::VersionMismatch, "a pinned GET of a replaced object")
}

async fn pinned_read_of_a_deleted(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    cx.delete("object").await?;
    let get = cx.get("object", None, Some(old)).await?;
    expect_kind(&get, ErrorKind::NotFound, "a pinned GET of a deleted object")
}

async fn pinned_read_of_a_foreign_tag(cx: Context) -> Verdict {
    cx.put("object", "body").await?;
    let foreign = Version { etag: ETag::new("\"00000000000000000000000000000000\""), id: None };
    let get = cx.get("object", None, Some(foreign)).await?;
    expect_kind(&get, ErrorKind::VersionMismatch, "a GET pinned to a tag that never was")
}

async fn listing_and_head_agree_on_tags(cx: Context) -> Verdict {
    for name in ["a", "b/c", "b/d/"] {
        cx.put(name, "").await?;
    }
    let objects = cx.objects().await?;
    expect_eq(&objects.len(), &3, "the objects listed")?;
    for object in objects {
        let name = cx.name_of(object.key.as_str())?;
        let meta = cx.head(&name, None).await??;
        expect_eq(&object.etag, &meta.version.etag, &format!("the tag of {name:?} as listed"))?;
        expect_eq(&object.size, &meta.size, &format!("the size of {name:?} as listed"))?;
    }
    Ok(())
}

/// A body that began before a replacement ends in the version it began with, or in an error.
async fn body_is_of_one_version(cx: Context) -> Verdict {
    let (old, new) = (pattern(0, 3 << 20), pattern(255, 3 << 20));
    let version = cx.put("object", old.clone()).await?;
    let request = GetRequest { key: cx.key("object")?, range: None, version: Some(version) };
    let mut body = cx.store.get(request).await?.body;
    let mut read = Vec::new();
    let mut replaced = false;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(bytes) => read.extend_from_slice(&bytes),
            Err(error) => {
                let honest = matches!(
                    error.kind(),
                    ErrorKind::VersionMismatch | ErrorKind::Corrupt | ErrorKind::NotFound
                );
                return expect(honest, || format!("the body of a replaced object ended in {error:?}"));
            }
        }
        if !replaced {
            cx.put("object", new.clone()).await?;
            replaced = true;
        }
    }
    expect(read == old, || "a body mixes two versions, or ends early without an error".into())
}

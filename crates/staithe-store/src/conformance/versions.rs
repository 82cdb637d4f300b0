//! Buckets that keep versions, and those that do not.

use super::case::{Case, Context, Failure, Verdict, expect, expect_eq, expect_kind};
use crate::{Capabilities, CopyRequest, DeleteRequest, ErrorKind, Version, VersionEntry, VersionId};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("versions_are_unsupported", without, are_unsupported),
        Case::new("versions_carry_ids", with, carry_ids),
        Case::new("old_version_is_readable_after_replace", with, readable_after_replace),
        Case::new("old_version_is_readable_after_delete", with, readable_after_delete),
        Case::new("versions_are_listed_newest_first", with, are_listed_newest_first),
        Case::new("removed_version_is_gone_for_good", with, removed_for_good),
        Case::new("removed_delete_marker_brings_back", with, removed_delete_marker_brings_back),
        Case::new("copy_of_an_old_version", with, copy_of_an_old_version),
    ]
}

fn with(caps: &Capabilities) -> Option<&'static str> {
    (!caps.versions).then_some("the bucket keeps no versions")
}

fn without(caps: &Capabilities) -> Option<&'static str> {
    caps.versions.then_some("the bucket keeps versions")
}

async fn are_unsupported(cx: Context) -> Verdict {
    let version = cx.put("object", "x").await?;
    expect_eq(&version.id, &None, "the version id without versions")?;
    let listed = cx.store.list_versions(&cx.prefix, None).await;
    expect_kind(&listed, ErrorKind::Unsupported, "a listing of versions")
}

fn id_of(version: &Version) -> Verdict<VersionId> {
    version.id.clone().ok_or_else(|| Failure::new("a version has no id"))
}

async fn entries(cx: &Context) -> Verdict<Vec<VersionEntry>> {
    let (mut entries, mut token) = (Vec::new(), None);
    loop {
        let page = cx.store.list_versions(&cx.prefix, token).await?;
        entries.extend(page.entries);
        token = page.next;
        if token.is_none() {
            return Ok(entries);
        }
    }
}

async fn carry_ids(cx: Context) -> Verdict {
    let first = cx.put("object", "same").await?;
    let second = cx.put("object", "same").await?;
    expect(id_of(&first)? != id_of(&second)?, || "two puts made one version".into())?;
    expect_eq(&cx.head("object", None).await??.version, &second, "the latest version")
}

async fn readable_after_replace(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    cx.put("object", "new").await?;
    let (meta, body) = cx.get("object", None, Some(old.clone())).await??;
    expect_eq(&meta.version, &old, "the version of a read by id")?;
    expect_eq(&&body[..], &&b"old"[..], "the body of an old version")?;
    expect_eq(&cx.head("object", Some(old.clone())).await??.version, &old, "a HEAD by id")?;
    cx.expect_body("object", b"new").await
}

async fn readable_after_delete(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    cx.delete("object").await?;
    cx.expect_gone("object").await?;
    expect_kind(&cx.get("object", None, None).await?, ErrorKind::NotFound, "GET of a delete marker")?;
    expect_eq(&cx.names().await?, &Vec::new(), "the listing of a deleted object")?;
    let (_, body) = cx.get("object", None, Some(old)).await??;
    expect_eq(&&body[..], &&b"old"[..], "the body of a deleted object, by version id")
}

async fn are_listed_newest_first(cx: Context) -> Verdict {
    let a1 = cx.put("a", "1").await?;
    let b1 = cx.put("b", "1").await?;
    let a2 = cx.put("a", "22").await?;
    cx.delete("b").await?;
    let found = entries(&cx).await?;
    let ids: Vec<_> = found.iter().map(|entry| Some(entry.id.clone())).collect();
    expect_eq(&found.len(), &4, "the number of versions")?;
    expect_eq(&ids.get(..2), &Some(&[a2.id, a1.id][..]), "the versions of the first key")?;
    let flags: Vec<_> = found.iter().map(|entry| (entry.is_latest, entry.is_delete_marker)).collect();
    let wanted = vec![(true, false), (false, false), (true, true), (false, false)];
    expect_eq(&flags, &wanted, "which versions are latest and which delete markers")?;
    let last = found.last().ok_or_else(|| Failure::new("no versions are listed"))?;
    expect_eq(&last.etag, &Some(b1.etag), "the tag of a version as listed")?;
    expect_eq(&last.size, &1, "the size of a version as listed")
}

async fn removed_for_good(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    let new = cx.put("object", "new").await?;
    let remove = |version: &Version| -> Verdict<DeleteRequest> {
        let version_id = Some(id_of(version)?);
        Ok(DeleteRequest { key: cx.key("object")?, if_match: None, version_id })
    };
    cx.store.delete(remove(&new)?).await?;
    cx.expect_body("object", b"old").await?;
    let gone = cx.get("object", None, Some(new)).await?;
    expect_kind(&gone, ErrorKind::NotFound, "GET of a version that was removed")?;
    cx.store.delete(remove(&old)?).await?;
    cx.expect_gone("object").await?;
    expect(entries(&cx).await?.is_empty(), || "versions are left".into())
}

async fn removed_delete_marker_brings_back(cx: Context) -> Verdict {
    cx.put("object", "body").await?;
    cx.delete("object").await?;
    let found = entries(&cx).await?;
    let marker = found.iter().find(|entry| entry.is_delete_marker);
    let marker = marker.ok_or_else(|| Failure::new("a delete left no marker"))?;
    let version_id = Some(marker.id.clone());
    let request = DeleteRequest { key: cx.key("object")?, if_match: None, version_id };
    cx.store.delete(request).await?;
    cx.expect_body("object", b"body").await
}

async fn copy_of_an_old_version(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    cx.delete("object").await?;
    let request =
        CopyRequest { from: cx.key("object")?, from_version: Some(old), to: cx.key("copy")?, replace: None };
    cx.store.copy(request).await?;
    cx.expect_body("copy", b"old").await
}

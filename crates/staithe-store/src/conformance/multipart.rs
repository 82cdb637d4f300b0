//! Multipart uploads.

use super::case::{Case, Context, Failure, Verdict, expect_eq, expect_kind, pattern};
use super::{conditions, nothing};
use crate::{
    Capabilities, ETag, ErrorKind, MultipartUpload, NewObject, PartNumber, PartReceipt, PutCondition, Version,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("multipart_makes_one_object", nothing, makes_one_object),
        Case::new("multipart_out_of_order", nothing, out_of_order),
        Case::new("multipart_replaced_part", nothing, replaced_part),
        Case::new("multipart_carries_metadata", nothing, carries_metadata),
        Case::new("multipart_is_hidden_until_complete", nothing, hidden_until_complete),
        Case::new("multipart_bad_part_lists", nothing, bad_part_lists),
        Case::new("multipart_small_parts", minimum, small_parts),
        Case::new("multipart_abort", nothing, abort),
        Case::new("multipart_complete_if_absent", conditions::if_absent, complete_if_absent),
        Case::new("multipart_complete_if_match", conditions::if_match, complete_if_match),
        Case::new("multipart_uploads_are_listed", nothing, uploads_are_listed),
        Case::new("multipart_part_copy", part_copies, part_copy),
        Case::new("multipart_part_copy_of_a_stale_source", part_copies, part_copy_of_a_stale_source),
    ]
}

fn minimum(caps: &Capabilities) -> Option<&'static str> {
    (caps.part_size_min <= 1).then_some("parts may be of any size")
}

fn part_copies(caps: &Capabilities) -> Option<&'static str> {
    (!caps.part_copy).then_some("the store copies no parts")
}

fn number(n: u16) -> Verdict<PartNumber> {
    PartNumber::new(n).ok_or_else(|| Failure::new(format!("{n} is no part number")))
}

/// A part that is not the last, and is as small as the store allows.
fn part_body(cx: &Context, seed: u8) -> Vec<u8> {
    pattern(seed, cx.store.capabilities().part_size_min.max(1000) as usize)
}

async fn begin(cx: &Context, name: &str) -> Verdict<MultipartUpload> {
    Ok(cx.store.create_multipart(&cx.key(name)?, NewObject::default()).await?)
}

async fn part(cx: &Context, upload: &MultipartUpload, n: u16, body: Vec<u8>) -> Verdict<PartReceipt> {
    let receipt = cx.store.upload_part(upload, number(n)?, body.into()).await?;
    expect_eq(&receipt.number, &number(n)?, "the number on a part's receipt")?;
    Ok(receipt)
}

async fn makes_one_object(cx: Context) -> Verdict {
    let upload = begin(&cx, "d/object").await?;
    let bodies = [part_body(&cx, 1), part_body(&cx, 2), pattern(3, 7)];
    let mut receipts = Vec::new();
    for (n, body) in (1..).zip(&bodies) {
        receipts.push(part(&cx, &upload, n, body.clone()).await?);
    }
    let written = cx.store.complete_multipart(&upload, &receipts, PutCondition::Always).await?;
    cx.expect_body("d/object", &bodies.concat()).await?;
    let meta = cx.head("d/object", None).await??;
    expect_eq(&meta.version, &written.version, "the version after a completed upload")?;
    let again = cx.store.upload_part(&upload, number(1)?, "x".into()).await;
    expect_kind(&again, ErrorKind::NotFound, "a part for an upload that is complete")
}

async fn out_of_order(cx: Context) -> Verdict {
    let upload = begin(&cx, "object").await?;
    let (first, second) = (part_body(&cx, 1), pattern(2, 10));
    let last = part(&cx, &upload, 9000, second.clone()).await?;
    let head = part(&cx, &upload, 3, first.clone()).await?;
    part(&cx, &upload, 5, part_body(&cx, 9)).await?; // never named: left out
    cx.store.complete_multipart(&upload, &[head, last], PutCondition::Always).await?;
    cx.expect_body("object", &[first, second].concat()).await
}

async fn replaced_part(cx: Context) -> Verdict {
    let upload = begin(&cx, "object").await?;
    let stale = part(&cx, &upload, 1, pattern(1, 100)).await?;
    let fresh = part(&cx, &upload, 1, pattern(2, 100)).await?;
    let refused = cx.store.complete_multipart(&upload, &[stale], PutCondition::Always).await;
    expect_kind(&refused, ErrorKind::Invalid, "a completion with the receipt of a replaced part")?;
    cx.store.complete_multipart(&upload, &[fresh], PutCondition::Always).await?;
    cx.expect_body("object", &pattern(2, 100)).await
}

async fn carries_metadata(cx: Context) -> Verdict {
    let metadata = [("mode".to_owned(), "33188".to_owned())].into();
    let new = NewObject { metadata, content_type: Some("text/x-staithe".into()) };
    let upload = cx.store.create_multipart(&cx.key("object")?, new.clone()).await?;
    let receipt = part(&cx, &upload, 1, pattern(1, 10)).await?;
    cx.store.complete_multipart(&upload, &[receipt], PutCondition::Always).await?;
    let meta = cx.head("object", None).await??;
    expect_eq(&meta.metadata, &new.metadata, "the metadata of a multipart object")?;
    expect_eq(&meta.content_type, &new.content_type, "the type of a multipart object")
}

async fn hidden_until_complete(cx: Context) -> Verdict {
    let upload = begin(&cx, "d/object").await?;
    part(&cx, &upload, 1, pattern(1, 10)).await?;
    cx.expect_gone("d/object").await?;
    expect_eq(&cx.names().await?, &Vec::new(), "the listing while an upload is in progress")?;
    Ok(cx.store.abort_multipart(&upload).await?)
}

async fn bad_part_lists(cx: Context) -> Verdict {
    let upload = begin(&cx, "object").await?;
    let one = part(&cx, &upload, 1, part_body(&cx, 1)).await?;
    let two = part(&cx, &upload, 2, part_body(&cx, 2)).await?;
    let missing = PartReceipt { number: number(3)?, ..two.clone() };
    let wrong = PartReceipt { number: number(2)?, etag: ETag::new("\"0\""), ..two.clone() };
    let lists = [
        ("no parts", vec![]),
        ("descending parts", vec![two.clone(), one.clone()]),
        ("a part twice", vec![one.clone(), one.clone()]),
        ("a missing part", vec![one.clone(), missing]),
        ("a part with a wrong tag", vec![one.clone(), wrong]),
    ];
    for (what, list) in lists {
        let refused = cx.store.complete_multipart(&upload, &list, PutCondition::Always).await;
        expect_kind(&refused, ErrorKind::Invalid, &format!("a completion with {what}"))?;
    }
    cx.expect_gone("object").await?;
    cx.store.complete_multipart(&upload, &[one, two], PutCondition::Always).await?;
    cx.expect_body("object", &[part_body(&cx, 1), part_body(&cx, 2)].concat()).await
}

async fn small_parts(cx: Context) -> Verdict {
    let upload = begin(&cx, "object").await?;
    let one = part(&cx, &upload, 1, pattern(1, 1)).await?;
    let two = part(&cx, &upload, 2, pattern(2, 1)).await?;
    let refused = cx.store.complete_multipart(&upload, &[one, two], PutCondition::Always).await;
    expect_kind(&refused, ErrorKind::Invalid, "a completion with a part below the least size")?;
    cx.expect_gone("object").await?;
    Ok(cx.store.abort_multipart(&upload).await?)
}

async fn abort(cx: Context) -> Verdict {
    let upload = begin(&cx, "object").await?;
    let receipt = part(&cx, &upload, 1, pattern(1, 10)).await?;
    cx.store.abort_multipart(&upload).await?;
    cx.store.abort_multipart(&upload).await?;
    let late = cx.store.upload_part(&upload, number(2)?, "x".into()).await;
    expect_kind(&late, ErrorKind::NotFound, "a part for an upload that was aborted")?;
    let complete = cx.store.complete_multipart(&upload, &[receipt], PutCondition::Always).await;
    expect_kind(&complete, ErrorKind::NotFound, "the completion of an upload that was aborted")?;
    cx.expect_gone("object").await
}

async fn complete_if_absent(cx: Context) -> Verdict {
    let upload = begin(&cx, "object").await?;
    let receipts = [part(&cx, &upload, 1, pattern(1, 10)).await?];
    cx.put("object", "there").await?;
    let refused = cx.store.complete_multipart(&upload, &receipts, PutCondition::IfAbsent).await;
    expect_kind(&refused, ErrorKind::AlreadyExists, "a completion over an object, if absent")?;
    cx.expect_body("object", b"there").await?;
    cx.delete("object").await?;
    // After a refusal S3 wants the upload made anew; other stores keep it.
    let upload = begin(&cx, "object").await?;
    let receipts = [part(&cx, &upload, 1, pattern(1, 10)).await?];
    cx.store.complete_multipart(&upload, &receipts, PutCondition::IfAbsent).await?;
    cx.expect_body("object", &pattern(1, 10)).await
}

async fn complete_if_match(cx: Context) -> Verdict {
    let old = cx.put("object", "old").await?;
    let new = cx.put("object", "new").await?;
    let upload = begin(&cx, "object").await?;
    let receipts = [part(&cx, &upload, 1, pattern(1, 10)).await?];
    let stale = PutCondition::IfMatch(old.etag);
    let refused = cx.store.complete_multipart(&upload, &receipts, stale).await;
    expect_kind(&refused, ErrorKind::VersionMismatch, "a completion over a version that was replaced")?;
    cx.expect_body("object", b"new").await?;
    let upload = begin(&cx, "object").await?;
    let receipts = [part(&cx, &upload, 1, pattern(1, 10)).await?];
    cx.store.complete_multipart(&upload, &receipts, PutCondition::IfMatch(new.etag)).await?;
    cx.expect_body("object", &pattern(1, 10)).await
}

async fn listed(cx: &Context) -> Verdict<Vec<MultipartUpload>> {
    let (mut uploads, mut token) = (Vec::new(), None);
    loop {
        let page = cx.store.list_multiparts(&cx.prefix, token).await?;
        uploads.extend(page.uploads);
        token = page.next;
        if token.is_none() {
            return Ok(uploads);
        }
    }
}

async fn uploads_are_listed(cx: Context) -> Verdict {
    let (a, b) = (begin(&cx, "a").await?, begin(&cx, "b/c").await?);
    let ids = |uploads: &[MultipartUpload]| -> Vec<_> {
        uploads.iter().map(|upload| (upload.key.clone(), upload.id.clone())).collect()
    };
    let wanted = ids(&[a.clone(), b.clone()]);
    expect_eq(&ids(&listed(&cx).await?), &wanted, "the uploads in progress")?;
    let found = listed(&cx).await?.pop().ok_or_else(|| Failure::new("the second upload is not listed"))?;
    let receipt = part(&cx, &found, 1, pattern(1, 10)).await?;
    cx.store.complete_multipart(&found, &[receipt], PutCondition::Always).await?;
    cx.store.abort_multipart(&a).await?;
    expect_eq(&ids(&listed(&cx).await?), &Vec::new(), "the uploads after all have ended")?;
    cx.expect_body("b/c", &pattern(1, 10)).await
}

async fn part_copy(cx: Context) -> Verdict {
    let source = part_body(&cx, 7);
    let len = source.len() as u64;
    let version = cx.put("source", source.clone()).await?;
    let from = cx.key("source")?;
    let upload = begin(&cx, "object").await?;
    let whole = cx.store.upload_part_copy(&upload, number(1)?, &from, &version, 0..len).await?;
    let middle = cx.store.upload_part_copy(&upload, number(2)?, &from, &version, 10..500).await?;
    let beyond = cx.store.upload_part_copy(&upload, number(3)?, &from, &version, 0..len + 1).await;
    expect_kind(&beyond, ErrorKind::Invalid, "a copy of a part beyond the end of its source")?;
    cx.store.complete_multipart(&upload, &[whole, middle], PutCondition::Always).await?;
    let mut wanted = source.clone();
    wanted.extend_from_slice(source.get(10..500).unwrap_or_default());
    cx.expect_body("object", &wanted).await
}

async fn part_copy_of_a_stale_source(cx: Context) -> Verdict {
    let old = cx.put("source", pattern(1, 1000)).await?;
    cx.put("source", pattern(2, 1000)).await?;
    let upload = begin(&cx, "object").await?;
    let from = cx.key("source")?;
    let unversioned = Version { etag: old.etag, id: None };
    let stale = cx.store.upload_part_copy(&upload, number(1)?, &from, &unversioned, 0..1000).await;
    expect_kind(&stale, ErrorKind::VersionMismatch, "a copy of a part of a replaced source")?;
    let missing = cx.key("missing")?;
    let gone = cx.store.upload_part_copy(&upload, number(1)?, &missing, &unversioned, 0..1000).await;
    expect_kind(&gone, ErrorKind::NotFound, "a copy of a part of a missing source")?;
    Ok(cx.store.abort_multipart(&upload).await?)
}

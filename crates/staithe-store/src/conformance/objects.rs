//! Round trips of bytes, ranges, metadata and keys.

use std::time::{Duration, SystemTime};

use super::case::{Case, Context, Verdict, expect, expect_eq, expect_kind, pattern};
use super::nothing;
use crate::{Capabilities, ErrorKind, HeadRequest, Metadata, NewObject, Payload, PutCondition};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("volume_answers_a_probe", nothing, volume_answers_a_probe),
        Case::new("bytes_come_back", nothing, bytes_come_back),
        Case::new("empty_object", nothing, empty_object),
        Case::new("rope_is_stored_in_order", nothing, rope_is_stored_in_order),
        Case::new("put_replaces", nothing, put_replaces),
        Case::new("missing_object_is_not_found", nothing, missing_object_is_not_found),
        Case::new("ranges", nothing, ranges),
        Case::new("ranges_beyond_the_end", nothing, ranges_beyond_the_end),
        Case::new("metadata_and_type_come_back", nothing, metadata_and_type_come_back),
        Case::new("put_replaces_metadata_too", nothing, put_replaces_metadata_too),
        Case::new("odd_keys", nothing, odd_keys),
        Case::new("long_keys", nothing, long_keys),
        Case::new("file_beside_prefix", beside, file_beside_prefix),
        Case::new("file_beside_prefix_is_refused", not_beside, file_beside_prefix_is_refused),
        Case::new("directory_markers", nothing, directory_markers),
        Case::new("too_much_metadata_is_refused", nothing, too_much_metadata_is_refused),
    ]
}

fn beside(caps: &Capabilities) -> Option<&'static str> {
    (!caps.file_beside_prefix).then_some("keys are paths of a real directory")
}

fn not_beside(caps: &Capabilities) -> Option<&'static str> {
    caps.file_beside_prefix.then_some("x and x/y can both be objects here")
}

async fn volume_answers_a_probe(cx: Context) -> Verdict {
    cx.store.probe().await?;
    let identity = cx.store.identity().await?;
    cx.put("object", "something that changes it").await?;
    expect_eq(&cx.store.identity().await?, &identity, "what tells the volume from others of its name")
}

async fn bytes_come_back(cx: Context) -> Verdict {
    for len in [1, 2, 4095, 4096, 4097, 300_000, (1 << 20) + 1] {
        let body = pattern(1, len);
        let version = cx.put("object", body.clone()).await?;
        cx.expect_body("object", &body).await?;
        let meta = cx.head("object", None).await??;
        expect_eq(&meta.version, &version, "the version that HEAD tells after a put")?;
        expect_eq(&meta.size, &(len as u64), "the size that HEAD tells")?;
        expect_eq(&meta.key, &cx.key("object")?, "the key that HEAD tells")?;
        recent(meta.last_modified)?;
    }
    Ok(())
}

/// Clocks of stores differ; an hour is beyond any that are kept.
#[allow(clippy::disallowed_methods, reason = "the store's clock is what is checked")]
fn recent(time: SystemTime) -> Verdict {
    let now = SystemTime::now();
    let off = now.duration_since(time).or_else(|_| time.duration_since(now)).unwrap_or(Duration::MAX);
    expect(off < Duration::from_hours(1), || format!("last_modified is {off:?} off"))
}

async fn empty_object(cx: Context) -> Verdict {
    cx.put("empty", "").await?;
    cx.expect_body("empty", b"").await?;
    expect_eq(&cx.head("empty", None).await??.size, &0, "the size of an empty object")?;
    let ranged = cx.get("empty", Some(0..1), None).await?;
    expect_kind(&ranged, ErrorKind::Invalid, "a range of an empty object")
}

async fn rope_is_stored_in_order(cx: Context) -> Verdict {
    let body = pattern(2, 100_000);
    let pieces = body.chunks(777).map(<[u8]>::to_vec).map(Into::into);
    cx.put("rope", Payload::new(pieces)).await?;
    cx.expect_body("rope", &body).await
}

async fn put_replaces(cx: Context) -> Verdict {
    let first = cx.put("object", pattern(1, 1000)).await?;
    let second = cx.put("object", pattern(2, 10)).await?;
    expect(first.etag != second.etag, || "other bytes have the same tag".into())?;
    cx.expect_body("object", &pattern(2, 10)).await
}

async fn missing_object_is_not_found(cx: Context) -> Verdict {
    cx.put("there", "x").await?;
    for name in ["missing", "there/below", "the", "missing/below"] {
        expect_kind(&cx.head(name, None).await?, ErrorKind::NotFound, "HEAD of a missing object")?;
        expect_kind(&cx.get(name, None, None).await?, ErrorKind::NotFound, "GET of a missing object")?;
    }
    Ok(())
}

async fn ranges(cx: Context) -> Verdict {
    let len = 700_001_u64;
    let body = pattern(3, len as usize);
    cx.put("object", body.clone()).await?;
    let edges = [0..1, 0..len, 1..2, len - 1..len, 262_143..262_145, 4096..8192, 5..600_000];
    for range in edges {
        let (meta, found) = cx.get("object", Some(range.clone()), None).await??;
        expect_eq(&meta.size, &len, "the full size that a ranged GET tells")?;
        let wanted = body.get(range.start as usize..range.end as usize);
        expect(wanted == Some(&found[..]), || format!("the bytes {range:?} are not those stored"))?;
    }
    Ok(())
}

async fn ranges_beyond_the_end(cx: Context) -> Verdict {
    cx.put("object", "0123456789").await?;
    let (_, found) = cx.get("object", Some(7..100), None).await??;
    expect_eq(&&found[..], &&b"789"[..], "a range whose end is beyond the object")?;
    for range in [10..11, 10..100, 11..12, 1 << 40..(1 << 40) + 1] {
        let what = format!("the range {range:?} of ten bytes");
        expect_kind(&cx.get("object", Some(range), None).await?, ErrorKind::Invalid, &what)?;
    }
    Ok(())
}

fn dressed(entries: &[(&str, &str)], content_type: &str) -> NewObject {
    let metadata = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    NewObject { metadata, content_type: Some(content_type.to_owned()) }
}

async fn metadata_and_type_come_back(cx: Context) -> Verdict {
    let new = dressed(
        &[("mode", "33188"), ("mtime", "1700000000.123456789"), ("note", "a value, with = and ; and \"")],
        "text/x-staithe",
    );
    let key = cx.key("object")?;
    cx.store.put(&key, "body".into(), new.clone(), PutCondition::Always).await?;
    let head = cx.store.head(HeadRequest::latest(key)).await?;
    expect_eq(&head.metadata, &new.metadata, "the metadata that HEAD tells")?;
    expect_eq(&head.content_type, &new.content_type, "the type that HEAD tells")?;
    let (meta, _) = cx.get("object", None, None).await??;
    expect_eq(&meta.metadata, &new.metadata, "the metadata that GET tells")?;
    expect_eq(&meta.content_type, &new.content_type, "the type that GET tells")
}

async fn put_replaces_metadata_too(cx: Context) -> Verdict {
    let key = cx.key("object")?;
    let new = dressed(&[("a", "1")], "text/plain");
    cx.store.put(&key, "body".into(), new, PutCondition::Always).await?;
    cx.put("object", "body").await?;
    let meta = cx.head("object", None).await??;
    expect_eq(&meta.metadata, &Metadata::new(), "the metadata after a put without any")
}

async fn odd_keys(cx: Context) -> Verdict {
    let mut names = vec![
        "with space",
        " leading",
        "trailing ",
        "plus+plus",
        "per%cent",
        "%2F",
        "a&b=c?d#e",
        "quote'\"`",
        "back\\slash",
        "tab\there",
        "line\nbreak",
        "{brace}[bracket]<angle>|^~",
        "semi;colon:comma,@!$*()",
        "ünïcödé",
        "日本語",
        "emoji-🦀",
        "e\u{301}",
        "\u{e9}",
        "-dash",
        "...",
        "..x",
        ".hidden",
        "~",
        "UPPER",
        "upper",
        "\u{7f}",
        "d/e e/p+/%",
        "\u{10ffff}",
    ];
    for (index, name) in names.iter().enumerate() {
        cx.put(name, pattern(index as u8, 10 + index)).await?;
    }
    for (index, name) in names.iter().enumerate() {
        cx.expect_body(name, &pattern(index as u8, 10 + index)).await?;
    }
    names.sort_unstable();
    let listed = cx.names().await?;
    expect_eq(&listed.iter().map(String::as_str).collect(), &names, "the odd keys as listed")?;
    for name in names {
        cx.delete(name).await?;
        cx.expect_gone(name).await?;
    }
    Ok(())
}

async fn long_keys(cx: Context) -> Verdict {
    let room = crate::Key::MAX_BYTES - cx.prefix.len();
    // Parts of 200 bytes, for stores whose keys are paths.
    let text: String = (0..room).map(|i| if i % 200 == 199 { '/' } else { 'k' }).collect();
    let name = format!("{}x", text.get(..room - 1).unwrap_or_default());
    cx.put(&name, "long").await?;
    cx.expect_body(&name, b"long").await?;
    expect_eq(&cx.names().await?, &vec![name.clone()], "the long key as listed")?;
    cx.delete(&name).await?;
    cx.expect_gone(&name).await
}

async fn file_beside_prefix(cx: Context) -> Verdict {
    cx.put("x", "file").await?;
    cx.put("x/y", "below").await?;
    cx.put("x/", "marker").await?;
    cx.expect_body("x", b"file").await?;
    cx.expect_body("x/y", b"below").await?;
    cx.expect_body("x/", b"marker").await
}

async fn file_beside_prefix_is_refused(cx: Context) -> Verdict {
    cx.put("x", "file").await?;
    for name in ["x/y", "x/", "x/y/z"] {
        let put = cx.put_if(name, "", PutCondition::Always).await?;
        expect_kind(&put, ErrorKind::Invalid, "a key below a file")?;
    }
    cx.put("d/y", "below").await?;
    let put = cx.put_if("d", "file", PutCondition::Always).await?;
    expect_kind(&put, ErrorKind::Invalid, "a file in the place of a directory with keys")?;
    cx.expect_body("x", b"file").await?;
    cx.expect_body("d/y", b"below").await
}

async fn directory_markers(cx: Context) -> Verdict {
    let key = cx.key("dir/")?;
    let new = dressed(&[("mode", "16877")], "application/x-directory");
    cx.store.put(&key, Payload::default(), new.clone(), PutCondition::Always).await?;
    let meta = cx.head("dir/", None).await??;
    expect_eq(&meta.metadata, &new.metadata, "the metadata of a marker")?;
    expect_eq(&meta.content_type, &new.content_type, "the type of a marker")?;
    expect_eq(&meta.size, &0, "the size of a marker")?;
    cx.expect_body("dir/", b"").await?;
    cx.expect_gone("dir").await?;
    cx.put("dir/file", "x").await?;
    let listed = cx.names().await?;
    expect_eq(&listed, &vec!["dir/".to_owned(), "dir/file".to_owned()], "a marker and what is below")?;
    cx.delete("dir/file").await?;
    expect_eq(&cx.names().await?, &vec!["dir/".to_owned()], "the marker after its last child went")?;
    cx.put("dir/file", "x").await?;
    cx.delete("dir/").await?;
    cx.expect_gone("dir/").await?;
    expect_eq(&cx.names().await?, &vec!["dir/file".to_owned()], "what is below a removed marker")?;
    cx.delete("dir/file").await?;
    expect_eq(&cx.names().await?, &Vec::new(), "an unmarked directory after its last child went")
}

async fn too_much_metadata_is_refused(cx: Context) -> Verdict {
    let most = cx.store.capabilities().metadata_bytes_max;
    let with = |bytes: usize| dressed(&[("note", &"v".repeat(bytes - 4))], "text/plain");
    let key = cx.key("object")?;
    cx.store.put(&key, "x".into(), with(most), PutCondition::Always).await?;
    let refused = cx.store.put(&key, "x".into(), with(most + 1), PutCondition::Always).await;
    expect_kind(&refused, ErrorKind::Invalid, "a put with one byte of metadata too much")
}

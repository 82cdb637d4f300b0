//! Listings: order, delimiter, pages, positions.

use futures::{StreamExt, TryStreamExt, stream};

use super::case::{Case, Context, Failure, Verdict, expect, expect_eq};
use super::nothing;
use crate::{ListRequest, Payload, PutCondition};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("list_of_nothing", nothing, list_of_nothing),
        Case::new("list_is_in_byte_order", nothing, list_is_in_byte_order),
        Case::new("list_by_prefix", nothing, list_by_prefix),
        Case::new("list_with_delimiter", nothing, list_with_delimiter),
        Case::new("list_with_another_delimiter", nothing, list_with_another_delimiter),
        Case::new("list_pages_of_every_size", nothing, list_pages_of_every_size),
        Case::new("list_start_after", nothing, list_start_after),
        Case::new("list_max_keys_zero", nothing, list_max_keys_zero),
        Case::new("list_sees_changes_at_once", nothing, list_sees_changes_at_once),
        Case::new("list_goes_on_past_removed_keys", nothing, list_goes_on_past_removed_keys),
        Case::new("list_of_more_than_a_page", nothing, list_of_more_than_a_page),
    ]
}

/// Names in the order of their bytes, with what sorts around `/`.
const NAMES: [&str; 16] = [
    "A", "a!", "a+/x", "a-b", "a.txt", "a/", "a/-", "a/b", "a/b-c/d", "a/b.c", "a/c/d/e", "a0", "b/c", "é/ü",
    "日", "🦀",
];

async fn fill(cx: &Context, names: impl IntoIterator<Item = String>) -> Verdict {
    let puts = names.into_iter().map(|name| async move {
        let body = if name.ends_with('/') { "" } else { "x" }; // a directory holds no bytes
        cx.put_if(&name, Payload::from(body), PutCondition::Always).await??;
        Ok::<_, Failure>(())
    });
    stream::iter(puts).buffer_unordered(16).try_collect().await
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// All of a listing, from as many pages as it takes: objects, prefixes, sizes of the pages.
async fn all(cx: &Context, mut request: ListRequest) -> Verdict<(Vec<String>, Vec<String>, Vec<usize>)> {
    request.prefix.insert_str(0, &cx.prefix);
    let (mut objects, mut prefixes, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let page = cx.store.list(request.clone()).await?;
        sizes.push(page.objects.len() + page.prefixes.len());
        for object in &page.objects {
            objects.push(cx.name_of(object.key.as_str())?);
        }
        for prefix in &page.prefixes {
            prefixes.push(cx.name_of(prefix)?);
        }
        expect(sizes.len() < 2000, || "a listing does not end".into())?;
        match page.next {
            Some(token) => request.token = Some(token),
            None => return Ok((objects, prefixes, sizes)),
        }
    }
}

async fn list_of_nothing(cx: Context) -> Verdict {
    let (objects, prefixes, _) = all(&cx, ListRequest::default()).await?;
    expect_eq(&objects, &Vec::new(), "the objects of an empty prefix")?;
    expect_eq(&prefixes, &Vec::new(), "the prefixes of an empty prefix")
}

async fn list_is_in_byte_order(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES).into_iter().rev()).await?;
    let (objects, prefixes, _) = all(&cx, ListRequest::default()).await?;
    let mut sorted = owned(&NAMES);
    sorted.sort_unstable();
    expect_eq(&objects, &sorted, "a flat listing")?;
    expect_eq(&prefixes, &Vec::new(), "the prefixes of a flat listing")
}

async fn list_by_prefix(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES)).await?;
    for prefix in ["a", "a/", "a/b", "a/b-", "a/b-c/d", "a/b-c/d/", "a.", "z", "é", "🦀", "a/c/"] {
        let request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        let (objects, _, _) = all(&cx, request).await?;
        let mut wanted: Vec<_> = owned(&NAMES).into_iter().filter(|name| name.starts_with(prefix)).collect();
        wanted.sort_unstable();
        expect_eq(&objects, &wanted, &format!("the listing of the prefix {prefix:?}"))?;
    }
    Ok(())
}

/// What a delimiter makes of names, the slow and plain way.
fn rolled_up(prefix: &str, delimiter: char, after: &str) -> (Vec<String>, Vec<String>) {
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for name in NAMES.iter().filter(|name| **name > after) {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        match rest.split_once(delimiter) {
            Some((head, _)) => prefixes.push(format!("{prefix}{head}{delimiter}")),
            None => objects.push((*name).to_owned()),
        }
    }
    objects.sort_unstable();
    prefixes.sort_unstable();
    prefixes.dedup();
    (objects, prefixes)
}

async fn list_with_delimiter(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES)).await?;
    for prefix in ["", "a", "a/", "a/b", "a/c/", "b/", "z/"] {
        let request =
            ListRequest { prefix: prefix.to_owned(), delimiter: Some('/'), ..ListRequest::default() };
        let (objects, prefixes, _) = all(&cx, request).await?;
        let what = format!("the listing of {prefix:?} up to the delimiter");
        expect_eq(&(objects, prefixes), &rolled_up(prefix, '/', ""), &what)?;
    }
    Ok(())
}

async fn list_with_another_delimiter(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES)).await?;
    for delimiter in ['-', 'b', 'é'] {
        let request = ListRequest { delimiter: Some(delimiter), ..ListRequest::default() };
        let (objects, prefixes, _) = all(&cx, request).await?;
        let what = format!("the listing up to the delimiter {delimiter:?}");
        expect_eq(&(objects, prefixes), &rolled_up("", delimiter, ""), &what)?;
    }
    Ok(())
}

async fn list_pages_of_every_size(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES)).await?;
    for delimiter in [None, Some('/')] {
        let whole = ListRequest { delimiter, ..ListRequest::default() };
        let (objects, prefixes, _) = all(&cx, whole.clone()).await?;
        let total = objects.len() + prefixes.len();
        for size in 1..=total + 1 {
            let request = ListRequest { max_keys: u16::try_from(size).ok(), ..whole.clone() };
            let (paged, rolled, sizes) = all(&cx, request).await?;
            let what = format!("the listing in pages of {size}, delimiter {delimiter:?}");
            expect_eq(&paged, &objects, &what)?;
            expect_eq(&rolled, &prefixes, &what)?;
            expect(sizes.iter().all(|n| *n <= size), || format!("{what}: a page is too long: {sizes:?}"))?;
        }
    }
    Ok(())
}

async fn list_start_after(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES)).await?;
    for after in ["", "a", "a-b", "a.", "a/b", "a/b-c/d", "a/c/zz", "a0", "zz", "🦀"] {
        let start_after = Some(format!("{}{after}", cx.prefix));
        let flat = ListRequest { start_after: start_after.clone(), ..ListRequest::default() };
        let (objects, _, _) = all(&cx, flat.clone()).await?;
        let mut wanted: Vec<_> = owned(&NAMES).into_iter().filter(|name| name.as_str() > after).collect();
        wanted.sort_unstable();
        expect_eq(&objects, &wanted, &format!("the listing after {after:?}"))?;
        let (paged, _, _) = all(&cx, ListRequest { max_keys: Some(2), ..flat.clone() }).await?;
        expect_eq(&paged, &wanted, &format!("the listing after {after:?} in pages of two"))?;
    }
    let before = ListRequest { start_after: Some("\u{1}".into()), ..ListRequest::default() };
    let (objects, _, _) = all(&cx, before).await?;
    expect_eq(&objects.len(), &NAMES.len(), "the number of keys after one that sorts before the prefix")
}

async fn list_max_keys_zero(cx: Context) -> Verdict {
    fill(&cx, owned(&NAMES)).await?;
    let (objects, prefixes, sizes) =
        all(&cx, ListRequest { max_keys: Some(0), ..ListRequest::default() }).await?;
    expect_eq(&(objects.len(), prefixes.len(), sizes.len()), &(0, 0, 1), "a listing of at most no keys")
}

async fn list_sees_changes_at_once(cx: Context) -> Verdict {
    for round in 0..5 {
        let name = format!("d/{round}");
        cx.put(&name, "x").await?;
        expect_eq(&cx.names().await?, &vec![name.clone()], "the listing right after a put")?;
        cx.delete(&name).await?;
        expect_eq(&cx.names().await?, &Vec::new(), "the listing right after a delete")?;
    }
    Ok(())
}

async fn list_goes_on_past_removed_keys(cx: Context) -> Verdict {
    fill(&cx, owned(&["a", "b", "c/d", "e"])).await?;
    let request = ListRequest { prefix: cx.prefix.clone(), max_keys: Some(2), ..ListRequest::default() };
    let first = cx.store.list(request.clone()).await?;
    for name in ["b", "c/d"] {
        cx.delete(name).await?;
    }
    let second = cx.store.list(ListRequest { token: first.next, ..request }).await?;
    let names: Vec<_> = second.objects.iter().map(|object| object.key.as_str()).collect();
    expect_eq(&names, &vec![cx.key("e")?.as_str()], "the page after one whose last key was removed")
}

async fn list_of_more_than_a_page(cx: Context) -> Verdict {
    let names: Vec<String> = (0..1005).map(|i| format!("d{}/{i:04}", i % 2)).collect();
    fill(&cx, names.clone()).await?;
    let (objects, _, sizes) = all(&cx, ListRequest::default()).await?;
    let mut sorted = names;
    sorted.sort_unstable();
    expect(objects == sorted, || format!("a listing of 1005 keys has {} of them", objects.len()))?;
    expect(sizes.len() >= 2, || "a page has more than 1000 keys".into())
}

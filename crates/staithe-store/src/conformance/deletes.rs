//! Deletes, one by one and in batches.

use super::case::{Case, Context, Verdict, expect, expect_eq, expect_kind};
use super::nothing;
use crate::{ErrorKind, Key};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("delete_removes", nothing, removes),
        Case::new("delete_of_the_missing_succeeds", nothing, of_the_missing_succeeds),
        Case::new("delete_leaves_neighbours", nothing, leaves_neighbours),
        Case::new("delete_in_a_batch", nothing, in_a_batch),
        Case::new("delete_batch_has_a_limit", nothing, batch_has_a_limit),
        Case::new("create_right_after_delete", nothing, create_right_after_delete),
    ]
}

async fn removes(cx: Context) -> Verdict {
    cx.put("d/e/object", "x").await?;
    cx.delete("d/e/object").await?;
    cx.expect_gone("d/e/object").await?;
    expect_kind(&cx.get("d/e/object", None, None).await?, ErrorKind::NotFound, "GET of a removed object")?;
    for prefix in ["d/e/", "d/"] {
        cx.expect_gone(prefix).await?;
    }
    expect_eq(&cx.names().await?, &Vec::new(), "the listing after the only object went")
}

async fn of_the_missing_succeeds(cx: Context) -> Verdict {
    cx.put("there", "x").await?;
    for name in ["missing", "missing/below", "missing/", "there/below", "there/"] {
        cx.delete(name).await?;
    }
    cx.expect_body("there", b"x").await
}

async fn leaves_neighbours(cx: Context) -> Verdict {
    for name in ["d/a", "d/ab", "d/a-b", "d/b/c"] {
        cx.put(name, "x").await?;
    }
    cx.delete("d/a").await?;
    cx.delete("d/b").await?;
    cx.delete("d/b/").await?;
    let wanted: Vec<String> = ["d/a-b", "d/ab", "d/b/c"].map(str::to_owned).into();
    expect_eq(&cx.names().await?, &wanted, "what a delete left")
}

async fn in_a_batch(cx: Context) -> Verdict {
    for name in ["a", "b/c", "b/d", "e&f<g>", "keep"] {
        cx.put(name, "x").await?;
    }
    let keys: Vec<Key> =
        ["a", "b/c", "b/d", "e&f<g>", "missing"].iter().map(|name| cx.key(name)).collect::<Verdict<_>>()?;
    let failures = cx.store.delete_batch(&keys).await?;
    expect(failures.is_empty(), || format!("a batch delete failed for {failures:?}"))?;
    expect_eq(&cx.names().await?, &vec!["keep".to_owned()], "what a batch delete left")?;
    let none = cx.store.delete_batch(&[]).await?;
    expect(none.is_empty(), || "a batch delete of nothing failed".into())
}

async fn batch_has_a_limit(cx: Context) -> Verdict {
    let most = cx.store.capabilities().delete_batch_max;
    let keys = vec![cx.key("missing")?; most + 1];
    expect_kind(&cx.store.delete_batch(&keys).await, ErrorKind::Invalid, "a batch delete over the limit")
}

async fn create_right_after_delete(cx: Context) -> Verdict {
    for round in 0..20 {
        let body = format!("round {round}").into_bytes();
        cx.put("d/object", body.clone()).await?;
        cx.expect_body("d/object", &body).await?;
        cx.delete("d/object").await?;
        cx.expect_gone("d/object").await?;
    }
    Ok(())
}

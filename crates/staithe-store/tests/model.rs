//! Listings of any set of keys, in pages of any size, are what the naive model says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use staithe_store::{
    DirectoryOptions, DirectoryStore, Durability, Key, ListRequest, MemoryStore, NewObject, ObjectStore,
    PutCondition,
};

/// What S3 documents, over all keys at once: objects and common prefixes in one order.
fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<char>, after: &str) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for key in keys.iter().filter(|key| key.as_str() > after) {
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        match delimiter.and_then(|delimiter| rest.split_once(delimiter)) {
            Some((head, _)) => lines.insert(format!("{prefix}{head}{}", delimiter.unwrap_or_default())),
            None => lines.insert(key.clone()),
        };
    }
    lines.into_iter().collect()
}

async fn listed(store: &dyn ObjectStore, request: ListRequest) -> Vec<String> {
    let (mut lines, mut request) = (Vec::new(), request);
    loop {
        let page = store.list(request.clone()).await.unwrap();
        let count = page.objects.len() + page.prefixes.len();
        assert!(count <= usize::from(request.max_keys.unwrap_or(1000)));
        let mut both: Vec<_> = page.objects.iter().map(|object| object.key.to_string()).collect();
        both.extend(page.prefixes);
        both.sort_unstable();
        lines.extend(both);
        match page.next {
            Some(token) => request.token = Some(token),
            None => return lines,
        }
    }
}

fn part() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "a-", "a.", "ab", "a0", "é", "a!", "+"])
}

/// Keys that a directory can hold all at once: files have an end that no directory has.
fn keys() -> impl Strategy<Value = BTreeSet<String>> {
    let key = (prop::collection::vec(part(), 0..3), part()).prop_map(|(dirs, name)| {
        let name = format!("{name}~");
        dirs.into_iter().chain([name.as_str()]).collect::<Vec<_>>().join("/")
    });
    prop::collection::btree_set(key, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_what_the_model_says(
        keys in keys(),
        prefix in prop::sample::select(vec!["", "a", "a/", "a/b", "a-/", "a/a/", "é", "x/"]),
        delimiter in prop::sample::select(vec![None, Some('/'), Some('-'), Some('b')]),
        after in prop::sample::select(vec!["", "a", "a/b", "a/a/zz", "a0", "b/"]),
        max_keys in 1_u16..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::TempDir::new().unwrap();
        let options = DirectoryOptions { durability: Durability::Buffered, ..DirectoryOptions::default() };
        let stores: [Box<dyn ObjectStore>; 2] =
            [Box::new(MemoryStore::default()), Box::new(DirectoryStore::open(dir.path(), options).unwrap())];
        runtime.block_on(async {
            for store in &stores {
                for key in &keys {
                    let key = Key::new(key).unwrap();
                    store.put(&key, "x".into(), NewObject::default(), PutCondition::Always).await.unwrap();
                }
                let start_after = (!after.is_empty()).then(|| after.to_owned());
                let request = ListRequest {
                    prefix: prefix.to_owned(), delimiter, start_after, max_keys: Some(max_keys), token: None,
                };
                let found = listed(&**store, request).await;
                assert_eq!(found, model(&keys, prefix, delimiter, after), "{}", store.url());
            }
        });
    }
}

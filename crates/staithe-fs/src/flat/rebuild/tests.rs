use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use proptest::prelude::*;
use staithe_store::{ETag, Key, ObjectSummary};

use super::super::changes::Changes;
use super::*;
use crate::names::hidden_reason;

fn object(key: &str) -> ObjectSummary {
    ObjectSummary {
        key: Key::new(key).unwrap(),
        size: key.len() as u64,
        etag: ETag::new(key),
        id: None,
        last_modified: SystemTime::UNIX_EPOCH,
    }
}

fn asked() -> Asked {
    Asked { at: Instant::now(), stamp: Changes::default().stamp() }
}

/// What a listing of the keys in pages gave.
struct Given {
    dirs: Vec<Rebuilt>,
    pages: usize,
    /// Prefixes that it left out, once they had begun.
    skipped: Vec<String>,
}

fn rebuilt(keys: &BTreeSet<String>, root: &str, after: String, size: usize) -> Given {
    let mut rebuild = Rebuild::new(root.to_owned(), after.clone());
    let (mut from, mut skipped) = (after, Vec::new());
    let (mut dirs, mut pages) = (Vec::new(), 0);
    loop {
        pages += 1;
        let rest: Vec<&String> =
            keys.iter().filter(|key| key.starts_with(root) && **key > from).take(size + 1).collect();
        let next = rest.get(size).map(|_| PageToken::new("more"));
        let objects: Vec<_> = rest.iter().take(size).map(|key| object(key)).collect();
        if let Some(last) = objects.last() {
            last.key.as_str().clone_into(&mut from);
        }
        let page = ListPage { objects, prefixes: Vec::new(), next };
        match rebuild.take_in(&page, asked(), |dir| dirs.push(dir)).unwrap() {
            Next::Page(_) => {}
            Next::After(key) => {
                skipped.push(key.strip_suffix(LAST_CHARACTER).unwrap().to_owned());
                from = key;
            }
            Next::End => {
                skipped.extend(page.next.map(|_| root.to_owned()));
                return Given { dirs, pages, skipped };
            }
        }
    }
}

/// What a listing with the delimiter shows of a directory, said naively; and whether it has a marker.
fn listed(keys: &BTreeSet<String>, prefix: &str) -> (Vec<(Arc<str>, Dent)>, bool) {
    let mut entries = BTreeMap::new();
    for rest in keys.iter().filter_map(|key| key.strip_prefix(prefix)).filter(|rest| !rest.is_empty()) {
        if let Some((name, _)) = rest.split_once('/') {
            entries.insert(name.to_owned(), Dent::Directory { marker: None });
        } else {
            let file = Dent::from(&object(&format!("{prefix}{rest}")));
            entries.entry(rest.to_owned()).or_insert(file);
        }
    }
    entries.retain(|name, _| check_name(name).is_ok());
    (entries.into_iter().map(|(name, dent)| (Arc::from(name), dent)).collect(), keys.contains(prefix))
}

/// Every directory below the root that a path names.
fn directories(keys: &BTreeSet<String>, root: &str) -> BTreeSet<String> {
    let below = keys.iter().filter(|key| key.starts_with(root));
    let prefixes = below.flat_map(|key| {
        key.match_indices('/').map(|(at, _)| key[..=at].to_owned()).filter(|prefix| prefix.len() > root.len())
    });
    prefixes.filter(|prefix| hidden_reason(&prefix[root.len()..]).is_none()).collect()
}

fn keys(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|key| (*key).to_owned()).collect()
}

fn prefixes(of: &[Rebuilt]) -> Vec<&str> {
    of.iter().map(|dir| dir.prefix.as_str()).collect()
}

#[test]
fn a_directory_is_given_out_once_a_key_beyond_it_was_seen() {
    let mut rebuild = Rebuild::new(String::new(), before("a/"));
    let mut done = Vec::new();
    let mut page = |keys: &[&str], more: bool| {
        let objects = keys.iter().map(|key| object(key)).collect();
        let next = more.then(|| PageToken::new("more"));
        done.clear();
        let page = ListPage { objects, prefixes: Vec::new(), next };
        rebuild.take_in(&page, asked(), |dir| done.push(dir)).unwrap();
        prefixes(&done).join(" ")
    };
    assert_eq!(page(&["a/1", "a/2"], true), "");
    assert_eq!(page(&["a/3", "b/c/d/e"], true), "a/");
    assert_eq!(page(&["b/c/x", "b/d/"], true), "b/c/d/ b/c/");
    assert_eq!(page(&[], false), "b/d/ b/");
}

#[test]
fn what_the_listing_began_within_is_not_given_out() {
    let all = keys(&["p/a/1", "p/b/1", "p/c/1", "p/z"]);
    assert_eq!(prefixes(&rebuilt(&all, "", before("p/b/"), 2).dirs), ["p/b/", "p/c/"]);
    assert_eq!(prefixes(&rebuilt(&all, "p/", before("p/b/"), 2).dirs), ["p/b/", "p/c/"]);
}

#[test]
fn names_that_sort_between_a_file_and_the_directory_of_its_name() {
    let all = keys(&["d/x", "d/x!", "d/x!/y", "d/x/y", "d/x0"]);
    let dirs = rebuilt(&all, "", before("d/"), 1).dirs;
    let d = dirs.iter().find(|dir| dir.prefix == "d/").unwrap();
    let shown: Vec<_> = d.entries.iter().map(|(n, dent)| (&**n, matches!(dent, Dent::File { .. }))).collect();
    assert_eq!(shown, [("x", false), ("x!", false), ("x0", true)]);
}

#[test]
fn a_large_directory_is_left_out_and_skipped() {
    let mut all: BTreeSet<String> = (0..5 * LARGE).map(|i| format!("d/b/{i:06}")).collect();
    all.extend(keys(&["d/a/1", "d/b/z/1", "d/c/1"]));
    let Given { dirs, pages, skipped } = rebuilt(&all, "", before("d/"), 500);
    assert_eq!(prefixes(&dirs), ["d/a/", "d/c/", "d/"]);
    assert_eq!(skipped, ["d/b/"]);
    assert!(pages <= LARGE / 500 + 2, "{pages}");
    let names: Vec<_> = dirs[2].entries.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "b", "c"], "what is around it is whole");
}

#[test]
fn a_directory_with_many_directories_is_left_out_and_they_are_not() {
    let all: BTreeSet<String> = (0..LARGE + 500).map(|i| format!("d/{i:06}/x")).collect();
    let dirs = rebuilt(&all, "", before("d/"), 1000).dirs;
    assert_eq!(dirs.len(), LARGE + 500);
    assert!(dirs.iter().all(|dir| dir.prefix != "d/"));
}

#[test]
fn what_is_gathered_is_bounded() {
    let depth = 100;
    let mut rebuild = Rebuild::new(String::new(), String::new());
    let mut prefix = String::new();
    let mut most = 0;
    for level in 0..depth {
        let objects = (0..1000).map(|i| object(&format!("{prefix}f{i:04}"))).collect();
        let page = ListPage { objects, prefixes: Vec::new(), next: Some(PageToken::new("more")) };
        rebuild.take_in(&page, asked(), |_| {}).unwrap();
        most = most.max(rebuild.open.iter().map(|dir| dir.entries.len()).sum());
        prefix.push_str(if level == 0 { "g/" } else { "z/" });
    }
    assert!(most <= OPEN_MOST && most > LARGE, "{most}");
    assert!(rebuild.large.len() <= LARGE_MOST);
}

#[test]
fn keys_that_do_not_ascend_are_noticed() {
    for wrong in [["b/1", "a/1"], ["b/1", "b/1"], ["a/0", "b/1"]] {
        let mut rebuild = Rebuild::new(String::new(), String::from("a/0"));
        let objects = wrong.iter().map(|key| object(key)).collect();
        let page = ListPage { objects, prefixes: Vec::new(), next: None };
        assert_eq!(rebuild.take_in(&page, asked(), |_| {}), Err(Disorder), "{wrong:?}");
    }
}

fn any_key() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[ab]{1,2}",
        1 => Just(String::new()),
        1 => Just(String::from(".")),
        1 => Just(String::from("..")),
        2 => "[ax][!.0/\u{0}\u{10ffff}]{0,2}",
        1 => Just("l".repeat(256)),
    ];
    prop::collection::vec(part, 1..5)
        .prop_map(|parts| parts.join("/"))
        .prop_filter("a key", |key| (1..=Key::MAX_BYTES).contains(&key.len()))
}

proptest! {
    #[test]
    fn what_is_rebuilt_is_what_a_listing_shows(
        all in prop::collection::btree_set(any_key(), 0..40),
        root in prop_oneof![Just(""), Just("a/"), Just("b/a/")],
        size in 1usize..5,
        from in any::<prop::sample::Index>(),
    ) {
        let there = directories(&all, root);
        let starts: Vec<String> = there.iter().map(|dir| before(dir)).chain([before("a/"), before("b/a/")]).collect();
        let after = starts[from.index(starts.len())].clone();
        let Given { dirs, skipped, .. } = rebuilt(&all, root, after.clone(), size);
        let given: BTreeSet<&str> = dirs.iter().map(|dir| dir.prefix.as_str()).filter(|dir| *dir != root).collect();
        let expected: BTreeSet<&str> = there.iter().map(String::as_str).filter(|dir| **dir > *after).collect();
        prop_assert!(given.is_subset(&expected));
        for missing in expected.difference(&given) {
            prop_assert!(skipped.iter().any(|skipped| missing.starts_with(&**skipped)), "{}", missing);
        }
        for skipped in &skipped {
            // Large ones are not among these: the listing began within.
            prop_assert!(**skipped <= *after || hidden_reason(skipped).is_some(), "{}", skipped);
        }
        prop_assert!(dirs.windows(2).all(|pair| pair[0].prefix != pair[1].prefix), "each once");
        for dir in dirs {
            let (entries, has_marker) = listed(&all, &dir.prefix);
            prop_assert_eq!(&dir.entries, &entries, "{}", dir.prefix);
            prop_assert_eq!(dir.has_marker, has_marker, "{}", dir.prefix);
        }
    }
}

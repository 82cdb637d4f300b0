//! Trees that are walked: their directories come out of flat listings. Requests are counted, not timed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use staithe_fs::{Ino, RenameMode, Ttl};
use staithe_store::decorators::{Fault, FaultAction, Gate, Operation as Op};
use staithe_store::{Capabilities, DeleteRequest, ErrorKind, MemoryOptions, ObjectStore};
use world::{ROOT, World, k, until};

/// A world in which nothing is out of date by the passing of time.
async fn world() -> World {
    with(MemoryOptions::default(), Ttl::Forever).await
}

async fn with(options: MemoryOptions, ttl: Ttl) -> World {
    World::with(options, |c| (c.live.metadata_ttl, c.live.negative_ttl) = (ttl, ttl)).await
}

/// Directories `dNNN` with files `fNNN`.
async fn fill(w: &World, below: &str, dirs: usize, files: usize) {
    for dir in 0..dirs {
        for file in 0..files {
            w.put(&format!("{below}d{dir:03}/f{file:03}"), "x").await;
        }
    }
}

/// Everything below a directory, depth first or breadth first; directories end in a slash.
async fn walk(w: &World, top: &str, depth_first: bool) -> Vec<String> {
    let prefix = if top.is_empty() { String::new() } else { format!("{top}/") };
    let mut todo = VecDeque::from([(w.ino(top).await, prefix)]);
    let mut all = Vec::new();
    while let Some((dir, prefix)) = todo.pop_front() {
        let mut below = Vec::new();
        for name in w.entries(dir).await {
            if let Some(name) = name.strip_suffix('/') {
                below.push((w.child(dir, name).await, format!("{prefix}{name}/")));
            }
            all.push(format!("{prefix}{name}"));
        }
        if depth_first {
            below.into_iter().rev().for_each(|dir| todo.push_front(dir));
        } else {
            todo.extend(below);
        }
    }
    all.sort();
    all
}

/// What the bucket has, as a walk shows it.
async fn stored(w: &World) -> Vec<String> {
    let mut all = BTreeSet::new();
    let mut request = staithe_store::ListRequest::default();
    loop {
        let page = w.bucket.list(request.clone()).await.unwrap();
        for object in page.objects {
            let key = object.key.as_str();
            all.extend(key.match_indices('/').map(|(at, _)| key[..=at].to_owned()));
            all.insert(key.to_owned());
        }
        match page.next {
            Some(token) => request.token = Some(token),
            None => return all.into_iter().collect(),
        }
    }
}

fn lists(w: &World) -> usize {
    w.spent().into_iter().find(|(op, _)| *op == Op::List).map_or(0, |(_, count)| count)
}

#[tokio::test]
async fn a_cold_walk_costs_a_list_a_thousand_files() {
    let w = world().await;
    fill(&w, "", 100, 100).await;
    w.spent();
    let all = walk(&w, "", true).await;
    assert!(all == stored(&w).await);
    let spent = lists(&w);
    assert!(spent <= 14, "{spent}\n{}", w.log.table());
    assert!(walk(&w, "", true).await == all);
    assert_eq!(lists(&w), 0, "all of it is remembered");
}

#[tokio::test]
async fn nested_directories_come_with_the_same_pages() {
    for depth_first in [true, false] {
        let w = world().await;
        for top in 0..10 {
            fill(&w, &format!("t{top}/"), 20, 10).await;
            w.put(&format!("t{top}/deep/er/and/deeper/file"), "x").await;
            w.put(&format!("t{top}/empty/"), "").await;
        }
        w.spent();
        let all = walk(&w, "", depth_first).await;
        assert!(all == stored(&w).await);
        let (spent, directories) = (lists(&w), all.iter().filter(|name| name.ends_with('/')).count());
        let most = if depth_first { 8 } else { 40 };
        assert!(spent <= most, "{spent} for {directories}, depth first: {depth_first}\n{}", w.log.table());
    }
}

#[tokio::test]
async fn two_directories_by_hand_are_listed_as_ever() {
    let w = world().await;
    fill(&w, "", 20, 3).await;
    w.list("").await;
    w.spent();
    w.list("d000").await;
    w.list("d001").await;
    w.list("d012").await;
    w.list("d004").await;
    let prefixes: Vec<_> = w.log.table().0.into_iter().map(|record| record.key).collect();
    assert_eq!(lists(&w), 4);
    assert!(prefixes.iter().all(|prefix| !prefix.is_empty()), "{prefixes:?}");
}

#[tokio::test]
async fn helpers_in_parallel_share_the_pages() {
    let w = world().await;
    fill(&w, "", 60, 50).await;
    let top = w.entries(Ino::ROOT).await;
    w.spent();
    let queue = std::sync::Mutex::new(top.into_iter());
    let helper = async || {
        let mut seen = 0;
        loop {
            let next = queue.lock().unwrap().next();
            let Some(name) = next else { return seen };
            let dir = w.child(Ino::ROOT, name.trim_end_matches('/')).await;
            seen += w.entries(dir).await.len();
        }
    };
    let (one, other) = tokio::join!(helper(), helper());
    assert_eq!(one + other, 3000);
    let spent = lists(&w);
    assert!(spent <= 8, "{spent}\n{}", w.log.table());
}

#[tokio::test]
async fn odd_keys_are_shown_as_a_plain_listing_shows_them() {
    let w = world().await;
    let odd = [
        "x",
        "x/y",
        "x!",
        "x!/y",
        "x0",
        "z",
        "z!a/1",
        "z/1",
        "q//hidden",
        "q/./hidden",
        "q/seen",
        "r/",
        "r//",
        "u/v/w/x/y",
    ];
    for dir in 0..12 {
        for key in odd {
            w.put(&format!("d{dir:02}/{key}"), "x").await;
        }
    }
    w.spent();
    let flat = walk(&w, "", true).await;
    let spent = lists(&w);
    assert!(spent <= 30, "{spent}");
    let plain = with(MemoryOptions::default(), Ttl::Zero).await;
    for key in stored(&w).await {
        if w.meta(&key).await.is_some() {
            plain.put(&key, "x").await;
        }
    }
    assert_eq!(flat, walk(&plain, "", true).await);
}

#[tokio::test]
async fn a_huge_directory_on_the_way_is_listed_by_itself() {
    let w = world().await;
    fill(&w, "", 30, 30).await;
    for file in 0..6500 {
        w.put(&format!("d015/more{file:05}"), "x").await;
    }
    w.spent();
    let all = walk(&w, "", true).await;
    assert!(all == stored(&w).await);
    let spent = lists(&w);
    assert!(spent <= 7 + 3 + 8, "{spent}\n{}", w.log.table());
}

#[tokio::test]
async fn where_listings_hide_names_or_nothing_is_remembered_each_directory_is_listed() {
    let hides = Capabilities { lists_every_name: false, ..Capabilities::S3 };
    let hides = MemoryOptions { capabilities: hides, ..MemoryOptions::default() };
    for (options, ttl) in [(hides, Ttl::Forever), (MemoryOptions::default(), Ttl::Zero)] {
        let w = with(options, ttl).await;
        fill(&w, "", 20, 3).await;
        w.spent();
        walk(&w, "", true).await;
        let listed: Vec<_> = w.log.table().0.into_iter().map(|r| (r.operation, r.key)).collect();
        let flat = listed.iter().filter(|(op, key)| *op == Op::List && key.is_empty()).count();
        assert_eq!(flat, 1, "{listed:?}");
    }
}

/// A tree whose first three directories were listed, so that the next one is asked for flat.
async fn walked_to_the_third() -> (World, Vec<Ino>) {
    let w = world().await;
    fill(&w, "", 12, 3).await;
    let dirs = walk_to_the_third(&w).await;
    (w, dirs)
}

/// Lists the root and its first two directories; all its directories.
async fn walk_to_the_third(w: &World) -> Vec<Ino> {
    let mut dirs = Vec::new();
    for name in w.entries(Ino::ROOT).await {
        dirs.push(w.child(Ino::ROOT, name.trim_end_matches('/')).await);
    }
    w.entries(dirs[0]).await;
    w.entries(dirs[1]).await;
    w.spent();
    dirs
}

#[tokio::test]
async fn when_a_flat_listing_fails_nobody_is_told() {
    let (w, dirs) = walked_to_the_third().await;
    w.faults.add(Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden)).on(Op::List).key(str::is_empty));
    for dir in &dirs[2..] {
        assert_eq!(w.entries(*dir).await.len(), 3);
    }
    let spent = lists(&w);
    assert!(spent <= 10 + 3, "{spent}");
}

#[tokio::test]
async fn what_is_changed_here_while_a_flat_page_is_on_its_way_is_seen() {
    for changed_before_the_store_answers in [true, false] {
        for at in [2, 3, 7] {
            let (w, dirs) = walked_to_the_third().await;
            let gate = Gate::new();
            let action = if changed_before_the_store_answers {
                FaultAction::HoldBefore(gate.clone())
            } else {
                FaultAction::HoldAfter(gate.clone())
            };
            w.faults.add(Fault::new(action).on(Op::List).key(str::is_empty).times(1));
            let walker = async { w.entries(dirs[2]).await };
            let change = async {
                gate.arrived(1).await;
                let dir = format!("d{at:03}");
                w.create(&dir, "new", b"1").await.unwrap();
                w.fs.unlink(dirs[at], "f001").await.unwrap();
                w.fs.rename(dirs[at], "f000", dirs[at], "moved", RenameMode::Replace).await.unwrap();
                w.fs.mkdir(dirs[at], "made", 0o755, ROOT).await.unwrap();
                w.fs.mkdir(dirs[at], "gone", 0o755, ROOT).await.unwrap();
                w.fs.rmdir(dirs[at], "gone").await.unwrap();
                gate.open();
            };
            tokio::join!(walker, change);
            for (i, dir) in dirs.iter().enumerate().skip(2) {
                let shown = w.entries(*dir).await;
                let wanted: &[&str] =
                    if i == at { &["f002", "made/", "moved", "new"] } else { &["f000", "f001", "f002"] };
                assert_eq!(shown, wanted, "d{i:03}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_changed_here_while_it_is_held_is_seen() {
    let (w, dirs) = walked_to_the_third().await;
    w.entries(dirs[2]).await;
    w.fs.unlink(dirs[4], "f000").await.unwrap();
    w.create("d005", "new", b"1").await.unwrap();
    w.fs.rename(dirs[6], "f000", dirs[7], "moved", RenameMode::Replace).await.unwrap();
    w.fs.rename(Ino::ROOT, "d009", dirs[8], "below", RenameMode::Replace).await.unwrap();
    let shown = walk(&w, "", true).await;
    assert_eq!(shown, stored(&w).await);
}

#[tokio::test]
async fn a_directory_that_moves_takes_what_was_listed_along_or_leaves_none_of_it() {
    let (w, dirs) = walked_to_the_third().await;
    let gate = Gate::new();
    w.faults.add(Fault::new(FaultAction::HoldAfter(gate.clone())).on(Op::List).key(str::is_empty).times(1));
    let walker = async { w.entries(dirs[2]).await };
    let change = async {
        gate.arrived(1).await;
        w.fs.rename(Ino::ROOT, "d003", Ino::ROOT, "e", RenameMode::Replace).await.unwrap();
        w.fs.mkdir(Ino::ROOT, "d003", 0o755, ROOT).await.unwrap();
        gate.open();
    };
    let (shown, ()) = tokio::join!(walker, change);
    assert_eq!(shown.len(), 3);
    assert!(w.entries(w.child(Ino::ROOT, "d003").await).await.is_empty());
    assert_eq!(w.entries(dirs[3]).await.len(), 3, "under its new name");
}

#[tokio::test]
async fn what_others_change_is_seen_once_its_time_is_over() {
    let ttl = Duration::from_millis(200);
    let w = with(MemoryOptions::default(), Ttl::For(ttl)).await;
    fill(&w, "", 12, 3).await;
    walk(&w, "", true).await;
    w.put("d011/theirs", "x").await;
    w.bucket.delete(DeleteRequest::latest(k("d010/f000"))).await.unwrap();
    // Until then an older listing may be shown.
    let seen = async { while walk(&w, "", true).await != stored(&w).await {} };
    tokio::time::timeout(Duration::from_secs(30), seen).await.expect("what others change is seen");
}

#[tokio::test]
async fn a_walker_slower_than_the_time_of_a_listing_lists_no_more_than_by_himself() {
    let ttl = Duration::from_millis(10);
    let w = with(MemoryOptions::default(), Ttl::For(ttl)).await;
    fill(&w, "", 40, 3).await;
    let mut dirs = Vec::new();
    for name in w.entries(Ino::ROOT).await {
        dirs.push(w.child(Ino::ROOT, name.trim_end_matches('/')).await);
    }
    w.spent();
    for dir in &dirs {
        assert_eq!(w.entries(*dir).await.len(), 3);
        tokio::time::sleep(ttl).await;
    }
    let spent = lists(&w);
    assert!(spent <= dirs.len() + 2, "{spent}\n{}", w.log.table());
}

#[tokio::test]
async fn what_somebody_looked_up_is_not_gone_in_an_older_listing() {
    let (w, dirs) = walked_to_the_third().await;
    w.entries(dirs[2]).await;
    w.put("d005/theirs", "x").await;
    w.child(dirs[5], "theirs").await;
    assert_eq!(w.entries(dirs[5]).await, ["f000", "f001", "f002", "theirs"]);
}

#[tokio::test]
async fn nothing_is_asked_for_nobody() {
    let w = world().await;
    fill(&w, "", 100, 100).await;
    let top = w.entries(Ino::ROOT).await;
    w.spent();
    for name in &top[..3] {
        let dir = w.child(Ino::ROOT, name.trim_end_matches('/')).await;
        w.entries(dir).await;
    }
    // Whoever was under way gets as far as he would.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let table = w.log.table();
    assert_eq!(lists(&w), 3, "{table}");
    w.fs.drain(Duration::from_secs(5)).await;
    until("no task is left", || std::sync::Arc::strong_count(&w.fs) == 1).await;
}

#[tokio::test]
async fn a_walker_who_gives_up_leaves_the_others_alone() {
    let (w, dirs) = walked_to_the_third().await;
    let gate = Gate::new();
    w.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).on(Op::List).key(str::is_empty).times(1));
    {
        let walker = std::pin::pin!(w.entries(dirs[2]));
        let arrived = std::pin::pin!(gate.arrived(1));
        futures::future::select(walker, arrived).await;
    }
    gate.open();
    assert_eq!(w.entries(dirs[2]).await.len(), 3);
    assert_eq!(w.entries(dirs[3]).await.len(), 3);
    assert!(lists(&w) <= 2);
}

#[tokio::test]
async fn a_new_directory_has_nothing_of_one_that_was_there_before() {
    let (w, dirs) = walked_to_the_third().await;
    w.put("d005/again/old", "x").await;
    w.entries(dirs[2]).await;
    w.bucket.delete(DeleteRequest::latest(k("d005/again/old"))).await.unwrap();
    assert!(w.try_ino("d005/again").await.is_none());
    let made = w.fs.mkdir(dirs[5], "again", 0o755, ROOT).await.unwrap().attr.ino;
    assert!(w.entries(made).await.is_empty());
    w.entries(dirs[3]).await;
    assert_eq!(lists(&w), 3, "d005/again was looked up and listed, everything else came at once");
}

#[tokio::test]
async fn who_is_no_walker_does_not_wait_for_one() {
    let (w, dirs) = walked_to_the_third().await;
    let gate = Gate::new();
    w.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).on(Op::List).key(str::is_empty).times(1));
    let walker = async { w.entries(dirs[2]).await };
    let other = async {
        gate.arrived(1).await;
        let listed = tokio::time::timeout(Duration::from_secs(3), w.entries(dirs[11])).await;
        gate.open();
        listed.expect("he lists it himself").len()
    };
    let (walked, other) = tokio::join!(walker, other);
    assert_eq!((walked.len(), other), (3, 3));
}

#[tokio::test]
async fn a_directory_that_does_not_end_is_waited_for_two_pages_and_what_is_in_it_still_comes() {
    let w = with(MemoryOptions { page_max: 10, ..MemoryOptions::default() }, Ttl::Forever).await;
    fill(&w, "", 4, 1).await;
    fill(&w, "d002/", 20, 4).await;
    let dirs = walk_to_the_third(&w).await;
    assert_eq!(w.entries(dirs[2]).await.len(), 21);
    let asked: Vec<_> = w.log.table().0.into_iter().map(|record| record.key).collect();
    assert_eq!(asked, ["", "", "", "d002/", "d002/", "d002/"]);
    w.spent();
    for sub in 0..6 {
        let dir = w.child(dirs[2], &format!("d{sub:03}")).await;
        assert_eq!(w.entries(dir).await.len(), 4);
    }
    let table = w.log.table();
    let mut listed = table.0.iter().filter(|record| record.operation == Op::List);
    assert!(listed.all(|record| record.key.is_empty()), "{table}");
}

#[tokio::test]
async fn a_driver_that_panics_leaves_nobody_waiting() {
    let (w, dirs) = walked_to_the_third().await;
    let panics = |key: &str| {
        assert!(!key.is_empty(), "the store panics");
        false
    };
    w.faults.add(Fault::new(FaultAction::Hang).on(Op::List).key(panics));
    for dir in &dirs[2..] {
        let listed = tokio::time::timeout(Duration::from_secs(20), w.entries(*dir)).await;
        assert_eq!(listed.expect("nobody waits for ever").len(), 3);
    }
}

#[tokio::test]
async fn copies_of_a_directory_that_could_not_move_are_not_remembered() {
    let w = world().await;
    for key in ["a/f1", "a/f2", "c"] {
        w.put(key, "x").await;
    }
    let gate = Gate::new();
    let held = Fault::new(FaultAction::HoldAfter(gate.clone())).on(Op::Copy).key(|key| key.ends_with("f1"));
    let failed =
        Fault::new(FaultAction::FailBefore(ErrorKind::Forbidden)).on(Op::Copy).key(|key| key.ends_with("f2"));
    w.faults.add(held);
    w.faults.add(failed);
    w.ino("a").await;
    let moved = w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "b", RenameMode::Replace);
    let meanwhile = async {
        gate.arrived(1).await;
        let shown = w.entries(Ino::ROOT).await;
        let copies = w.child(Ino::ROOT, "b").await;
        w.entries(copies).await;
        gate.open();
        shown
    };
    let (moved, meanwhile) = tokio::join!(moved, meanwhile);
    moved.unwrap_err();
    assert_eq!(meanwhile, ["a/", "b/", "c"]);
    assert_eq!(w.entries(Ino::ROOT).await, ["a/", "c"]);
    assert!(w.try_ino("b").await.is_none());
    assert_eq!(w.list("a").await, ["f1", "f2"]);
}

#[tokio::test]
async fn once_draining_nothing_is_asked_for_ahead_or_waited_for() {
    let w = world().await;
    for file in 0..1500 {
        w.put(&format!("large/{file:05}"), "x").await;
    }
    fill(&w, "", 12, 3).await;
    let large = w.ino("large").await;
    let gate = Gate::new();
    let next = |key: &str| key == "large/";
    w.faults.add(Fault::new(FaultAction::HoldBefore(gate.clone())).on(Op::List).key(next).skip(1));
    let handle = w.fs.opendir(large).await.unwrap();
    w.fs.readdir(handle, 0, 800).await.unwrap();
    gate.arrived(1).await;
    let drained = w.fs.drain(Duration::from_mins(1));
    tokio::time::timeout(Duration::from_secs(20), drained).await.expect("no reader is waited for");
    gate.open();
    w.fs.releasedir(handle);
    let top = w.entries(Ino::ROOT).await;
    w.spent();
    for name in top.iter().filter(|name| name.starts_with('d')) {
        let dir = w.child(Ino::ROOT, name.trim_end_matches('/')).await;
        w.entries(dir).await;
    }
    assert_eq!(lists(&w), 12);
}

use std::time::SystemTime;

use staithe_store::{ETag, Key, ObjectSummary};

use super::*;

fn page(keys: impl IntoIterator<Item = String>, more: bool) -> ListPage {
    let object = |key: String| ObjectSummary {
        size: 1,
        etag: ETag::new("e"),
        id: None,
        last_modified: SystemTime::UNIX_EPOCH,
        key: Key::new(key).unwrap(),
    };
    let next = more.then(|| PageToken::new("more"));
    ListPage { objects: keys.into_iter().map(object).collect(), prefixes: Vec::new(), next }
}

/// Keys of directories `dNNNNN` from `first` on, with `files` in each.
fn directories(first: usize, count: usize, files: usize) -> impl Iterator<Item = String> {
    (first..first + count).flat_map(move |dir| (0..files).map(move |file| format!("d{dir:05}/{file:04}")))
}

fn runs() -> (Runs<()>, RunId, Instant) {
    let (mut runs, now) = (Runs::default(), Instant::now());
    let id = runs.begin(String::new(), "d00000/", now).unwrap();
    (runs, id, now)
}

fn asks(runs: &mut Runs<()>, id: RunId, now: Instant) -> bool {
    matches!(runs.turn(id, now), Turn::Ask(_))
}

fn takes(runs: &mut Runs<()>, dir: usize, now: Instant) -> bool {
    matches!(runs.find(&format!("d{dir:05}/"), now, |_| true), Found::Here { .. })
}

#[test]
fn nothing_is_asked_before_somebody_waits() {
    let (mut runs, id, now) = runs();
    assert!(!asks(&mut runs, id, now));
    let Found::Coming { run, is_open: false, page: coming } = runs.find("d00000/", now, |_| true) else {
        panic!()
    };
    assert_eq!(run, id);
    runs.waits(id, "d00000/");
    let Turn::Ask(request) = runs.turn(id, now) else { panic!("somebody waits") };
    assert_eq!((&*request.prefix, request.start_after.unwrap()), ("", before("d00000/")));
    assert!(!asks(&mut runs, id, now), "one at a time");
    runs.answered(id, &page(directories(0, 10, 100), true)).unwrap();
    assert!(coming.has_changed().unwrap());
    assert!(!asks(&mut runs, id, now), "who waited is served");
    assert!(takes(&mut runs, 0, now) && !takes(&mut runs, 0, now), "once");
}

#[test]
fn a_page_ahead_is_asked_for_once_directories_were_taken() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    runs.answered(id, &page(directories(0, 10, 100), true)).unwrap();
    assert!(takes(&mut runs, 0, now) && !asks(&mut runs, id, now));
    assert!(takes(&mut runs, 1, now) && asks(&mut runs, id, now));
    runs.answered(id, &page(directories(10, 10, 100), true)).unwrap();
    assert!(!asks(&mut runs, id, now), "a page is held");
}

#[test]
fn who_waits_gets_a_directory_of_several_pages() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    let all: Vec<_> = directories(0, 1, 1500).collect();
    assert!(asks(&mut runs, id, now));
    runs.answered(id, &page(all[..1000].iter().cloned(), true)).unwrap();
    assert!(matches!(runs.find("d00000/", now, |_| true), Found::Coming { is_open: true, .. }));
    assert!(asks(&mut runs, id, now), "he still waits");
    runs.answered(id, &page(all[1000..].iter().cloned(), false)).unwrap();
    assert!(takes(&mut runs, 0, now));
    assert!(matches!(runs.turn(id, now), Turn::Over { .. }), "nothing is left");
}

#[test]
fn a_large_directory_is_said_to_be_one() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    let all: Vec<_> = directories(0, 1, 3000).collect();
    for part in all.chunks(1000) {
        assert!(asks(&mut runs, id, now));
        runs.answered(id, &page(part.iter().cloned(), true)).unwrap();
    }
    assert!(matches!(runs.find("d00000/", now, |_| true), Found::Unfit));
    assert!(!asks(&mut runs, id, now), "three pages were of no use");
}

#[test]
fn what_is_noted_or_doubted_is_not_given_out() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    runs.note(String::from("d00001/"));
    runs.answered(id, &page(directories(0, 9, 10), true)).unwrap();
    runs.note(String::from("d00002/"));
    assert!(takes(&mut runs, 0, now) && !takes(&mut runs, 1, now) && !takes(&mut runs, 2, now));
    assert!(takes(&mut runs, 3, now));
    assert!(!matches!(runs.find("d00004/", now, |_| false), Found::Here { .. }), "out of date");
    assert!(asks(&mut runs, id, now), "ahead");
    runs.doubt();
    runs.answered(id, &page(directories(9, 9, 10), false)).unwrap();
    for dir in 5..18 {
        // The last key of the page before was of the ninth.
        assert!(!takes(&mut runs, dir, now), "{dir}");
    }
}

#[test]
fn what_is_held_is_bounded() {
    let (mut runs, id, now) = runs();
    let deep = "0/1/2/3/4/5/6/7/8/9/".repeat(40);
    let mut most = 0;
    for round in 0..50 {
        runs.waits(id, &format!("d{:05}/", round * 2));
        if !asks(&mut runs, id, now) {
            break;
        }
        let key = |i: usize| format!("d{:05}/{i:03}/{deep}x", round * 2 + i / 500);
        runs.answered(id, &page((0..1000).map(key), true)).unwrap();
        most = most.max(runs.all[0].cost);
        // To count is slow.
        if round % 10 == 0 {
            let held: usize = runs.all[0].held.values().map(cost).sum();
            assert_eq!(runs.all[0].cost, held);
        }
        takes(&mut runs, round * 2, now);
    }
    assert!(most > COST_MOST / 2 && most <= COST_MOST + (1 << 20), "{most}");
}

#[test]
fn who_goes_on_far_ahead_leaves_nothing_behind() {
    let (mut runs, id, now) = runs();
    runs.all[0].credit = 100;
    for round in 0..40 {
        runs.waits(id, &format!("d{:05}/", round * 100 + 90));
        assert!(asks(&mut runs, id, now));
        runs.answered(id, &page(directories(round * 100, 100, 10), true)).unwrap();
        assert!(runs.all[0].entries <= AHEAD + 1000, "{}", runs.all[0].entries);
    }
}

#[test]
fn runs_end_by_idleness_and_are_few() {
    let (mut runs, id, now) = runs();
    let Turn::Rest(time) = runs.turn(id, now) else { panic!() };
    assert_eq!(time, IDLE);
    assert!(matches!(runs.turn(id, now + IDLE), Turn::Over { .. }) && !runs.is_any());
    let ids: Vec<_> =
        (0..10).map(|i| runs.begin(format!("{i}/"), &format!("{i}/a/"), now).unwrap()).collect();
    assert_eq!(runs.all.len(), RUNS_MOST);
    assert!(matches!(runs.turn(ids[0], now), Turn::Over { .. }));
    runs.close();
    assert!(!runs.is_any());
}

#[test]
fn a_run_that_has_passed_gives_way_and_one_elsewhere_stays() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    runs.answered(id, &page(directories(0, 10, 100), true)).unwrap();
    assert!(takes(&mut runs, 0, now) && takes(&mut runs, 1, now));
    let elsewhere = runs.begin(String::new(), "d00500/", now).unwrap();
    assert_eq!(runs.all.len(), 2);
    let again = runs.begin(String::new(), "d00003/", now).unwrap();
    assert_eq!(runs.all.iter().map(|run| run.id).collect::<Vec<_>>(), [elsewhere, again]);
    runs.waits(again, "d00003/");
    assert!(asks(&mut runs, again, now));
    runs.answered(again, &page(directories(3, 10, 100), true)).unwrap();
    assert!(takes(&mut runs, 3, now));
    assert!(
        runs.begin(String::new(), "d00004/", now) == Err(NoRun::Useless),
        "one was taken: the next would be for one, too"
    );
    assert_eq!(runs.all.len(), 1);
}

#[test]
fn who_leaves_does_not_take_another_ones_place() {
    let (mut runs, id, now) = runs();
    let gone = runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    runs.answered(id, &page([String::from("a")], true)).unwrap_err();
    let id = runs.begin(String::new(), "d00000/", now).unwrap();
    runs.waits(id, "d00000/");
    runs.left(id, gone, now);
    assert!(asks(&mut runs, id, now));
}

#[test]
fn keys_out_of_order_end_the_run() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    let wrong = page([String::from("e/1"), String::from("d00000/1")], true);
    assert_eq!(runs.answered(id, &wrong), Err(Disorder));
    assert!(!runs.is_any());
}

#[test]
fn an_open_directory_that_can_not_be_given_out_is_not_waited_for() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    runs.answered(id, &page(directories(0, 1, 1000), true)).unwrap();
    assert!(matches!(runs.find("d00000/", now, |_| true), Found::Coming { is_open: true, .. }));
    assert!(matches!(runs.find("d00000/", now, |_| false), Found::Unfit), "too old");
    runs.note(String::from("d00000/"));
    assert!(matches!(runs.find("d00000/", now, |_| true), Found::Unfit), "overtaken");
    assert!(matches!(runs.find("d00001/", now, |_| true), Found::Coming { is_open: false, .. }));
}

#[test]
fn what_was_taken_out_holds_until_it_is_noted_or_nobody_notes_any_more() {
    for is_ended in [true, false] {
        let (mut runs, id, now) = runs();
        runs.waits(id, "d00000/");
        assert!(asks(&mut runs, id, now));
        runs.answered(id, &page(directories(0, 9, 10), true)).unwrap();
        let Found::Here { rebuilt, .. } = runs.find("d00000/", now, |_| true) else { panic!() };
        runs.note(String::from("d00001/"));
        assert!(runs.holds(&rebuilt));
        if is_ended {
            assert!(runs.end(id) && !runs.end(id));
        } else {
            runs.note(String::from("d00000/"));
        }
        assert!(!runs.holds(&rebuilt));
    }
}

#[test]
fn a_run_that_somebody_waits_for_does_not_give_way() {
    let now = Instant::now();
    let mut runs: Runs<()> = Runs::default();
    let begin = |runs: &mut Runs<()>, i: usize| runs.begin(format!("{i}/"), &format!("{i}/a/"), now);
    let ids: Vec<_> = (0..RUNS_MOST).map(|i| begin(&mut runs, i).unwrap()).collect();
    for (i, id) in ids.iter().enumerate() {
        runs.waits(*id, &format!("{i}/a/"));
    }
    assert_eq!(begin(&mut runs, 10), Err(NoRun::Busy));
    let gone = runs.all[2].waiting[0].0;
    runs.left(ids[2], gone, now);
    begin(&mut runs, 10).unwrap();
    assert!(runs.all.iter().all(|run| run.id != ids[2]));
    runs.close();
    assert_eq!(begin(&mut runs, 0), Err(NoRun::Busy));
}

#[test]
fn a_run_has_the_credit_of_the_one_that_it_replaces() {
    let (mut runs, id, now) = runs();
    runs.waits(id, "d00000/");
    assert!(asks(&mut runs, id, now));
    runs.answered(id, &page(directories(0, 10, 100), true)).unwrap();
    assert!(takes(&mut runs, 0, now) && takes(&mut runs, 1, now));
    runs.all[0].credit = 1;
    runs.begin(String::new(), "d00001/", now).unwrap();
    assert_eq!((runs.all.len(), runs.all[0].credit), (1, 1));
}

#[test]
fn a_run_without_credit_was_not_worth_it_and_no_other_one_begins_before_it() {
    let (mut runs, id, now) = runs();
    let mut first = 0;
    while runs.all[0].credit > 0 {
        runs.waits(id, "d00000/");
        assert!(asks(&mut runs, id, now));
        runs.answered(id, &page(directories(first, 10, 100), true)).unwrap();
        first += 10;
    }
    assert_eq!(runs.begin(String::new(), "d00900/", now), Err(NoRun::Busy));
    assert!(runs.begin(String::from("e/"), "e/a/", now).is_ok(), "elsewhere");
    assert!(matches!(runs.turn(id, now + IDLE), Turn::Over { was_worth_it: false }));
    assert!(runs.begin(String::new(), "d00900/", now).is_ok());
}

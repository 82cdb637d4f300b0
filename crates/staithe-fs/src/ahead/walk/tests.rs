use super::*;

const DIR: Ino = Ino(7);
const BODY: u64 = 1000;

/// Walks whose directories all hold the files `from..`, named by number.
struct World {
    walks: Walks<String>,
    now: Instant,
}

fn name(n: usize) -> String {
    format!("{n:05}")
}

fn files(from: usize) -> Following {
    let names = (from..from + CHUNK).map(|n| Coming { name: name(n), body: Some(BODY) }).collect();
    Following { names, ends: false }
}

impl World {
    fn new(limit: u64) -> Self {
        Self { walks: Walks::new(limit), now: Instant::now() }
    }

    /// The names asked for when this happens to file `n`; `true` stands for a body.
    fn met(&mut self, dir: Ino, n: usize, event: Event) -> Vec<(usize, bool)> {
        let number = |wanted: Wanted| (wanted.name.parse().unwrap(), wanted.body);
        let wanted = match self.walks.met(dir, &name(n), event, self.now) {
            Next::Nothing => Vec::new(),
            Next::More(last) => panic!("{last} was extended before"),
            Next::Order(recent) => {
                let before = n.checked_sub(1).map(name).unwrap_or_default();
                if let Some(met) = recent.iter().find(|m| m.name == before) {
                    self.walks.begin(dir, files(n + 1), event, met.opened, self.now)
                } else {
                    self.walks.disorder(dir);
                    Vec::new()
                }
            }
            Next::Ask { mut wanted, more } => {
                if let Some(last) = more {
                    let from = last.parse::<usize>().unwrap() + 1;
                    wanted.extend(self.walks.extend(dir, files(from), self.now));
                }
                wanted
            }
        };
        for wanted in &wanted {
            assert_eq!(
                self.walks.keep(dir, &wanted.name, wanted.name.clone()),
                if wanted.body { Kept::Whole } else { Kept::WithoutBody }
            );
        }
        wanted.into_iter().map(number).collect()
    }

    fn cat(&mut self, dir: Ino, n: usize) -> Vec<(usize, bool)> {
        let mut wanted = self.met(dir, n, Event::Missed);
        wanted.extend(self.met(dir, n, Event::Opened));
        wanted
    }

    fn dropped(&mut self) -> Vec<String> {
        let released = self.walks.take_released().into_iter();
        released.filter_map(|r| if let Released::All(name) = r { Some(name) } else { None }).collect()
    }
}

#[test]
fn in_order_every_name_is_asked_for_once_in_a_window_that_grows() {
    for (events, body) in [(&[Event::Missed][..], false), (&[Event::Opened], true)] {
        let mut world = World::new(u64::MAX);
        let mut asked = Vec::new();
        let mut most = 0;
        for n in 0..3000 {
            for event in events {
                let wanted = world.met(DIR, n, *event);
                assert!(wanted.iter().all(|w| w.0 > n && w.1 == body), "{wanted:?}");
                asked.extend(wanted.iter().map(|w| w.0));
                most = most.max(wanted.len());
            }
            let ahead = asked.len().saturating_sub(n.saturating_sub(1));
            assert!(ahead <= WINDOW_MOST + 1, "{ahead} ahead of {n}");
        }
        assert_eq!(asked, (2..2 + asked.len()).collect::<Vec<_>>(), "in order, none twice");
        assert!(asked.len() >= 2998, "and all: {}", asked.len());
        assert!(most > 30, "{most}");
    }
}

#[test]
fn the_window_is_four_then_sixteen_then_sixty_four() {
    let mut world = World::new(u64::MAX);
    let sizes: Vec<_> = (0..20).map(|n| world.cat(DIR, n).len()).filter(|n| *n > 0).collect();
    // Each time half of the window has been gone through.
    assert_eq!(sizes[..3], [4, 14, 56]);
}

#[test]
fn looking_at_files_asks_for_no_bodies() {
    let mut world = World::new(u64::MAX);
    let asked: Vec<_> = (0..500).flat_map(|n| world.met(DIR, n, Event::Missed)).collect();
    assert!(asked.iter().all(|(_, body)| !body));
    // Not even after a directory in which files were read.
    for n in 0..500 {
        world.cat(Ino(8), n);
    }
    let asked: Vec<_> = (0..500).flat_map(|n| world.met(Ino(9), n, Event::Missed)).collect();
    assert!(asked.iter().filter(|(_, body)| *body).count() <= 4 + 16, "{asked:?}");
}

#[test]
fn bodies_are_dropped_when_files_are_looked_at_and_not_opened_any_more() {
    let mut world = World::new(u64::MAX);
    for n in 0..100 {
        world.cat(DIR, n);
    }
    world.walks.take_released();
    for n in 100..100 + UNOPENED_MOST as usize {
        world.met(DIR, n, Event::Missed);
    }
    assert_eq!(world.walks.take_released(), []);
    world.met(DIR, 110 - 2, Event::Missed);
    let released = world.walks.take_released();
    assert!(released.len() > 30 && released.iter().all(|r| matches!(r, Released::Body(_))), "{released:?}");
    assert_eq!(world.walks.granted, 0);
    let later: Vec<_> = (109..300).flat_map(|n| world.met(DIR, n, Event::Missed)).collect();
    assert!(later.iter().all(|(_, body)| !body));
}

#[test]
fn bodies_ahead_keep_to_their_bytes() {
    let mut world = World::new(5 * BODY);
    for n in 0..300 {
        world.cat(DIR, n);
        assert!(world.walks.granted <= 5 * BODY);
    }
    assert_eq!(world.walks.granted, 5 * BODY, "and use them");
    world.walks.clear();
    assert_eq!(world.walks.granted, 0);
    assert_eq!(world.dropped().len(), 5);
}

#[test]
fn out_of_order_nothing_is_asked_for() {
    let mut world = World::new(u64::MAX);
    for step in 0..500 {
        assert_eq!(world.cat(DIR, step * 377 % 1000), [], "step {step}");
    }
}

#[test]
fn what_was_not_opened_is_dropped_when_the_order_ends() {
    let mut world = World::new(u64::MAX);
    for n in 0..50 {
        world.cat(DIR, n);
    }
    assert_eq!(world.dropped(), [""; 0]);
    for n in 0..STRAYS_MOST as usize {
        assert_eq!(world.met(DIR, 900 - 3 * n, Event::Opened), []);
    }
    let dropped = world.dropped();
    assert!(dropped.len() > 30 && dropped.iter().all(|n| **n >= *name(50)), "{dropped:?}");
    assert_eq!(world.walks.granted, 0);
    assert!(!world.walks.is_any());
}

#[test]
fn a_walk_that_nobody_goes_on_with_ends() {
    let mut world = World::new(u64::MAX);
    for n in 0..50 {
        world.cat(DIR, n);
    }
    assert!(world.walks.sweep(world.now));
    assert!(!world.walks.sweep(world.now + IDLE));
    assert!(world.dropped().len() > 30);
    assert_eq!(world.walks.granted, 0);
    // What comes for it later is not wanted.
    assert_eq!(world.walks.keep(DIR, &name(60), "late".into()), Kept::Unwanted("late".into()));
}

#[test]
fn a_file_that_is_passed_and_not_opened_is_dropped_far_behind() {
    let mut world = World::new(u64::MAX);
    for n in (0..200).filter(|n| *n != 20) {
        world.cat(DIR, n);
    }
    assert_eq!(world.dropped(), [name(20)]);
}

#[test]
fn readers_in_parallel_are_one_walk() {
    let mut world = World::new(u64::MAX);
    let mut asked: Vec<usize> = Vec::new();
    // Two of them, each taking 32 in order, as a data loader's workers do.
    for batch in 0..10 {
        for n in 0..32 {
            for reader in 0..2 {
                asked.extend(world.cat(DIR, batch * 64 + reader * 32 + n).iter().map(|w| w.0));
            }
        }
    }
    let total = asked.len();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), total, "none twice");
    assert!(total > 600, "{total}");
}

#[test]
fn the_next_directory_begins_where_the_last_one_was() {
    let mut world = World::new(u64::MAX);
    for n in 0..100 {
        world.met(DIR, n, Event::Missed);
    }
    assert_eq!(world.met(Ino(8), 0, Event::Missed).len(), WINDOW_MOST);
    world.now += IDLE;
    assert_eq!(world.met(Ino(9), 0, Event::Missed), []);
}

#[test]
fn disorder_is_looked_at_ever_more_rarely() {
    let mut world = World::new(u64::MAX);
    let mut looks = 0;
    for n in 0..1000 {
        if matches!(world.walks.met(DIR, &name(n * 7 % 1000), Event::Missed, world.now), Next::Order(_)) {
            world.walks.disorder(DIR);
            looks += 1;
        }
    }
    assert!(looks < 30, "{looks}");
}

#[test]
fn only_so_many_directories_are_followed() {
    let mut world = World::new(u64::MAX);
    for dir in 0..100 {
        world.cat(Ino(dir), 5);
        world.cat(Ino(dir), 6);
    }
    assert_eq!(world.walks.recent.len(), WALKS_MOST);
    assert!(world.dropped().len() > 80);
}

#[test]
fn a_new_listing_lets_a_walk_go_on() {
    let mut world = World::new(u64::MAX);
    for n in 0..10 {
        world.cat(DIR, n);
    }
    assert_eq!(world.walks.before_next(DIR, &name(10)), Some(&*name(9)));
    assert_eq!(world.walks.before_next(DIR, &name(50)), None);
    let before = world.walks.granted;
    world.walks.listed(DIR, files(10));
    assert_eq!(world.walks.granted, before, "what came stays");
    assert!((10..100).flat_map(|n| world.cat(DIR, n)).count() > 60);
}

#[test]
fn a_walk_goes_on_where_the_next_page_begins() {
    let mut world = World::new(u64::MAX);
    let page = |from: usize| Following { names: files(from).names[..100].to_vec(), ends: false };
    world.walks.met(DIR, &name(0), Event::Missed, world.now);
    let Next::Order(_) = world.walks.met(DIR, &name(1), Event::Missed, world.now) else { panic!("no order") };
    world.walks.begin(DIR, page(2), Event::Missed, false, world.now);
    for n in 2..102 {
        let Next::Ask { .. } = world.walks.met(DIR, &name(n), Event::Missed, world.now) else {
            panic!("{n}")
        };
    }
    assert_eq!(world.walks.met(DIR, &name(102), Event::Missed, world.now), Next::More(name(101)));
    world.walks.append(DIR, page(102));
    let Next::Ask { wanted, .. } = world.walks.met(DIR, &name(102), Event::Missed, world.now) else {
        panic!()
    };
    assert_eq!(wanted.first().map(|w| w.name.clone()), Some(name(103)));
    assert!(wanted.len() > 60, "{}", wanted.len());
}

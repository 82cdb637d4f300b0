//! Each rule of the state machine.
#![allow(clippy::disallowed_methods)]

mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Core;
use crate::{Config, Observation, Outcome, Phase, Reason};
use watch::Watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Gone,
    Refused,
}
use Verdict::{Gone, Refused};

#[test]
fn the_start_is_over_when_it_is_said() {
    let mut watch = Watch::new(Config::default());
    assert_eq!(watch.ok(0.1), Phase::Starting);
    assert_eq!(watch.observe(0.2, Observation::Ready), Phase::Healthy);
    assert_eq!(watch.observe(0.3, Observation::Ready), Phase::Healthy);
    assert_eq!(watch.moves, [Phase::Healthy]);

    let mut watch = Watch::new(Config::default());
    for _ in 0..3 {
        assert_eq!(watch.fail(0.1), Phase::Starting);
    }
    assert_eq!(watch.observe(0.2, Observation::Ready), Phase::Degraded);
}

#[test]
fn so_many_failures_within_the_window_degrade() {
    let mut watch = Watch::healthy();
    watch.fail(1.0);
    watch.fail(2.0);
    assert_eq!(watch.fail(3.0), Phase::Degraded);
    assert!(matches!(watch.core.status().reason, Reason::Failures { failures: 3, outcomes: 3, .. }));

    let mut watch = Watch::healthy();
    for second in [1.0, 8.0, 15.0, 22.0, 29.0] {
        assert_eq!(watch.fail(second), Phase::Healthy);
    }
}

#[test]
fn failures_among_many_successes_are_noise() {
    let mut watch = Watch::healthy();
    for n in 0..100 {
        watch.ok(1.0 + f64::from(n) / 1000.0);
    }
    for _ in 0..11 {
        assert_eq!(watch.fail(2.0), Phase::Healthy);
    }
    assert_eq!(watch.fail(2.0), Phase::Degraded, "12 of 112 are a tenth");

    // The same when they are counted together.
    let mut watch = Watch::healthy();
    watch.core.count_successes(watch.at(1.0), 100);
    for _ in 0..11 {
        assert_eq!(watch.fail(2.0), Phase::Healthy);
    }
    assert_eq!(watch.core.status().outcomes_in_window, 111);
}

#[test]
fn a_recovery_needs_time_and_successes() {
    let mut watch = Watch::healthy();
    for _ in 0..3 {
        watch.fail(1.0);
    }
    assert_eq!(watch.ok(1.1), Phase::Degraded);
    assert_eq!(watch.ok(1.2), Phase::Degraded);
    assert_eq!(watch.tick(1.3), Phase::Degraded);
    assert_eq!(watch.ok(1.4), Phase::Degraded, "enough of them, too early");
    let due = watch.core.next_tick().unwrap();
    assert!(due <= watch.at(6.0));
    assert_eq!(watch.fail(5.0), Phase::Degraded, "from the beginning");
    watch.tick(6.1);
    assert_eq!(watch.ok(6.2), Phase::Degraded);
    assert_eq!(watch.ok(11.0), Phase::Degraded, "late enough, too few");
    assert_eq!(watch.ok(11.1), Phase::Healthy);
    assert!(matches!(watch.core.status().reason, Reason::Recovered { successes: 3, .. }));
    assert_eq!(watch.fail(11.2), Phase::Healthy, "what failed before counts no more");
}

#[test]
fn it_recovers_although_nobody_does_anything() {
    let mut watch = Watch::healthy();
    for _ in 0..3 {
        watch.fail(1.0);
    }
    watch.answering(30.0, &Outcome::Ok);
    assert_eq!((watch.core.phase(), watch.probes.len()), (Phase::Healthy, 3));
    assert!(watch.probes.iter().all(|(_, _, fresh)| !fresh));
    assert!((watch.probes[0].0 - 2.0).abs() < 0.01, "the first comes after a second");
    let recovered = watch.core.status().since;
    assert!(recovered >= watch.at(6.0) && recovered < watch.at(6.1), "five seconds after the last failure");
    assert_eq!(watch.core.next_tick(), None, "healthy costs nothing");
}

#[test]
fn a_relapse_takes_longer_to_recover_from() {
    let mut watch = Watch::healthy();
    let mut begun = 1.0;
    for seconds in [5.0, 10.0, 20.0, 40.0, 40.0] {
        for _ in 0..3 {
            watch.fail(begun);
        }
        watch.answering(begun + seconds - 0.01, &Outcome::Ok);
        assert_eq!(watch.core.phase(), Phase::Degraded, "{seconds}");
        watch.answering(begun + seconds + 0.01, &Outcome::Ok);
        assert_eq!(watch.core.phase(), Phase::Healthy, "{seconds}");
        begun += seconds + 1.0;
    }
    // A minute later it is no relapse.
    begun += 60.0;
    for _ in 0..3 {
        watch.fail(begun);
    }
    watch.answering(begun + 5.1, &Outcome::Ok);
    assert_eq!(watch.core.phase(), Phase::Healthy);
}

#[test]
fn no_minute_has_more_probes_than_it_may_while_degraded() {
    let mut watch = Watch::healthy();
    let mut now = 0.0;
    for _ in 0..3 {
        watch.fail(now);
    }
    // Every success is followed by a failure: the worst case for those that come sooner.
    for outcome in [Outcome::Ok, Outcome::transient("503")].iter().cycle().take(200) {
        watch.answering(now + 3.0, outcome);
        now += 3.0;
    }
    let times: Vec<f64> = watch.probes.iter().map(|(at, ..)| *at).collect();
    assert!(times.len() > 60, "{times:?}");
    assert!(times.windows(13).all(|minute| minute[12] - minute[0] >= 60.0), "{times:?}");
}

#[test]
fn a_probe_without_an_answer_is_a_failure_and_the_only_one_outstanding() {
    let mut watch = Watch::healthy();
    for _ in 0..3 {
        watch.fail(1.0);
    }
    for tenth in 0..119 {
        watch.tick(f64::from(tenth) / 10.0 + 0.01);
    }
    assert_eq!(watch.probes.len(), 1);
    let (_, id, _) = watch.probes[0];
    watch.ok(11.0);
    assert_eq!(watch.core.status().silent_since, None);
    watch.tick(12.1);
    assert_eq!(watch.core.status().silent_since, Some(watch.at(12.1)), "its deadline is over");
    let before = watch.core.status();
    watch.observe(12.1, Observation::Probe { id, outcome: Watch::gone() });
    assert_eq!(watch.core.status(), before, "an answer that comes too late is ignored");
    assert_eq!(watch.probes.len(), 2);
}

#[test]
fn one_verdict_makes_suspect_and_so_many_agreeing_probes_condemn() {
    for phase in [Phase::Starting, Phase::Healthy, Phase::Degraded] {
        let mut watch = Watch::new(Config::default());
        if phase != Phase::Starting {
            watch.observe(0.0, Observation::Ready);
        }
        for _ in 0..if phase == Phase::Degraded { 3 } else { 0 } {
            watch.fail(1.0);
        }
        assert_eq!(watch.core.phase(), phase);
        assert_eq!(watch.told(1.5, Gone), Phase::Suspect);
        watch.answering(60.0, &Watch::gone());
        assert_eq!((watch.core.phase(), &watch.condemned[..]), (Phase::Condemned, &[Gone][..]));
        assert_eq!(watch.core.verdict(), Some(&Gone));
        assert_eq!(watch.probes.len(), 5);
        assert!(watch.probes.iter().all(|(_, _, fresh)| *fresh));
        assert!(watch.probes[4].0 >= 11.5 && watch.probes[4].0 < 11.6, "{:?}", watch.probes);
        assert!(matches!(watch.core.status().reason, Reason::Confirmed { verdict: Gone, times: 5, .. }));
    }
}

#[test]
fn a_probe_that_finds_it_gone_while_degraded_begins_the_suspicion() {
    let mut watch = Watch::healthy();
    for _ in 0..3 {
        watch.fail(1.0);
    }
    watch.tick(2.1);
    assert_eq!(watch.answer(2.2, Watch::gone()), Phase::Suspect);
    assert_eq!(watch.core.status().suspected.unwrap().agreeing, 0, "the first answer is no confirmation");
}

#[test]
fn operations_that_agree_confirm_nothing_and_restart_nothing() {
    let mut watch = Watch::healthy();
    watch.told(1.0, Gone);
    watch.tick(3.1);
    watch.answer(3.2, Watch::gone());
    for n in 0..100 {
        watch.told(3.3 + f64::from(n) / 100.0, Gone);
    }
    let suspected = watch.core.status().suspected.unwrap();
    assert_eq!((suspected.agreeing, suspected.since), (1, watch.at(1.0)));
}

#[test]
fn another_verdict_restarts_the_count() {
    let mut watch = Watch::healthy();
    watch.told(1.0, Gone);
    watch.answering(9.9, &Watch::gone());
    assert_eq!(watch.core.status().suspected.unwrap().agreeing, 4);
    watch.told(9.95, Refused);
    let suspected = watch.core.status().suspected.unwrap();
    assert_eq!((suspected.verdict, suspected.agreeing), (Refused, 0));
    // And so does a probe.
    watch.tick(12.0);
    watch.answer(12.0, Watch::gone());
    let suspected = watch.core.status().suspected.unwrap();
    assert_eq!((suspected.verdict, suspected.agreeing, suspected.since), (Gone, 0, watch.at(12.0)));
    watch.answering(21.9, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Suspect);
    watch.answering(22.1, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Condemned);
    assert_eq!(watch.moves, [Phase::Healthy, Phase::Suspect, Phase::Condemned]);
}

#[test]
fn a_failure_neither_confirms_nor_clears_and_the_probe_is_asked_again() {
    let mut watch = Watch::healthy();
    watch.told(1.0, Gone);
    watch.answering(7.5, &Watch::gone());
    assert_eq!(watch.core.status().suspected.unwrap().agreeing, 3);
    watch.answering(9.5, &Outcome::transient("reset"));
    assert_eq!(watch.core.status().suspected.unwrap().agreeing, 3);
    watch.answering(13.5, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Condemned);
    assert_eq!(watch.probes.len(), 6);
}

#[test]
fn a_suspicion_without_answers_asks_less_often() {
    let mut watch = Watch::healthy();
    watch.told(0.0, Gone);
    watch.answering(600.0, &Outcome::transient("reset"));
    assert_eq!(watch.core.phase(), Phase::Suspect);
    assert!((100..=106).contains(&watch.probes.len()), "{}", watch.probes.len());
}

#[test]
fn one_contrary_probe_clears_and_the_next_suspicion_begins_at_zero() {
    let mut watch = Watch::healthy();
    watch.told(1.0, Gone);
    watch.answering(9.9, &Watch::gone());
    watch.tick(11.1);
    assert_eq!(watch.answer(11.1, Outcome::Ok), Phase::Healthy);
    assert!(matches!(watch.core.status().reason, Reason::Contrary { verdict: Gone, agreed: 4 }));
    watch.told(12.0, Gone);
    assert_eq!(watch.core.status().suspected.unwrap().agreeing, 0);
    watch.answering(21.9, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Suspect);
}

#[test]
fn only_an_operation_that_began_after_the_suspicion_clears_it() {
    let mut watch = Watch::healthy();
    watch.told(5.0, Gone);
    for began in [1.0, 4.9, 5.0] {
        let began = watch.at(began);
        watch.observe(6.0, Observation::Operation { began, outcome: Outcome::Ok });
        assert_eq!(watch.core.phase(), Phase::Suspect);
    }
    assert_eq!(watch.ok(6.1), Phase::Healthy);
}

#[test]
fn what_was_degraded_is_so_again_when_the_suspicion_is_cleared() {
    let mut watch = Watch::healthy();
    for _ in 0..3 {
        watch.fail(1.0);
    }
    watch.told(1.5, Gone);
    assert_eq!(watch.ok(1.6), Phase::Degraded);
    watch.told(2.0, Gone);
    watch.fail(2.1);
    // Failures of the suspicion's own probes count too.
    let mut other = Watch::healthy();
    other.told(0.0, Gone);
    other.answering(6.5, &Outcome::transient("503"));
    assert_eq!(other.ok(7.0), Phase::Degraded);
}

#[test]
fn a_probe_belongs_to_the_suspicion_it_was_asked_for() {
    let mut watch = Watch::healthy();
    for _ in 0..3 {
        watch.fail(1.0);
    }
    watch.tick(2.1);
    let old = watch.core.outstanding().unwrap();
    watch.told(2.2, Gone);
    watch.observe(2.3, Observation::Probe { id: old, outcome: Outcome::Ok });
    assert_eq!(watch.core.phase(), Phase::Suspect, "it was asked before");
    watch.tick(4.3);
    let second = watch.core.outstanding().unwrap();
    assert_eq!(watch.ok(4.4), Phase::Degraded);
    watch.observe(4.5, Observation::Probe { id: second, outcome: Watch::gone() });
    assert_eq!(watch.core.phase(), Phase::Degraded);
}

#[test]
fn nothing_leads_back_from_condemned() {
    let mut watch = Watch::healthy();
    watch.told(1.0, Gone);
    watch.answering(60.0, &Watch::gone());
    let before = watch.core.status();
    watch.ok(61.0);
    watch.fail(61.0);
    watch.told(61.0, Refused);
    watch.observe(61.0, Observation::Ready);
    watch.tick(100.0);
    assert_eq!((watch.core.status(), watch.core.next_tick()), (before, None));
    let reason: Arc<str> = "condemned".into();
    assert_eq!(watch.observe(101.0, Observation::Drain { reason: reason.clone() }), Phase::Draining);
    assert_eq!(watch.observe(102.0, Observation::Exited { reason }), Phase::Exited);
    assert_eq!((watch.core.verdict(), watch.condemned.len()), (Some(&Gone), 1));
}

#[test]
fn a_suspicion_goes_on_while_draining_and_its_verdict_is_told() {
    for drain_first in [true, false] {
        let mut watch = Watch::healthy();
        if !drain_first {
            watch.told(1.0, Gone);
        }
        watch.observe(1.5, Observation::Drain { reason: "SIGTERM".into() });
        if drain_first {
            watch.told(2.0, Gone);
        }
        watch.answering(60.0, &Watch::gone());
        assert_eq!((watch.core.phase(), &watch.condemned[..]), (Phase::Draining, &[Gone][..]));
        assert_eq!(watch.core.verdict(), Some(&Gone));
    }
    // A contrary answer clears it there too.
    let mut watch = Watch::healthy();
    watch.observe(1.5, Observation::Drain { reason: "SIGTERM".into() });
    watch.told(2.0, Gone);
    watch.ok(3.0);
    watch.answering(60.0, &Watch::gone());
    assert_eq!((watch.core.phase(), watch.core.verdict()), (Phase::Draining, None));
}

#[test]
fn an_end_drains_first_where_the_table_says_so() {
    let end = || Observation::Exited { reason: "killed".into() };
    let mut watch = Watch::healthy();
    assert_eq!(watch.observe(1.0, end()), Phase::Exited);
    assert_eq!(watch.moves, [Phase::Healthy, Phase::Draining, Phase::Exited]);
    let mut watch = Watch::new(Config::default());
    watch.observe(1.0, end());
    watch.observe(2.0, end());
    watch.observe(2.0, Observation::Drain { reason: "again".into() });
    watch.told(2.0, Gone);
    assert_eq!((watch.moves, watch.core.next_tick()), (vec![Phase::Exited], None));
}

#[test]
fn too_many_suspicions_are_held_back_but_not_forgotten() {
    let mut watch = Watch::healthy();
    for n in 0..50 {
        watch.told(f64::from(n), Gone);
        watch.ok(f64::from(n) + 0.5);
    }
    let suspected = watch.moves.iter().filter(|phase| **phase == Phase::Suspect).count();
    assert_eq!(suspected, 6);
    // Gone for good now: it is suspected as soon as may be, and condemned.
    watch.told(55.0, Gone);
    assert_ne!(watch.core.phase(), Phase::Suspect);
    assert!(watch.core.listens());
    watch.answering(60.1, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Suspect);
    watch.answering(70.2, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Condemned);
}

#[test]
fn a_clock_that_goes_back_condemns_no_earlier() {
    let mut watch = Watch::healthy();
    watch.told(100.0, Gone);
    for n in 0..50 {
        watch.tick(50.0 - f64::from(n));
        if watch.core.outstanding().is_some() {
            watch.answer(1.0, Watch::gone());
        }
    }
    assert_eq!((watch.core.phase(), watch.probes.len()), (Phase::Suspect, 0));
    watch.answering(109.9, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Suspect);
    // A clock that jumps does not bring the probes together.
    let mut watch = Watch::healthy();
    watch.told(1.0, Gone);
    watch.answering(3.5, &Watch::gone());
    watch.tick(1000.0);
    watch.answer(1000.0, Watch::gone());
    for n in 0..19 {
        watch.tick(1000.0 + f64::from(n) / 10.0);
        assert_eq!(watch.core.outstanding(), None);
    }
    assert_eq!(watch.core.phase(), Phase::Suspect);
}

#[test]
fn silence_lasts_until_something_succeeds() {
    let mut watch = Watch::healthy();
    assert_eq!((watch.core.status().silent_since, watch.core.listens()), (None, false));
    watch.fail(1.0);
    watch.fail(2.0);
    assert_eq!((watch.core.status().silent_since, watch.core.listens()), (Some(watch.at(1.0)), true));
    watch.ok(3.0);
    assert_eq!((watch.core.status().silent_since, watch.core.listens()), (None, false));
    watch.told(4.0, Gone);
    assert_eq!(watch.core.status().silent_since, Some(watch.at(4.0)));
}

#[test]
fn what_is_out_of_range_is_brought_into_it() {
    let zero = Duration::ZERO;
    let none = Config {
        failures: 0,
        share: 1000,
        window: zero,
        recovery: zero,
        successes: 0,
        relapse: Duration::MAX,
        first_probe: zero,
        probe_every: zero,
        probes_a_minute: 0,
        probe_deadline: zero,
        confirm_over: Duration::MAX,
        confirmations: 0,
        suspicions_a_minute: 0,
    };
    assert_eq!(none.checked().confirmations, 2);
    assert_eq!(none.checked(), none.checked().checked());
    let mut watch = Watch::new(none);
    watch.observe(0.0, Observation::Ready);
    watch.fail(1.0);
    watch.told(1.0, Gone);
    watch.tick(2.0);
    watch.ok(3.0);
}

#[test]
fn a_verdict_may_need_longer_and_none_takes_less_than_all() {
    let longer = |verdict: &Verdict| Duration::from_secs(if *verdict == Refused { 60 } else { 1 });
    let mut watch = Watch::of(Core::new(Config::default(), Instant::now()).confirming_over(longer));
    watch.observe(0.0, Observation::Ready);
    watch.told(0.0, Refused);
    watch.answering(59.0, &Outcome::permanent(Refused, "403"));
    assert_eq!(watch.core.phase(), Phase::Suspect);
    assert_eq!(watch.probes.len(), 4, "as many probes as ever, only further apart");
    watch.answering(61.0, &Outcome::permanent(Refused, "403"));
    assert_eq!((watch.core.phase(), &watch.condemned[..]), (Phase::Condemned, &[Refused][..]));

    let mut watch = Watch::of(Core::new(Config::default(), Instant::now()).confirming_over(longer));
    watch.observe(0.0, Observation::Ready);
    watch.told(0.0, Refused);
    // Another verdict has its own time, from when it is given.
    watch.told(30.0, Gone);
    watch.answering(39.9, &Watch::gone());
    assert_eq!(watch.core.phase(), Phase::Suspect);
    watch.answering(41.0, &Watch::gone());
    assert_eq!(watch.condemned, [Gone]);
}

//! A kill at any point: what the journal leaves is carried out again, and ends in a state that could have been
//! reached without the kill.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use staithe_persist::{
    Action, AttemptId, Config, Core, Durability, Entry, Failure, Gate, Generation, IntentId, Journal,
    MemoryJournal, Order,
};

/// What a key holds in the store.
type Store = BTreeMap<u8, u64>;

/// One change of a file, journaled before it is acknowledged: its content, or that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intent {
    key: u8,
    generation: u64,
    removes: bool,
}

impl Intent {
    fn encode(self) -> Bytes {
        let mut record = vec![self.key, u8::from(self.removes)];
        record.extend(self.generation.to_be_bytes());
        record.into()
    }

    fn decode(record: &[u8]) -> Self {
        let generation = u64::from_be_bytes(record[2..].try_into().unwrap());
        Self { key: record[0], removes: record[1] == 1, generation }
    }

    fn carry_out(self, store: &mut Store) {
        if self.removes {
            store.remove(&self.key);
        } else {
            store.insert(self.key, self.generation);
        }
    }
}

/// A process: a queue and the open intents of each key.
struct Process<'a> {
    journal: &'a MemoryJournal,
    core: Core<u8>,
    now: Instant,
    running: Vec<(AttemptId, u8, Generation)>,
    intents: BTreeMap<u8, Vec<(IntentId, Intent)>>,
}

impl<'a> Process<'a> {
    fn new(journal: &'a MemoryJournal) -> Self {
        let core = Core::new(Config { concurrency: 2, ..Config::default() });
        Self { journal, core, now: Instant::now(), running: Vec::new(), intents: BTreeMap::new() }
    }

    /// Starts from what a journal has.
    fn replay(journal: &'a MemoryJournal) -> Self {
        let mut process = Self::new(journal);
        for (id, record) in journal.pending().unwrap() {
            process.accept(id, Intent::decode(&record));
        }
        process
    }

    fn accept(&mut self, id: IntentId, intent: Intent) {
        self.intents.entry(intent.key).or_default().push((id, intent));
        self.core.enqueue(self.now, intent.key, Generation(intent.generation), Order::default()).unwrap();
        self.gather();
    }

    fn gather(&mut self) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        for action in actions {
            if let Action::Start { attempt, key, generation, .. } = action {
                self.running.push((attempt, key, generation));
            }
        }
    }

    fn change(&mut self, intent: Intent, durability: Durability) {
        let id = self.journal.reserve();
        self.journal.write(&[Entry::Record(id, intent.encode())], durability).unwrap();
        self.accept(id, intent);
    }

    /// Carries out one attempt, in three steps that a kill may come between; `steps` says how many are made.
    fn attempt(&mut self, at: u8, steps: u8, store: &mut Store) {
        if self.running.is_empty() {
            return;
        }
        let (attempt, key, generation) = self.running.remove(usize::from(at) % self.running.len());
        if steps == 0 || self.core.begin_commit(attempt) != Gate::Open {
            self.core.finished(self.now, attempt, Err(Failure::transient("stopped")));
            self.core.retry_all(self.now);
            return self.gather();
        }
        let intents = self.intents.entry(key).or_default();
        let of = |(_, intent): &&(IntentId, Intent)| intent.generation == generation.0;
        if let Some((_, intent)) = intents.iter().rfind(of) {
            intent.carry_out(store);
        }
        if steps > 1 {
            let over = intents.extract_if(.., |(_, intent)| intent.generation <= generation.0);
            let over: Vec<_> = over.map(|(id, _)| Entry::Complete(id)).collect();
            self.journal.write(&over, Durability::Buffered).unwrap();
        }
        self.core.commit_over(self.now, attempt);
        let result = if steps > 1 { Ok(()) } else { Err(Failure::transient("no answer")) };
        self.core.finished(self.now, attempt, result);
        self.core.retry_all(self.now);
        self.gather();
    }

    fn finish(mut self, store: &mut Store) {
        while !self.running.is_empty() {
            self.attempt(0, 2, store);
        }
        assert!(self.core.is_empty());
        assert_eq!(self.journal.pending().unwrap(), [], "an intent was carried out and not completed");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Change { key: u8, removes: bool, durability: Durability },
    Attempt { at: u8, steps: u8 },
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let durability = prop_oneof![Just(Durability::Buffered), Just(Durability::Synced)];
    prop_oneof![
        4 => (0..4_u8, any::<bool>(), durability)
            .prop_map(|(key, removes, durability)| Step::Change { key, removes, durability }),
        4 => (any::<u8>(), 0..3_u8).prop_map(|(at, steps)| Step::Attempt { at, steps }),
        1 => Just(Step::Sync),
    ]
}

/// A kill (or a power failure that keeps `kept` batches) after these steps.
fn check(steps: &[Step], kept: Option<usize>) {
    let (journal, mut store) = (MemoryJournal::new(), Store::new());
    let mut process = Process::new(&journal);
    // Every change, in order, and how many of them are safe from a power failure.
    let (mut changes, mut safe) = (Vec::new(), 0);
    for step in steps {
        match *step {
            Step::Change { key, removes, durability } => {
                let intent = Intent { key, generation: changes.len() as u64 + 1, removes };
                process.change(intent, durability);
                changes.push(intent);
                if durability == Durability::Synced {
                    safe = changes.len();
                }
            }
            Step::Attempt { at, steps } => process.attempt(at, steps, &mut store),
            Step::Sync => {
                journal.sync().unwrap();
                safe = changes.len();
            }
        }
    }
    let before = store.clone();
    let after = match kept {
        None => journal.after_kill(),
        Some(kept) => journal.after_power_failure(kept),
    };
    Process::replay(&after).finish(&mut store);

    let acknowledged = if kept.is_none() { changes.len() } else { safe };
    for key in 0..4 {
        let mine: Vec<_> = changes.iter().enumerate().filter(|(_, intent)| intent.key == key).collect();
        let last = mine.iter().rev().find(|(at, _)| *at < acknowledged);
        let held = store.get(&key).copied();
        // What a process without the kill could have come to: the last acknowledged change, or any later one.
        let first = last.map_or(0, |(at, _)| *at);
        let later = mine.iter().filter(|(at, _)| *at >= first);
        let mut reachable = later.map(|(_, intent)| (!intent.removes).then_some(intent.generation));
        let untouched = last.is_none() && held == before.get(&key).copied();
        assert!(untouched || reachable.any(|value| value == held), "{key} holds {held:?} of {mine:?}");
    }
}

proptest! {
    #[test]
    fn a_kill_at_any_point_leads_to_a_state_that_is_reachable_without_it(steps in vec(step(), 0..40)) {
        for end in 0..=steps.len() {
            check(&steps[..end], None);
        }
    }

    #[test]
    fn a_power_failure_takes_nothing_that_was_synced(steps in vec(step(), 0..30), kept in 0..20_usize) {
        for end in 0..=steps.len() {
            check(&steps[..end], Some(kept));
        }
    }
}

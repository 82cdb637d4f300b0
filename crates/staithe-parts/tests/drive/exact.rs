//! The queue against a bitmap, with memory and windows so large that nothing is ever given up: then every
//! answer is determined.

use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use staithe_parts::{Budget, PartQueue, PlannerConfig, PushError, QueueState, Read, ReadError};

use super::{Flag, Op, Queue, RIGHT, SIZE, Ticket, body, poll};

type Error = ReadError<u8, u8>;
type Bits = Vec<bool>;

#[derive(Clone, PartialEq, Debug)]
enum Phase {
    Streaming,
    Draining(u64, Error),
    Failed(Error),
    Ended,
}

struct ModelTicket {
    ticket: Option<Ticket>,
    range: Range<u64>,
    pending: Bits,
    live: bool,
}

struct Waiting {
    read: Read<u8, u8>,
    range: Range<u64>,
    flag: Arc<Flag>,
}

struct Model {
    queue: Queue,
    phase: Phase,
    present: Bits,
    unread: Bits,
    tickets: Vec<ModelTicket>,
    reads: Vec<Waiting>,
}

/// Runs `ops` on both; panics where they differ.
pub fn run(ops: &[Op]) {
    let config = PlannerConfig {
        min_part: 64,
        max_part: 256,
        max_window: 1 << 20,
        ample_window: 1 << 20,
        initial_window: 0,
        ahead_ratio: 8,
        back_window: 1 << 20,
        reorder_window: 1 << 20,
        skip_gap: 1 << 20,
        max_streams: 1,
    };
    let budget = Budget::new(1 << 30);
    let none = || vec![false; SIZE as usize];
    let mut model = Model {
        queue: PartQueue::new(SIZE, RIGHT, config, &budget),
        phase: Phase::Streaming,
        present: none(),
        unread: none(),
        tickets: Vec::new(),
        reads: Vec::new(),
    };
    for op in ops {
        model.step(op);
        model.check();
        assert_eq!(budget.stats().used, count(&model.present) + model.in_flight());
    }
    drop(model);
    assert_eq!((budget.stats().used, budget.stats().accounts), (0, 0));
}

impl Model {
    fn step(&mut self, op: &Op) {
        match *op {
            Op::Read { offset, len } => self.read(u64::from(offset), u64::from(len)),
            Op::Poll(i) if !self.reads.is_empty() => self.poll(usize::from(i) % self.reads.len()),
            Op::Cancel(i) if !self.reads.is_empty() => {
                self.reads.swap_remove(usize::from(i) % self.reads.len());
            }
            Op::Take => self.take(),
            Op::Push { ticket, from, len, version } => {
                if let Some(i) = self.pick(ticket) {
                    let at = self.tickets[i].range.start + u64::from(from);
                    self.push(i, at..at + u64::from(len), version);
                }
            }
            Op::Deliver(i) => {
                if let Some(i) = self.pick(i) {
                    self.push(i, self.tickets[i].range.clone(), RIGHT);
                }
            }
            Op::Done(i) => {
                if let Some((ticket, missing)) = self.retire(i) {
                    assert_eq!(ticket.done(), missing);
                }
            }
            Op::Drop(i) => drop(self.retire(i)),
            Op::FailFetch { ticket, error } => self.fail_fetch(ticket, error),
            Op::Fail(error) => self.fail(error),
            Op::Close => self.close(),
            Op::Reset => self.reset(),
            Op::Poll(_) | Op::Cancel(_) => {}
        }
    }

    fn read(&mut self, offset: u64, len: u64) {
        let start = offset.min(SIZE);
        let range = start..(start + len).min(SIZE);
        let mut read = self.queue.read(offset, len);
        let (polled, flag) = poll(&mut read);
        if self.judge(&range, polled) {
            self.reads.push(Waiting { read, range, flag });
        }
    }

    fn poll(&mut self, i: usize) {
        let (polled, flag) = poll(&mut self.reads[i].read);
        self.reads[i].flag = flag;
        let range = self.reads[i].range.clone();
        if !self.judge(&range, polled) {
            self.reads.swap_remove(i);
        }
    }

    /// Compares an answer with the model's; whether the read goes on waiting.
    fn judge(&mut self, range: &Range<u64>, polled: Poll<Result<staithe_parts::ReadSlices, Error>>) -> bool {
        let expected = self.outcome(range);
        match (polled, expected) {
            (Poll::Pending, None) => return true,
            (Poll::Ready(Ok(slices)), Some(Ok(()))) => {
                assert_eq!(slices.into_bytes(), body(range.clone()));
                self.unread[span(range)].fill(false);
                self.settle();
            }
            (Poll::Ready(Err(got)), Some(Err(error))) => assert_eq!(got, error),
            (got, expected) => panic!("{range:?} in {:?}: {got:?}, not {expected:?}", self.phase),
        }
        false
    }

    fn outcome(&self, range: &Range<u64>) -> Option<Result<(), Error>> {
        let all = |bits: &Bits| bits[span(range)].iter().all(|b| *b);
        match &self.phase {
            Phase::Failed(error) => Some(Err(error.clone())),
            Phase::Ended => Some(Err(ReadError::Ended)),
            Phase::Draining(at, error) if range.end > *at || !all(&self.covered()) => {
                Some(Err(error.clone()))
            }
            _ => all(&self.present).then_some(Ok(())),
        }
    }

    fn take(&mut self) {
        for ticket in self.queue.take_fetches() {
            let range = ticket.range();
            assert!(self.phase == Phase::Streaming && !range.is_empty() && range.end <= SIZE);
            assert!(self.covered()[span(&range)].iter().all(|b| !b), "{range:?} planned twice");
            let mut pending = vec![false; SIZE as usize];
            pending[span(&range)].fill(true);
            self.tickets.push(ModelTicket { ticket: Some(ticket), range, pending, live: true });
        }
        if self.phase == Phase::Streaming {
            let covered = self.covered();
            let planned = |w: &Waiting| covered[span(&w.range)].iter().all(|b| *b);
            assert!(self.reads.iter().all(planned), "a waiting read was not planned");
        }
    }

    fn push(&mut self, i: usize, at: Range<u64>, version: u8) {
        let model = &mut self.tickets[i];
        let range = model.range.clone();
        let inside = at.start >= range.start && at.end <= range.end;
        // Bytes that this ticket delivered before come again as garbage: the first must win.
        let part: Bytes = at
            .clone()
            .map(|o| if model.pending.get(o as usize) == Some(&false) { 0xEE } else { super::byte(o) })
            .collect::<Vec<_>>()
            .into();
        let Some(ticket) = &model.ticket else { return };
        let answer = ticket.push(at.start, &version, part);
        if !model.live {
            let expected = match self.phase {
                Phase::Streaming => PushError::Superseded,
                Phase::Ended => PushError::Ended,
                _ => PushError::Failed,
            };
            assert_eq!(answer, Err(expected));
        } else if version != RIGHT {
            assert_eq!(answer, Err(PushError::VersionChanged));
            let offset = at.start.clamp(range.start, range.end);
            self.fail_at(offset, ReadError::VersionChanged { expected: RIGHT, found: version, offset });
        } else if !inside {
            assert_eq!(answer, Err(PushError::OutOfRange));
        } else {
            assert_eq!(answer, Ok(()));
            for o in span(&at) {
                if std::mem::take(&mut model.pending[o]) {
                    (self.present[o], self.unread[o]) = (true, true);
                }
            }
        }
    }

    fn pick(&self, i: u8) -> Option<usize> {
        (!self.tickets.is_empty()).then(|| usize::from(i) % self.tickets.len())
    }

    /// Takes a ticket out of the model; how many bytes it owes.
    fn retire(&mut self, i: u8) -> Option<(Ticket, u64)> {
        let mut model = self.tickets.swap_remove(self.pick(i)?);
        let missing = if model.live { count(&model.pending) } else { 0 };
        let ticket = model.ticket.take()?;
        self.settle();
        Some((ticket, missing))
    }

    fn fail_fetch(&mut self, i: u8, error: u8) {
        let Some(i) = self.pick(i) else { return };
        let mut model = self.tickets.swap_remove(i);
        let Some(ticket) = model.ticket.take() else { return };
        let first = model.pending.iter().position(|b| *b).map_or(model.range.end, |o| o as u64);
        let live = model.live;
        self.tickets.push(model);
        ticket.fail(error);
        if live {
            self.fail_at(first, ReadError::Source(error));
        }
        self.tickets.pop();
        self.settle();
    }

    fn fail(&mut self, error: u8) {
        self.queue.fail(error);
        if matches!(self.phase, Phase::Streaming | Phase::Draining(..)) {
            self.lose_tickets(0);
            self.fail_at(SIZE, ReadError::Source(error));
        }
    }

    fn close(&mut self) {
        self.queue.close();
        if matches!(self.phase, Phase::Streaming | Phase::Draining(..)) {
            self.phase = Phase::Ended;
            self.forget();
        }
    }

    fn reset(&mut self) {
        self.queue.reset();
        if self.phase == Phase::Streaming {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.lose_tickets(0);
        self.present.fill(false);
        self.unread.fill(false);
    }

    fn fail_at(&mut self, at: u64, error: Error) {
        let (at, error) = match self.phase.clone() {
            Phase::Streaming => (at, error),
            Phase::Draining(before, first) => (at.min(before), first),
            _ => return,
        };
        self.phase = Phase::Draining(at, error);
        self.lose_tickets(at);
        self.present[at as usize..].fill(false);
        self.unread[at as usize..].fill(false);
        self.settle();
    }

    fn lose_tickets(&mut self, at: u64) {
        for model in &mut self.tickets {
            model.pending[at as usize..].fill(false);
            model.live &= model.pending.contains(&true);
        }
    }

    fn settle(&mut self) {
        if let Phase::Draining(_, error) = self.phase.clone()
            && self.in_flight() == 0
            && !self.unread.contains(&true)
        {
            self.phase = Phase::Failed(error);
            self.forget();
        }
    }

    fn covered(&self) -> Bits {
        let mut covered = self.present.clone();
        for model in self.tickets.iter().filter(|t| t.live) {
            let at = span(&model.range);
            covered[at.clone()].iter_mut().zip(&model.pending[at]).for_each(|(c, p)| *c |= *p);
        }
        covered
    }

    fn in_flight(&self) -> u64 {
        self.tickets.iter().filter(|t| t.live).map(|t| count(&t.pending[span(&t.range)])).sum()
    }

    fn check(&self) {
        let stats = self.queue.stats();
        let state = match self.phase {
            Phase::Streaming => QueueState::Streaming,
            Phase::Draining(..) => QueueState::Draining,
            Phase::Failed(_) => QueueState::Failed,
            Phase::Ended => QueueState::Ended,
        };
        let expected = (state, count(&self.present), self.in_flight());
        assert_eq!((stats.state, stats.present, stats.in_flight), expected);
        for waiting in &self.reads {
            let decided = self.outcome(&waiting.range).is_some();
            assert!(!decided || waiting.flag.is_set(), "{:?} was not woken", waiting.range);
        }
    }
}

fn span(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn count(bits: &[bool]) -> u64 {
    bits.iter().filter(|b| **b).count() as u64
}

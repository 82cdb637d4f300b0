//! Two queues on one small budget, with small windows: bytes are given up all the time. What is checked is what
//! must hold anyway: right bytes, bounded memory, every figure in its place, and that every read ends.

use std::sync::Arc;
use std::task::Poll;

use staithe_parts::{Budget, PartQueue, PlannerConfig, PushError, QueueState, Read, ReadSlices};

use super::{Flag, Op, Queue, RIGHT, SIZE, Ticket, body, poll};

const LIMIT: u64 = 700;
const MOST_WAITING: usize = 3;
const LONGEST_READ: u64 = 600;
/// The largest request here, and so the most that a pinned part can exceed the read that pins it by.
const LARGEST_PART: u64 = 384;

/// A read, its offset and length, and whether it was woken.
type Waiting = (Read<u8, u8>, u64, u64, Arc<Flag>);

struct Side {
    queue: Queue,
    reads: Vec<Waiting>,
    tickets: Vec<Ticket>,
}

/// Runs `ops`, alternating by their own arguments between two queues.
pub fn run(ops: &[Op]) {
    let config = PlannerConfig {
        min_part: 64,
        max_part: 256,
        max_window: 512,
        ample_window: 128,
        initial_window: 0,
        ahead_ratio: 4,
        back_window: 200,
        reorder_window: 150,
        skip_gap: 40,
        max_streams: 3,
    };
    let budget = Budget::new(LIMIT);
    let side = || Side {
        queue: PartQueue::new(SIZE, RIGHT, config.clone(), &budget),
        reads: Vec::new(),
        tickets: Vec::new(),
    };
    let mut sides = [side(), side()];
    for (n, op) in ops.iter().enumerate() {
        let which = match op {
            Op::Read { offset, .. } => usize::from(*offset) % 2,
            _ => n % 2,
        };
        step(&mut sides[which], op);
        let held: u64 = sides.iter().map(|s| s.queue.stats()).map(|s| s.present + s.in_flight).sum();
        assert_eq!(budget.stats().used, held);
        let reads = MOST_WAITING as u64 * (LONGEST_READ + 2 * LARGEST_PART);
        assert!(budget.stats().peak <= LIMIT + 2 * reads, "{:?}", budget.stats());
    }
    settle(&mut sides);
    drop(sides);
    assert_eq!((budget.stats().used, budget.stats().waiting), (0, 0));
}

fn step(side: &mut Side, op: &Op) {
    match *op {
        Op::Read { offset, len } if side.reads.len() < MOST_WAITING => {
            let (offset, len) = (u64::from(offset), u64::from(len).min(LONGEST_READ));
            let mut read = side.queue.read(offset, len);
            let (polled, flag) = poll(&mut read);
            if judge(polled, offset, len) {
                side.reads.push((read, offset, len, flag));
            }
        }
        Op::Poll(i) if !side.reads.is_empty() => poll_one(side, usize::from(i) % side.reads.len()),
        Op::Cancel(i) if !side.reads.is_empty() => {
            drop(side.reads.swap_remove(usize::from(i) % side.reads.len()));
        }
        Op::Take => side.tickets.extend(side.queue.take_fetches()),
        Op::Fail(error) => side.queue.fail(error),
        Op::Close => side.queue.close(),
        Op::Reset => side.queue.reset(),
        Op::Push { ticket, from, len, version } => {
            if let Some(ticket) = pick(&side.tickets, ticket) {
                let at = ticket.range().start + u64::from(from);
                push(ticket, at, u64::from(len), version);
            }
        }
        Op::Deliver(i) => {
            if let Some(ticket) = pick(&side.tickets, i) {
                push(ticket, ticket.range().start, ticket.len(), RIGHT);
            }
        }
        Op::Done(i) | Op::Drop(i) | Op::FailFetch { ticket: i, .. } if !side.tickets.is_empty() => {
            let ticket = side.tickets.swap_remove(usize::from(i) % side.tickets.len());
            match *op {
                Op::Done(_) => drop(ticket.done()),
                Op::FailFetch { error, .. } => ticket.fail(error),
                _ => drop(ticket),
            }
        }
        _ => {}
    }
}

fn pick(tickets: &[Ticket], i: u8) -> Option<&Ticket> {
    (!tickets.is_empty()).then(|| &tickets[usize::from(i) % tickets.len()])
}

fn push(ticket: &Ticket, at: u64, len: u64, version: u8) {
    let live = ticket.is_live();
    let answer = ticket.push(at, &version, body(at..at + len));
    match answer {
        Ok(()) => assert!(live && version == RIGHT),
        Err(PushError::VersionChanged) => assert!(live && version != RIGHT),
        Err(PushError::OutOfRange) => assert!(live && at + len > ticket.range().end),
        Err(_) => assert!(!live),
    }
}

/// Whether the read goes on waiting. A read that has its bytes has the right ones.
fn judge(polled: Poll<Result<ReadSlices, staithe_parts::ReadError<u8, u8>>>, offset: u64, len: u64) -> bool {
    let Poll::Ready(outcome) = polled else { return true };
    if let Ok(slices) = outcome {
        assert_eq!(slices.into_bytes(), body(offset.min(SIZE)..(offset + len).min(SIZE)));
    }
    false
}

fn poll_one(side: &mut Side, i: usize) {
    let (read, offset, len, flag) = &mut side.reads[i];
    let (polled, fresh) = poll(read);
    *flag = fresh;
    if !judge(polled, *offset, *len) {
        drop(side.reads.swap_remove(i));
    }
}

/// Every read ends if fetches are served, and only reads that were woken are polled: no wake-up is lost.
fn settle(sides: &mut [Side; 2]) {
    for side in sides.iter_mut() {
        for i in (0..side.reads.len()).rev() {
            poll_one(side, i);
        }
        side.tickets.extend(side.queue.take_fetches());
    }
    for _ in 0..200 {
        for side in sides.iter_mut() {
            for ticket in std::mem::take(&mut side.tickets) {
                push(&ticket, ticket.range().start, ticket.len(), RIGHT);
            }
            for i in (0..side.reads.len()).rev() {
                if side.reads[i].3.is_set() {
                    poll_one(side, i);
                    side.tickets.extend(side.queue.take_fetches());
                }
            }
        }
    }
    for side in sides {
        assert!(side.reads.is_empty(), "a read never ended: {:?}", side.queue.stats());
        assert!(side.queue.stats().state != QueueState::Failed || side.queue.stats().present == 0);
    }
}

//! One memory bound for many queues: byte permits, given fairly, returned by dropping them.
//!
//! Invariants:
//! 1. `used` is the sum of the bytes of all living permits; an account's `held` is the sum of its own.
//! 2. Read-ahead and ordinary demand never take `used` above the limit. Only [`Priority::Progress`] may: one
//!    waiting read for each account, so that nobody waits for somebody who waits. A queue gives up first whatever
//!    no waiting read touches; hence `peak` is at most the limit, plus for each queue what its waiting reads
//!    touch, rounded out to the parts that delivered it.
//! 3. Ordinary demand that does not fit waits in arrival order; while anyone waits, no read-ahead is granted.
//! 4. No waker runs, and nothing of an account is locked, while the budget's lock is held. Lock order: a
//!    queue's lock, then the budget's.
//! 5. Returning bytes takes one short lock and never waits for a reader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::sync::Mutex;

/// A bound in bytes, shared by the queues of a process.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    ledger: Mutex<Ledger>,
    /// A copy of the ledger's `used`, for hints that need no lock.
    used: AtomicU64,
}

/// How much of a budget is in use; planners shrink their windows by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// Under three quarters: full windows.
    Low,
    /// From three quarters on: half windows.
    Moderate,
    /// From nine tenths on: quarter windows, and no bytes are kept for a seek back.
    High,
}

/// How urgently bytes are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Nobody waits for them: granted from the account's fair share only, and never while demand waits.
    ReadAhead,
    /// A read waits for them: granted in arrival order.
    Demand,
    /// The account's oldest read waits for them: always granted, above the limit if need be.
    Progress,
}

/// A budget's figures, all in bytes unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetStats {
    /// The bound.
    pub limit: u64,
    /// Granted and not returned.
    pub used: u64,
    /// The most that was ever in use at once.
    pub peak: u64,
    /// How many accounts exist.
    pub accounts: u64,
    /// How many accounts wait for bytes.
    pub waiting: u64,
    /// How many requests were granted above the limit.
    pub overdrafts: u64,
    /// How many requests for read-ahead were refused.
    pub refused: u64,
}

/// Told when a waiting account should ask again.
pub(crate) trait Hopeful: Send + Sync {
    fn ask_again(&self);
}

#[derive(Debug, Default)]
struct Ledger {
    stats: BudgetStats,
    held: BTreeMap<u64, u64>,
    /// Accounts that hold at least one byte: those that a fair share is counted over.
    holders: u64,
    waiters: VecDeque<Waiter>,
    next_account: u64,
}

struct Waiter {
    account: u64,
    told: bool,
    who: Weak<dyn Hopeful>,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter")
            .field("account", &self.account)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `limit` bytes. Zero is allowed: then only one read at a time makes progress in each queue.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, ledger: Mutex::new(Ledger::default()), used: AtomicU64::new(0) })
    }

    /// The figures now.
    pub fn stats(&self) -> BudgetStats {
        let ledger = self.ledger.lock();
        BudgetStats {
            limit: self.limit,
            accounts: ledger.held.len() as u64,
            waiting: ledger.waiters.len() as u64,
            ..ledger.stats
        }
    }

    /// How short memory is about now. Takes no lock.
    pub fn pressure(&self) -> Pressure {
        self.pressure_of(self.used.load(Ordering::Relaxed))
    }

    /// A new account: one for each reader that shares the budget.
    pub fn account(self: &Arc<Self>) -> Arc<Account> {
        let mut ledger = self.ledger.lock();
        let id = ledger.next_account;
        ledger.next_account += 1;
        ledger.held.insert(id, 0);
        Arc::new(Account { budget: Arc::clone(self), id })
    }

    fn pressure_of(&self, used: u64) -> Pressure {
        let (used, limit) = (u128::from(used), u128::from(self.limit));
        if used * 10 >= limit * 9 {
            Pressure::High
        } else if used * 4 >= limit * 3 {
            Pressure::Moderate
        } else {
            Pressure::Low
        }
    }

    /// Tells the account at the head of the line to ask again, if there is anything to be had.
    fn nudge(&self) {
        loop {
            let who = {
                let mut ledger = self.ledger.lock();
                if ledger.stats.used >= self.limit {
                    return;
                }
                let Some(front) = ledger.waiters.front_mut().filter(|w| !w.told) else { return };
                front.told = true;
                let who = front.who.upgrade();
                if who.is_none() {
                    ledger.waiters.pop_front();
                }
                who
            };
            if let Some(who) = who {
                who.ask_again();
                return;
            }
        }
    }

    /// Whether somebody waits for bytes: then a nudge must follow.
    fn give_back(&self, account: u64, bytes: u64) -> bool {
        if bytes == 0 {
            return false;
        }
        let mut ledger = self.ledger.lock();
        ledger.stats.used -= bytes;
        self.used.store(ledger.stats.used, Ordering::Relaxed);
        if let Some(held) = ledger.held.get_mut(&account) {
            *held -= bytes;
            if *held == 0 {
                ledger.holders -= 1;
            }
        }
        !ledger.waiters.is_empty()
    }
}

/// One reader's relation to a [`Budget`]. Dropping it leaves the line.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    id: u64,
}

impl Account {
    /// The budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Asks for `bytes`. Never blocks; `None` means not now. O(log accounts).
    pub fn try_acquire(self: &Arc<Self>, bytes: u64, priority: Priority) -> Option<Permit> {
        self.grant(bytes, priority).then(|| Permit { account: Arc::clone(self), bytes })
    }

    /// The read-ahead that this account may have in all, in bytes: its fair share, less under pressure.
    pub fn allowance(&self) -> u64 {
        let ledger = self.budget.ledger.lock();
        ledger.share(self.id, self.budget.limit)
    }

    /// Whether `bytes` more would stay within the limit now, the line aside.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        let used = self.budget.ledger.lock().stats.used;
        used.checked_add(bytes).is_some_and(|used| used <= self.budget.limit)
    }

    fn grant(&self, bytes: u64, priority: Priority) -> bool {
        let limit = self.budget.limit;
        let mut ledger = self.budget.ledger.lock();
        let fits = ledger.stats.used.checked_add(bytes).is_some_and(|used| used <= limit);
        let first = ledger.waiters.front().is_none_or(|w| w.account == self.id);
        let held = ledger.held.get(&self.id).copied().unwrap_or(0);
        let granted = match priority {
            Priority::Progress => true,
            Priority::Demand => fits && first,
            Priority::ReadAhead => {
                let fair = held.saturating_add(bytes) <= ledger.share(self.id, limit);
                fits && fair && ledger.waiters.is_empty()
            }
        };
        if !granted {
            ledger.stats.refused += u64::from(priority == Priority::ReadAhead);
            return false;
        }
        ledger.stats.used = ledger.stats.used.saturating_add(bytes);
        self.budget.used.store(ledger.stats.used, Ordering::Relaxed);
        ledger.stats.peak = ledger.stats.peak.max(ledger.stats.used);
        ledger.stats.overdrafts += u64::from(!fits);
        ledger.holders += u64::from(held == 0 && bytes > 0);
        ledger.held.insert(self.id, held + bytes);
        if priority == Priority::Demand && first {
            ledger.waiters.pop_front();
        }
        true
    }

    /// Joins the line, or stays where it stands, to be told when to ask again.
    pub(crate) fn wait(&self, who: Weak<dyn Hopeful>) {
        let mut ledger = self.budget.ledger.lock();
        if let Some(place) = ledger.waiters.iter_mut().find(|w| w.account == self.id) {
            place.told = false;
        } else {
            ledger.waiters.push_back(Waiter { account: self.id, told: false, who });
        }
    }

    /// Leaves the line without telling the next: for use under a lock; a nudge must follow.
    pub(crate) fn leave_quietly(&self) {
        self.budget.ledger.lock().waiters.retain(|w| w.account != self.id);
    }

    /// Passes the word on after a grant. Call it with no lock held.
    pub(crate) fn nudge(&self) {
        self.budget.nudge();
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.ledger.lock().held.remove(&self.id);
        self.leave_quietly();
        self.budget.nudge();
    }
}

impl Ledger {
    fn share(&self, account: u64, limit: u64) -> u64 {
        let holds = self.held.get(&account).is_some_and(|held| *held > 0);
        limit / (self.holders + u64::from(!holds)).max(1)
    }
}

/// Bytes granted by a [`Budget`]; dropping it returns them and never blocks.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
    bytes: u64,
}

impl Permit {
    /// A permit for nothing, to merge others into.
    pub(crate) fn none(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), bytes: 0 }
    }

    /// How many bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Splits off up to `bytes` into a permit of their own.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { account: Arc::clone(&self.account), bytes }
    }

    /// Takes in the bytes of another permit of the same account. One of another account comes back.
    ///
    /// # Errors
    /// The other permit, unchanged, if its account is another.
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.account, &other.account) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Returns `bytes` without telling those who wait: for use under a lock; a nudge must follow.
    pub(crate) fn return_quietly(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.account.budget.give_back(self.account.id, bytes);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.account.budget.give_back(self.account.id, self.bytes) {
            self.account.budget.nudge();
        }
    }
}

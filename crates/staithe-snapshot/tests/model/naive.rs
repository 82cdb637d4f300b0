//! What a cell should do, as plainly as it can be said.

use std::collections::BTreeMap;

use staithe_snapshot::Kind;

pub(crate) const MOST_OLD: usize = 3;
pub(crate) const MOST_LOGGED: usize = 4;
/// A change of a state with this in it is refused.
pub(crate) const FULL: u8 = 7;

pub(crate) type State = Vec<u8>;

pub(crate) fn push(state: &mut State, item: u8) -> Result<(), &'static str> {
    if state.contains(&FULL) {
        return Err("full");
    }
    state.push(item);
    Ok(())
}

pub(crate) struct Naive {
    pub(crate) epoch: u64,
    pub(crate) state: State,
    /// Every state in memory, and how many hold it, the cell apart.
    pub(crate) alive: BTreeMap<u64, usize>,
    /// The last is the one under way, if it is not over.
    pub(crate) stages: Vec<Stage>,
}

pub(crate) struct Stage {
    as_of: u64,
    overwrite: bool,
    log: Vec<(u64, u8)>,
    replaced: u64,
    pub(crate) over: Option<Kind>,
}

impl Naive {
    pub(crate) fn new(state: State) -> Self {
        Self { epoch: 1, state, alive: BTreeMap::from([(1, 0)]), stages: Vec::new() }
    }

    fn active(&mut self) -> Option<&mut Stage> {
        self.stages.last_mut().filter(|stage| stage.over.is_none())
    }

    /// Frees what nobody holds.
    pub(crate) fn reclaim(&mut self) {
        self.alive.retain(|epoch, holders| *epoch == self.epoch || *holders > 0);
    }

    fn room(&mut self) -> Result<(), Kind> {
        if self.alive.len() > MOST_OLD {
            self.reclaim();
        }
        if self.alive.len() > MOST_OLD { Err(Kind::Exhausted) } else { Ok(()) }
    }

    fn commit(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
        self.alive.insert(self.epoch, 0);
    }

    pub(crate) fn replace(&mut self, state: State) -> Result<(), Kind> {
        self.room()?;
        self.commit(state);
        let epoch = self.epoch;
        if let Some(stage) = self.active() {
            stage.replaced = epoch;
        }
        Ok(())
    }

    pub(crate) fn change(&mut self, item: u8) -> Result<(), Kind> {
        let mut state = self.state.clone();
        push(&mut state, item).map_err(|_| Kind::Refused)?;
        self.room()?;
        self.commit(state);
        let epoch = self.epoch;
        if let Some(stage) = self.active() {
            stage.log.push((epoch, item));
            if stage.log.len() > MOST_LOGGED {
                stage.over = Some(Kind::Overflowed);
            }
        }
        Ok(())
    }

    pub(crate) fn stage(&mut self, overwrite: bool) -> Result<(), Kind> {
        if self.active().is_some() {
            return Err(Kind::Busy);
        }
        let as_of = self.epoch;
        self.stages.push(Stage { as_of, overwrite, log: Vec::new(), replaced: 0, over: None });
        Ok(())
    }

    pub(crate) fn as_of_now(&mut self, at: usize) {
        self.stages[at].as_of = self.epoch;
    }

    /// Whether that made a difference.
    pub(crate) fn cancel(&mut self, at: usize) -> bool {
        let over = &mut self.stages[at].over;
        let ended = over.is_none();
        *over = over.or(Some(Kind::Cancelled));
        ended
    }

    pub(crate) fn publish_staged(&mut self, at: usize, mut state: State, valid: bool) -> Result<(), Kind> {
        let stage = self.stages.remove(at);
        if let Some(kind) = stage.over {
            return Err(kind);
        }
        let overtaken = stage.replaced > stage.as_of && !stage.overwrite;
        if overtaken {
            return Err(Kind::Overtaken);
        }
        for (_, item) in stage.log.iter().filter(|(epoch, _)| *epoch > stage.as_of) {
            push(&mut state, *item).map_err(|_| Kind::Failed)?;
        }
        if !valid {
            return Err(Kind::Invalid);
        }
        self.room()?;
        self.commit(state);
        Ok(())
    }
}

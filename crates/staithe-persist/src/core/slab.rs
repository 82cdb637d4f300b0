//! Chains by slot, and slots by key. A slot's nonce tells its jobs apart.

use hashbrown::HashMap;

use crate::job::{JobId, Key};

use super::chain::Chain;

#[derive(Debug)]
pub(super) struct Slab<K> {
    slots: Vec<(u32, Option<Chain<K>>)>,
    free: Vec<u32>,
    by_key: HashMap<K, u32>,
}

impl<K: Key> Slab<K> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_key: HashMap::new() }
    }

    pub(super) fn find(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The slot of a job that is not over.
    pub(super) fn slot_of(&self, job: JobId) -> Option<u32> {
        let chain = self.get(job.slot())?;
        (chain.job == job).then_some(job.slot())
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Chain<K>> {
        self.slots.get(slot as usize)?.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Chain<K>> {
        self.slots.get_mut(slot as usize)?.1.as_mut()
    }

    pub(super) fn insert(&mut self, key: K, make: impl FnOnce(K, JobId) -> Chain<K>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (nonce, place) = &mut self.slots[slot as usize];
        *place = Some(make(key.clone(), JobId::new(slot, *nonce)));
        self.by_key.insert(key, slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Chain<K>> {
        let (nonce, place) = self.slots.get_mut(slot as usize)?;
        let chain = place.take()?;
        *nonce = nonce.wrapping_add(1);
        self.by_key.remove(&chain.key);
        self.free.push(slot);
        Some(chain)
    }

    /// Every chain, in an order that is the same for the same events.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Chain<K>)> {
        self.slots.iter().enumerate().filter_map(|(slot, (_, chain))| Some((slot as u32, chain.as_ref()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

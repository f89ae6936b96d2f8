//! What is remembered of devices that are not in hand: a bounded map that forgets the oldest.
//! Forgetting is safe: a push is sent twice, or a device is tried sooner.

use std::collections::{BTreeMap, VecDeque};

/// A map of at most so many entries.
#[derive(Debug)]
pub(super) struct Memory<K, V> {
    entries: BTreeMap<K, V>,
    /// Their keys, oldest first.
    order: VecDeque<K>,
    max: usize,
}

impl<K: Ord + Clone, V> Memory<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Memory { entries: BTreeMap::new(), order: VecDeque::new(), max }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.max {
            let oldest = self.order.pop_front().expect("it has more than none");
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_the_oldest_and_no_more() {
        let mut memory = Memory::new(3);
        for key in 0..5 {
            memory.put(key, key * 10);
        }
        let known = |memory: &Memory<i32, i32>| {
            (0..9).filter(|key| memory.get(key).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(known(&memory), [2, 3, 4]);
        memory.put(3, 31);
        memory.remove(&2);
        memory.put(8, 80);
        assert_eq!(known(&memory), [3, 4, 8]);
        assert_eq!(memory.get(&3), Some(&31));
    }
}

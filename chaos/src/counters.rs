//! Counters, as their callers see them: whose numbers must be given once, and rise.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// Counters that nobody else uses.
pub struct Counters {
    counters: Vec<(String, Mutex<BTreeSet<u64>>)>,
}

/// A call for a number, from when it begins.
pub struct Began {
    counter: usize,
    /// The highest number that a call had got by then; this one gets a higher one.
    floor: u64,
}

impl Counters {
    /// So many of them.
    pub fn new(count: usize) -> Self {
        let counter = |number| (format!("numbers-{number}"), Mutex::default());
        Counters { counters: (0..count).map(counter).collect() }
    }

    /// A call for a number of one of them begins: its name.
    pub fn begin(&self, turn: u64) -> (&str, Began) {
        let counter = usize::try_from(turn % self.counters.len() as u64).expect("below a length");
        let (name, given) = &self.counters[counter];
        let floor = given.lock().last().copied().unwrap_or_default();
        (name, Began { counter, floor })
    }

    /// The call got this number. Was it nobody else's, and higher than those before it?
    #[must_use]
    pub fn given(&self, Began { counter, floor }: Began, number: u64) -> bool {
        self.counters[counter].1.lock().insert(number) && number > floor
    }

    /// The names, and the highest number of each that a call has got.
    pub fn highest(&self) -> Vec<(String, u64)> {
        let highest = |(name, given): &(String, Mutex<BTreeSet<u64>>)| {
            (name.clone(), given.lock().last().copied().unwrap_or_default())
        };
        self.counters.iter().map(highest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_given_twice_or_goes_back_is_seen() {
        let counters = Counters::new(1);
        let begin = || counters.begin(7).1;
        let (early, earlier) = (begin(), begin());
        assert!(counters.given(early, 2));
        let late = begin();
        assert!(counters.given(earlier, 1));
        assert!(!counters.given(begin(), 2));
        assert!(!counters.given(late, 1));
        assert!(counters.given(begin(), 9));
        assert_eq!(counters.highest(), [("numbers-0".to_owned(), 9)]);
    }
}

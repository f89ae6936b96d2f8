//! What passes by, on its way to a user's connections: who types to the user. Nothing of it is stored.
//!
//! Each connection remembers the number of the last news that it was told, and nothing else: one that is
//! slow holds nothing back, and is told the newest of each other user when it has caught up. A user about
//! whom there is no news takes no memory but the struct's own.

use std::collections::VecDeque;

use tidemark_proto::v1;
use tidemark_types::UserId;

use crate::limits::PASSING_MAX;
use crate::metrics;

/// What a user's connections are to be told, the newest of each other user.
#[derive(Default)]
pub(crate) struct Passing {
    /// In the order in which it came, numbered from 1.
    news: VecDeque<(u64, Typing)>,
    /// The number of the newest, whether it is still here or not.
    last: u64,
    /// Up to which number it is gone at the next sweep.
    old: u64,
}

/// Somebody types, or has stopped.
struct Typing {
    by: UserId,
    typing: bool,
}

impl Passing {
    /// Somebody types to the user, or has stopped.
    pub(crate) fn typing(&mut self, by: UserId, typing: bool) {
        self.news.retain(|(_, known)| known.by != by);
        if self.news.len() >= PASSING_MAX {
            self.news.pop_front();
            metrics::typing_dropped();
        }
        self.last += 1;
        self.news.push_back((self.last, Typing { by, typing }));
    }

    /// The number of the newest.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The oldest that came after the one of this number.
    pub(crate) fn after(&self, told: u64) -> Option<(u64, v1::Typing)> {
        let (number, news) = self.news.iter().find(|(number, _)| *number > told)?;
        Some((*number, v1::Typing { user: news.by.to_string(), typing: news.typing }))
    }

    /// Drops what was here at the time before: it has been told, or is old news.
    pub(crate) fn age(&mut self) {
        self.news.retain(|(number, _)| *number > self.old);
        if self.news.is_empty() {
            self.news = VecDeque::new();
        }
        self.old = self.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().expect("legal")
    }

    fn told(passing: &Passing, mut from: u64) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        while let Some((number, typing)) = passing.after(from) {
            all.push((typing.user, typing.typing));
            from = number;
        }
        all
    }

    #[test]
    fn who_is_slow_is_told_the_newest_of_each() {
        let mut passing = Passing::default();
        for typing in [true, false, true] {
            passing.typing(user("bob"), typing);
        }
        let seen = passing.last();
        passing.typing(user("carol"), true);
        passing.typing(user("bob"), false);
        let (bob, carol) = (("bob".to_owned(), false), ("carol".to_owned(), true));
        assert_eq!(told(&passing, 0), [carol.clone(), bob.clone()]);
        assert_eq!(told(&passing, seen), [carol, bob]);
        assert_eq!(told(&passing, passing.last()), []);
    }

    #[test]
    fn it_is_bounded_and_goes_by_itself() {
        let mut passing = Passing::default();
        for number in 0..2 * PASSING_MAX {
            passing.typing(user(&format!("user-{number}")), true);
        }
        assert_eq!(passing.news.len(), PASSING_MAX);
        passing.age();
        passing.typing(user("bob"), true);
        passing.age();
        assert_eq!(told(&passing, 0), [("bob".to_owned(), true)]);
        passing.age();
        assert_eq!((passing.news.capacity(), passing.last()), (0, 2 * PASSING_MAX as u64 + 1));
    }
}

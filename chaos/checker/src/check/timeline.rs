//! What was known of a rising number, and since when.

use tidemark_types::Seq;

use super::findings::Clue;
use crate::history::{Device, Nanos, Op, User};

/// What made it known.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    Op(Op),
    Device(Device),
}

/// From `at` on the number was known to be at least `seq`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) at: Nanos,
    pub(super) seq: Seq,
    by: By,
}

impl Point {
    /// The event that made it known, of this user's mailbox.
    pub(super) fn clue(&self, user: User) -> Clue {
        match self.by {
            By::Op(op) => Clue::Op(op),
            By::Device(device) => Clue::Device(user, device, self.at),
        }
    }
}

/// The highest number known at each time. Only what raises it is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(Vec<Point>);

impl Timeline {
    /// The number is at least `seq`; told in order of time.
    pub(super) fn note(&mut self, at: Nanos, seq: Seq, by: By) {
        if self.0.last().is_none_or(|last| last.seq < seq) {
            self.0.push(Point { at, seq, by });
        }
    }

    /// What was known before this time.
    pub(super) fn before(&self, time: Nanos) -> Option<&Point> {
        let known = self.0.partition_point(|point| point.at < time);
        self.0[..known].last()
    }

    /// What is known in the end.
    pub(super) fn last(&self) -> Option<&Point> {
        self.0.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_known_before_a_time() {
        let mut timeline = Timeline::default();
        for (at, seq) in [(10, 3), (20, 2), (30, 5)] {
            timeline.note(Nanos(at), Seq::new(seq), By::Op(Op(at)));
        }
        let before = |at| timeline.before(Nanos(at)).map(|point| point.seq.get());
        assert_eq!([10, 11, 30, 31].map(before), [None, Some(3), Some(3), Some(5)]);
    }
}

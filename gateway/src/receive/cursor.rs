//! What a device confirms, collected until it is worth a command (R12).
//!
//! Invariants: the newest cursor is the only one that counts; one command is under way at a time;
//! none goes out for what is confirmed already.

use std::time::Duration;

use tidemark_types::{Epoch, Seq};

use crate::limits::CONFIRM_EVERY;

/// A device's cursor, on its way to the store.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// What the store has.
    confirmed: (Epoch, Seq),
    /// What it lacks, and when it gets it.
    newer: Option<((Epoch, Seq), Duration)>,
    /// What a command that is under way tells it.
    taken: Option<(Epoch, Seq)>,
}

impl Cursor {
    /// The store has this one.
    pub(crate) fn at(epoch: Epoch, seq: Seq) -> Self {
        Cursor { confirmed: (epoch, seq), newer: None, taken: None }
    }

    /// The device says that it stands there.
    pub(crate) fn heard(&mut self, epoch: Epoch, seq: Seq, now: Duration) {
        let newer = self.newer.map(|(newer, _)| newer);
        let newest = newer.or(self.taken).unwrap_or(self.confirmed);
        if epoch != newest.0 || seq > newest.1 {
            let due = self.newer.map_or(now + CONFIRM_EVERY, |(_, due)| due);
            self.newer = Some(((epoch, seq), due));
        }
    }

    /// When a command is to go out.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.newer.filter(|_| self.taken.is_none()).map(|(_, due)| due)
    }

    /// The cursor for a command that goes out now; its outcome is to be told.
    pub(crate) fn take(&mut self) -> Option<(Epoch, Seq)> {
        if self.taken.is_none() {
            self.taken = self.newer.take().map(|(newer, _)| newer);
            return self.taken;
        }
        None
    }

    /// The command was answered: the store has this one.
    pub(crate) fn confirmed(&mut self, epoch: Epoch, seq: Seq) {
        self.taken = None;
        self.confirmed = (epoch, seq);
    }

    /// The command was not answered: it goes out again, unless there is a newer one.
    pub(crate) fn failed(&mut self, now: Duration) {
        let again = self.taken.take().map(|taken| (taken, now + CONFIRM_EVERY));
        self.newer = self.newer.or(again);
    }

    /// What the store may lack, when the connection ends.
    pub(crate) fn rest(self) -> Option<(Epoch, Seq)> {
        self.newer.map(|(newer, _)| newer).or(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    fn at(seq: u32) -> (Epoch, Seq) {
        (Epoch::FIRST, Seq::new(seq))
    }

    fn heard(cursor: &mut Cursor, seq: u32, now: Duration) {
        cursor.heard(Epoch::FIRST, Seq::new(seq), now);
    }

    #[test]
    fn one_command_carries_the_newest() {
        let mut cursor = Cursor::at(Epoch::FIRST, Seq::new(3));
        heard(&mut cursor, 3, NOW);
        heard(&mut cursor, 2, NOW);
        assert_eq!(cursor.due(), None, "the store has them");
        heard(&mut cursor, 5, NOW);
        heard(&mut cursor, 4, NOW + CONFIRM_EVERY / 2);
        heard(&mut cursor, 9, NOW + CONFIRM_EVERY / 2);
        assert_eq!(cursor.due(), Some(NOW + CONFIRM_EVERY));
        assert_eq!(cursor.take(), Some(at(9)));
        assert_eq!(cursor.rest(), Some(at(9)), "its answer may never come");
    }

    #[test]
    fn what_comes_meanwhile_waits_for_the_answer() {
        let mut cursor = Cursor::at(Epoch::FIRST, Seq::NONE);
        heard(&mut cursor, 5, NOW);
        assert_eq!(cursor.take(), Some(at(5)));
        heard(&mut cursor, 5, NOW);
        heard(&mut cursor, 6, NOW);
        assert_eq!((cursor.due(), cursor.take()), (None, None));
        cursor.confirmed(Epoch::FIRST, Seq::new(5));
        assert_eq!(cursor.take(), Some(at(6)));
        cursor.failed(NOW);
        assert_eq!(cursor.due(), Some(NOW + CONFIRM_EVERY));
        assert_eq!(cursor.rest(), Some(at(6)));
    }

    #[test]
    fn another_epoch_is_for_the_store_to_judge() {
        let mut cursor = Cursor::at(Epoch::new(2), Seq::new(9));
        heard(&mut cursor, 4, NOW);
        assert_eq!(cursor.take(), Some(at(4)));
    }
}

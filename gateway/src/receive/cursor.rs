//! What a device confirms, collected until it is worth a command (R12).
//!
//! Invariants: the newest cursor is the only one that counts; one command is under way at a time, and one goes
//! out in a second at most; none goes out for what is confirmed already.

use std::time::Duration;

use tidemark_types::{Epoch, Seq};

use crate::limits::CONFIRM_EVERY;

/// A device's cursor, on its way to the store.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// What the store has.
    confirmed: (Epoch, Seq),
    /// What it lacks.
    newer: Option<(Epoch, Seq)>,
    /// What a command that is under way tells it.
    taken: Option<(Epoch, Seq)>,
    /// When the next command may go out.
    from: Duration,
}

impl Cursor {
    /// The store has this one.
    pub(crate) fn at(epoch: Epoch, seq: Seq) -> Self {
        Cursor { confirmed: (epoch, seq), newer: None, taken: None, from: Duration::ZERO }
    }

    /// The device says that it stands there.
    pub(crate) fn heard(&mut self, epoch: Epoch, seq: Seq) {
        let newest = self.newer.or(self.taken).unwrap_or(self.confirmed);
        if epoch != newest.0 || seq > newest.1 {
            self.newer = Some((epoch, seq));
        }
    }

    /// When a command is to go out.
    pub(crate) fn due(&self) -> Option<Duration> {
        (self.newer.is_some() && self.taken.is_none()).then_some(self.from)
    }

    /// The cursor for a command that goes out now; its outcome is to be told.
    pub(crate) fn take(&mut self, now: Duration) -> Option<(Epoch, Seq)> {
        if self.due()? > now {
            return None;
        }
        self.from = now + CONFIRM_EVERY;
        self.taken = self.newer.take();
        self.taken
    }

    /// The command was answered: the store has this one.
    pub(crate) fn confirmed(&mut self, epoch: Epoch, seq: Seq) {
        self.taken = None;
        self.confirmed = (epoch, seq);
    }

    /// The command was not answered: it goes out again, unless there is a newer one.
    pub(crate) fn failed(&mut self) {
        self.newer = self.newer.or(self.taken);
        self.taken = None;
    }

    /// What the store may lack, when the connection ends.
    pub(crate) fn rest(self) -> Option<(Epoch, Seq)> {
        self.newer.or(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);
    const LATER: Duration = Duration::from_secs(6);

    fn at(seq: u32) -> (Epoch, Seq) {
        (Epoch::FIRST, Seq::new(seq))
    }

    fn heard(cursor: &mut Cursor, seq: u32) {
        cursor.heard(Epoch::FIRST, Seq::new(seq));
    }

    #[test]
    fn one_command_carries_the_newest() {
        let mut cursor = Cursor::at(Epoch::FIRST, Seq::new(3));
        heard(&mut cursor, 3);
        heard(&mut cursor, 2);
        assert_eq!((cursor.due(), cursor.take(NOW)), (None, None), "the store has them");
        heard(&mut cursor, 5);
        heard(&mut cursor, 4);
        heard(&mut cursor, 9);
        assert!(cursor.due().is_some_and(|due| due <= NOW), "nothing went out for a while");
        assert_eq!(cursor.take(NOW), Some(at(9)));
        assert_eq!(cursor.rest(), Some(at(9)), "its answer may never come");
    }

    #[test]
    fn what_comes_meanwhile_waits_for_the_answer_and_for_its_time() {
        let mut cursor = Cursor::at(Epoch::FIRST, Seq::NONE);
        heard(&mut cursor, 5);
        assert_eq!(cursor.take(NOW), Some(at(5)));
        heard(&mut cursor, 5);
        heard(&mut cursor, 6);
        assert_eq!((cursor.due(), cursor.take(LATER)), (None, None));
        cursor.confirmed(Epoch::FIRST, Seq::new(5));
        assert_eq!((cursor.due(), cursor.take(NOW)), (Some(NOW + CONFIRM_EVERY), None));
        assert_eq!(cursor.take(LATER), Some(at(6)));
        cursor.failed();
        assert_eq!(cursor.due(), Some(LATER + CONFIRM_EVERY));
        assert_eq!(cursor.rest(), Some(at(6)));
    }

    #[test]
    fn another_epoch_is_for_the_store_to_judge() {
        let mut cursor = Cursor::at(Epoch::new(2), Seq::new(9));
        heard(&mut cursor, 4);
        assert_eq!(cursor.take(NOW), Some(at(4)));
    }
}

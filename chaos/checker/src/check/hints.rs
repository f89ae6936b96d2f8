//! C17: whoever is away and can be woken was told of everything that it lacks.
//!
//! ```text
//!   target ──── stop ──── entries … head        the end
//!                  it took no more than `last`   no hint up to the head: it sleeps for ever
//! ```
//!
//! One hint tells of all that lies below its head, and may come more than once. A device that runs in
//! the end needs none, nor does one that took everything in an earlier life.

use std::collections::BTreeMap;

use tidemark_types::Seq;

use super::book::Book;
use super::findings::{Clue, Findings};
use crate::history::{Device, Event, Nanos, User};
use crate::report::Code;

/// A device that may be woken.
#[derive(Debug, Default)]
struct Sleeper {
    /// Since when it can be.
    target: Option<Nanos>,
    runs: bool,
    /// The last entry that it took or skipped, in all its lives, and when it did something last.
    last: Seq,
    at: Nanos,
    /// The highest head that it was told of.
    told: Seq,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Hints {
    sleepers: BTreeMap<(User, Device), Sleeper>,
}

impl Hints {
    pub(super) fn take(&mut self, event: &Event, book: &Book, findings: &mut Findings) {
        match event {
            Event::Start { at, user, device, cursor } => {
                self.moves(*user, *device, *at, *cursor).runs = true;
            }
            Event::Stop { at, user, device } => {
                self.moves(*user, *device, *at, Seq::NONE).runs = false;
            }
            Event::Taken { at, user, device, seq, .. } => {
                self.moves(*user, *device, *at, *seq);
            }
            Event::Gap { at, user, device, to } => {
                self.moves(*user, *device, *at, *to);
            }
            Event::Target { at, user, device } => {
                self.moves(*user, *device, *at, Seq::NONE).target.get_or_insert(*at);
            }
            Event::Hint { at, user, device, head } => {
                let sleeper = self.sleepers.entry((*user, *device)).or_default();
                sleeper.told = sleeper.told.max(*head);
                let clue = Clue::Device(*user, *device, *at);
                if sleeper.target.is_none() {
                    let reason =
                        format_args!("{user}'s {device} is told of {head} without a target");
                    findings.flaw(&[clue], reason);
                }
                let mailbox = book.mailboxes.get(user).filter(|mailbox| mailbox.is_read());
                if let Some(last) = mailbox.map(|mailbox| mailbox.head()).filter(|it| it < head) {
                    let reason =
                        format_args!("{user}'s {device} is told of {head}, and the head is {last}");
                    findings.add(Code::C17, Some(*user), &[clue, Clue::Mailbox(*user)], reason);
                }
            }
            _ => {}
        }
    }

    fn moves(&mut self, user: User, device: Device, at: Nanos, to: Seq) -> &mut Sleeper {
        let sleeper = self.sleepers.entry((user, device)).or_default();
        (sleeper.last, sleeper.at) = (sleeper.last.max(to), at);
        sleeper
    }

    /// What nobody told them.
    pub(super) fn finish(self, book: &Book, findings: &mut Findings) {
        for ((user, device), Sleeper { target, runs, last, at, told }) in self.sleepers {
            let Some(target) = target.filter(|_| !runs) else { continue };
            let mailbox = book.mailboxes.get(&user).filter(|mailbox| mailbox.is_read());
            let Some(head) = mailbox.map(|mailbox| mailbox.head()) else { continue };
            if last.max(told) < head {
                let clues = [
                    Clue::Device(user, device, target),
                    Clue::Device(user, device, at),
                    Clue::Mailbox(user),
                ];
                let reason = format_args!(
                    "{user}'s {device} is away at {last}, was told of {told}, and the head is {head}"
                );
                findings.add(Code::C17, Some(user), &clues, reason);
            }
        }
    }
}

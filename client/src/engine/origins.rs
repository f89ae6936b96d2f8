//! The origins of what the application took last: after a `Reset` the mailbox comes again, and what
//! is known must not be handed over twice.
//!
//! Limits: the last [`ORIGINS_MAX`] of them, in memory. What was taken before that, or in an
//! earlier run of the process, is handed over again after a reset; an application that cannot bear
//! it remembers origins itself.

use std::collections::{HashSet, VecDeque};

use tidemark_proto::Origin;
use tidemark_types::{Recipient, Seq};

use crate::entry::{Content, Item};

/// Origins that a device remembers: about 100 KB for a device that has seen that many, and more
/// than a restored backup is behind in all but bad cases.
pub const ORIGINS_MAX: usize = 1_024;

/// What makes an entry unique: of a refusal, the recipient as well.
type Key = (Origin, Option<Recipient>);

/// What was taken, and, while a mailbox comes again, what of it to drop.
#[derive(Debug, Default)]
pub(super) struct Origins {
    recent: VecDeque<Key>,
    /// Known ones, until the mailbox is past the head that the reset told.
    again: Option<(Seq, HashSet<Key>)>,
}

impl Origins {
    /// The application took this; it had it in its hands since before the reset, if there is one.
    pub(super) fn took(&mut self, item: &Item, before_reset: bool) {
        let Some(key) = key(item) else { return };
        if let Some((_, known)) = self.again.as_mut().filter(|_| before_reset) {
            known.insert(key.clone());
        }
        if self.recent.len() == ORIGINS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(key);
    }

    /// The mailbox comes again, up to this head.
    pub(super) fn reset(&mut self, head: Seq) {
        self.again = Some((head, self.recent.iter().cloned().collect()));
    }

    /// Did the application take this before the reset?
    pub(super) fn knows(&mut self, item: &Item) -> bool {
        match &self.again {
            None => false,
            Some((head, _)) if item.last() > *head => {
                self.again = None;
                false
            }
            Some((_, known)) => key(item).is_some_and(|key| known.contains(&key)),
        }
    }
}

fn key(item: &Item) -> Option<Key> {
    let Item::Entry(entry) = item else { return None };
    let recipient = match &entry.content {
        Content::Refused { recipient, .. } => Some(recipient.clone()),
        Content::Message(_) | Content::Act(_) | Content::Group(_) | Content::Unknown(_) => None,
    };
    Some((entry.origin.clone()?, recipient))
}

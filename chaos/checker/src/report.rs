//! The verdict on a run: what was counted, and what contradicts what.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::history::{Event, User};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $code:ident),* $(,)?) => {
        /// What can be wrong with a run.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
        )]
        pub enum Code {
            $($(#[doc = $doc])* $code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];

            /// What must hold.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Code::$code => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

codes! {
    /// A mailbox holds exactly the seqs after its floor up to its head, on every replica.
    C1,
    /// All replicas hold the same, and have the same state hash at the same index.
    C2,
    /// No message is twice in one mailbox, and no two messages have one origin.
    C3,
    /// An accepted send is in its sender's mailbox at the acknowledged seq, and has exactly one outcome for each recipient.
    C4,
    /// Every acknowledgement of a message is the same.
    C4b,
    /// Every entry was asked for: by that sender, for that mailbox, with that content, before it was seen.
    C5,
    /// What was acknowledged before another send began stands before it; the sends of a session stand in their order.
    C6,
    /// A read of the head covers what was acknowledged or delivered before it began.
    C7a,
    /// A read of the head is not below one that ended before it began.
    C7b,
    /// A read of the head is not above the final head.
    C7c,
    /// A read of the head covers nothing that was sent after it ended.
    C7d,
    /// A page is a piece of the final log without a hole, and begins where it was asked to.
    C8,
    /// A device takes each entry once, in order, and starts nowhere beyond what it took.
    C9a,
    /// A device skips nothing but what retention removed and it was told of.
    C9b,
    /// What a device took is what the mailbox holds.
    C9c,
    /// In the end every running device has everything.
    C9d,
    /// The server's cursor of a device never goes back, and never beyond what the device took.
    C10,
    /// A refused send is nowhere; one of unknown outcome is everywhere or nowhere.
    C11,
    /// A term has one leader, and a replica's positions keep their order and never go back.
    C12,
    /// After a fault every group serves again, and after the last one everything comes to rest.
    C13,
    /// The run proves something: enough was sent, each fault had an effect, and the history is whole.
    C14,
    /// What has a bound stayed within it.
    C15,
    /// What a user decided about a sender holds for every message that is sent after the acknowledgement.
    C16,
    /// Who is away and can be woken is told of everything that it lacks, and of nothing that is not there.
    C17,
    /// What the operator's checks refuse, drop or replace is so for everybody, and nothing goes that nobody let pass.
    C18,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Every promise was kept, in a run that could have shown the contrary.
    Holds,
    /// A promise was broken.
    Violated,
    /// Nothing: no promise was broken, and the run could not have shown it.
    Void,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Holds => "holds",
            Verdict::Violated => "violated",
            Verdict::Void => "void",
        })
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// What.
    pub code: Code,
    /// How, in one sentence.
    pub reason: String,
    /// The few events that contradict each other, in order of time.
    pub witness: Vec<Event>,
    /// In whose mailbox, if it is in one.
    pub user: Option<User>,
}

/// Where in a mailbox's life its lost outcomes lie, by the times of their sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Before everything that the mailbox holds.
    pub prefix: u64,
    /// Among what it holds.
    pub middle: u64,
    /// After everything that it holds.
    pub suffix: u64,
    /// In a mailbox that holds nothing.
    pub whole: u64,
}

/// The account of a run. A *send* is a message, whatever the number of attempts at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sends that were acknowledged.
    pub accepted: u64,
    /// Sends that were refused for good.
    pub refused: u64,
    /// Sends of which no answer says what became of them.
    pub unknown: u64,
    /// Of the unknown ones, those that are in their sender's mailbox.
    pub happened: u64,
    /// Recipients' copies of accepted and happened sends.
    pub delivered: u64,
    /// Recipients who did not get a send, as its sender was told.
    pub turned_away: u64,
    /// Accepted sends that the operator's checks have dropped: nobody but their senders has them.
    pub dropped: u64,
    /// Recipients who are silent to those whom they block, and hold no copy.
    pub silenced: u64,
    /// Copies and outcomes that retention may have removed before anybody saw them.
    pub removed: u64,
    /// Copies and outcomes that must be there and are not.
    pub lost: u64,
    /// Where these lie.
    pub losses: Losses,
    /// Copies and outcomes that are there once too often.
    pub duplicated: u64,
    /// Entries that stand before one that they must follow.
    pub out_of_order: u64,
    /// Seqs that a mailbox lacks.
    pub seq_gaps: u64,
    /// Mailboxes and groups whose replicas differ.
    pub divergent_replicas: u64,
}

/// The verdict on a run, and what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the run shows.
    pub verdict: Verdict,
    /// What was counted.
    pub counts: Counts,
    /// How much was wrong, by code; what is not here was found right.
    pub wrong: BTreeMap<Code, u64>,
    /// What was wrong, in the order of codes; the first ones of each.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { accepted, refused, unknown, delivered, turned_away, .. } = self.counts;
        let Counts { dropped, lost, duplicated, out_of_order, seq_gaps, .. } = self.counts;
        write!(
            f,
            "verdict: {} accepted={accepted} refused={refused} unknown={unknown} \
             delivered={delivered} turned_away={turned_away} dropped={dropped} lost={lost} \
             duplicated={duplicated} out_of_order={out_of_order} seq_gaps={seq_gaps} \
             divergent_replicas={}",
            self.verdict, self.counts.divergent_replicas
        )?;
        for (code, count) in &self.wrong {
            write!(f, "\n{code}: {count} times against: {}", code.meaning())?;
        }
        for Violation { code, reason, .. } in &self.violations {
            write!(f, "\n{code}: {reason}")?;
        }
        Ok(())
    }
}

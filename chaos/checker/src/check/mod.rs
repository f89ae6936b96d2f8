//! The checks. Each file has one subject, and says what it compares with what.
//!
//! | file | checks |
//! |---|---|
//! | `book` | the sends, and what replicas hold: what all others compare with |
//! | `replicas` | C1, C2 |
//! | `copies` | C3, C5 |
//! | `sends` | C4, C4b, C11 |
//! | `order` | C6 |
//! | `reads` | C7, C8 |
//! | `devices` | C9, C10 |
//! | `raft` | C12 |
//! | `run` | C13, C14, C15 |
//! | `decisions` | C16 |
//! | `hints` | C17 |
//! | `judged` | C18 |
//!
//! **What retention removed.** The final log lacks the entries up to the floor. They are judged by
//! what was seen of them: what a device took or a page showed is part of the log too, and must be
//! the same whenever it is seen again. Only an outcome that may lie in a part that nobody saw is
//! excused; that part begins after the highest seq or head that was seen before the send began.

mod book;
mod copies;
mod decisions;
mod devices;
mod findings;
mod hints;
mod judged;
mod mailbox;
mod order;
mod raft;
mod reads;
mod replicas;
mod run;
mod sends;
mod timeline;

use std::collections::BTreeMap;

use crate::history::{History, Nanos, ReadError};
use crate::report::Report;

use book::Book;
use devices::Devices;
use findings::Findings;
use hints::Hints;
use raft::Raft;
use reads::Reads;
use replicas::Hashes;
use run::Run;

/// What a run must have to prove something, and how fast it must recover.
#[derive(Clone, Debug)]
pub struct Demands {
    /// So many sends must have been accepted.
    pub accepted_min: u64,
    /// So much of all sends, from 0 to 1.
    pub accepted_share_min: f64,
    /// For a kind of fault, the names of the effects that its last one must have had. One of a kind
    /// that is not here must have had any.
    pub effects: BTreeMap<String, Vec<String>>,
    /// A group must acknowledge a probe within this time after a fault.
    pub recovery: Nanos,
    /// So many violations of each code are shown; those beyond are counted.
    pub shown_max: usize,
}

impl Default for Demands {
    fn default() -> Self {
        Demands {
            accepted_min: 1,
            accepted_share_min: 0.5,
            effects: BTreeMap::new(),
            recovery: Nanos(30_000_000_000),
            shown_max: 100,
        }
    }
}

/// Judges a history. An error means that it cannot be read, and says nothing of the run.
pub fn check(history: &impl History, demands: &Demands) -> Result<Report, ReadError> {
    let mut findings = Findings::new(demands.shown_max);
    let mut book = Book::read(history.events()?, &mut findings)?;
    replicas::check(&book, &mut findings);

    let (mut hashes, mut raft, mut run) = (Hashes::default(), Raft::default(), Run::default());
    let (mut reads, mut devices, mut hints) =
        (Reads::default(), Devices::default(), Hints::default());
    for event in history.events()? {
        let event = event?;
        reads.take(&event, &mut book, &mut findings);
        devices.take(&event, &mut book, &mut findings);
        hints.take(&event, &book, &mut findings);
        hashes.take(&event, &mut findings);
        raft.take(&event, &mut findings);
        run.take(&event, demands, &mut findings);
    }
    reads.finish(&book, &mut findings);
    devices.finish(&book, &mut findings);
    hints.finish(&book, &mut findings);

    copies::check(&mut book, &mut findings);
    order::check(&book, &mut findings);
    sends::check(&book, &mut findings);
    decisions::check(&book, &mut findings);
    judged::check(&book, &mut findings);
    raft.finish(&mut findings);
    run.finish(demands, &mut findings);
    findings.report(history)
}

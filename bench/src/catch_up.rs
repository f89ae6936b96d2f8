//! The workload `sync`: devices come back to mailboxes that have grown while they were away.
//!
//! ```text
//!   fill: senders ─► mailboxes of users who are offline ─► books
//!   then, for each round and mailbox:  Hello ─► pages ─► the last entry ─► confirmed ─► gone
//!                                      └───────── the time ─────┘
//! ```
//!
//! Every return is of a device that was never there before and starts at the floor, so that each one
//! takes the whole mailbox, however often it was read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidemark_proto::v1;

use crate::books;
use crate::cast::Cast;
use crate::crew::{self, Crew};
use crate::device::{Device, Identity, Left};
use crate::ledger::Ledger;
use crate::messages::drain;
use crate::meter::Phase;
use crate::pace;
use crate::report::{CatchUp, Measured};
use crate::stage::Stage;
use crate::wire::Gateway;
use crate::workload::{Line, Messages, Pace, Recipients};

/// How mailboxes are filled: in one commit for each message, so that what is acknowledged is there.
const FILL: Messages = Messages {
    pace: Pace::AtLast,
    recipients: Recipients::OfflineHere,
    line: Line::Shared,
    pulls: false,
    disturbed: false,
};

/// A device that came back.
struct Return {
    /// To which of the mailboxes.
    mailbox: usize,
    /// From its `Hello` to the last entry.
    took: Duration,
    left: Left,
}

/// Runs the workload.
pub(crate) async fn run(stage: &Stage<'_>) -> Result<Measured> {
    let backlogs = &stage.settings.backlogs;
    let mailboxes = backlogs.len();
    ensure!(
        stage.scale.senders as usize >= mailboxes,
        "each of the {mailboxes} --backlogs needs a sender: --pairs is too low"
    );
    let cast = Cast::absent(&mut stage.names(), stage.scale.senders, mailboxes);
    let connections = stage.settings.connections as usize;
    let gateway = Gateway::connect(&stage.target.gateway, connections, cast.senders.len()).await?;
    let calls = gateway.calls(&stage.target.service_token());
    let messages: u64 = backlogs.iter().map(|missed| u64::from(*missed)).sum();
    stage.lookout.say(&format!("{messages} messages are sent"));
    let (cast, senders, filled) = fill(stage, &gateway, cast).await?;
    let counts = stage.lookout.meter.counts();
    let mut ledger = books::closed(&calls, &senders, &cast, &counts, filled).await?;
    stage.warm_up().await;
    let from = stage.lookout.begin().await;
    let returns = match ledger.is_clean() {
        true => come_back(stage, &gateway, &cast).await?,
        false => Vec::new(),
    };
    let to = stage.lookout.end().await;
    let catch_ups = catch_ups(backlogs, &returns);
    for returned in &returns {
        ledger += taken(returned, &senders);
    }
    let left: Vec<Left> = returns.into_iter().map(|returned| returned.left).collect();
    if ledger.faults.is_empty() {
        books::ask_cursors(&mut ledger, &calls, &left).await?;
    }
    let delivered = to.counts.delivered - from.counts.delivered;
    let conditions = stage.conditions(mailboxes, gateway.connections());
    let measured = stage.lookout.measured(conditions, &from, &to, delivered);
    Ok(Measured { delivered, catch_ups, ledger, ..measured })
}

/// Sends each mailbox its messages: what the senders leave behind, and whether all of it is there.
async fn fill(stage: &Stage<'_>, gateway: &Gateway, cast: Cast) -> Result<(Cast, Vec<Left>, bool)> {
    let mut crew = Crew::at_work(stage, gateway, cast, &FILL).await?;
    let shares = shares(&crew.cast, &stage.settings.backlogs);
    pace::burst(&stage.lookout.meter, std::mem::take(&mut crew.queues), &shares).await;
    stage.lookout.meter.enter(Phase::Drain);
    let filled = drain(stage, false).await;
    let (cast, left) = crew.leave(stage).await;
    Ok((cast, left, filled))
}

/// How many messages each sender sends, so that every mailbox gets what it is to get.
fn shares(cast: &Cast, backlogs: &[u32]) -> Vec<u64> {
    let writers = |mailbox: u32| {
        let all = cast.senders.iter().enumerate();
        all.filter(move |(_, (_, mine))| mine.contains(&mailbox)).map(|(sender, _)| sender)
    };
    let mut shares = vec![0; cast.senders.len()];
    for (mailbox, backlog) in (0..).zip(backlogs) {
        let count = writers(mailbox).count() as u64;
        for (rank, sender) in (0..).zip(writers(mailbox)) {
            let backlog = u64::from(*backlog);
            shares[sender] = backlog / count + u64::from(rank < backlog % count);
        }
    }
    shares
}

/// In each round one device comes back to each mailbox, alone: one after the other, so that a slow
/// minute of the machine is not one mailbox's.
async fn come_back(stage: &Stage<'_>, gateway: &Gateway, cast: &Cast) -> Result<Vec<Return>> {
    let shared = crew::shared(stage, false);
    let mut returns = Vec::new();
    for round in 1..=stage.settings.rounds {
        stage.lookout.say(&format!("round {round}/{}", stage.settings.rounds));
        for (mailbox, (user, missed)) in
            cast.recipients.iter().zip(&stage.settings.backlogs).enumerate()
        {
            let name = format!("return-{round}");
            let identity: Identity = {
                let start = v1::StartAt::Floor;
                crew::identity(stage.target, mailbox, user, &name, start)?
            };
            let hello = identity.hello();
            let before = stage.lookout.meter.now();
            let wire = gateway.open(identity.number, hello).await?;
            let device = Device::welcomed(wire, identity, shared.clone()).await;
            let device = device.with_context(|| format!("{user} comes back"))?;
            let (left, at) = device.catch_up(*missed).await;
            returns.push(Return { mailbox, took: at.saturating_sub(before), left });
            if stage.lookout.meter.is_faulty() {
                return Ok(returns);
            }
        }
    }
    Ok(returns)
}

/// The books of a device that came back.
fn taken(returned: &Return, senders: &[Left]) -> Ledger {
    let Return { mailbox, left, .. } = returned;
    let received = &left.received;
    let mut ledger = Ledger {
        duplicated: received.duplicated,
        out_of_order: received.out_of_order,
        ..Ledger::default()
    };
    for sender in senders.iter().filter_map(|left| left.sender.as_ref()) {
        let to_it = sender.sent().filter(|(place, _)| *place as usize == *mailbox);
        for (_, sent) in to_it {
            let lost = received.lost(sender.index, sent);
            ledger.lost += lost;
            ledger.delivered += sent - lost;
        }
    }
    let fault = left.fault.as_ref();
    ledger.faults.extend(fault.map(|fault| format!("{}: {fault}", left.identity.user)));
    ledger
}

fn catch_ups(backlogs: &[u32], returns: &[Return]) -> Vec<CatchUp> {
    let of = |mailbox| {
        let all = returns.iter().filter(move |returned| returned.mailbox == mailbox);
        all.map(|returned| returned.took).collect::<Vec<_>>()
    };
    backlogs.iter().enumerate().filter_map(|(at, missed)| CatchUp::of(*missed, of(at))).collect()
}

#[cfg(test)]
mod tests {
    use tidemark_types::UserId;

    use super::*;
    use crate::sender::Aim;

    fn cast(mailboxes: &[u32]) -> Cast {
        let user = |number: usize| UserId::new(format!("user-{number}")).expect("a name");
        let senders = mailboxes.iter().enumerate().map(|(at, mailbox)| (user(at), vec![*mailbox]));
        Cast {
            senders: senders.collect(),
            recipients: (100..103).map(user).collect(),
            aim: Aim::One,
            first_recipient: None,
        }
    }

    #[test]
    fn senders_of_a_mailbox_share_what_it_is_to_get() {
        assert_eq!(shares(&cast(&[0, 1, 2, 0]), &[11, 7, 1]), [6, 7, 1, 5]);
        assert_eq!(shares(&cast(&[0, 0, 0, 1]), &[2, 0]), [1, 1, 0, 0]);
    }
}

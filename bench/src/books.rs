//! Closing the books of a run: what devices say that they sent and received, then what the servers
//! say of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use tidemark_types::UserId;
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::device::Left;
use crate::ledger::Ledger;
use crate::lookout::PATIENCE;
use crate::meter::Counts;
use crate::sender::Sender;
use crate::wire::Calls;

/// Calls under way at once, where servers are asked what they know.
pub(crate) const CALLS: usize = 32;

/// How long the last cursors may take to reach the stores.
const CONFIRMED_IN: Duration = Duration::from_secs(30);

/// Between two looks at a cursor that is not there yet.
const LOOK: Duration = Duration::from_millis(50);

/// What the devices say, and then the servers: of a run in which everything arrived, or not.
pub(crate) async fn closed(
    calls: &Calls,
    left: &[Left],
    cast: &Cast,
    counts: &Counts,
    arrived: bool,
) -> Result<Ledger> {
    let mut ledger = close(left, cast, counts);
    if !arrived && ledger.faults.is_empty() {
        ledger.faults.push(format!("nothing arrived for {PATIENCE:?}, and something was missing"));
    }
    if ledger.faults.is_empty() {
        ask_cursors(&mut ledger, calls, left).await?;
        if cast.first_recipient.is_none() {
            ask_heads(&mut ledger, calls, left, &cast.recipients).await?;
        }
    }
    Ok(ledger)
}

/// What the devices say, in the order of their numbers.
fn close(left: &[Left], cast: &Cast, counts: &Counts) -> Ledger {
    let Counts { sent, acked, delivered, own, .. } = *counts;
    let mut ledger = Ledger { sent, acked, delivered, own, ..Ledger::default() };
    for device in left {
        ledger.duplicated += device.received.duplicated;
        ledger.out_of_order += device.received.out_of_order;
        let fault = device.fault.as_ref();
        ledger.faults.extend(fault.map(|fault| format!("{}: {fault}", device.identity.user)));
    }
    let senders = left.iter().filter_map(|left| Some((left, left.sender.as_ref()?)));
    for (device, sender) in senders {
        ledger.lost += device.received.lost(sender.index, sender.total());
        let Some(first) = cast.first_recipient else { continue };
        for (recipient, sent) in sender.sent() {
            let recipient = &left[first + recipient as usize];
            ledger.lost += recipient.received.lost(sender.index, sent);
        }
    }
    ledger
}

/// What the servers say of what devices have confirmed.
pub(crate) async fn ask_cursors(ledger: &mut Ledger, calls: &Calls, left: &[Left]) -> Result<()> {
    let cursors = stream::iter(left).map(|left| confirmed(calls, left));
    let cursors: Vec<u32> = cursors.buffered(CALLS).try_collect().await?;
    compare(ledger, left, &cursors);
    Ok(())
}

/// What the servers say of the mailboxes of those who are offline.
async fn ask_heads(
    ledger: &mut Ledger,
    calls: &Calls,
    left: &[Left],
    recipients: &[UserId],
) -> Result<()> {
    let mut sent = BTreeMap::<usize, u64>::new();
    let senders = left.iter().filter_map(|left| left.sender.as_ref());
    for (recipient, count) in senders.flat_map(Sender::sent) {
        *sent.entry(recipient as usize).or_default() += count;
    }
    let heads = stream::iter(sent).map(async |(recipient, sent)| {
        let head = calls.head(recipient, &recipients[recipient]).await?;
        Ok::<_, anyhow::Error>((u64::from(head), sent))
    });
    let heads: Vec<(u64, u64)> = heads.buffer_unordered(CALLS).try_collect().await?;
    for (head, sent) in heads {
        ledger.delivered += head;
        ledger.lost += sent.saturating_sub(head);
        ledger.duplicated += head.saturating_sub(sent);
    }
    Ok(())
}

/// What each device confirmed, against the cursor that the servers have of it.
fn compare(ledger: &mut Ledger, left: &[Left], cursors: &[u32]) {
    for (left, cursor) in left.iter().zip(cursors) {
        ledger.confirmed += u64::from(*cursor);
        ledger.unconfirmed += u64::from(left.cursor.saturating_sub(*cursor));
        if *cursor > left.cursor {
            let (user, told) = (&left.identity.user, left.cursor);
            ledger.faults.push(format!("{user}: it confirmed {told}, the servers say {cursor}"));
        }
    }
}

/// The cursor that the servers have of a device, once it is what the device reported.
async fn confirmed(calls: &Calls, left: &Left) -> Result<u32> {
    let began = Instant::now();
    let identity = &left.identity;
    loop {
        let (user, device) = (&identity.user, &identity.device);
        let cursor = calls.cursor(identity.number, user, device).await?;
        if cursor >= left.cursor || began.elapsed() > CONFIRMED_IN {
            return Ok(cursor);
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidemark_types::{ClusterId, DeviceId};

    use super::*;
    use crate::body::Bodies;
    use crate::device::{Fault, Identity};
    use crate::ledger::{Arrived, Received};
    use crate::meter::Meter;
    use crate::sender::{Aim, Correspondents, Load};

    const SENT: u64 = 3;

    fn left(number: usize, sender: Option<Sender>) -> Left {
        let identity = Identity {
            number,
            user: UserId::new(format!("user-{number}")).expect("a name"),
            device: DeviceId::new("d").expect("a name"),
            token: String::new(),
            cluster: ClusterId::from_bytes([0; 16]).expect("any bytes"),
            start: tidemark_proto::v1::StartAt::Floor,
        };
        Left { identity, received: Received::default(), sender, cursor: 0, fault: None }
    }

    /// A sender that sent to a recipient, and both got everything.
    fn pair() -> (Vec<Left>, Cast, Counts) {
        let recipient = left(1, None);
        let recipients: Arc<[UserId]> = [recipient.identity.user.clone()].into();
        let (meter, bodies) = (Arc::new(Meter::new()), Arc::new(Bodies::new(64)));
        let to = Correspondents { all: recipients.clone(), mine: vec![0], aim: Aim::One };
        let load = Load::Closed(usize::try_from(SENT).expect("small"));
        let mut sender = Sender::new(0, 1, to, load, bodies, meter.clone());
        while sender.next().is_some() {}
        let mut all = vec![left(0, Some(sender)), recipient];
        for k in 1..=SENT {
            for left in &mut all {
                left.received.arrived(0, k);
            }
        }
        let counts = Counts { acked: SENT, delivered: SENT, own: SENT, ..meter.counts() };
        let senders = vec![(all[0].identity.user.clone(), vec![0])];
        let cast = Cast { senders, recipients, aim: Aim::One, first_recipient: Some(1) };
        (all, cast, counts)
    }

    fn closed(spoil: impl Fn(&mut [Left])) -> Ledger {
        let (mut left, cast, counts) = pair();
        spoil(&mut left);
        close(&left, &cast, &counts)
    }

    #[test]
    fn books_of_a_run_without_a_flaw_are_clean() {
        let ledger = closed(|_| {});
        assert!(ledger.is_clean(), "{ledger}");
        assert_eq!((ledger.sent, ledger.lost), (SENT, 0));
    }

    #[test]
    fn what_either_side_lacks_is_lost() {
        for side in [0, 1] {
            let ledger = closed(|left| {
                left[side].received = Received::default();
                left[side].received.arrived(0, 1);
            });
            assert_eq!((ledger.lost, ledger.is_clean()), (SENT - 1, false), "side {side}");
        }
    }

    #[test]
    fn who_sends_and_receives_has_one_device_for_both() {
        let (mut left, mut cast, counts) = pair();
        // They write to each other: the second one's messages are those that it lacks.
        let (meter, bodies) = (Arc::new(Meter::new()), Arc::new(Bodies::new(64)));
        let all: Arc<[UserId]> = left.iter().map(|left| left.identity.user.clone()).collect();
        for (at, left) in left.iter_mut().enumerate() {
            let mine = vec![u32::from(at == 0)];
            let to = Correspondents { all: all.clone(), mine, aim: Aim::One };
            let index = u32::from(at == 1);
            let (bodies, meter) = (bodies.clone(), meter.clone());
            let mut sender = Sender::new(index, 1, to, Load::Closed(3), bodies, meter);
            while sender.next().is_some() {}
            left.sender = Some(sender);
        }
        cast.recipients = all;
        cast.first_recipient = Some(0);
        assert_eq!(close(&left, &cast, &counts).lost, 2 * SENT);
        for left in &mut left {
            (1..=SENT).for_each(|k| assert_eq!(left.received.arrived(1, k), Arrived::InOrder));
        }
        assert_eq!(close(&left, &cast, &counts).lost, 0);
    }

    #[test]
    fn a_cursor_that_is_too_high_does_not_make_up_for_one_that_is_too_low() {
        for (cursors, unconfirmed, faults) in [([3, 3], 0, 0), ([3, 2], 1, 0), ([4, 2], 1, 1)] {
            let (mut left, ..) = pair();
            left.iter_mut().for_each(|left| left.cursor = 3);
            let mut ledger = closed(|_| {});
            compare(&mut ledger, &left, &cursors);
            assert_eq!((ledger.unconfirmed, ledger.faults.len()), (unconfirmed, faults));
            assert_eq!(ledger.is_clean(), cursors == [3, 3]);
        }
    }

    #[test]
    fn what_a_device_saw_reaches_the_ledger() {
        let doubled = closed(|left| {
            left[1].received.arrived(0, SENT);
        });
        assert_eq!((doubled.duplicated, doubled.is_clean()), (1, false));
        let cut = closed(|left| left[1].fault = Some(Fault::Ended));
        assert_eq!(cut.faults, ["user-1: the gateway has ended the stream"]);
    }
}

//! Closing the books of a run: what devices say that they sent and received, then what the servers
//! say of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use tidemark_types::UserId;
use tokio::time::{Instant, sleep};

use crate::device::Left;
use crate::ledger::Ledger;
use crate::meter::Counts;
use crate::sender::Sender;
use crate::wire::Gateway;
use crate::workload::Recipients;

/// Calls under way at once.
const CALLS: usize = 32;

/// How long the last cursors may take to reach the stores.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a cursor that is not there yet.
const LOOK: Duration = Duration::from_millis(50);

/// What the devices say, in the order of their numbers: the senders, then the recipients, if those
/// are online.
pub(crate) fn close(
    left: &[Left],
    recipients: &[UserId],
    kind: Recipients,
    counts: &Counts,
) -> Ledger {
    let Counts { sent, acked, delivered, own, .. } = *counts;
    let mut ledger = Ledger { sent, acked, delivered, own, ..Ledger::default() };
    for device in left {
        ledger.duplicated += device.received.duplicated;
        ledger.out_of_order += device.received.out_of_order;
        let fault = device.fault.as_ref();
        ledger.faults.extend(fault.map(|fault| format!("{}: {fault}", device.identity.user)));
    }
    let senders = left.iter().filter_map(|left| Some((left, left.sender.as_ref()?)));
    let online = kind == Recipients::Online;
    let first_recipient = left.len().saturating_sub(if online { recipients.len() } else { 0 });
    for (device, sender) in senders {
        ledger.lost += device.received.lost(sender.index, sender.total());
        for (recipient, sent) in sender.sent().filter(|_| online) {
            let recipient = &left[first_recipient + recipient as usize];
            ledger.lost += recipient.received.lost(sender.index, sent);
        }
    }
    ledger
}

/// What the servers say: the cursors of devices, and the mailboxes of those who are offline.
pub(crate) async fn ask(
    ledger: &mut Ledger,
    gateway: &Gateway,
    token: &str,
    left: &[Left],
    recipients: &[UserId],
    kind: Recipients,
) -> Result<()> {
    let cursors = stream::iter(left).map(|left| confirmed(gateway, token, left));
    let cursors: Vec<u32> = cursors.buffered(CALLS).try_collect().await?;
    compare(ledger, left, &cursors);
    if kind == Recipients::Online {
        return Ok(());
    }
    let mut sent = BTreeMap::<usize, u64>::new();
    let senders = left.iter().filter_map(|left| left.sender.as_ref());
    for (recipient, count) in senders.flat_map(Sender::sent) {
        *sent.entry(recipient as usize).or_default() += count;
    }
    let heads = stream::iter(sent).map(async |(recipient, sent)| {
        let head = gateway.head(recipient, token, &recipients[recipient]).await?;
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
async fn confirmed(gateway: &Gateway, token: &str, left: &Left) -> Result<u32> {
    let began = Instant::now();
    let identity = &left.identity;
    loop {
        let (user, device) = (&identity.user, &identity.device);
        let cursor = gateway.cursor(identity.number, token, user, device).await?;
        if cursor >= left.cursor || began.elapsed() > PATIENCE {
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
    use crate::ledger::Received;
    use crate::meter::Meter;
    use crate::sender::{Correspondents, Load};

    const SENT: u64 = 3;

    fn left(number: usize, sender: Option<Sender>) -> Left {
        let identity = Identity {
            number,
            user: UserId::new(format!("user-{number}")).expect("a name"),
            device: DeviceId::new("d").expect("a name"),
            token: String::new(),
            cluster: ClusterId::from_bytes([0; 16]).expect("any bytes"),
        };
        Left { identity, received: Received::default(), sender, cursor: 0, fault: None }
    }

    /// A sender that sent to a recipient, and both got everything.
    fn pair() -> (Vec<Left>, Vec<UserId>, Counts) {
        let recipient = left(1, None);
        let recipients = vec![recipient.identity.user.clone()];
        let (meter, bodies) = (Arc::new(Meter::new()), Arc::new(Bodies::new(64)));
        let to = Correspondents { all: recipients.clone().into(), mine: vec![0] };
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
        (all, recipients, counts)
    }

    fn closed(spoil: impl Fn(&mut [Left])) -> Ledger {
        let (mut left, recipients, counts) = pair();
        spoil(&mut left);
        close(&left, &recipients, Recipients::Online, &counts)
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

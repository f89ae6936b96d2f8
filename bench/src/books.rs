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
    let cursors: Vec<u64> = cursors.buffer_unordered(CALLS).try_collect().await?;
    let reported: u64 = left.iter().map(|left| u64::from(left.cursor)).sum();
    ledger.confirmed = cursors.iter().sum();
    ledger.unconfirmed = reported.saturating_sub(ledger.confirmed);
    if kind == Recipients::Online {
        return Ok(());
    }
    let mut sent: BTreeMap<usize, u64> = BTreeMap::new();
    for (recipient, count) in
        left.iter().filter_map(|left| left.sender.as_ref()).flat_map(|s| s.sent())
    {
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

/// The cursor that the servers have of a device, once it is what the device reported.
async fn confirmed(gateway: &Gateway, token: &str, left: &Left) -> Result<u64> {
    let began = Instant::now();
    let identity = &left.identity;
    loop {
        let (user, device) = (&identity.user, &identity.device);
        let cursor = gateway.cursor(identity.number, token, user, device).await?;
        if cursor >= left.cursor || began.elapsed() > PATIENCE {
            return Ok(cursor.into());
        }
        sleep(LOOK).await;
    }
}

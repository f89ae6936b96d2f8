//! Workloads of messages, from the first connection to closed books.
//!
//! ```text
//!   connect ─► warm up ─► measure ─► drain ─► leave ─► check against the servers ─► books
//! ```
//!
//! The clock stops at the end of the measured time, but for `send`: there it stops once all is
//! acknowledged and every outbox is empty.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::books;
use crate::cast::Cast;
use crate::crew::Crew;
use crate::disturbance::{self, Done};
use crate::lookout::{LOOK, Look, PATIENCE};
use crate::meter::{Counts, Phase};
use crate::pace;
use crate::process::Process;
use crate::report::{Conditions, Disturbed, Idle, Measured};
use crate::sender::Aim;
use crate::stage::Stage;
use crate::wire::Gateway;
use crate::workload::{Line, Messages, Pace, Recipients};

/// Files and sockets that a process has open beside those of devices with a connection of their own.
const FILES_SPARE: u64 = 512;

/// Devices with a connection of their own are many, and report their cursors in their own time before they
/// leave: in one second and the one for which the gateway waits.
const REPORTS_IN: Duration = Duration::from_secs(3);

/// Runs a workload of messages.
pub(crate) async fn run(stage: &Stage<'_>, messages: &Messages) -> Result<Measured> {
    let Stage { target, settings, .. } = *stage;
    let cast = Cast::draw(messages.recipients, &mut stage.names(), &stage.scale, settings)?;
    let on_shared = match messages.line {
        Line::Shared => cast.users().count(),
        Line::Own => cast.senders.len(),
    };
    let connections = settings.connections as usize;
    let gateway = Gateway::connect(&target.gateway, connections, on_shared).await?;
    let conditions = conditions(stage, messages, &cast, &gateway);
    if messages.line == Line::Own {
        check_open_files(stage, cast.recipients.len())?;
    }
    if let Aim::Group(group) = &cast.aim {
        stage.lookout.say(&format!("a group of {} is made", cast.users().count()));
        gateway.calls(&target.service_token()).make_group(group, cast.users()).await?;
    }
    stage.lookout.say(&format!("{} devices connect", cast.users().count()));
    let alone = stage.lookout.look().await;
    let mut crew = Crew::at_work(stage, &gateway, cast, messages).await?;
    let connected = stage.lookout.meter.now() - alone.at;
    if messages.pace == Pace::Open {
        pace::start(
            stage.lookout.meter.clone(),
            stage.scale.rate,
            std::mem::take(&mut crew.queues),
        )?;
    }
    stage.warm_up().await;
    let from = stage.lookout.begin().await;
    let disturbed = pass(stage, messages).await?;
    let (to, arrived) = finish(stage, messages, &mut crew).await?;
    if messages.line == Line::Own {
        stage.lookout.pass(REPORTS_IN, "cursors").await;
    }
    let (cast, left) = crew.leave(stage).await;
    let calls = gateway.calls(&target.service_token());
    let ledger =
        books::closed(&calls, &left, &cast, &stage.lookout.meter.counts(), arrived).await?;
    let acked = to.counts.acked - from.counts.acked;
    let measured = Measured {
        delivered: match messages.recipients.are_online() {
            true => to.counts.delivered - from.counts.delivered,
            // Accepted is in the recipient's mailbox; by the time the clock stops, or at once.
            false => acked,
        },
        disturbed: disturbed.map(|done| silences(stage, &from, done)),
        ledger,
        ..stage.lookout.measured(conditions, &from, &to, acked)
    };
    Ok(match messages.line {
        Line::Shared => measured,
        Line::Own => Measured { idle: Some(idle(stage, &alone, &to, connected)?), ..measured },
    })
}

fn conditions(
    stage: &Stage<'_>,
    messages: &Messages,
    cast: &Cast,
    gateway: &Gateway,
) -> Conditions {
    let own = match messages.line {
        Line::Shared => 0,
        Line::Own => cast.recipients.len(),
    };
    let (in_flight, rate) = match messages.pace {
        Pace::Closed => (Some(stage.scale.in_flight), None),
        Pace::Open => (None, Some(stage.scale.rate)),
        Pace::AtLast => (None, None),
    };
    let senders = cast.senders.len();
    let conditions = stage.conditions(cast.recipients.len(), gateway.connections() + own);
    Conditions { senders, in_flight, rate, ..conditions }
}

/// With fewer the last devices would not come in.
fn check_open_files(stage: &Stage<'_>, devices: usize) -> Result<()> {
    let needed = devices as u64 + FILES_SPARE;
    ensure!(
        stage.lookout.processes.iter().any(Process::is_gateway),
        "the gateway is not on this machine, and its memory is what is measured"
    );
    // The stores have no connection of a device.
    let ends =
        stage.lookout.processes.iter().filter(|process| process.is_gateway() || process.is_own());
    for max in ends.filter_map(Process::open_files_max) {
        ensure!(
            max >= needed,
            "{devices} devices need {needed} open files, in the gateway and here, and {max} are \
             allowed: raise `ulimit -n` before both are started, or choose fewer --devices"
        );
    }
    Ok(())
}

/// The measured time passes; what was done in its middle, if something was.
async fn pass(stage: &Stage<'_>, messages: &Messages) -> Result<Option<Done>> {
    let time = stage.measured_time();
    if !messages.disturbed {
        stage.lookout.pass(time, "measured").await;
        return Ok(None);
    }
    let command = stage.settings.disturb.as_deref().context("nothing to do to the cluster")?;
    let half = time / 2;
    stage.lookout.pass(half, "undisturbed").await;
    let at = stage.lookout.meter.now();
    let rest = stage.lookout.pass(time - half, "disturbed");
    let (said, ()) = tokio::join!(disturbance::cause(command), rest);
    Ok(Some(Done { at, said: said? }))
}

/// Ends the measured time and lets everything arrive: the last look, and whether it did.
async fn finish(stage: &Stage<'_>, messages: &Messages, crew: &mut Crew) -> Result<(Look, bool)> {
    let online = messages.recipients.are_online();
    if messages.recipients == Recipients::OfflineElsewhere {
        stage.lookout.meter.enter(Phase::Drain);
        let arrived = drain(stage, online).await && empty_outboxes(stage).await?;
        return Ok((stage.lookout.end().await, arrived));
    }
    let to = stage.lookout.end().await;
    // Senders that still wait for something to be due get it now.
    let queues = std::mem::take(&mut crew.queues);
    let one_each = vec![1; queues.len()];
    pace::burst(&stage.lookout.meter, queues, &one_each).await;
    stage.lookout.meter.enter(Phase::Drain);
    Ok((to, drain(stage, online).await))
}

/// Waits until all that was sent is acknowledged and has arrived; false when it does not.
pub(crate) async fn drain(stage: &Stage<'_>, recipients_are_online: bool) -> bool {
    let arrived = |counts: &Counts| {
        let delivered = !recipients_are_online || counts.delivered == counts.copies;
        delivered && counts.own == counts.sent
    };
    stage.lookout.drain(arrived).await
}

/// Waits until no shard has anything to tell another one; false when that never comes.
async fn empty_outboxes(stage: &Stage<'_>) -> Result<bool> {
    let mut last = (stage.lookout.meter.now(), u64::MAX);
    loop {
        let bytes = stage.target.outbox_bytes().await?;
        match bytes {
            Some(0) => return Ok(true),
            Some(bytes) if bytes < last.1 => last = (stage.lookout.meter.now(), bytes),
            _ if stage.lookout.meter.now() - last.0 > PATIENCE => return Ok(false),
            _ => {}
        }
        sleep(LOOK).await;
    }
}

fn silences(stage: &Stage<'_>, from: &Look, done: Done) -> Disturbed {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Disturbed {
        at_seconds: done.at.saturating_sub(from.at).as_secs_f64(),
        said: done.said,
        longest_without_ack_ms: ms(stage.lookout.meter.ack_silence.longest()),
        longest_without_message_ms: ms(stage.lookout.meter.arrival_silence.longest()),
    }
}

fn idle(stage: &Stage<'_>, alone: &Look, to: &Look, connected: Duration) -> Result<Idle> {
    let bytes = stage.gateway_bytes(alone).zip(stage.gateway_bytes(to));
    let (before, after) = bytes.context("the gateway has gone")?;
    let devices = stage.settings.devices;
    Ok(Idle {
        carrier: stage.settings.carrier,
        devices,
        connected_in_seconds: connected.as_secs_f64(),
        gateway_bytes_per_device: after.saturating_sub(before) as f64 / f64::from(devices),
    })
}

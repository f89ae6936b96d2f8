//! One workload, from its first connection to its closed books.
//!
//! ```text
//!   connect ─► warm up ─► measure ─► drain ─► leave ─► check against the servers ─► books
//! ```
//!
//! The clock stops at the end of the measured time, but for `send`: there it stops once all is
//! acknowledged and every outbox is empty.

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tidemark_env::{Rng, SystemRng};
use tidemark_types::{DeviceId, UserId};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::body::Bodies;
use crate::books;
use crate::device::{Device, Identity, Left};
use crate::ledger::Ledger;
use crate::meter::{Counts, Meter, Phase};
use crate::names::Names;
use crate::pace;
use crate::process::{self, Process, Usage};
use crate::report::{Measured, Quantiles, rate};
use crate::sender::{Correspondents, Load, Sender};
use crate::settings::Settings;
use crate::target::Target;
use crate::wire::Gateway;
use crate::workload::{Cast, Pace, Recipients, Workload};

/// Devices that connect at once.
const CONNECTING: usize = 16;

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// When nothing arrives for so long, nothing will.
const PATIENCE: Duration = Duration::from_secs(30);

/// A workload that runs.
struct Run<'a> {
    workload: &'a Workload,
    meter: Arc<Meter>,
    target: &'a Target,
    processes: Vec<Process>,
}

/// A look at everything at one moment.
struct Look {
    at: Duration,
    counts: Counts,
    /// Of each process; none of one that is gone or does not tell.
    usages: Vec<Option<Usage>>,
    /// Processor time that the whole machine has used.
    machine: Option<Duration>,
}

/// Runs a workload.
pub(crate) async fn run(
    target: &Target,
    workload: &Workload,
    settings: &Settings,
) -> Result<Measured> {
    let gateway = Gateway::connect(&target.gateway, settings.connections as usize).await?;
    let mut names = Names::new(target.shards, format!("bench-{:08x}", SystemRng.number() >> 32));
    let cast = workload.cast(&mut names, settings)?;
    let meter = Arc::new(Meter::new());
    let mut processes = target.processes.clone();
    processes.push(Process::own());
    let run = Run { workload, meter: meter.clone(), target, processes };
    let recipients = cast.recipients.clone();
    let devices = run.connect(&gateway, cast, settings).await?;
    let mut tasks = JoinSet::new();
    for device in devices {
        tasks.spawn(device.run());
    }
    run.pass(Duration::from_secs(settings.warmup.into()), "warm-up").await;
    let from = run.look(Meter::begin).await;
    run.pass(Duration::from_secs(settings.seconds.into()), "measured").await;
    let (to, arrived) = run.finish().await?;
    meter.enter(Phase::Finish);
    let mut left: Vec<Left> = tasks.join_all().await;
    left.sort_by_key(|left| left.identity.number);
    let mut ledger = books::close(&left, &recipients, workload.recipients, &meter.counts());
    if !arrived && ledger.faults.is_empty() {
        ledger.faults.push(format!("nothing arrived for {PATIENCE:?}, and something was missing"));
    }
    if ledger.faults.is_empty() {
        let token = target.service_token();
        books::ask(&mut ledger, &gateway, &token, &left, &recipients, workload.recipients).await?;
    }
    Ok(run.measured(&from, &to, ledger))
}

impl Run<'_> {
    /// Connects all devices: the senders, each with its session, then the recipients.
    async fn connect(
        &self,
        gateway: &Gateway,
        cast: Cast,
        settings: &Settings,
    ) -> Result<Vec<Device>> {
        let bodies = Arc::new(Bodies::new(settings.body));
        let Cast { senders, recipients } = cast;
        let (queues, mut due) = pace::queues(senders.len());
        let device = DeviceId::new("bench").context("a device's name")?;
        let identity = |number, user| Identity {
            number,
            token: self.target.device_token(&user, &device),
            user,
            device: device.clone(),
            cluster: self.target.cluster,
        };
        let online: &[UserId] = match self.workload.recipients {
            Recipients::Online => &recipients,
            Recipients::OfflineHere | Recipients::OfflineElsewhere => &[],
        };
        let users = senders.iter().map(|(user, _)| user).chain(online).cloned();
        let all = (0..).zip(users).map(|(number, user)| identity(number, user));
        let connecting = stream::iter(all.collect::<Vec<_>>())
            .map(|identity| Device::connect(gateway, identity, bodies.clone(), self.meter.clone()));
        let mut devices: Vec<Device> = connecting.buffered(CONNECTING).try_collect().await?;
        for (index, (_, mine)) in (0..).zip(senders) {
            let device = &mut devices[index as usize];
            let session = device.open_session().await?;
            let load = match self.workload.pace {
                Pace::Closed => Load::Closed(settings.in_flight as usize),
                Pace::Open => Load::Open(due.pop()),
            };
            let to = Correspondents { all: recipients.clone(), mine };
            let (bodies, meter) = (bodies.clone(), self.meter.clone());
            device.sends(Sender::new(index, session, to, load, bodies, meter));
        }
        if self.workload.pace == Pace::Open {
            pace::start(self.meter.clone(), settings.rate, queues)?;
        }
        Ok(devices)
    }

    /// Lets time pass, and says every second what happens; less of it when the run is void.
    async fn pass(&self, time: Duration, what: &str) {
        let began = self.meter.now();
        let mut before = (began, self.meter.counts());
        while self.meter.now() - began < time && !self.meter.is_faulty() {
            let left = time.saturating_sub(self.meter.now() - began);
            sleep(left.min(PROGRESS)).await;
            let now = (self.meter.now(), self.meter.counts());
            let passed = (now.0 - began).as_secs();
            self.say(&format!("{what} {passed}/{} s", time.as_secs()), &before, &now);
            before = now;
        }
        if stderr().is_terminal() {
            eprintln!();
        }
    }

    fn say(&self, what: &str, from: &(Duration, Counts), to: &(Duration, Counts)) {
        let elapsed = to.0.saturating_sub(from.0);
        let mut line = format!("{}: {what}", self.workload.name);
        let acked = rate(from.1.acked, to.1.acked, elapsed);
        line += &format!(", {acked:.0} acked/s");
        if self.workload.recipients == Recipients::Online {
            let delivered = rate(from.1.delivered, to.1.delivered, elapsed);
            line += &format!(", {delivered:.0} delivered/s");
        }
        // The counts are read one after the other while they grow.
        let in_flight = to.1.sent.saturating_sub(to.1.acked);
        let mut err = stderr().lock();
        let (begin, end) = if err.is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
        // Nobody reads it: no reason to stop.
        let _ = write!(err, "{begin}{line}, {in_flight} in flight{end}");
        let _ = err.flush();
    }

    async fn look(&self, mark: fn(&Meter) -> (Duration, Counts)) -> Look {
        // What looking itself costs the servers is some milliseconds at both ends.
        let (at, counts) = mark(&self.meter);
        let mut usages = Vec::new();
        for process in &self.processes {
            usages.push(process.usage().await);
        }
        Look { at, counts, usages, machine: process::machine() }
    }

    /// Ends the measured time and lets everything arrive: the last look, and whether it did.
    async fn finish(&self) -> Result<(Look, bool)> {
        if self.workload.recipients == Recipients::OfflineElsewhere {
            self.meter.enter(Phase::Drain);
            let arrived = self.drain().await && self.empty_outboxes().await?;
            return Ok((self.look(Meter::end).await, arrived));
        }
        let to = self.look(Meter::end).await;
        self.meter.enter(Phase::Drain);
        Ok((to, self.drain().await))
    }

    /// Waits until all that was sent is acknowledged and has arrived; false when it does not.
    async fn drain(&self) -> bool {
        let online = self.workload.recipients == Recipients::Online;
        let mut last = (self.meter.now(), self.meter.counts());
        loop {
            // Looked at first: after it no message is sent that the counts could miss.
            let done = self.meter.all_senders_are_done();
            let counts = self.meter.counts();
            let delivered = !online || counts.delivered == counts.sent;
            if self.meter.is_faulty() {
                return false;
            }
            if done && delivered && counts.own == counts.sent {
                return true;
            }
            if counts != last.1 {
                last = (self.meter.now(), counts);
            } else if self.meter.now() - last.0 > PATIENCE {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until no shard has anything to tell another one; false when that never comes.
    async fn empty_outboxes(&self) -> Result<bool> {
        let mut last = (self.meter.now(), u64::MAX);
        loop {
            let bytes = self.target.outbox_bytes().await?;
            match bytes {
                Some(0) => return Ok(true),
                Some(bytes) if bytes < last.1 => last = (self.meter.now(), bytes),
                _ if self.meter.now() - last.0 > PATIENCE => return Ok(false),
                _ => {}
            }
            sleep(LOOK).await;
        }
    }

    fn measured(&self, from: &Look, to: &Look, ledger: Ledger) -> Measured {
        let elapsed = to.at - from.at;
        let acked = to.counts.acked - from.counts.acked;
        let delivered = match self.workload.recipients {
            Recipients::Online => to.counts.delivered - from.counts.delivered,
            // Accepted is in the recipient's mailbox; by the time the clock stops, or at once.
            Recipients::OfflineHere | Recipients::OfflineElsewhere => acked,
        };
        let usages = from.usages.iter().zip(&to.usages);
        let costs = self.processes.iter().zip(usages).filter_map(|(process, (from, to))| {
            Some(process.cost(from.as_ref()?, to.as_ref()?, elapsed, acked))
        });
        let costs: Vec<_> = costs.collect();
        let all = from.machine.zip(to.machine);
        let other_cpus = all.map(|(from, to)| {
            let own: f64 = costs.iter().map(|cost| cost.cpus).sum();
            (to.saturating_sub(from).as_secs_f64() / elapsed.as_secs_f64() - own).max(0.0)
        });
        Measured {
            workload: self.workload.name,
            seconds: elapsed.as_secs_f64(),
            acked,
            delivered,
            send_to_ack: Quantiles::of(&self.meter.acks.histogram()),
            send_to_receive: Quantiles::of(&self.meter.arrivals.histogram()),
            costs,
            other_cpus,
            syncs: to.counts.syncs,
            resends: to.counts.resends,
            ledger,
        }
    }
}

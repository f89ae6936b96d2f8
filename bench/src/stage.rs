//! What every workload runs on: the cluster, its processes, the meter; and what is told while it runs.
//!
//! ```text
//!   begin ─────────── pass ─────────── end
//!    look   a line of progress a second  look ─► costs
//! ```

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::Arc;
use std::time::Duration;

use tidemark_env::{Rng, SystemRng};
use tokio::time::sleep;

use crate::meter::{Counts, Meter};
use crate::names::Names;
use crate::process::{self, Process, Usage};
use crate::report::{Conditions, Measured, Quantiles, rate};
use crate::settings::Settings;
use crate::target::Target;
use crate::workload::{Scale, Workload};

/// Between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// When nothing arrives for so long, nothing will: longer than a heartbeat, by which a device learns of
/// what it was not told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// What a workload runs on.
pub(crate) struct Stage<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) target: &'a Target,
    pub(crate) settings: &'a Settings,
    pub(crate) scale: Scale,
    pub(crate) meter: Arc<Meter>,
    processes: Vec<Process>,
    /// What the names of this run begin with.
    prefix: String,
}

/// A look at everything at one moment.
pub(crate) struct Look {
    pub(crate) at: Duration,
    pub(crate) counts: Counts,
    /// Of each process; none of one that is gone or does not tell.
    usages: Vec<Option<Usage>>,
    /// Processor time that the whole machine has used.
    machine: Option<Duration>,
}

impl<'a> Stage<'a> {
    /// Nothing has happened yet.
    pub(crate) fn new(target: &'a Target, workload: &'a Workload, settings: &'a Settings) -> Self {
        let mut processes = target.processes.clone();
        processes.push(Process::own());
        Stage {
            workload,
            target,
            settings,
            scale: settings.scale(workload),
            meter: Arc::new(Meter::new()),
            processes,
            prefix: format!("bench-{:08x}", SystemRng.number() >> 32),
        }
    }

    /// Users whom no other run has met.
    pub(crate) fn names(&self) -> Names {
        Names::new(self.target.shards, self.prefix.clone())
    }

    /// A counter that no other run has used.
    pub(crate) fn counter(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// The processes of which usage is known: the servers' on this machine, and this one.
    pub(crate) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The warm-up passes.
    pub(crate) async fn warm_up(&self) {
        self.pass(Duration::from_secs(self.settings.warmup.into()), "warm-up").await;
    }

    /// How long is measured.
    pub(crate) fn measured_time(&self) -> Duration {
        Duration::from_secs(self.scale.seconds.into())
    }

    /// Lets time pass, and says every second what happens; less of it when the run is void.
    pub(crate) async fn pass(&self, time: Duration, what: &str) {
        let began = self.meter.now();
        let mut before = (began, self.meter.counts());
        while self.meter.now() - began < time && !self.meter.is_faulty() {
            let left = time.saturating_sub(self.meter.now() - began);
            sleep(left.min(PROGRESS)).await;
            let now = (self.meter.now(), self.meter.counts());
            let passed = (now.0 - began).as_secs();
            let rates = rates(&before, &now);
            self.say(&format!("{what} {passed}/{} s, {rates}", time.as_secs()));
            before = now;
        }
        if stderr().is_terminal() {
            eprintln!();
        }
    }

    /// Says what happens, in place of what was said before.
    pub(crate) fn say(&self, what: &str) {
        let mut err = stderr().lock();
        let (begin, end) = if err.is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
        // Nobody reads it: no reason to stop.
        let _ = write!(err, "{begin}{}: {what}{end}", self.workload.name);
        let _ = err.flush();
    }

    /// A look before anything is measured.
    pub(crate) async fn look(&self) -> Look {
        self.look_at(|meter| (meter.now(), meter.counts())).await
    }

    /// The measured time begins.
    pub(crate) async fn begin(&self) -> Look {
        self.look_at(Meter::begin).await
    }

    /// The measured time ends.
    pub(crate) async fn end(&self) -> Look {
        self.look_at(Meter::end).await
    }

    async fn look_at(&self, mark: impl Fn(&Meter) -> (Duration, Counts)) -> Look {
        // What looking itself costs the servers is some milliseconds at both ends.
        let (at, counts) = mark(&self.meter);
        let mut usages = Vec::new();
        for process in &self.processes {
            usages.push(process.usage().await);
        }
        Look { at, counts, usages, machine: process::machine() }
    }

    /// The gateway's memory at that moment, if its process is known.
    pub(crate) fn gateway_bytes(&self, look: &Look) -> Option<u64> {
        let mut usages = self.processes.iter().zip(&look.usages);
        let (_, usage) = usages.find(|(process, _)| process.is_gateway())?;
        usage.map(|usage| usage.rss_bytes)
    }

    /// With what a workload runs that has so many recipients, on so many connections.
    pub(crate) fn conditions(&self, recipients: usize, connections: usize) -> Conditions {
        Conditions {
            shards: self.target.shards.get(),
            senders: self.scale.senders as usize,
            in_flight: None,
            rate: None,
            recipients,
            body: Some(self.settings.body),
            connections,
            threads: self.settings.threads,
            warmup: self.settings.warmup,
        }
    }

    /// What two looks tell of the time between them, in which so many messages were taken: all but what
    /// became of them.
    pub(crate) fn measured(
        &self,
        conditions: Conditions,
        from: &Look,
        to: &Look,
        messages: u64,
    ) -> Measured {
        let elapsed = to.at - from.at;
        let usages = from.usages.iter().zip(&to.usages);
        let costs = self.processes.iter().zip(usages).filter_map(|(process, (from, to))| {
            Some(process.cost(from.as_ref()?, to.as_ref()?, elapsed, messages))
        });
        let costs: Vec<_> = costs.collect();
        // What a process used that is gone is anybody's.
        let all_are_known = costs.len() == self.processes.len();
        let all = from.machine.zip(to.machine).filter(|_| all_are_known);
        let other_cpus = all.map(|(from, to)| {
            let own: f64 = costs.iter().map(|cost| cost.cpus).sum();
            (to.saturating_sub(from).as_secs_f64() / elapsed.as_secs_f64() - own).max(0.0)
        });
        Measured {
            workload: self.workload.name.to_owned(),
            conditions,
            seconds: elapsed.as_secs_f64(),
            acked: to.counts.acked - from.counts.acked,
            send_to_ack: Quantiles::of(&self.meter.acks.histogram()),
            send_to_receive: Quantiles::of(&self.meter.arrivals.histogram()),
            costs,
            other_cpus,
            syncs: to.counts.syncs,
            resends: to.counts.resends,
            ..Measured::default()
        }
    }
}

fn rates(from: &(Duration, Counts), to: &(Duration, Counts)) -> String {
    let elapsed = to.0.saturating_sub(from.0);
    let mut line = format!("{:.0} acked/s", rate(from.1.acked, to.1.acked, elapsed));
    if to.1.delivered > 0 {
        let delivered = rate(from.1.delivered, to.1.delivered, elapsed);
        line += &format!(", {delivered:.0} delivered/s");
    }
    // The counts are read one after the other while they grow.
    let in_flight = to.1.sent.saturating_sub(to.1.acked);
    line + &format!(", {in_flight} in flight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_deliveries_where_there_are_some() {
        let before = (Duration::from_secs(1), Counts::default());
        let acked = Counts { sent: 30, acked: 20, ..Counts::default() };
        let after = Duration::from_secs(3);
        assert_eq!(rates(&before, &(after, acked)), "10 acked/s, 10 in flight");
        let delivered = Counts { delivered: 8, ..acked };
        let told = rates(&before, &(after, delivered));
        assert_eq!(told, "10 acked/s, 4 delivered/s, 10 in flight");
    }
}

//! Who watches while a load runs: what is told of it meanwhile, and what two looks say of the time between
//! them; the same over our own cluster and over a peer.
//!
//! ```text
//!   begin ─────────── pass ─────────── end ─── drain
//!    look   a line of progress a second  look ─► costs
//! ```

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::meter::{Counts, Meter};
use crate::process::{self, Process, Usage};
use crate::report::{Conditions, Measured, Quantiles, rate};

/// Between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// When nothing arrives for so long, nothing will: longer than a heartbeat, by which a device learns of
/// what it was not told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// Who watches.
pub(crate) struct Lookout {
    /// Of the workload.
    name: &'static str,
    pub(crate) meter: Arc<Meter>,
    /// Of which usage is known: the servers' on this machine, and this one.
    pub(crate) processes: Vec<Process>,
}

/// A look at everything at one moment.
pub(crate) struct Look {
    pub(crate) at: Duration,
    pub(crate) counts: Counts,
    /// Of each process; none of one that is gone or does not tell.
    pub(crate) usages: Vec<Option<Usage>>,
    /// Processor time that the whole machine has used.
    machine: Option<Duration>,
}

impl Lookout {
    /// Watches these servers, and this process.
    pub(crate) fn new(name: &'static str, mut processes: Vec<Process>) -> Self {
        processes.push(Process::own());
        Lookout { name, meter: Arc::new(Meter::new()), processes }
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
        let _ = write!(err, "{begin}{}: {what}{end}", self.name);
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

    /// Waits until all senders are done and everything has arrived, as `arrived` sees it in the counts; false
    /// when that does not come.
    pub(crate) async fn drain(&self, arrived: impl Fn(&Counts) -> bool) -> bool {
        let meter = &self.meter;
        let mut last = (meter.now(), meter.counts());
        loop {
            // Looked at first: after it no message is sent that the counts could miss.
            let done = meter.all_senders_are_done();
            let counts = meter.counts();
            if meter.is_faulty() {
                return false;
            }
            if done && arrived(&counts) {
                return true;
            }
            if counts != last.1 {
                last = (meter.now(), counts);
            } else if meter.now() - last.0 > PATIENCE {
                return false;
            }
            sleep(LOOK).await;
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
            workload: self.name.to_owned(),
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

//! Pairs of figures, their ratios and the median of those. Pure.

use serde::Serialize;

use crate::peers::disk::PerAck;
use crate::peers::plan::{Cell, Definition, Of};
use crate::report::{Measured, rate};

/// Fewer pairs than this are no ratio to be believed.
pub(crate) const PAIRS_MIN: usize = 5;

/// The process that is the load and no server, as [`crate::process::Process::own`] calls it.
const LOAD: &str = "load";

/// What a cell found.
#[derive(Serialize)]
pub(crate) struct Figure {
    #[serde(flatten)]
    pub(crate) cell: Cell,
    /// In which round.
    pub(crate) round: u32,
    /// Users with an inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) users: Option<u32>,
    /// What the disk did, from before the first message until after the last; for cells that count
    /// bytes until all is on it.
    pub(crate) device: Option<PerAck>,
    pub(crate) measured: Measured,
}

/// A ratio's pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order of the rounds.
    pub(crate) pairs: Vec<f64>,
}

impl Summary {
    /// Of these; none of none.
    pub(crate) fn of(pairs: Vec<f64>) -> Option<Self> {
        let (min, max) =
            (pairs.iter().copied().reduce(f64::min)?, pairs.iter().copied().reduce(f64::max)?);
        Some(Summary { median: median(&pairs)?, min, max, pairs })
    }
}

impl Figure {
    /// The figure that a ratio is of.
    pub(crate) fn value(&self, of: Of) -> Option<f64> {
        let Measured { seconds, acked, delivered, .. } = self.measured;
        let per_second = |count| rate(0, count, std::time::Duration::from_secs_f64(seconds));
        let received = self.measured.send_to_receive.as_ref();
        match of {
            Of::Acked => Some(per_second(acked)),
            Of::Counted => Some(per_second(acked.min(delivered))),
            Of::P50 => received.map(|quantiles| quantiles.p50_ms),
            Of::P99 => received.map(|quantiles| quantiles.p99_ms),
            Of::ServersCpu => {
                let servers = self.measured.costs.iter().filter(|cost| cost.process != LOAD);
                servers.map(|cost| cost.cpu_us_per_message).sum()
            }
            Of::DeviceBytes => self.device.map(|device| device.bytes),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(high);
    }
    Some((sorted[sorted.len() / 2 - 1] + high) / 2.0)
}

/// A ratio over all rounds that have both of its cells; `under` takes the place that a definition
/// leaves open.
pub(crate) fn pairs(
    figures: &[Figure],
    definition: &Definition,
    under: Option<Cell>,
) -> Option<Summary> {
    let Definition { over, of, .. } = *definition;
    let under = definition.under.or(under)?;
    let pairs = figures.iter().filter(|figure| figure.cell == over).filter_map(|figure| {
        let peer = figures.iter().find(|it| it.cell == under && it.round == figure.round)?;
        let below = peer.value(of.1).filter(|value| *value > 0.0)?;
        Some(figure.value(of.0)? / below)
    });
    Summary::of(pairs.collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::peers::plan::{Job, Ratio, System};
    use crate::process::Cost;
    use crate::report::Quantiles;

    /// A clean figure of so many messages in a second, with latencies and costs that follow from it.
    pub(crate) fn figure(cell: Cell, round: u32, acked: u64, delivered: u64) -> Figure {
        let quantiles = |p50_ms, p99_ms| {
            Some(Quantiles { count: 1, p50_ms, p99_ms, p999_ms: p99_ms, max_ms: p99_ms })
        };
        let cost = |process: &str, cpu_us_per_message| Cost {
            process: process.to_owned(),
            cpu_us_per_message: Some(cpu_us_per_message),
            cpus: 1.0,
            rss_bytes: 1 << 20,
            written_bytes_per_message: None,
            fsyncs_per_message: None,
        };
        let ledger = Ledger { sent: acked, acked, delivered, ..Ledger::default() };
        let latency = acked as f64 / 1_000.0;
        let measured = Measured {
            workload: cell.job.name().to_owned(),
            seconds: 1.0,
            acked,
            delivered,
            send_to_ack: quantiles(latency, latency),
            send_to_receive: quantiles(latency, 2.0 * latency),
            costs: vec![cost("node-1", 1.0), cost("node-2", 2.0), cost("load", 50.0)],
            ledger,
            ..Measured::default()
        };
        let device = Some(PerAck { flushes: 3.0, bytes: 100.0 });
        Figure { cell, round, users: None, device, measured }
    }

    fn ours(job: Job) -> Cell {
        System::Tidemark.does(job)
    }

    fn summary(figures: &[Figure], ratio: Ratio) -> Option<Summary> {
        pairs(figures, &ratio.definition(), None)
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_is_of_the_pairs_of_each_round() {
        let peer = System::NatsFsync.does(Job::Append);
        let mut figures = Vec::new();
        for (round, (over, under)) in (0..).zip([(30, 10), (20, 20), (10, 40)]) {
            figures.push(figure(peer, round, under, under));
            figures.push(figure(ours(Job::Append), round, over, over));
        }
        let found = summary(&figures, Ratio::AppendVsNatsFsync).expect("three pairs");
        assert_eq!(
            found,
            Summary { median: 1.0, min: 0.25, max: 3.0, pairs: vec![3.0, 1.0, 0.25] }
        );
        // A round that was cut short has no pair.
        figures.retain(|figure| figure.round < 2 || figure.cell != peer);
        let found = summary(&figures, Ratio::AppendVsNatsFsync).expect("two pairs");
        assert_eq!(found.pairs, [3.0, 1.0]);
        assert_eq!(summary(&figures, Ratio::SendVsEtcd), None);
    }

    #[test]
    fn what_counts_is_acknowledged_and_received() {
        let figures = [
            figure(ours(Job::Deliver), 0, 40, 30),
            figure(System::RabbitMq.does(Job::Deliver), 0, 10, 20),
            figure(System::Etcd.does(Job::Append), 0, 15, 15),
        ];
        let of = |ratio| summary(&figures, ratio).expect("a pair").median;
        assert_eq!(of(Ratio::DeliverVsRabbitmq), 3.0);
        assert_eq!(of(Ratio::DeliverVsEtcd), 2.0);
    }

    #[test]
    fn latencies_costs_and_bytes_are_those_of_the_servers() {
        let mut figures: Vec<Figure> = [Job::Latency, Job::Append, Job::AppendBytes]
            .into_iter()
            .flat_map(|job| [ours(job), System::NatsFsync.does(job)])
            .map(|cell| figure(cell, 0, 1_000, 1_000))
            .collect();
        figures[0].measured.send_to_receive =
            Some(Quantiles { count: 1, p50_ms: 4.0, p99_ms: 6.0, p999_ms: 7.0, max_ms: 8.0 });
        figures[4].device = Some(PerAck { flushes: 1.0, bytes: 150.0 });
        let of = |ratio| summary(&figures, ratio).expect("a pair").median;
        assert_eq!(of(Ratio::LatencyP50VsNatsFsync), 4.0);
        assert_eq!(of(Ratio::LatencyP99VsNatsFsync), 3.0);
        assert_eq!(of(Ratio::AppendCpuVsNatsFsync), 1.0);
        assert_eq!(of(Ratio::AppendBytesVsNatsFsync), 1.5);
        assert_eq!(figures[2].value(Of::ServersCpu), Some(3.0), "not the load's");
        figures[5].device = None;
        assert_eq!(summary(&figures, Ratio::AppendBytesVsNatsFsync), None);
    }

    #[test]
    fn the_best_peer_is_put_where_it_belongs() {
        let best = System::Etcd.does(Job::Inbox);
        let figures = [figure(ours(Job::Inbox), 0, 30, 30), figure(best, 0, 10, 10)];
        let definition = Ratio::InboxVsBestPeer.definition();
        assert_eq!(pairs(&figures, &definition, None), None);
        assert_eq!(pairs(&figures, &definition, Some(best)).expect("a pair").median, 3.0);
    }
}

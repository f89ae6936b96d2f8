//! What a run found: Markdown for people, JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::Ledger;
use crate::process::Cost;
use crate::settings::Settings;

/// With more processors than these busy elsewhere, figures say little. The kernel's own work for the
/// servers is in it.
const OTHER_CPUS_MAX: f64 = 0.25;

/// All that was run.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The version of the load.
    pub(crate) version: &'static str,
    /// What was measured.
    pub(crate) system: &'static str,
    /// Shards of the cluster.
    pub(crate) shards: u16,
    /// With what.
    pub(crate) settings: Settings,
    /// The workloads, in the order in which they were run.
    pub(crate) workloads: Vec<Measured>,
}

/// What one workload found.
#[derive(Serialize)]
pub(crate) struct Measured {
    /// Its name.
    pub(crate) workload: &'static str,
    /// The measured time.
    pub(crate) seconds: f64,
    /// Messages acknowledged in it.
    pub(crate) acked: u64,
    /// Copies that reached recipients in it: their devices, or the mailboxes of those offline.
    pub(crate) delivered: u64,
    /// From a message's due time to its acknowledgement.
    pub(crate) send_to_ack: Option<Quantiles>,
    /// From a message's due time to its recipient's device.
    pub(crate) send_to_receive: Option<Quantiles>,
    /// What the processes used in the measured time.
    pub(crate) costs: Vec<Cost>,
    /// How many processors everything else on the machine kept busy meanwhile.
    pub(crate) other_cpus: Option<f64>,
    /// Pages that devices had to ask for.
    pub(crate) syncs: u64,
    /// Rounds in which sends had to go again.
    pub(crate) resends: u64,
    /// Whether all of it was right.
    pub(crate) ledger: Ledger,
}

/// A distribution of latencies, in milliseconds.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Quantiles {
    /// Of a histogram in microseconds; none of an empty one.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Quantiles {
            count: histogram.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(histogram.max()),
        })
    }

    fn cells(quantiles: Option<&Self>) -> String {
        match quantiles {
            Some(q) => {
                format!("{:.2} | {:.2} | {:.2} | {:.2}", q.p50_ms, q.p99_ms, q.p999_ms, q.max_ms)
            }
            None => "– | – | – | –".to_owned(),
        }
    }
}

impl Report {
    /// Is nothing of it void?
    pub(crate) fn is_clean(&self) -> bool {
        self.workloads.iter().all(|measured| measured.ledger.is_clean())
    }

    /// For people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let shards = self.shards;
        let Settings { body, pairs, in_flight, connections, threads, .. } = &self.settings;
        let _ = writeln!(
            text,
            "{} {}: {shards} shards, {body}-byte bodies, {pairs} senders × {in_flight} in flight, \
             {connections} connections, {threads} load threads\n",
            self.system, self.version,
        );
        text += "| workload | acked/s | delivered/s | send→ack ms p50 | p99 | p99.9 | max \
                 | send→receive ms p50 | p99 | p99.9 | max |\n";
        text += &format!("|{}\n", "---|".repeat(11));
        for measured in &self.workloads {
            let per_second = |count| rate(0, count, Duration::from_secs_f64(measured.seconds));
            let _ = writeln!(
                text,
                "| `{}` | {:.0} | {:.0} | {} | {} |",
                measured.workload,
                per_second(measured.acked),
                per_second(measured.delivered),
                Quantiles::cells(measured.send_to_ack.as_ref()),
                Quantiles::cells(measured.send_to_receive.as_ref()),
            );
        }
        text += "\n| workload | process | CPU µs/message | CPUs | RSS MiB | bytes written/message \
                 | log fsyncs/message |\n";
        text += &format!("|{}\n", "---|".repeat(7));
        for measured in &self.workloads {
            for cost in &measured.costs {
                text += &row(measured.workload, cost);
            }
        }
        for measured in &self.workloads {
            let Measured { workload, ledger, syncs, resends, .. } = measured;
            if let Some(cpus) = measured.other_cpus.filter(|cpus| *cpus > OTHER_CPUS_MAX) {
                let _ = writeln!(
                    text,
                    "\n`{workload}` other programs kept {cpus:.2} processors busy: it is not what this \
                     machine can do"
                );
            }
            let _ = writeln!(text, "\n`{workload}` syncs={syncs} resends={resends} {ledger}");
        }
        text
    }
}

fn row(workload: &str, cost: &Cost) -> String {
    let cell = |value: Option<f64>, digits| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "–".to_owned(),
    };
    format!(
        "| `{workload}` | {} | {:.1} | {:.2} | {:.0} | {} | {} |\n",
        cost.process,
        cost.cpu_us_per_message,
        cost.cpus,
        cost.rss_bytes as f64 / f64::from(1 << 20),
        cell(cost.written_bytes_per_message, 0),
        cell(cost.fsyncs_per_message, 4),
    )
}

/// How many in a second.
pub(crate) fn rate(from: u64, to: u64, elapsed: Duration) -> f64 {
    to.saturating_sub(from) as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("legal");
        values.into_iter().for_each(|value| histogram.record(value).expect("it grows"));
        histogram
    }

    #[test]
    fn quantiles_are_in_milliseconds() {
        let quantiles = Quantiles::of(&histogram(1..=1_000)).expect("not empty");
        let Quantiles { count, p50_ms, p99_ms, p999_ms, max_ms } = quantiles;
        assert_eq!((count, p50_ms, p99_ms, p999_ms, max_ms), (1_000, 0.5, 0.99, 0.999, 1.0));
        assert_eq!(Quantiles::of(&histogram([])), None);
    }

    #[test]
    fn a_report_is_one_table_per_question_and_a_ledger_per_workload() {
        let ledger = Ledger { sent: 20, acked: 20, delivered: 20, ..Ledger::default() };
        let cost = Cost {
            process: "node-1".to_owned(),
            cpu_us_per_message: 12.34,
            cpus: 0.5,
            rss_bytes: 3 << 20,
            written_bytes_per_message: Some(900.4),
            fsyncs_per_message: None,
        };
        let measured = Measured {
            workload: "deliver",
            seconds: 2.0,
            acked: 20,
            delivered: 18,
            send_to_ack: Quantiles::of(&histogram([1_000])),
            send_to_receive: None,
            costs: vec![cost],
            other_cpus: Some(1.5),
            syncs: 0,
            resends: 0,
            ledger,
        };
        let mut report = Report {
            version: "1",
            system: "tidemark",
            shards: 8,
            settings: Settings::default(),
            workloads: vec![measured],
        };
        let text = report.markdown();
        assert!(
            text.contains("| `deliver` | 10 | 9 | 1.00 | 1.00 | 1.00 | 1.00 | – | – | – | – |")
        );
        assert!(text.contains("| `deliver` | node-1 | 12.3 | 0.50 | 3 | 900 | – |"));
        assert!(text.contains("ledger: sent=20 acked=20"));
        assert!(text.contains("`deliver` other programs kept 1.50 processors busy"));
        report.workloads[0].other_cpus = Some(0.1);
        assert!(!report.markdown().contains("other programs"));
        assert!(report.is_clean());
        report.workloads[0].ledger.lost = 1;
        assert!(!report.is_clean());
    }
}

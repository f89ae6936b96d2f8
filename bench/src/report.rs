//! What a run found: Markdown for people, JSON for programs.

mod tables;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::process::Cost;
use crate::settings::Carrier;

/// All that was run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of the load.
    pub(crate) version: String,
    /// What was measured.
    pub(crate) system: String,
    /// The workloads, in the order in which they were run.
    pub(crate) workloads: Vec<Measured>,
}

/// What one workload found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Its name.
    pub(crate) workload: String,
    /// With what it was run.
    pub(crate) conditions: Conditions,
    /// The measured time.
    pub(crate) seconds: f64,
    /// Messages acknowledged in it, or calls answered.
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
    /// Rounds in which sends had to go again, or calls that had to.
    pub(crate) resends: u64,
    /// How long it took to catch up, by what was missed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) catch_ups: Vec<CatchUp>,
    /// What became of counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counters: Option<Counters>,
    /// What devices that do nothing cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<Idle>,
    /// What something that was done to the cluster cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disturbed: Option<Disturbed>,
    /// Whether all of it was right.
    pub(crate) ledger: Ledger,
}

/// With what a workload was run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// Shards of the cluster; 0 of a system that has none.
    pub(crate) shards: u16,
    /// Senders of messages or calls.
    pub(crate) senders: usize,
    /// What each of them had in flight; none where messages were due by themselves.
    pub(crate) in_flight: Option<u32>,
    /// How many messages were due in a second, of all senders.
    pub(crate) rate: Option<u32>,
    /// Recipients of all messages together, or counters.
    pub(crate) recipients: usize,
    /// Bytes of a body; none where there are none.
    pub(crate) body: Option<usize>,
    /// TCP connections to the servers.
    pub(crate) connections: usize,
    /// Threads of the load.
    pub(crate) threads: u32,
    /// Seconds before anything was measured.
    pub(crate) warmup: u32,
}

/// How long it took to catch up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CatchUp {
    /// How many messages were missed.
    pub(crate) missed: u32,
    /// How often it was done.
    pub(crate) rounds: usize,
    /// From `Hello` to the last entry: the quickest, the median and the slowest.
    pub(crate) min_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) max_ms: f64,
    /// The median by messages: the same for all that is missed, if the time is proportional to it.
    pub(crate) us_per_message: f64,
}

/// What became of counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Streams that the calls went through; none where each was a unary one.
    #[serde(default)]
    pub(crate) streams: usize,
    /// Numbers that nobody was given, which is legal.
    pub(crate) skipped: u64,
}

/// What devices that do nothing cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// What carries their frames.
    pub(crate) carrier: Carrier,
    /// How many they are.
    pub(crate) devices: u32,
    /// How long it took to connect them all.
    pub(crate) connected_in_seconds: f64,
    /// The gateway's memory in the end less that before anybody came.
    pub(crate) gateway_bytes_per_device: f64,
}

/// What something that was done to the cluster cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Disturbed {
    /// When it was done, in the measured time.
    pub(crate) at_seconds: f64,
    /// What it told of itself.
    pub(crate) said: String,
    /// The longest time without an acknowledgement of one session, of all.
    pub(crate) longest_without_ack_ms: f64,
    /// The longest time without a message of one recipient, of all.
    pub(crate) longest_without_message_ms: f64,
}

/// A distribution of latencies, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

impl CatchUp {
    /// Of the times that it took; none where it was not done.
    pub(crate) fn of(missed: u32, mut took: Vec<Duration>) -> Option<Self> {
        took.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        // Of an even number the higher one of the two in the middle.
        let p50_ms = ms(*took.get(took.len() / 2)?);
        Some(CatchUp {
            missed,
            rounds: took.len(),
            min_ms: ms(*took.first()?),
            p50_ms,
            max_ms: ms(*took.last()?),
            us_per_message: p50_ms * 1e3 / f64::from(missed),
        })
    }
}

impl Report {
    /// What these files hold, as one: each was written by [`Report::write`].
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut reports = files.iter().map(|path| -> Result<(_, Report)> {
            let text = std::fs::read(path).with_context(|| path.display().to_string())?;
            let report = serde_json::from_slice(&text);
            Ok((path, report.with_context(|| path.display().to_string())?))
        });
        let (_, mut all) = reports.next().context("no report is named")??;
        for report in reports {
            let (path, Report { version, system, workloads }) = report?;
            ensure!(
                (&version, &system) == (&all.version, &all.system),
                "{}: it is of {system} {version}, and the first one of {} {}",
                path.display(),
                all.system,
                all.version
            );
            all.workloads.extend(workloads);
        }
        Ok(all)
    }

    /// Writes it as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// Is nothing of it void?
    pub(crate) fn is_clean(&self) -> bool {
        self.workloads.iter().all(|measured| measured.ledger.is_clean())
    }
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
    fn of_some_times_to_catch_up_the_median_counts() {
        let took = [40, 10, 20].map(Duration::from_millis).to_vec();
        let CatchUp { missed, rounds, min_ms, p50_ms, max_ms, us_per_message } =
            CatchUp::of(1_000, took).expect("three");
        assert_eq!((missed, rounds), (1_000, 3));
        assert_eq!((min_ms, p50_ms, max_ms, us_per_message), (10.0, 20.0, 40.0, 20.0));
        assert_eq!(CatchUp::of(1_000, Vec::new()), None);
    }

    #[test]
    fn reports_are_read_back_as_one_if_they_are_of_one_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let report = |version: &str, name: &str, idle| Report {
            version: version.to_owned(),
            system: "tidemark".to_owned(),
            workloads: vec![Measured { workload: name.to_owned(), idle, ..Measured::default() }],
        };
        let idle = Idle {
            carrier: Carrier::Websocket,
            devices: 5,
            connected_in_seconds: 0.5,
            gateway_bytes_per_device: 1_024.0,
        };
        let write = |at: &str, report: &Report| {
            let path = folder.path().join(at);
            report.write(&path).expect("it is written");
            path
        };
        let one = write("one", &report("1", "append", None));
        let two = write("two", &report("1", "idle", Some(idle.clone())));
        let read = Report::read(&[one.clone(), two]).expect("of one version");
        let names: Vec<_> = read.workloads.iter().map(|it| it.workload.as_str()).collect();
        assert_eq!((names, &read.workloads[1].idle), (vec!["append", "idle"], &Some(idle)));
        let other = write("other", &report("2", "append", None));
        let refused = Report::read(&[one, other]).expect_err("of two versions").to_string();
        assert!(refused.contains("tidemark 2"), "{refused}");
    }

    #[test]
    fn one_void_workload_voids_a_report() {
        let ledger = Ledger { sent: 2, acked: 2, ..Ledger::default() };
        let clean = Measured { ledger, ..Measured::default() };
        let mut report =
            Report { version: "1".to_owned(), system: "x".to_owned(), workloads: vec![clean; 2] };
        assert!(report.is_clean());
        report.workloads[1].ledger.lost = 1;
        assert!(!report.is_clean());
    }
}

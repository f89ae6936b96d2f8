//! What a run has shown: `report.json` for programs, `report.html` for people.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tidemark_checker::{Report, Verdict};
use tidemark_version::VERSION;

use super::Plan;
pub use super::stage::Felt;

mod page;

/// How processes are kept apart where the machine allows it.
const IN_LAB: &str = "network namespaces and loop filesystems";

/// The content of `report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Which scenario.
    pub scenario: String,
    /// For everything that was left to chance.
    pub seed: u64,
    /// Seconds of load.
    pub seconds: u64,
    /// Sends a second, if it was not as the scenario says; 0 for as fast as answers came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Where the processes were: each with networks and disks of its own, or all on loopback.
    #[serde(default)]
    pub isolation: String,
    /// Which build of the servers ran.
    #[serde(default)]
    pub build: String,
    /// Of which version.
    #[serde(default)]
    pub version: String,
    /// Sends that were acknowledged.
    pub acked: u64,
    /// Recipients' copies of sends.
    pub delivered: u64,
    /// Sends that were refused for good.
    pub refused: u64,
    /// Acknowledged sends that the operator's checks have dropped.
    #[serde(default)]
    pub dropped: u64,
    /// Copies and outcomes that are missing.
    pub lost: u64,
    /// Copies and outcomes that are there once too often.
    pub duplicated: u64,
    /// Entries that stand before one that they must follow.
    pub out_of_order: u64,
    /// Seqs that a mailbox lacks.
    pub seq_gaps: u64,
    /// Mailboxes and groups whose replicas differ.
    pub divergent_replicas: u64,
    /// Bytes of logs and states that power cuts took.
    pub unsynced_bytes_lost: u64,
    /// What was done.
    pub faults: Vec<Felt>,
    /// How long devices were without a connection, by the kind of the fault that took it.
    #[serde(default)]
    pub devices_away: BTreeMap<String, Spread>,
    /// `holds`, `violated` or `void`.
    pub verdict: String,
}

impl Summary {
    pub(super) fn of(
        plan: &Plan,
        report: &Report,
        faults: Vec<Felt>,
        devices_away: BTreeMap<String, Spread>,
        unsynced_bytes_lost: u64,
    ) -> Self {
        let counts = report.counts;
        let verdict = match report.verdict {
            // What never happened proves nothing.
            Verdict::Holds if faults.is_empty() && plan.scenario.has_faults() => Verdict::Void,
            verdict => verdict,
        };
        Summary {
            scenario: plan.scenario.name.to_owned(),
            seed: plan.seed,
            seconds: plan.seconds,
            rate: plan.variant.rate,
            isolation: if plan.lab { IN_LAB } else { "loopback" }.to_owned(),
            build: plan.variant.build.to_string(),
            version: VERSION.to_owned(),
            acked: counts.accepted,
            delivered: counts.delivered,
            refused: counts.refused,
            dropped: counts.dropped,
            lost: counts.lost,
            duplicated: counts.duplicated,
            out_of_order: counts.out_of_order,
            seq_gaps: counts.seq_gaps,
            divergent_replicas: counts.divergent_replicas,
            unsynced_bytes_lost,
            faults,
            devices_away,
            verdict: verdict.to_string(),
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self.verdict.as_str() {
            "holds" => 0,
            "violated" => 1,
            _ => 2,
        }
    }

    /// How long shards were unavailable after the faults of each kind.
    pub fn unavailable(&self) -> BTreeMap<String, Spread> {
        let mut kinds = BTreeMap::<&str, Vec<u64>>::new();
        for fault in &self.faults {
            kinds.entry(&fault.kind).or_default().push(fault.unavailable_ms);
        }
        let kinds = kinds.into_iter();
        kinds.map(|(kind, mut times)| (kind.to_owned(), Spread::of(&mut times))).collect()
    }
}

/// How times in milliseconds are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub times: usize,
    /// Half of them are no longer.
    pub p50_ms: u64,
    /// Of a hundred, 99 are no longer.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Spread {
    /// Of these; there must be one.
    pub fn of(times: &mut [u64]) -> Self {
        times.sort_unstable();
        // The lowest that so many of a hundred do not exceed.
        let within = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        let (p50_ms, p99_ms, max_ms) = (within(50), within(99), within(100));
        Spread { times: times.len(), p50_ms, p99_ms, max_ms }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { times, p50_ms, p99_ms, max_ms } = self;
        write!(f, "{times} times, p50 {p50_ms} ms, p99 {p99_ms} ms, max {max_ms} ms")
    }
}

/// Writes both files into `folder`.
pub(super) fn write(
    folder: &Path,
    history: &Path,
    summary: &Summary,
    report: &Report,
) -> Result<()> {
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(summary)?)?;
    fs::write(folder.join("report.html"), page::page(history, summary, report)?)?;
    Ok(())
}

//! What a comparison found: JSON for programs, Markdown for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::ledger::Ledger;
use crate::peers::floor::Floor;
use crate::peers::plan::{Cell, Job, Of, Ratio, System};
use crate::peers::ratio::{Figure, PAIRS_MIN, Summary, median, pairs};
use crate::peers::settings::Common;
use crate::report::Measured;

/// Flushes per acknowledgement, with one message in flight, of a system that has it on a majority's
/// disks: a node that leads and one that follows.
const DURABLE_FLUSHES: f64 = 2.0;

/// A run that may take longer is one that does more.
const SECONDS_MAX: f64 = 35.0 * 60.0;

/// With more processors than these busy elsewhere, figures say little.
const OTHER_CPUS_MAX: f64 = 0.25;

/// All that was found.
#[derive(Serialize)]
pub(crate) struct Findings {
    /// Of the load.
    pub(crate) version: &'static str,
    pub(crate) common: Common,
    /// Pairs that each ratio was to have.
    pub(crate) rounds: u32,
    pub(crate) quick: bool,
    /// How long all of it took.
    pub(crate) seconds: f64,
    /// Whether all of it was run.
    pub(crate) complete: bool,
    /// The cell that was void, and why.
    pub(crate) void: Option<String>,
    pub(crate) systems: Vec<About>,
    pub(crate) durability: Vec<Durability>,
    pub(crate) floors: Vec<Floor>,
    pub(crate) inbox: Inbox,
    /// By name; none where a ratio could not be had.
    pub(crate) ratios: BTreeMap<String, Option<f64>>,
    /// The pairs of each.
    pub(crate) pairs: BTreeMap<String, Summary>,
    pub(crate) figures: Vec<Figure>,
}

/// A system and how it was run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    pub(crate) system: System,
    pub(crate) version: String,
    pub(crate) configuration: String,
}

/// Whether a system had on disk what it acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Durability {
    pub(crate) system: System,
    /// By its configuration.
    pub(crate) claimed: bool,
    /// Flushes of the device per acknowledgement, with one message in flight; none where the device
    /// does not tell.
    pub(crate) flushes_per_ack: Option<f64>,
    /// It is claimed, and seen.
    pub(crate) shown: bool,
}

/// What was found out about inboxes.
#[derive(Default, Serialize)]
pub(crate) struct Inbox {
    pub(crate) scouts: Vec<Scout>,
    /// The best of them, which was paired.
    pub(crate) best: Option<System>,
    /// Why there is no ratio, if there is none.
    pub(crate) missing: Option<String>,
}

/// A peer's scouting cell.
#[derive(Serialize)]
pub(crate) struct Scout {
    pub(crate) system: System,
    /// Users that it could make inboxes for in time; none if too few.
    pub(crate) users: Option<u32>,
    /// How long that took.
    pub(crate) setup_seconds: f64,
    /// What was tried before with more users, and what became of it.
    pub(crate) refused: Vec<String>,
    pub(crate) tries: Vec<Try>,
}

/// A scouting cell with so many connections.
#[derive(Serialize)]
pub(crate) struct Try {
    pub(crate) connections: u32,
    /// Messages that were acknowledged and received, per second; none if it failed.
    pub(crate) counted_per_second: Option<f64>,
    /// What was measured.
    pub(crate) measured: Option<Measured>,
    /// Why it failed.
    pub(crate) failed: Option<String>,
}

impl Try {
    /// A form of it whose clients ran into faults is no form that works: it failed, and stands in no
    /// ratio. What its servers lost otherwise voids the run.
    pub(crate) fn checked(mut self) -> Self {
        let fault = self.measured.as_ref().and_then(|measured| measured.ledger.faults.first());
        if let Some(fault) = fault {
            self.failed = Some(format!("{} connections: {fault}", self.connections));
            self.counted_per_second = None;
        }
        self
    }
}

impl Scout {
    /// The better number of connections, and what it did.
    pub(crate) fn best(&self) -> Option<(u32, f64)> {
        let tries = self.tries.iter();
        tries
            .filter_map(|it| Some((it.connections, it.counted_per_second?)))
            .max_by(|one, other| one.1.total_cmp(&other.1))
    }
}

/// The best of all scouts: which peer, for how many users, over how many connections.
pub(crate) fn best(scouts: &[Scout]) -> Option<(System, u32, u32)> {
    let all = scouts.iter().filter_map(|scout| Some((scout, scout.users?, scout.best()?)));
    let (scout, users, (connections, _)) =
        all.max_by(|one, other| one.2.1.total_cmp(&other.2.1))?;
    Some((scout.system, users, connections))
}

/// A system's durability by what the device did.
pub(crate) fn durability(system: System, flushes_per_ack: Option<f64>) -> Durability {
    let claimed = system.claims_durable();
    let seen = flushes_per_ack.is_some_and(|flushes| flushes >= DURABLE_FLUSHES);
    Durability { system, claimed, flushes_per_ack, shown: claimed && seen }
}

impl Findings {
    /// Nothing yet.
    pub(crate) fn new(version: &'static str, common: Common, rounds: u32, quick: bool) -> Self {
        Findings {
            version,
            common,
            rounds,
            quick,
            seconds: 0.0,
            complete: false,
            void: None,
            systems: Vec::new(),
            durability: Vec::new(),
            floors: Vec::new(),
            inbox: Inbox::default(),
            ratios: BTreeMap::new(),
            pairs: BTreeMap::new(),
            figures: Vec::new(),
        }
    }

    /// Says that the run is void when a cell's ledger is not clean.
    pub(crate) fn judge(&mut self, what: impl ToString, ledger: &Ledger) {
        if !ledger.is_clean() && self.void.is_none() {
            self.void = Some(format!("{}: {ledger}", what.to_string()));
        }
    }

    /// Enters the wanted ratios; a void run has none.
    pub(crate) fn conclude(&mut self, wanted: &[Ratio]) {
        let best = self.inbox.best.map(|best| best.does(Job::Inbox));
        for ratio in wanted {
            let summary = pairs(&self.figures, &ratio.definition(), best);
            let summary = summary.filter(|_| self.void.is_none());
            self.ratios.insert(ratio.name(), summary.as_ref().map(|summary| summary.median));
            self.pairs.extend(summary.map(|summary| (ratio.name(), summary)));
        }
    }

    /// For people.
    pub(crate) fn markdown(&self, wanted: &[Ratio]) -> String {
        let mut text = String::new();
        let Common { body, threads, .. } = &self.common;
        let _ = writeln!(
            text,
            "tidemark {}: {body}-byte bodies, {threads} load threads, {} rounds, {:.0} s\n",
            self.version, self.rounds, self.seconds
        );
        self.about(&mut text);
        self.floors(&mut text);
        self.figures(&mut text);
        self.inboxes(&mut text);
        self.ratios(&mut text, wanted);
        self.remarks(&mut text);
        text
    }

    fn about(&self, text: &mut String) {
        *text += "| system | version | configuration | flushes/ack at window 1 | durable |\n";
        *text += &format!("|{}\n", "---|".repeat(5));
        for About { system, version, configuration } in &self.systems {
            let durability = self.durability.iter().find(|it| it.system == *system);
            let flushes = cell(durability.and_then(|it| it.flushes_per_ack), 2);
            let durable = match durability {
                Some(durability) if durability.shown => "yes",
                Some(_) => "no",
                None => "not looked at",
            };
            let _ = writeln!(
                text,
                "| {system} | {version} | {configuration} | {flushes} | {durable} |"
            );
        }
    }

    /// Medians over the rounds of each cell.
    fn figures(&self, text: &mut String) {
        *text += "\n| cell | rounds | acked/s | counted/s | send→ack ms p50 | p99 | send→receive ms p50 \
                  | p99 | servers' CPU µs/message | flushes/ack | device bytes/ack |\n";
        *text += &format!("|{}\n", "---|".repeat(11));
        for cell_ in self.cells() {
            let all: Vec<&Figure> =
                self.figures.iter().filter(|figure| figure.cell == cell_).collect();
            let of = |value: &dyn Fn(&Figure) -> Option<f64>| {
                median(&all.iter().filter_map(|figure| value(figure)).collect::<Vec<_>>())
            };
            let acks = |figure: &Figure| figure.measured.send_to_ack.as_ref().map(|it| it.p50_ms);
            let late = |figure: &Figure| figure.measured.send_to_ack.as_ref().map(|it| it.p99_ms);
            let _ = writeln!(
                text,
                "| {cell_} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                all.len(),
                cell(of(&|it| it.value(Of::Acked)), 0),
                cell(of(&|it| it.value(Of::Counted)), 0),
                cell(of(&acks), 2),
                cell(of(&late), 2),
                cell(of(&|it| it.value(Of::P50)), 2),
                cell(of(&|it| it.value(Of::P99)), 2),
                cell(of(&|it| it.value(Of::ServersCpu)), 1),
                cell(of(&|it| Some(it.device?.flushes)), 3),
                cell(of(&|it| it.value(Of::DeviceBytes)), 0),
            );
        }
    }

    fn floors(&self, text: &mut String) {
        if self.floors.is_empty() {
            return;
        }
        *text += "\n| floor | messages/s | ms p50 | p99 | CPU µs/message, all processes |\n\
                  |---|---|---|---|---|\n";
        for Floor { name, per_second, p50_ms, p99_ms, cpu_us_per_message } in &self.floors {
            let cpu = cell(*cpu_us_per_message, 1);
            let _ = writeln!(
                text,
                "| `{name}` | {per_second:.0} | {p50_ms:.2} | {p99_ms:.2} | {cpu} |"
            );
        }
    }

    /// Cells in the order in which they were first run.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for figure in &self.figures {
            if !cells.contains(&figure.cell) {
                cells.push(figure.cell);
            }
        }
        cells
    }

    fn inboxes(&self, text: &mut String) {
        if self.inbox.scouts.is_empty() {
            return;
        }
        *text +=
            "\n| inbox | users | set up in s | connections | counted/s |\n|---|---|---|---|---|\n";
        for scout in &self.inbox.scouts {
            let users = scout.users.map_or("none".to_owned(), |users| users.to_string());
            let (system, setup) = (scout.system, scout.setup_seconds);
            if scout.tries.is_empty() {
                let _ = writeln!(text, "| {system} | {users} | {setup:.1} | – | – |");
            }
            for Try { connections, counted_per_second, .. } in &scout.tries {
                let counted = cell(*counted_per_second, 0);
                let _ = writeln!(
                    text,
                    "| {system} | {users} | {setup:.1} | {connections} | {counted} |"
                );
            }
        }
    }

    fn ratios(&self, text: &mut String, wanted: &[Ratio]) {
        *text +=
            "\n| ratio | median | min | max | pairs | better is |\n|---|---|---|---|---|---|\n";
        for ratio in wanted {
            let name = ratio.name();
            let better = if ratio.is_cost() { "less" } else { "more" };
            let _ = match self.pairs.get(&name) {
                Some(Summary { median, min, max, pairs }) => writeln!(
                    text,
                    "| `{name}` | {median:.2} | {min:.2} | {max:.2} | {} | {better} |",
                    pairs.len()
                ),
                None => writeln!(text, "| `{name}` | – | – | – | 0 | {better} |"),
            };
        }
    }

    fn remarks(&self, text: &mut String) {
        let mut remarks = Vec::new();
        remarks.extend(self.void.as_ref().map(|void| format!("void: {void}")));
        if !self.complete {
            remarks.push("it was cut short: not everything that was asked for is here".to_owned());
        }
        let few = |(name, summary): (&String, &Summary)| {
            // Inboxes are set up once, and paired three times.
            let least = if *name == Ratio::InboxVsBestPeer.name() { 3 } else { PAIRS_MIN };
            (summary.pairs.len() < least).then(|| format!("`{name}`"))
        };
        let few: Vec<_> = self.pairs.iter().filter_map(few).collect();
        if !few.is_empty() {
            remarks.push(format!("too few pairs to say anything: {}", few.join(", ")));
        }
        remarks.extend(self.inbox.missing.as_ref().map(|why| format!("`inbox`: {why}")));
        for scout in &self.inbox.scouts {
            let failed = scout.tries.iter().filter_map(|it| it.failed.as_ref());
            for why in scout.refused.iter().chain(failed) {
                remarks.push(format!("`inbox` of {}: {why}", scout.system));
            }
        }
        let disturbed = self
            .figures
            .iter()
            .filter(|figure| figure.measured.other_cpus.is_some_and(|cpus| cpus > OTHER_CPUS_MAX));
        let disturbed = disturbed.count();
        if disturbed > 0 {
            remarks.push(format!(
                "in {disturbed} of {} cells other programs kept more than {OTHER_CPUS_MAX} processors \
                 busy: it is not what this machine can do",
                self.figures.len()
            ));
        }
        if self.seconds > SECONDS_MAX {
            remarks.push(format!("it took {:.0} minutes", self.seconds / 60.0));
        }
        for remark in remarks {
            let _ = writeln!(text, "\n{remark}");
        }
    }
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::ratio::tests::figure;

    fn scout(system: System, users: Option<u32>, tries: &[(u32, Option<f64>)]) -> Scout {
        let tries = tries.iter().map(|(connections, counted_per_second)| Try {
            connections: *connections,
            counted_per_second: *counted_per_second,
            measured: None,
            failed: counted_per_second.is_none().then(|| "refused".to_owned()),
        });
        Scout { system, users, setup_seconds: 1.0, refused: Vec::new(), tries: tries.collect() }
    }

    fn findings() -> Findings {
        Findings::new("1", Common::defaults(), 1, false)
    }

    #[test]
    fn durable_is_who_says_so_and_flushes_twice() {
        let shown = |system, flushes| durability(system, flushes).shown;
        assert!(shown(System::NatsFsync, Some(2.9)));
        assert!(!shown(System::NatsFsync, Some(1.0)));
        assert!(!shown(System::NatsFsync, None), "nobody has seen it");
        assert!(!shown(System::NatsDefault, Some(3.0)));
    }

    #[test]
    fn the_best_inbox_is_the_one_that_did_most() {
        let scouts = [
            scout(System::NatsFsync, Some(1_000), &[(64, Some(50.0)), (1_000, Some(70.0))]),
            scout(System::Etcd, Some(300), &[(64, Some(90.0)), (300, None)]),
            scout(System::RabbitMq, None, &[]),
        ];
        assert_eq!(best(&scouts), Some((System::Etcd, 300, 64)));
        assert_eq!(best(&scouts[2..]), None);
        assert_eq!(scouts[0].best(), Some((1_000, 70.0)));
    }

    #[test]
    fn a_void_run_has_no_ratios_and_says_why() {
        let wanted = [Ratio::AppendVsNatsFsync, Ratio::SendVsEtcd];
        let mut findings = findings();
        for (system, acked) in [(System::Tidemark, 30), (System::NatsFsync, 10)] {
            findings.figures.push(figure(system.does(Job::Append), 0, acked, acked));
        }
        findings.complete = true;
        findings.conclude(&wanted);
        assert_eq!(findings.ratios["append_vs_nats_fsync"], Some(3.0));
        assert_eq!(findings.ratios["send_vs_etcd"], None);
        let text = findings.markdown(&wanted);
        assert!(text.contains("| `append_vs_nats_fsync` | 3.00 | 3.00 | 3.00 | 1 | more |"));
        assert!(text.contains("too few pairs to say anything: `append_vs_nats_fsync`"), "{text}");
        assert!(text.contains("| Tidemark: append | 1 | 30 | 30 |"), "{text}");
        let lost = Ledger { sent: 3, acked: 3, lost: 1, ..Ledger::default() };
        findings.judge("etcd: append", &lost);
        findings.pairs.clear();
        findings.conclude(&wanted);
        assert_eq!(findings.ratios["append_vs_nats_fsync"], None);
        assert!(findings.markdown(&wanted).contains("void: etcd: append: ledger: sent=3"));
    }

    #[test]
    fn a_system_that_is_not_seen_to_flush_is_not_durable() {
        let mut findings = findings();
        for system in [System::Etcd, System::NatsDefault] {
            let (version, configuration) = ("3".to_owned(), "as it comes".to_owned());
            findings.systems.push(About { system, version, configuration });
            findings.durability.push(durability(system, Some(2.9)));
        }
        let text = findings.markdown(&[]);
        assert!(text.contains("| etcd | 3 | as it comes | 2.90 | yes |"), "{text}");
        assert!(text.contains("as it comes | 2.90 | no |"), "{text}");
        assert!(text.contains("cut short"));
    }

    #[test]
    fn findings_are_json_with_an_object_of_ratios() {
        let mut findings = findings();
        let cell = System::Tidemark.does(Job::Shards { shards: 4, deep: true });
        findings.figures.push(figure(cell, 0, 10, 10));
        findings.conclude(&[Ratio::Shards16Vs4]);
        let json = serde_json::to_value(&findings).expect("JSON");
        assert!(json["ratios"]["shards16_vs_4"].is_null());
        assert_eq!(json["figures"][0]["system"], "tidemark");
        assert_eq!(json["figures"][0]["job"]["shards"]["shards"], 4);
    }
}

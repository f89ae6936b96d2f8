//! A report as Markdown: one table for each question, and a ledger for each workload.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{Conditions, Measured, Quantiles, Report, rate};

/// With more processors than these busy elsewhere, figures say little. The kernel's own work for the
/// servers is in it.
const OTHER_CPUS_MAX: f64 = 0.25;

/// What a cell holds where there is nothing to tell.
const NOTHING: &str = "–";

const RATES: &str = "workload | shards | load | acked/s | delivered/s \
    | send→ack ms p50 | p99 | p99.9 | max | send→receive ms p50 | p99 | p99.9 | max";
const CATCH_UPS: &str = "workload | shards | missed | rounds | ms min | p50 | max | µs/message";
const IDLE: &str =
    "workload | carrier | devices | connected in s | gateway KiB/device | gateway % of a core";
const DISTURBED: &str = "workload | shards | load | at s | longest without an ack ms \
    | longest without a message ms | what was done";
const COSTS: &str = "workload | shards | load | process | CPU µs/message | CPUs | RSS MiB \
    | bytes written/message | log fsyncs/message";

impl Report {
    /// For people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{} {}\n", self.system, self.version);
        let workloads = || self.workloads.iter();
        text += &table(RATES, workloads().map(rates));
        text += &table(CATCH_UPS, workloads().flat_map(catch_ups));
        text += &table(IDLE, workloads().filter_map(idle));
        text += &table(DISTURBED, workloads().filter_map(disturbed));
        text += &table(COSTS, workloads().flat_map(costs));
        for measured in &self.workloads {
            // Writing to a text does not fail.
            let _ = notes(&mut text, measured);
        }
        text
    }
}

/// A table with these columns; nothing without rows.
fn table(columns: &str, rows: impl Iterator<Item = String>) -> String {
    let rows: String = rows.map(|row| format!("| {row} |\n")).collect();
    if rows.is_empty() {
        return rows;
    }
    let count = columns.split(" | ").count();
    format!("\n| {columns} |\n|{}\n{rows}", "---|".repeat(count))
}

fn rates(measured: &Measured) -> String {
    let elapsed = Duration::from_secs_f64(measured.seconds);
    let per_second = |count| match count {
        0 => NOTHING.to_owned(),
        count => format!("{:.0}", rate(0, count, elapsed)),
    };
    format!(
        "{} | {} | {} | {} | {}",
        head(measured),
        per_second(measured.acked),
        per_second(measured.delivered),
        quantiles(measured.send_to_ack.as_ref()),
        quantiles(measured.send_to_receive.as_ref()),
    )
}

fn quantiles(quantiles: Option<&Quantiles>) -> String {
    match quantiles {
        Some(Quantiles { p50_ms, p99_ms, p999_ms, max_ms, .. }) => {
            format!("{p50_ms:.2} | {p99_ms:.2} | {p999_ms:.2} | {max_ms:.2}")
        }
        None => [NOTHING; 4].join(" | "),
    }
}

fn catch_ups(measured: &Measured) -> impl Iterator<Item = String> {
    let (name, shards) = (&measured.workload, measured.conditions.shards);
    measured.catch_ups.iter().map(move |it| {
        format!(
            "`{name}` | {shards} | {} | {} | {:.1} | {:.1} | {:.1} | {:.2}",
            it.missed, it.rounds, it.min_ms, it.p50_ms, it.max_ms, it.us_per_message,
        )
    })
}

fn idle(measured: &Measured) -> Option<String> {
    let idle = measured.idle.as_ref()?;
    let gateway = measured.costs.iter().find(|cost| cost.is_of_gateway());
    Some(format!(
        "`{}` | {} | {} | {:.1} | {:.1} | {}",
        measured.workload,
        idle.carrier.name(),
        idle.devices,
        idle.connected_in_seconds,
        idle.gateway_bytes_per_device / 1_024.0,
        cell(gateway.map(|cost| cost.cpus * 100.0), 1),
    ))
}

fn disturbed(measured: &Measured) -> Option<String> {
    let it = measured.disturbed.as_ref()?;
    Some(format!(
        "{} | {:.1} | {:.0} | {:.0} | {}",
        head(measured),
        it.at_seconds,
        it.longest_without_ack_ms,
        it.longest_without_message_ms,
        it.said.replace(['\n', '|'], " "),
    ))
}

fn costs(measured: &Measured) -> impl Iterator<Item = String> {
    measured.costs.iter().map(|cost| {
        format!(
            "{} | {} | {} | {:.2} | {:.0} | {} | {}",
            head(measured),
            cost.process,
            cell(cost.cpu_us_per_message, 1),
            cost.cpus,
            cost.rss_bytes as f64 / f64::from(1 << 20),
            cell(cost.written_bytes_per_message, 0),
            cell(cost.fsyncs_per_message, 4),
        )
    })
}

/// The cells by which a row is found.
fn head(measured: &Measured) -> String {
    let conditions = &measured.conditions;
    format!("`{}` | {} | {conditions}", measured.workload, conditions.shards)
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or(NOTHING.to_owned(), |value| format!("{value:.digits$}"))
}

impl fmt::Display for Conditions {
    /// What was in flight, or in how many messages a second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_flight, self.rate) {
            (Some(in_flight), _) => write!(f, "{} × {in_flight}", self.senders),
            (None, Some(rate)) => write!(f, "{rate}/s"),
            (None, None) => f.write_str(NOTHING),
        }
    }
}

/// What belongs to a workload's rows: with what they were measured, and whether it was right.
fn notes(text: &mut String, measured: &Measured) -> fmt::Result {
    let Measured { workload, conditions, ledger, syncs, resends, .. } = measured;
    let Conditions { shards, senders, recipients, body, connections, threads, .. } = conditions;
    if let Some(cpus) = measured.other_cpus.filter(|cpus| *cpus > OTHER_CPUS_MAX) {
        writeln!(
            text,
            "\n`{workload}` other programs kept {cpus:.2} processors busy: it is not what this \
             machine can do"
        )?;
    }
    write!(text, "\n`{workload}` shards={shards} load={conditions} senders={senders} ")?;
    match body {
        Some(body) => write!(text, "recipients={recipients} body={body} ")?,
        None => write!(text, "counters={recipients} ")?,
    }
    write!(text, "connections={connections} threads={threads} seconds={:.1} ", measured.seconds)?;
    write!(text, "syncs={syncs} resends={resends} ")?;
    if let Some(counters) = &measured.counters {
        write!(text, "streams={} skipped={} ", counters.streams, counters.skipped)?;
    }
    writeln!(text, "{ledger}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::process::Cost;
    use crate::report::{CatchUp, Counters, Disturbed, Idle};
    use crate::settings::Carrier;

    fn cost(process: &str) -> Cost {
        Cost {
            process: process.to_owned(),
            cpu_us_per_message: Some(12.34),
            cpus: 0.5,
            rss_bytes: 3 << 20,
            written_bytes_per_message: Some(900.4),
            fsyncs_per_message: None,
        }
    }

    fn deliver() -> Measured {
        let quantiles = Quantiles { count: 1, p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, max_ms: 4.0 };
        Measured {
            workload: "deliver".to_owned(),
            conditions: Conditions {
                shards: 8,
                senders: 64,
                in_flight: Some(16),
                recipients: 64,
                body: Some(256),
                connections: 4,
                threads: 2,
                ..Conditions::default()
            },
            seconds: 2.0,
            acked: 20,
            delivered: 18,
            send_to_ack: Some(quantiles),
            costs: vec![cost("node-1")],
            other_cpus: Some(1.5),
            ledger: Ledger { sent: 20, acked: 20, delivered: 20, ..Ledger::default() },
            ..Measured::default()
        }
    }

    fn markdown(workloads: Vec<Measured>) -> String {
        Report { version: "1".to_owned(), system: "tidemark".to_owned(), workloads }.markdown()
    }

    #[test]
    fn a_report_is_one_table_per_question_and_a_ledger_per_workload() {
        let text = markdown(vec![deliver()]);
        assert!(text.starts_with("tidemark 1\n"));
        for row in [
            "| `deliver` | 8 | 64 × 16 | 10 | 9 | 1.00 | 2.00 | 3.00 | 4.00 | – | – | – | – |",
            "| `deliver` | 8 | 64 × 16 | node-1 | 12.3 | 0.50 | 3 | 900 | – |",
            "`deliver` other programs kept 1.50 processors busy: it is not what this machine can do",
            "`deliver` shards=8 load=64 × 16 senders=64 recipients=64 body=256 connections=4 \
             threads=2 seconds=2.0 syncs=0 resends=0 ledger: sent=20 acked=20 delivered=20 own=0 \
             confirmed=0 lost=0 duplicated=0 out_of_order=0 unconfirmed=0 faults=0",
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in {text}");
        }
        let quiet = markdown(vec![Measured { other_cpus: Some(0.1), ..deliver() }]);
        assert!(!quiet.contains("other programs"));
        for heading in ["missed", "carrier", "what was done"] {
            assert!(!text.contains(heading), "a question that nobody asked: {heading}");
        }
    }

    #[test]
    fn every_row_of_a_table_has_its_columns() {
        let catch_ups = vec![CatchUp {
            missed: 1_000,
            rounds: 5,
            min_ms: 10.0,
            p50_ms: 20.0,
            max_ms: 30.0,
            us_per_message: 20.0,
        }];
        let idle = Some(Idle {
            carrier: Carrier::Grpc,
            devices: 10,
            connected_in_seconds: 1.0,
            gateway_bytes_per_device: 2_048.0,
        });
        let disturbed = Some(Disturbed {
            at_seconds: 5.0,
            said: "killed node-1 | it led\nshard 0".to_owned(),
            longest_without_ack_ms: 700.4,
            longest_without_message_ms: 800.0,
        });
        let mut all = Measured { catch_ups, idle, disturbed, ..deliver() };
        all.costs.push(cost("gateway-1"));
        all.conditions = Conditions { in_flight: None, rate: Some(500), ..all.conditions };
        let text = markdown(vec![all]);
        for row in [
            "| `deliver` | 8 | 1000 | 5 | 10.0 | 20.0 | 30.0 | 20.00 |",
            "| `deliver` | grpc | 10 | 1.0 | 2.0 | 50.0 |",
            "| `deliver` | 8 | 500/s | 5.0 | 700 | 800 | killed node-1   it led shard 0 |",
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in {text}");
        }
        let mut columns = 0;
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let count = line.matches('|').count();
            columns = if line.starts_with("| workload") { count } else { columns };
            assert_eq!(count, columns, "{line}");
        }
    }

    #[test]
    fn calls_have_counters_and_no_bodies() {
        let conditions = Conditions { body: None, recipients: 10_000, ..deliver().conditions };
        let counters = Some(Counters { streams: 4, skipped: 3 });
        let text = markdown(vec![Measured { conditions, counters, ..deliver() }]);
        assert!(text.contains("counters=10000 connections=4"), "{text}");
        assert!(text.contains("resends=0 streams=4 skipped=3 ledger:"), "{text}");
    }
}

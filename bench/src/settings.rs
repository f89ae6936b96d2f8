//! What can be set, with the only defaults there are but those of single workloads, which are theirs.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use tidemark_types::limits::{
    BODY_BYTES_MAX, GROUP_MEMBERS_MAX, RECIPIENTS_MAX, SEND_WINDOW, SEND_WINDOW_BYTES,
};
use tidemark_version::VERSION;

use crate::body::BYTES_MIN;
use crate::workload::{Kind, Pace, Scale, Workload};

/// Calls in flight at once: as many unary ones as the gateway takes.
const CALLS_MAX: u32 = 2_048;

/// Members that a group has at most.
const MEMBERS_MAX: i64 = GROUP_MEMBERS_MAX as i64;

/// Devices that the gateway takes, unless it is configured otherwise.
const DEVICES_MAX: i64 = 100_000;

/// Entries that a mailbox keeps, unless the cluster is configured otherwise.
const BACKLOG_MAX: i64 = 1_000_000;

/// Measures a running cluster through the device protocol. Ends with 0 when all that was
/// acknowledged arrived once and in order, with 2 when a run is void, with 1 when there was none.
///
/// `tidemark-bench peers` measures other systems beside it: see `tidemark-bench peers --help`.
#[derive(Parser)]
#[command(version = VERSION)]
pub(crate) struct Arguments {
    /// What to run.
    #[arg(required_unless_present = "table")]
    pub(crate) workload: Option<Selection>,
    /// Runs nothing, and prints what `--json` wrote to these files as one table.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "workload")]
    pub(crate) table: Vec<PathBuf>,
    /// The cluster's description.
    #[arg(long, default_value = ".tidemark/cluster.json")]
    pub(crate) cluster: PathBuf,
    /// Writes what was found to this file as well, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Selection {
    /// `deliver`, `latency` and `append`, one after the other.
    Quick,
    /// Sender and recipient on one shard, recipients offline: one commit.
    Append,
    /// Recipients on other shards, offline, until every outbox is empty: two commits.
    Send,
    /// Each sender has a recipient on another shard, who is online and confirms.
    Deliver,
    /// Users who are all online, each with one message in flight to any one on another shard.
    Inbox,
    /// As `deliver`, at a fixed rate.
    Latency,
    /// As `latency`, but devices ask for what they only hear of: notice, then pull.
    Notice,
    /// A device that missed messages comes back, and catches up.
    Sync,
    /// One sender whose messages go to many recipients over all shards, all online.
    Fanout,
    /// One sender whose messages go to a group, whose members are over all shards and all online.
    Group,
    /// Numbers from counters, one in each call.
    Allocate,
    /// Devices that do nothing, with a TCP connection each: what they cost the gateway.
    Idle,
    /// As `latency`, while `--disturb` does something to the cluster.
    Failover,
}

/// What carries the frames of devices that have a connection of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Carrier {
    /// A gRPC stream.
    Grpc,
    /// A WebSocket.
    Websocket,
}

impl Carrier {
    /// Its name, as the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Carrier::Grpc => "grpc",
            Carrier::Websocket => "websocket",
        }
    }
}

/// How it is run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Seconds before anything is measured.
    #[arg(long, default_value_t = 2)]
    pub(crate) warmup: u32,
    /// Seconds measured [default: 10; `failover` and `group` 20, `idle` 60].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: Option<u32>,
    /// Senders, a user with one device and one session each; and, unless a workload says
    /// otherwise, as many recipients that are online [default: 64; `inbox` 1,000 users, `sync` 16,
    /// `fanout` and `group` 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: Option<u32>,
    /// Messages, or calls, that each sender has in flight in a closed loop [default: 16; `inbox` 1].
    #[arg(long, value_parser = in_flight)]
    pub(crate) in_flight: Option<u32>,
    /// Messages in a second in an open loop, of all senders together [default: 1,000; `group` 2].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Recipients that are offline.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    /// Recipients of each message of `fanout`.
    #[arg(long, default_value_t = 256, value_parser = recipients)]
    pub(crate) recipients: u32,
    /// Members of the group of `group`, its sender among them.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=MEMBERS_MAX))]
    pub(crate) members: u32,
    /// Counters of `allocate`.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,
    /// Makes each call of `allocate` a unary one, instead of through a stream on each connection.
    #[arg(long)]
    pub(crate) unary: bool,
    /// Devices of `idle`.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX))]
    pub(crate) devices: u32,
    /// What carries the frames of those devices.
    #[arg(long, value_enum, default_value = "grpc")]
    pub(crate) carrier: Carrier,
    /// How many messages the devices of `sync` have missed, one number for each.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,50000",
        value_parser = clap::value_parser!(u32).range(1..=BACKLOG_MAX))]
    pub(crate) backlogs: Vec<u32>,
    /// How often a device of `sync` catches up with each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// What is done in the middle of the measured time of `failover`: a command for the shell.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) disturb: Option<String>,
    /// Bytes of a body.
    #[arg(long, default_value_t = 256, value_parser = body)]
    pub(crate) body: usize,
    /// TCP connections to the gateway, which the devices share; more where it would not take so many
    /// devices on one.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) connections: u32,
    /// Threads of the load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
}

impl Arguments {
    /// The workloads to run, in this order.
    pub(crate) fn workloads(&self) -> &'static [Workload] {
        self.workload.map_or(&[], Selection::workloads)
    }

    /// Checks what one value cannot tell.
    pub(crate) fn validate(&self) -> Result<(), String> {
        self.workloads().iter().try_for_each(|workload| self.settings.validate(workload))
    }
}

impl Settings {
    /// How large a workload is.
    pub(crate) fn scale(&self, workload: &Workload) -> Scale {
        let Scale { senders, in_flight, seconds, rate } = workload.scale;
        Scale {
            senders: self.pairs.unwrap_or(senders),
            in_flight: self.in_flight.unwrap_or(in_flight),
            seconds: self.seconds.unwrap_or(seconds),
            rate: self.rate.unwrap_or(rate),
        }
    }

    fn validate(&self, workload: &Workload) -> Result<(), String> {
        let Scale { senders, in_flight, .. } = self.scale(workload);
        match workload.kind {
            Kind::Messages(messages) if messages.disturbed && self.disturb.is_none() => {
                return Err("--disturb says what is done to the cluster".to_owned());
            }
            Kind::Messages(messages) if messages.pace == Pace::Closed => {
                let bytes = self.body.saturating_mul(in_flight as usize);
                if bytes > SEND_WINDOW_BYTES {
                    let max = SEND_WINDOW_BYTES;
                    return Err(format!(
                        "--in-flight × --body is at most {max} bytes: the send window"
                    ));
                }
            }
            Kind::Numbers if senders.saturating_mul(in_flight) > CALLS_MAX => {
                return Err(format!("--pairs × --in-flight is at most {CALLS_MAX} calls"));
            }
            Kind::Messages(_) | Kind::CatchUp | Kind::Numbers => {}
        }
        Ok(())
    }
}

fn in_flight(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count) if (1..=SEND_WINDOW).contains(&u64::from(count)) => Ok(count),
        _ => Err(format!("1 to {SEND_WINDOW}, the send window")),
    }
}

fn recipients(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count) if (1..=RECIPIENTS_MAX).contains(&(count as usize)) => Ok(count),
        _ => Err(format!("1 to {RECIPIENTS_MAX}, the recipients of one send")),
    }
}

/// A size that a body may have.
pub(crate) fn body(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (BYTES_MIN..=BODY_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{BYTES_MIN} to {BODY_BYTES_MAX} bytes")),
    }
}

impl Settings {
    /// What the command line says when nothing is said.
    pub(crate) fn defaults() -> Self {
        Arguments::parse_from(["tidemark-bench", "quick"]).settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(workload: &str, arguments: &[&str]) -> Result<Arguments, String> {
        let arguments = ["tidemark-bench", workload].into_iter().chain(arguments.iter().copied());
        let parsed = Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?;
        parsed.validate().map(|()| parsed)
    }

    #[test]
    fn the_defaults_are_legal() {
        for workload in Selection::value_variants() {
            let name = workload.to_possible_value().expect("it has a name");
            let disturb: &[&str] = match workload {
                Selection::Failover => &["--disturb", "true"],
                _ => &[],
            };
            let parsed = parse(name.get_name(), disturb).expect("legal");
            assert!(!parsed.workloads().is_empty());
        }
        let settings = Settings::defaults();
        assert_eq!((settings.body, settings.connections, settings.warmup), (256, 4, 2));
        assert_eq!(settings.backlogs, [1_000, 10_000, 50_000]);
    }

    #[test]
    fn the_command_line_goes_before_a_workloads_own_scale() {
        let scale = |workload, arguments: &[&str]| {
            let parsed = parse(workload, arguments).expect("legal");
            let Scale { senders, in_flight, seconds, .. } =
                parsed.settings.scale(&parsed.workloads()[0]);
            (senders, in_flight, seconds)
        };
        assert_eq!(scale("deliver", &[]), (64, 16, 10));
        assert_eq!(scale("inbox", &[]), (1_000, 1, 10));
        assert_eq!(scale("inbox", &["--pairs", "300", "--seconds", "5"]), (300, 1, 5));
        assert_eq!(scale("append", &["--in-flight", "64"]), (64, 64, 10));
        assert_eq!(scale("group", &[]), (1, 16, 20));
    }

    #[test]
    fn what_no_server_takes_is_refused_before_it_is_sent() {
        for (workload, arguments, named) in [
            ("deliver", ["--in-flight", "257"], "the send window"),
            ("deliver", ["--in-flight", "0"], "the send window"),
            ("deliver", ["--body", "3"], "bytes"),
            ("deliver", ["--body", "100000"], "--in-flight × --body"),
            ("deliver", ["--seconds", "0"], "--seconds"),
            ("fanout", ["--recipients", "257"], "the recipients of one send"),
            ("group", ["--members", "10001"], "--members"),
            ("allocate", ["--in-flight", "64"], "--pairs × --in-flight"),
            ("failover", ["--seconds", "5"], "--disturb"),
            ("sync", ["--backlogs", "10,0"], "--backlogs"),
        ] {
            let refused = parse(workload, &arguments).err().expect("refused");
            assert!(refused.contains(named), "{refused}");
        }
        // A large body is legal where few are in flight.
        assert!(parse("latency", &["--body", "100000"]).is_ok());
    }

    #[test]
    fn reports_are_read_or_something_is_run() {
        let read = |arguments: &[&str]| {
            let arguments = ["tidemark-bench"].into_iter().chain(arguments.iter().copied());
            Arguments::try_parse_from(arguments).ok().map(|parsed| parsed.table.len())
        };
        assert_eq!(read(&["--table", "a", "b", "--json", "c"]), Some(2));
        assert_eq!(read(&["append"]), Some(0));
        assert_eq!(read(&["append", "--table", "a"]), None);
        assert_eq!(read(&[]), None);
    }
}

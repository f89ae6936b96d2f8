//! What can be set, with the only defaults there are.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};
use serde::Serialize;
use tidemark_types::limits::{BODY_BYTES_MAX, SEND_WINDOW, SEND_WINDOW_BYTES};
use tidemark_version::VERSION;

use crate::body::BYTES_MIN;

/// Measures a running cluster through the device protocol. Ends with 0 when all that was
/// acknowledged arrived once and in order, with 2 when a run is void, with 1 when there was none.
#[derive(Parser)]
#[command(version = VERSION)]
pub(crate) struct Arguments {
    /// What to run.
    pub(crate) workload: Selection,
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
    /// As `deliver`, at a fixed rate.
    Latency,
}

/// How it is run.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// Seconds before anything is measured.
    #[arg(long, default_value_t = 2)]
    pub(crate) warmup: u32,
    /// Seconds measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Senders, a user with one device and one session each; and recipients that are online.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: u32,
    /// Messages that each sender has in flight in a closed loop.
    #[arg(long, default_value_t = 16, value_parser = in_flight)]
    pub(crate) in_flight: u32,
    /// Messages in a second in an open loop, of all senders together.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// Recipients that are offline.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    /// Bytes of a body.
    #[arg(long, default_value_t = 256, value_parser = body)]
    pub(crate) body: usize,
    /// TCP connections to the gateway, which the devices share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) connections: u32,
    /// Threads of the load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
}

impl Default for Settings {
    fn default() -> Self {
        // What the command line says when nothing is said.
        Arguments::parse_from(["tidemark-bench", "quick"]).settings
    }
}

impl Settings {
    /// Checks what one value cannot tell.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let in_flight = usize::try_from(self.in_flight).unwrap_or(usize::MAX);
        if in_flight.saturating_mul(self.body) <= SEND_WINDOW_BYTES {
            return Ok(());
        }
        Err(format!("--in-flight × --body is at most {SEND_WINDOW_BYTES} bytes: the send window"))
    }
}

fn in_flight(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count) if (1..=SEND_WINDOW).contains(&u64::from(count)) => Ok(count),
        _ => Err(format!("1 to {SEND_WINDOW}, the send window")),
    }
}

fn body(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (BYTES_MIN..=BODY_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{BYTES_MIN} to {BODY_BYTES_MAX} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let arguments = ["tidemark-bench", "deliver"].into_iter().chain(arguments.iter().copied());
        let parsed = Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?;
        parsed.settings.validate().map(|()| parsed.settings)
    }

    #[test]
    fn the_defaults_are_legal() {
        let settings = parse(&[]).expect("legal");
        assert_eq!((settings.pairs, settings.in_flight, settings.body), (64, 16, 256));
        assert_eq!(settings.rate, Settings::default().rate);
    }

    #[test]
    fn what_no_server_takes_is_refused_before_it_is_sent() {
        for (arguments, named) in [
            (["--in-flight", "257"], "the send window"),
            (["--in-flight", "0"], "the send window"),
            (["--body", "3"], "bytes"),
            (["--body", "100000"], "--in-flight × --body"),
            (["--seconds", "0"], "--seconds"),
        ] {
            let refused = parse(&arguments).expect_err("refused");
            assert!(refused.contains(named), "{refused}");
        }
    }
}

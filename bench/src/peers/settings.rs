//! What can be set about a comparison, with the only defaults there are.

use std::path::PathBuf;

use clap::{Args, Parser};
use serde::Serialize;
use tidemark_version::VERSION;

use crate::peers::plan::Ratio;
use crate::settings::{Settings, body};

/// Measures Tidemark and other systems side by side, each as a cluster of three nodes on this machine,
/// and reports ratios. Ends with 0 when everything that was acknowledged arrived once and in order on
/// all sides, with 2 when a cell is void, with 1 when there was no measurement.
#[derive(Parser)]
#[command(name = "tidemark-bench peers", version = VERSION)]
pub(crate) struct Arguments {
    /// The folder with the script `cluster`, which starts Tidemark.
    #[arg(long, default_value = "scripts")]
    pub(crate) scripts: PathBuf,
    /// The folder for all data, made anew for each cell and removed in the end.
    #[arg(long, default_value = ".tidemark-bench-peers")]
    pub(crate) data: PathBuf,
    /// The folder for the peers' programs [default: tidemark/peers in the user's cache].
    #[arg(long)]
    pub(crate) cache: Option<PathBuf>,
    /// Ports are taken from here on: up to 400 further on by Tidemark, up to 600 by the peers.
    #[arg(long, default_value_t = 9_100, value_parser = clap::value_parser!(u16).range(1_024..=60_000))]
    pub(crate) base_port: u16,
    /// Pairs of each ratio; `inbox` has three at most.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// One short cell each, to see that everything works: its figures say nothing.
    #[arg(long, conflicts_with_all = ["full", "rounds"])]
    pub(crate) quick: bool,
    /// The cells that count bytes as well: a minute each.
    #[arg(long)]
    pub(crate) full: bool,
    /// These ratios only, and what is measured for them.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Ratio>,
    /// Writes what was found to this file as well, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What all cells have in common, ours and the peers'.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Common {
    /// Seconds before anything is measured.
    #[arg(long, default_value_t = 2)]
    pub(crate) warmup: u32,
    /// Seconds measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Messages in a second where latency is compared, of all senders together.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// Bytes of a body.
    #[arg(long, default_value_t = 256, value_parser = body)]
    pub(crate) body: usize,
    /// Threads of the load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
}

impl Common {
    /// The same for our own workloads.
    pub(crate) fn settings(&self) -> Settings {
        let Common { warmup, seconds, rate, body, threads } = *self;
        Settings {
            warmup,
            seconds: Some(seconds),
            rate: Some(rate),
            body,
            threads,
            ..Settings::defaults()
        }
    }
}

impl Arguments {
    /// What a short run changes.
    pub(crate) fn adjusted(mut self) -> Self {
        if self.quick {
            self.rounds = 1;
            self.common.warmup = 1;
            self.common.seconds = 2;
        }
        self
    }

    /// The ratios that are asked for.
    pub(crate) fn wanted(&self) -> Vec<Ratio> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let all = Ratio::all().iter().copied();
        all.filter(|ratio| self.full || !ratio.is_full()).collect()
    }
}

#[cfg(test)]
impl Common {
    /// What the command line says when nothing is said.
    pub(crate) fn defaults() -> Self {
        Arguments::parse_from(["peers"]).common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Arguments {
        let arguments = ["peers"].into_iter().chain(arguments.iter().copied());
        Arguments::try_parse_from(arguments).expect("legal").adjusted()
    }

    #[test]
    fn the_defaults_are_those_of_a_run_that_counts() {
        let usual = parse(&[]);
        assert_eq!((usual.rounds, usual.common.warmup, usual.common.seconds), (5, 2, 10));
        assert_eq!(usual.wanted().len() + 2, parse(&["--full"]).wanted().len());
    }

    #[test]
    fn a_quick_run_is_short_and_only_names_ratios() {
        let quick = parse(&["--quick", "--only", "send-vs-etcd,deliver-vs-etcd"]);
        assert_eq!((quick.rounds, quick.common.seconds), (1, 2));
        assert_eq!(quick.wanted(), [Ratio::SendVsEtcd, Ratio::DeliverVsEtcd]);
        assert!(Arguments::try_parse_from(["peers", "--quick", "--full"]).is_err());
    }
}

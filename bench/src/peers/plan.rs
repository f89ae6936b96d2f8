//! What is run, in which order, and which ratios come of it. Pure.
//!
//! ```text
//!   round 0:  ours a ─ peer a ─ ours b ─ peer b ...      a cell serves every ratio it stands in;
//!   round 1:  ... peer b ─ ours b ─ peer a ─ ours a      both sides of a ratio lie near each other,
//!                                                        and take turns in being first
//! ```

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// Shards of our own clusters, unless said.
pub(crate) const SHARDS: u16 = 8;

/// Shard counts that are compared.
const SHARD_COUNTS: [u16; 3] = [4, 16, 64];

/// Messages that each sender has in flight where shards are compared: with 64 senders, 4,096.
const DEEP: u32 = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum System {
    /// Ourselves.
    Tidemark,
    /// NATS JetStream that syncs before each acknowledgement.
    NatsFsync,
    /// NATS JetStream as it comes.
    NatsDefault,
    Etcd,
    #[serde(rename = "rabbitmq")]
    RabbitMq,
}

/// Every peer.
pub(crate) const PEERS: [System; 4] =
    [System::NatsFsync, System::NatsDefault, System::Etcd, System::RabbitMq];

/// The peers whose inboxes are scouted.
pub(crate) const INBOX_PEERS: [System; 3] = [System::NatsFsync, System::Etcd, System::RabbitMq];

/// Users with an inbox: as many of these as a peer can make room for in time.
const INBOX_USERS: [u32; 3] = [1_000, 300, 100];

/// What a cell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Job {
    /// Messages to users who are offline; of a peer, what it acknowledges as stored.
    Append,
    /// Ours alone: the same over two shards.
    Send,
    /// Messages that are acknowledged, received in order and confirmed.
    Deliver,
    /// The same at a fixed rate.
    Latency,
    /// Users with an inbox each.
    Inbox,
    /// One sender, one message in flight, to count flushes.
    Window1,
    /// Ours alone: `append` over so many shards.
    Shards {
        /// How many.
        shards: u16,
        /// Whether four times as many messages are in flight.
        deep: bool,
    },
    /// `append` at a fixed rate for a minute, to count bytes.
    AppendBytes,
    /// `deliver` at a fixed rate for a minute, to count bytes.
    DeliverBytes,
}

/// One measurement on a cluster of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    pub(crate) system: System,
    pub(crate) job: Job,
}

/// Which figure of a cell a ratio is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Acknowledgements per second.
    Acked,
    /// The lesser of those and of what arrived per second: what is both.
    Counted,
    /// From send to receive, at the median.
    P50,
    /// The same at 99 of 100.
    P99,
    /// Processor time per message of all processes but the load's.
    ServersCpu,
    /// Bytes that reached the device, per message.
    DeviceBytes,
}

/// A ratio that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Ratio {
    AppendVsNatsFsync,
    SendVsNatsFsync,
    SendVsEtcd,
    DeliverVsEtcd,
    DeliverVsRabbitmq,
    DeliverVsNatsFsync,
    InboxVsBestPeer,
    LatencyP50VsNatsFsync,
    LatencyP99VsNatsFsync,
    #[value(name = "shards16-vs-4")]
    Shards16Vs4,
    #[value(name = "shards64-vs-4")]
    Shards64Vs4,
    AppendCpuVsNatsFsync,
    AppendBytesVsNatsFsync,
    DeliverBytesVsNatsFsync,
}

/// What a ratio is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) over: Cell,
    /// None where it is found out only while it runs: of the best peer.
    pub(crate) under: Option<Cell>,
    pub(crate) of: (Of, Of),
}

impl System {
    /// Does it sync its files on a majority before it acknowledges?
    pub(crate) fn claims_durable(self) -> bool {
        match self {
            System::Tidemark | System::NatsFsync | System::Etcd | System::RabbitMq => true,
            System::NatsDefault => false,
        }
    }

    /// A cell of it.
    pub(crate) const fn does(self, job: Job) -> Cell {
        Cell { system: self, job }
    }
}

impl Job {
    /// What its workload is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Job::Append => "append",
            Job::Send => "send",
            Job::Deliver => "deliver",
            Job::Latency => "latency",
            Job::Inbox => "inbox",
            Job::Window1 => "window-1",
            Job::Shards { .. } => "shards",
            Job::AppendBytes => "append-bytes",
            Job::DeliverBytes => "deliver-bytes",
        }
    }

    /// Messages that each sender has in flight, if not as many as usual.
    pub(crate) fn in_flight(self) -> Option<u32> {
        match self {
            Job::Window1 | Job::Inbox => Some(1),
            Job::Shards { deep: true, .. } => Some(DEEP),
            _ => None,
        }
    }

    /// Shards of our own cluster.
    pub(crate) fn shards(self) -> u16 {
        match self {
            Job::Shards { shards, .. } => shards,
            _ => SHARDS,
        }
    }
}

impl Ratio {
    /// All of them, those that only a full run has last.
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// As it stands in the report.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no variant is skipped");
        value.get_name().replace('-', "_")
    }

    /// Only of a full run?
    pub(crate) fn is_full(self) -> bool {
        matches!(self, Ratio::AppendBytesVsNatsFsync | Ratio::DeliverBytesVsNatsFsync)
    }

    /// Is less better?
    pub(crate) fn is_cost(self) -> bool {
        !matches!(self.definition().of.0, Of::Acked | Of::Counted)
    }

    /// What it is made of.
    pub(crate) fn definition(self) -> Definition {
        use System::{Etcd, NatsFsync, RabbitMq, Tidemark};
        let ours = |job| Tidemark.does(job);
        let shards = |shards| Tidemark.does(Job::Shards { shards, deep: true });
        let (over, under, of) = match self {
            Ratio::AppendVsNatsFsync => (ours(Job::Append), NatsFsync.does(Job::Append), Of::Acked),
            Ratio::SendVsNatsFsync => (ours(Job::Send), NatsFsync.does(Job::Append), Of::Acked),
            Ratio::SendVsEtcd => (ours(Job::Send), Etcd.does(Job::Append), Of::Acked),
            Ratio::DeliverVsEtcd => {
                // etcd's puts are not read.
                let (over, under) = (ours(Job::Deliver), Some(Etcd.does(Job::Append)));
                return Definition { over, under, of: (Of::Counted, Of::Acked) };
            }
            Ratio::DeliverVsRabbitmq => {
                (ours(Job::Deliver), RabbitMq.does(Job::Deliver), Of::Counted)
            }
            Ratio::DeliverVsNatsFsync => {
                (ours(Job::Deliver), NatsFsync.does(Job::Deliver), Of::Counted)
            }
            Ratio::InboxVsBestPeer => {
                let of = (Of::Counted, Of::Counted);
                return Definition { over: ours(Job::Inbox), under: None, of };
            }
            Ratio::LatencyP50VsNatsFsync => {
                (ours(Job::Latency), NatsFsync.does(Job::Latency), Of::P50)
            }
            Ratio::LatencyP99VsNatsFsync => {
                (ours(Job::Latency), NatsFsync.does(Job::Latency), Of::P99)
            }
            Ratio::Shards16Vs4 => (shards(16), shards(4), Of::Acked),
            Ratio::Shards64Vs4 => (shards(64), shards(4), Of::Acked),
            Ratio::AppendCpuVsNatsFsync => {
                (ours(Job::Append), NatsFsync.does(Job::Append), Of::ServersCpu)
            }
            Ratio::AppendBytesVsNatsFsync => {
                (ours(Job::AppendBytes), NatsFsync.does(Job::AppendBytes), Of::DeviceBytes)
            }
            Ratio::DeliverBytesVsNatsFsync => {
                (ours(Job::DeliverBytes), NatsFsync.does(Job::DeliverBytes), Of::DeviceBytes)
            }
        };
        Definition { over, under: Some(under), of: (of, of) }
    }
}

/// Cells in the order of a first round: ours and the peers' that they are compared with, side by side.
fn order() -> Vec<Cell> {
    use System::{Etcd, NatsFsync, RabbitMq, Tidemark};
    let mut cells = vec![
        Tidemark.does(Job::Append),
        NatsFsync.does(Job::Append),
        Tidemark.does(Job::Send),
        Etcd.does(Job::Append),
        Tidemark.does(Job::Deliver),
        NatsFsync.does(Job::Deliver),
        RabbitMq.does(Job::Deliver),
        Tidemark.does(Job::Latency),
        NatsFsync.does(Job::Latency),
    ];
    cells.extend(shards(true));
    for job in [Job::AppendBytes, Job::DeliverBytes] {
        cells.extend([Tidemark.does(job), NatsFsync.does(job)]);
    }
    cells
}

fn shards(deep: bool) -> impl Iterator<Item = Cell> {
    SHARD_COUNTS.into_iter().map(move |shards| System::Tidemark.does(Job::Shards { shards, deep }))
}

/// The cells of a round: those that the wanted ratios need.
pub(crate) fn round(round: u32, wanted: &[Ratio]) -> Vec<Cell> {
    let needed = |cell: &Cell| {
        wanted
            .iter()
            .map(|ratio| ratio.definition())
            .any(|Definition { over, under, .. }| [Some(over), under].contains(&Some(*cell)))
    };
    let mut cells: Vec<Cell> = order().into_iter().filter(needed).collect();
    if round % 2 == 1 {
        cells.reverse();
    }
    cells
}

/// What is measured once, and stands in no ratio: how durable each system is, NATS as it comes, and
/// shards with as many messages in flight as everywhere else.
pub(crate) fn once() -> Vec<Cell> {
    let mut cells = vec![System::Tidemark.does(Job::Window1)];
    cells.extend(PEERS.map(|peer| peer.does(Job::Window1)));
    cells.push(System::NatsDefault.does(Job::Append));
    cells.extend(shards(false));
    cells
}

/// How many users with an inbox are tried, the most first; a quick run has the fewest only.
pub(crate) fn inbox_sizes(quick: bool) -> &'static [u32] {
    if quick { &INBOX_USERS[INBOX_USERS.len() - 1..] } else { &INBOX_USERS }
}

/// What is tried when there was room for `room` of `tried` users in time: the most that there was room
/// for, or else the fewest; none when there are no fewer.
pub(crate) fn next_inbox_size(tried: u32, room: u32) -> Option<u32> {
    let fewer = || INBOX_USERS.into_iter().filter(|size| *size < tried);
    fewer().find(|size| *size <= room).or_else(|| fewer().next_back())
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Tidemark => "Tidemark",
            System::NatsFsync => "NATS JetStream, fsync",
            System::NatsDefault => "NATS JetStream, default",
            System::Etcd => "etcd",
            System::RabbitMq => "RabbitMQ",
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { system, job } = self;
        write!(f, "{system}: {}", job.name())?;
        match job {
            Job::Shards { shards, deep: false } => write!(f, " {shards}"),
            Job::Shards { shards, deep: true } => write!(f, " {shards}, deep"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Vec<Ratio> {
        Ratio::all().iter().copied().filter(|ratio| !ratio.is_full()).collect()
    }

    #[test]
    fn ratios_have_the_names_that_are_asked_for() {
        let names: Vec<_> = usual().into_iter().map(Ratio::name).collect();
        let asked = [
            "append_vs_nats_fsync",
            "send_vs_nats_fsync",
            "send_vs_etcd",
            "deliver_vs_etcd",
            "deliver_vs_rabbitmq",
            "deliver_vs_nats_fsync",
            "inbox_vs_best_peer",
            "latency_p50_vs_nats_fsync",
            "latency_p99_vs_nats_fsync",
            "shards16_vs_4",
            "shards64_vs_4",
        ];
        assert_eq!(names[..asked.len()], asked);
        assert_eq!(names[asked.len()..], ["append_cpu_vs_nats_fsync"]);
    }

    #[test]
    fn every_ratio_has_both_its_cells_in_every_round() {
        for number in 0..2 {
            let cells = round(number, Ratio::all());
            for definition in Ratio::all().iter().map(|ratio| ratio.definition()) {
                let Some(under) = definition.under else { continue };
                assert!(cells.contains(&definition.over), "{}", definition.over);
                assert!(cells.contains(&under), "{under}");
            }
        }
    }

    #[test]
    fn rounds_take_turns_and_have_what_is_wanted_only() {
        let wanted = [Ratio::DeliverVsRabbitmq];
        let first = round(0, &wanted);
        assert_eq!(first, [System::Tidemark, System::RabbitMq].map(|it| it.does(Job::Deliver)));
        let mut second = round(1, &wanted);
        second.reverse();
        assert_eq!(first, second);
        assert_eq!(round(0, &[Ratio::InboxVsBestPeer]), []);
        assert!(round(0, &usual()).iter().all(|cell| cell.job != Job::AppendBytes));
    }

    #[test]
    fn an_inbox_is_tried_with_what_there_was_room_for() {
        assert_eq!(next_inbox_size(1_000, 700), Some(300));
        assert_eq!(next_inbox_size(1_000, 299), Some(100));
        assert_eq!(next_inbox_size(1_000, 0), Some(100));
        assert_eq!(next_inbox_size(300, 299), Some(100));
        assert_eq!(next_inbox_size(100, 99), None);
        assert_eq!((inbox_sizes(false).len(), inbox_sizes(true)), (3, &[100][..]));
    }

    #[test]
    fn less_is_better_where_a_ratio_is_of_a_cost() {
        assert!(!Ratio::AppendVsNatsFsync.is_cost());
        assert!(!Ratio::DeliverVsEtcd.is_cost());
        assert!(Ratio::LatencyP99VsNatsFsync.is_cost());
        assert!(Ratio::AppendCpuVsNatsFsync.is_cost());
    }
}

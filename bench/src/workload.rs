//! The workloads: what is sent, to whom, how fast, and when the clock stops.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tidemark_types::UserId;

use crate::names::Names;
use crate::settings::{Selection, Settings};

/// A workload. `docs/performance.md` says what each one measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) pace: Pace,
    pub(crate) recipients: Recipients,
}

/// What makes a message due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The acknowledgement of another one.
    Closed,
    /// Its time.
    Open,
}

/// Whom messages go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    /// Each sender has one of its own, who is online and on another shard.
    Online,
    /// Any of many on the sender's shard, all offline: the acknowledgement says that the message
    /// is in their mailbox.
    OfflineHere,
    /// Any of many on other shards, all offline: the clock stops when all outboxes are empty.
    OfflineElsewhere,
}

const APPEND: Workload =
    Workload { name: "append", pace: Pace::Closed, recipients: Recipients::OfflineHere };
const SEND: Workload =
    Workload { name: "send", pace: Pace::Closed, recipients: Recipients::OfflineElsewhere };
const DELIVER: Workload =
    Workload { name: "deliver", pace: Pace::Closed, recipients: Recipients::Online };
const LATENCY: Workload =
    Workload { name: "latency", pace: Pace::Open, recipients: Recipients::Online };

impl Selection {
    /// The workloads to run, in this order.
    pub(crate) fn workloads(self) -> &'static [Workload] {
        match self {
            Selection::Quick => &[DELIVER, LATENCY, APPEND],
            Selection::Append => &[APPEND],
            Selection::Send => &[SEND],
            Selection::Deliver => &[DELIVER],
            Selection::Latency => &[LATENCY],
        }
    }
}

/// Who takes part.
pub(crate) struct Cast {
    /// Each sender, and its recipients by their place in the list of all.
    pub(crate) senders: Vec<(UserId, Vec<u32>)>,
    /// All recipients.
    pub(crate) recipients: Arc<[UserId]>,
}

impl Workload {
    /// Draws who takes part.
    pub(crate) fn cast(&self, names: &mut Names, settings: &Settings) -> Result<Cast> {
        match self.recipients {
            Recipients::Online => pairs(names, settings.pairs),
            Recipients::OfflineHere => crowd(names, settings, true),
            Recipients::OfflineElsewhere => crowd(names, settings, false),
        }
    }
}

fn pairs(names: &mut Names, pairs: u32) -> Result<Cast> {
    let (mut senders, mut recipients) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let apart = names.apart(pair as usize);
        let (from, to) = apart.context("this workload needs a cluster of two shards or more")?;
        senders.push((names.on(from), vec![pair]));
        recipients.push(names.on(to));
    }
    Ok(Cast { senders, recipients: recipients.into() })
}

fn crowd(names: &mut Names, settings: &Settings, here: bool) -> Result<Cast> {
    let crowd: Vec<_> = (0..settings.users).map(|_| names.anywhere()).collect();
    let shards = names.shards().into_iter().cycle().take(settings.pairs as usize);
    let mut senders = Vec::new();
    for shard in shards {
        let places = (0..).zip(&crowd).filter(|(_, (_, at))| (*at == shard) == here);
        let mine: Vec<u32> = places.map(|(place, _)| place).collect();
        let where_ = if here { "on" } else { "outside of" };
        ensure!(!mine.is_empty(), "none of {} users is {where_} shard {shard}", settings.users);
        senders.push((names.on(shard), mine));
    }
    Ok(Cast { senders, recipients: crowd.into_iter().map(|(user, _)| user).collect() })
}

#[cfg(test)]
mod tests {
    use tidemark_types::routing::ShardCount;
    use tidemark_types::{Id, ShardId};

    use super::*;

    fn shards(count: u16) -> ShardCount {
        ShardCount::new(count).expect("a test's own constant")
    }

    fn cast(workload: Workload, count: u16, settings: Settings) -> Result<Cast> {
        workload.cast(&mut Names::new(shards(count), "t"), &settings)
    }

    /// Of every sender and each of its recipients, the shards.
    fn ways(cast: &Cast) -> Vec<(ShardId, ShardId)> {
        let shard = |user: &UserId| shards(8).shard_of(&Id::User(user.clone()));
        let all = cast.senders.iter().flat_map(|(sender, mine)| {
            mine.iter().map(|place| (shard(sender), shard(&cast.recipients[*place as usize])))
        });
        all.collect()
    }

    #[test]
    fn a_pair_is_apart_and_nobody_is_in_two() {
        let cast = cast(DELIVER, 8, Settings::default()).expect("8 shards");
        assert!(ways(&cast).iter().all(|(from, to)| from != to));
        assert_eq!((cast.senders.len(), cast.recipients.len()), (64, 64));
        let places: Vec<_> = cast.senders.iter().flat_map(|(_, mine)| mine.clone()).collect();
        assert_eq!(places, (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn append_stays_on_a_shard_and_send_leaves_it() {
        let settings = || Settings { users: 500, ..Settings::default() };
        let here = ways(&cast(APPEND, 8, settings()).expect("many users"));
        assert!(here.iter().all(|(from, to)| from == to));
        let elsewhere = ways(&cast(SEND, 8, settings()).expect("many users"));
        assert!(elsewhere.iter().all(|(from, to)| from != to));
        // Every sender reaches all users there are on its side.
        assert_eq!(here.len() + elsewhere.len(), 64 * 500);
    }

    #[test]
    fn a_cluster_that_is_too_small_is_named() {
        let refused = |workload, count, settings| {
            cast(workload, count, settings).err().map(|error| error.to_string())
        };
        let settings = Settings { users: 1, ..Settings::default() };
        assert!(refused(DELIVER, 1, settings.clone()).is_some_and(|it| it.contains("two shards")));
        assert!(refused(APPEND, 8, settings).is_some_and(|it| it.contains("none of 1 users")));
    }
}

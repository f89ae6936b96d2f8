//! Who takes part in a workload, and where each of them lives.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tidemark_types::limits::RECIPIENTS_MAX;
use tidemark_types::{GroupId, UserId};

use crate::names::Names;
use crate::sender::Aim;
use crate::settings::Settings;
use crate::workload::{Recipients, Scale};

/// What a workload says that needs more than one shard.
const TWO_SHARDS: &str = "this workload needs a cluster of two shards or more";

/// Who takes part.
pub(crate) struct Cast {
    /// Each sender, and its recipients by their place in the list of all.
    pub(crate) senders: Vec<(UserId, Vec<u32>)>,
    /// All recipients.
    pub(crate) recipients: Arc<[UserId]>,
    /// Which of its recipients a sender's message goes to.
    pub(crate) aim: Aim,
    /// Which of the devices is the first recipient's; the others' follow it. None when recipients
    /// are offline.
    pub(crate) first_recipient: Option<usize>,
}

impl Cast {
    /// Draws who takes part in a workload with such recipients.
    pub(crate) fn draw(
        recipients: Recipients,
        names: &mut Names,
        scale: &Scale,
        settings: &Settings,
    ) -> Result<Self> {
        match recipients {
            Recipients::Online => Cast::pairs(names, scale.senders),
            Recipients::EachOther => Cast::circle(names, scale.senders),
            Recipients::Everyone => Ok(Cast::hall(names, scale.senders, settings.recipients)),
            Recipients::Group => Ok(Cast::group(names, settings.members)),
            Recipients::Idle => Ok(Cast::crowd(names, settings.devices)),
            Recipients::OfflineHere => Cast::strangers(names, scale.senders, settings.users, true),
            Recipients::OfflineElsewhere => {
                Cast::strangers(names, scale.senders, settings.users, false)
            }
        }
    }

    /// Some recipients who are offline, each on the shard of some of the senders, in turn.
    pub(crate) fn absent(names: &mut Names, senders: u32, recipients: usize) -> Self {
        let shards = names.shards();
        let shard = |recipient: usize| shards[recipient % shards.len()];
        let absent = (0..recipients).map(|at| names.on(shard(at))).collect();
        let writes_to = |sender: u32| sender as usize % recipients;
        let senders = (0..senders).map(|sender| {
            let place = u32::try_from(writes_to(sender)).expect("one of a few");
            (names.on(shard(writes_to(sender))), vec![place])
        });
        Cast {
            senders: senders.collect(),
            recipients: absent,
            aim: Aim::One,
            first_recipient: None,
        }
    }

    /// Everybody who is connected, by device: the senders first.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserId> {
        let senders = self.senders.iter().map(|(user, _)| user);
        // Recipients who are senders as well have a device already.
        let others = self.first_recipient.map(|first| {
            let known = self.senders.len() - first;
            self.recipients.iter().skip(known)
        });
        senders.chain(others.into_iter().flatten())
    }

    fn pairs(names: &mut Names, pairs: u32) -> Result<Self> {
        let (mut senders, mut recipients) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            let (from, to) = names.apart(pair as usize).context(TWO_SHARDS)?;
            senders.push((names.on(from), vec![pair]));
            recipients.push(names.on(to));
        }
        let first_recipient = Some(senders.len());
        Ok(Cast { senders, recipients: recipients.into(), aim: Aim::One, first_recipient })
    }

    /// Every one is sender and recipient.
    fn circle(names: &mut Names, users: u32) -> Result<Self> {
        let shards = names.shards();
        ensure!(shards.len() > 1, TWO_SHARDS);
        let at: Vec<_> = shards.into_iter().cycle().take(users as usize).collect();
        let all: Arc<[UserId]> = at.iter().map(|shard| names.on(*shard)).collect();
        let elsewhere = |here| {
            let others = (0..).zip(&at).filter(|(_, shard)| **shard != here);
            others.map(|(place, _)| place).collect::<Vec<u32>>()
        };
        let senders: Vec<_> =
            all.iter().zip(&at).map(|(user, shard)| (user.clone(), elsewhere(*shard))).collect();
        let lonely = senders.iter().any(|(_, others)| others.is_empty());
        ensure!(!lonely, "{users} users are not enough: some have nobody on another shard");
        Ok(Cast { senders, recipients: all, aim: Aim::One, first_recipient: Some(0) })
    }

    /// Every message goes to everybody.
    fn hall(names: &mut Names, senders: u32, recipients: u32) -> Self {
        let shards = names.shards().into_iter().cycle();
        let speakers: Vec<_> =
            shards.clone().take(senders as usize).map(|shard| names.on(shard)).collect();
        let audience = shards.take(recipients as usize).map(|shard| names.on(shard)).collect();
        let first_recipient = Some(speakers.len());
        let senders = speakers.into_iter().map(|user| (user, (0..recipients).collect()));
        Cast { senders: senders.collect(), recipients: audience, aim: Aim::All, first_recipient }
    }

    /// Every message of one member goes to all the others.
    fn group(names: &mut Names, members: u32) -> Self {
        let cast = Cast::hall(names, 1, members - 1);
        let group = GroupId::new(format!("group-of-{}", cast.senders[0].0));
        Cast { aim: Aim::Group(group.expect("a user's name is one for a group")), ..cast }
    }

    /// So many senders that one message of each reaches all.
    fn crowd(names: &mut Names, devices: u32) -> Self {
        let crowd = (0..devices).map(|_| names.anywhere().0).collect();
        let places: Vec<u32> = (0..devices).collect();
        let senders: Vec<_> =
            places.chunks(RECIPIENTS_MAX).map(|mine| (names.anywhere().0, mine.to_vec())).collect();
        let first_recipient = Some(senders.len());
        Cast { senders, recipients: crowd, aim: Aim::All, first_recipient }
    }

    fn strangers(names: &mut Names, senders: u32, users: u32, here: bool) -> Result<Self> {
        let crowd: Vec<_> = (0..users).map(|_| names.anywhere()).collect();
        let shards = names.shards().into_iter().cycle().take(senders as usize);
        let mut senders = Vec::new();
        for shard in shards {
            let places = (0..).zip(&crowd).filter(|(_, (_, at))| (*at == shard) == here);
            let mine: Vec<u32> = places.map(|(place, _)| place).collect();
            let where_ = if here { "on" } else { "outside of" };
            ensure!(!mine.is_empty(), "none of {users} users is {where_} shard {shard}");
            senders.push((names.on(shard), mine));
        }
        let recipients = crowd.into_iter().map(|(user, _)| user).collect();
        Ok(Cast { senders, recipients, aim: Aim::One, first_recipient: None })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidemark_types::routing::ShardCount;
    use tidemark_types::{Id, ShardId};

    use super::*;

    const SCALE: Scale = Scale { senders: 64, in_flight: 16, seconds: 10, rate: 1_000 };

    fn shards(count: u16) -> ShardCount {
        ShardCount::new(count).expect("a test's own constant")
    }

    fn names(count: u16) -> Names {
        Names::new(shards(count), "t")
    }

    fn cast(recipients: Recipients, settings: &Settings) -> Cast {
        Cast::draw(recipients, &mut names(8), &SCALE, settings).expect("8 shards, many users")
    }

    fn shard(user: &UserId) -> ShardId {
        shards(8).shard_of(&Id::User(user.clone()))
    }

    /// Of every sender and each of its recipients, the shards.
    fn ways(cast: &Cast) -> Vec<(ShardId, ShardId)> {
        let all = cast.senders.iter().flat_map(|(sender, mine)| {
            mine.iter().map(|place| (shard(sender), shard(&cast.recipients[*place as usize])))
        });
        all.collect()
    }

    /// Every recipient who is online has the device that the cast says.
    fn check_devices(cast: &Cast, count: usize) {
        let users: Vec<_> = cast.users().collect();
        assert_eq!(users.len(), count);
        assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), count, "nobody is in it twice");
        for ((sender, _), user) in cast.senders.iter().zip(&users) {
            assert_eq!(&sender, user);
        }
        let Some(first) = cast.first_recipient else { return };
        for (recipient, user) in cast.recipients.iter().zip(&users[first..]) {
            assert_eq!(&recipient, user);
        }
        assert_eq!(cast.recipients.len(), count - first);
    }

    #[test]
    fn a_pair_is_apart_and_nobody_is_in_two() {
        let cast = cast(Recipients::Online, &Settings::defaults());
        assert!(ways(&cast).iter().all(|(from, to)| from != to));
        check_devices(&cast, 128);
        let places: Vec<_> = cast.senders.iter().flat_map(|(_, mine)| mine.clone()).collect();
        assert_eq!(places, (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn append_stays_on_a_shard_and_send_leaves_it() {
        let settings = Settings { users: 500, ..Settings::defaults() };
        let here = cast(Recipients::OfflineHere, &settings);
        check_devices(&here, 64);
        assert!(ways(&here).iter().all(|(from, to)| from == to));
        let elsewhere = cast(Recipients::OfflineElsewhere, &settings);
        assert!(ways(&elsewhere).iter().all(|(from, to)| from != to));
        // Every sender reaches all users there are on its side.
        assert_eq!(ways(&here).len() + ways(&elsewhere).len(), 64 * 500);
    }

    #[test]
    fn in_a_circle_everybody_may_write_to_all_on_other_shards() {
        let cast = cast(Recipients::EachOther, &Settings::defaults());
        check_devices(&cast, 64);
        assert!(ways(&cast).iter().all(|(from, to)| from != to));
        assert_eq!(ways(&cast).len(), 64 * 56);
    }

    #[test]
    fn in_a_hall_every_message_reaches_everybody_on_all_shards() {
        let cast = cast(Recipients::Everyone, &Settings::defaults());
        check_devices(&cast, 64 + 256);
        assert_eq!(cast.aim, Aim::All);
        assert!(cast.senders.iter().all(|(_, mine)| mine.len() == 256));
        let live: BTreeSet<_> = cast.recipients.iter().map(shard).collect();
        assert_eq!(live.len(), 8);
    }

    #[test]
    fn a_group_is_one_sender_and_all_the_others() {
        let settings = Settings { members: 500, ..Settings::defaults() };
        let cast = cast(Recipients::Group, &settings);
        check_devices(&cast, 500);
        assert_eq!((cast.senders.len(), cast.senders[0].1.len()), (1, 499));
        assert!(matches!(cast.aim, Aim::Group(_)));
    }

    #[test]
    fn one_message_of_each_sender_reaches_a_whole_crowd_once() {
        let settings = Settings { devices: 600, ..Settings::defaults() };
        let cast = cast(Recipients::Idle, &settings);
        check_devices(&cast, 3 + 600);
        let places: Vec<_> = cast.senders.iter().flat_map(|(_, mine)| mine.clone()).collect();
        assert_eq!(places, (0..600).collect::<Vec<_>>());
        assert!(cast.senders.iter().all(|(_, mine)| mine.len() <= RECIPIENTS_MAX));
    }

    #[test]
    fn the_absent_are_written_to_from_their_own_shard_by_as_many_each() {
        let cast = Cast::absent(&mut names(8), 16, 3);
        check_devices(&cast, 16);
        assert!(ways(&cast).iter().all(|(from, to)| from == to));
        let of = |place| cast.senders.iter().filter(|(_, mine)| *mine == [place]).count();
        assert_eq!([of(0), of(1), of(2)], [6, 5, 5]);
    }

    #[test]
    fn a_cluster_that_is_too_small_is_named() {
        let refused = |recipients, count, settings: &Settings| {
            let drawn = Cast::draw(recipients, &mut names(count), &SCALE, settings);
            drawn.err().map(|error| error.to_string())
        };
        let one = Settings { users: 1, ..Settings::defaults() };
        for recipients in [Recipients::Online, Recipients::EachOther] {
            assert!(refused(recipients, 1, &one).is_some_and(|it| it.contains("two shards")));
        }
        let found = refused(Recipients::OfflineHere, 8, &one);
        assert!(found.is_some_and(|it| it.contains("none of 1 users")));
    }
}

//! A gateway's stream: it registers users at the leaders of their shards, and hears of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidemark_mutants::{Mutant, is};
use tidemark_proto::store::v1::{
    Appended, Beat, Head, MailboxHead, NotLeading, PresenceNow, PresenceOf, Registered, ShardPairs,
    ShardUsers, Typing, Unseated, WatchRequest, WatchUpdate,
};
use tidemark_proto::{Failure, convert, v1};
use tidemark_store_core::devices::{self, Seat};
use tidemark_store_core::read;
use tidemark_types::{ErrorCode, Recipient, ShardId, UserId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::{Status, Streaming};

use super::presence::present;
use crate::metrics;
use crate::node::Node;
use crate::shard::Shard;
use crate::watch::{News, Watcher};

/// Between two beats.
const BEAT: Duration = Duration::from_millis(500);

/// A leader that heard from a majority within this time beats.
const QUORUM_FRESH: Duration = Duration::from_secs(1);

/// Registrations of one stream that are not answered yet; no more are read until some are.
const OPEN_MAX: usize = 64;

/// Users of one registration; a gateway sends several.
const USERS_MAX: usize = 4_096;

/// One gateway's stream.
pub(super) struct WatchStream {
    node: Arc<Node>,
    watcher: Arc<Watcher>,
    /// The shards with registrations, and the term in which they were made.
    held: BTreeMap<ShardId, u64>,
}

impl WatchStream {
    pub(super) fn new(node: Arc<Node>) -> Self {
        metrics::watch_stream(true);
        WatchStream { node, watcher: Arc::default(), held: BTreeMap::new() }
    }

    /// Serves until the gateway goes, or says what makes no sense.
    pub(super) async fn serve(
        mut self,
        mut requests: Streaming<WatchRequest>,
        updates: mpsc::Sender<Result<WatchUpdate, Status>>,
    ) {
        let mut registering = FuturesUnordered::<BoxFuture<'static, WatchUpdate>>::new();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watcher = self.watcher.clone();
        loop {
            let update = tokio::select! {
                request = requests.message(), if registering.len() < OPEN_MAX => match request {
                    Ok(Some(request)) => match self.take(request) {
                        Ok(answers) => {
                            registering.extend(answers);
                            continue;
                        }
                        Err(failure) => {
                            // The gateway has gone, or reads why it is sent away.
                            let _ = updates.send(Err(failure.into())).await;
                            return;
                        }
                    },
                    Ok(None) | Err(_) => return,
                },
                Some(answer) = registering.next() => answer,
                news = watcher.news() => self.told(news),
                _ = beat.tick() => self.beat(),
            };
            if updates.send(Ok(update)).await.is_err() {
                return;
            }
        }
    }

    /// Does what a request asks; the answers to come.
    fn take(
        &mut self,
        request: WatchRequest,
    ) -> Result<Vec<BoxFuture<'static, WatchUpdate>>, Failure> {
        for ShardUsers { shard, users } in request.unregister {
            let number = self.number(shard)?;
            self.node.hub().unregister(number, &self.users(number, users)?, &self.watcher);
        }
        for ShardPairs { shard, pairs } in request.unfollow {
            let number = self.number(shard)?;
            self.node.hub().unfollow(number, &self.pairs(number, pairs)?, &self.watcher);
        }
        let mut answers = Vec::new();
        for ShardPairs { shard, pairs } in request.follow {
            let number = self.number(shard)?;
            let pairs = self.pairs(number, pairs)?;
            let before = self.held.get(&number).copied();
            let Some((term, _)) = self.hold(number) else {
                answers.push(self.refused(number));
                continue;
            };
            if before != Some(term) {
                // What was registered in an older term is gone: the gateway must hear of the new one.
                answers.push(self.register(number, Vec::new()));
            }
            let refused = self.node.hub().follow(number, pairs, &self.watcher);
            if !refused.is_empty() {
                answers.push(Box::pin(std::future::ready(not_followed(refused))));
            }
        }
        for ShardUsers { shard, users } in request.register {
            let number = self.number(shard)?;
            let users = self.users(number, users)?;
            answers.push(self.register(number, users));
        }
        Ok(answers)
    }

    fn number(&self, shard: u32) -> Result<ShardId, Failure> {
        let shards = self.node.identity().shards().get();
        let number = u16::try_from(shard).ok().filter(|number| *number < shards);
        number.map(ShardId::new).ok_or_else(|| {
            Failure::new(ErrorCode::WrongShard).message(format!("there is no shard {shard}"))
        })
    }

    /// The users, all of whom must live on the shard (R8).
    fn users(&self, shard: ShardId, names: Vec<String>) -> Result<Vec<UserId>, Failure> {
        if names.len() > USERS_MAX {
            let text = format!("users: {} at once, at most {USERS_MAX}", names.len());
            return Err(Failure::new(ErrorCode::Invalid).message(text));
        }
        let user = |name: String| {
            let user: UserId = convert::name("users", &name)?;
            let lives_on = self.node.shard_number(&tidemark_types::Id::User(user.clone()));
            match lives_on == shard {
                true => Ok(user),
                false => Err(Failure::new(ErrorCode::WrongShard)
                    .message(format!("user {user} lives on shard {lives_on}, not on {shard}"))),
            }
        };
        names.into_iter().map(user).collect()
    }

    /// About whom, who must live on the shard, and for whom.
    fn pairs(
        &self,
        shard: ShardId,
        pairs: Vec<PresenceOf>,
    ) -> Result<Vec<(UserId, UserId)>, Failure> {
        let (users, by): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(|PresenceOf { user, by }| (user, by)).unzip();
        let users = self.users(shard, users)?;
        let by = by.iter().map(|by| convert::name::<UserId>("by", by));
        users.into_iter().zip(by).map(|(user, by)| Ok((user, by?))).collect()
    }

    /// Takes registrations of a shard that this node leads, all of one term; that term and the shard.
    fn hold(&mut self, number: ShardId) -> Option<(u64, Shard)> {
        let shard = self.node.hosted().shard(number).cloned()?;
        let term = shard.group().leads()?;
        if self.held.insert(number, term) != Some(term) {
            self.node.hub().forget(number, &self.watcher);
        }
        Some((term, shard))
    }

    fn refused(&mut self, number: ShardId) -> BoxFuture<'static, WatchUpdate> {
        Box::pin(std::future::ready(self.not_leading(number)))
    }

    /// Registers users, and reads where their mailboxes stand afterwards.
    fn register(&mut self, number: ShardId, users: Vec<UserId>) -> BoxFuture<'static, WatchUpdate> {
        let Some((term, shard)) = self.hold(number) else { return self.refused(number) };
        let late = is(Mutant::RegisterAfterRead);
        if !late {
            self.node.hub().register(number, &users, &self.watcher);
        }
        let (node, watcher) = (self.node.clone(), self.watcher.clone());
        Box::pin(async move {
            let before = if late { heads_now(&shard, &users) } else { BTreeMap::new() };
            match heads(&shard, users, term).await {
                Some(mailboxes) => {
                    if late {
                        let same =
                            mailboxes.iter().filter(|now| before.get(&now.user) == Some(&now.head));
                        let quiet: Vec<UserId> =
                            same.filter_map(|now| now.user.parse().ok()).collect();
                        node.hub().register(number, &quiet, &watcher);
                    }
                    let shard = u32::from(number.get());
                    let registered = vec![Registered { shard, term, mailboxes }];
                    WatchUpdate { registered, ..WatchUpdate::default() }
                }
                None => not_leading(number, Some(&shard)),
            }
        })
    }

    /// What is said twice a second: which shards it still leads. Registrations at the others end.
    fn beat(&mut self) -> WatchUpdate {
        let mut update = WatchUpdate::default();
        for (number, term) in self.held.clone() {
            let Some(shard) = self.node.hosted().shard(number) else { continue };
            if shard.group().leads() != Some(term) {
                update.not_leading.extend(self.not_leading(number).not_leading);
            } else if shard.group().hears_quorum(QUORUM_FRESH) {
                update.beats.push(Beat { shard: u32::from(number.get()), term });
            }
        }
        update
    }

    /// What is new, and how those are now who may have come or gone.
    fn told(&self, mut news: News) -> WatchUpdate {
        let moved = std::mem::take(&mut news.moved);
        let presence = moved.into_iter().filter_map(|(user, by)| self.now(&user, &by)).collect();
        WatchUpdate { presence, ..told(news) }
    }

    /// Nothing, where the node does not lead any more or its state cannot be read: that is seen elsewhere.
    fn now(&self, user: &UserId, by: &UserId) -> Option<PresenceNow> {
        let number = self.node.shard_number(&tidemark_types::Id::User(user.clone()));
        let shard = self.node.hosted().shard(number)?;
        shard.group().leads()?;
        let present = present(self.node.hub(), (number, shard), user, Some(by)).ok()?;
        let of = PresenceOf { user: user.to_string(), by: by.to_string() };
        Some(PresenceNow { of: Some(of), present: Some(present), ..PresenceNow::default() })
    }

    fn not_leading(&mut self, number: ShardId) -> WatchUpdate {
        if self.held.remove(&number).is_some() {
            self.node.hub().forget(number, &self.watcher);
        }
        not_leading(number, self.node.hosted().shard(number))
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        metrics::watch_stream(false);
        for shard in self.held.keys() {
            self.node.hub().forget(*shard, &self.watcher);
        }
    }
}

/// Where the mailboxes stand, if the shard is led in `term` all along. Without users it is a
/// question, and takes a round to a majority too: the answer counts as a beat (R15).
async fn heads(shard: &Shard, users: Vec<UserId>, term: u64) -> Option<Vec<MailboxHead>> {
    let look = |state: &dyn tidemark_store_core::Read| {
        let head = |user: UserId| {
            let mailbox = read::mailbox(state, &Recipient::User(user.clone()))?;
            let (last_number, seats) = devices::seats(state, &user)?;
            Ok::<_, tidemark_store_core::Fatal>(MailboxHead {
                user: user.to_string(),
                epoch: mailbox.epoch.get(),
                floor: mailbox.floor.get(),
                head: mailbox.head.get(),
                seats: seats.into_iter().map(seat).collect(),
                last_number,
            })
        };
        users.into_iter().map(head).collect::<Result<Vec<_>, _>>()
    };
    let heads = shard.read(look).await.ok()?.ok()?;
    (shard.group().leads() == Some(term)).then_some(heads)
}

/// Which of a device's connections have ended.
fn seat(Seat { device, below, code }: Seat) -> Unseated {
    let code = v1::ErrorCode::from(code).into();
    Unseated { user: String::new(), device: device.to_string(), below, code }
}

/// Where the mailboxes stand here, for [`Mutant::RegisterAfterRead`].
fn heads_now(shard: &Shard, users: &[UserId]) -> BTreeMap<String, u32> {
    let head = |user: &UserId| {
        let mailbox = shard.peek(|state| read::mailbox(state, &Recipient::User(user.clone())));
        Some((user.to_string(), mailbox.ok()?.head.get()))
    };
    users.iter().filter_map(head).collect()
}

fn not_leading(number: ShardId, shard: Option<&Shard>) -> WatchUpdate {
    let leader = shard.and_then(|shard| shard.group().status().leader);
    let leader = leader.map(|leader| leader.address).unwrap_or_default();
    let not_leading = vec![NotLeading { shard: u32::from(number.get()), leader }];
    WatchUpdate { not_leading, ..WatchUpdate::default() }
}

/// So many follow these that nobody else may.
fn not_followed(pairs: Vec<(UserId, UserId)>) -> WatchUpdate {
    let refused = v1::ErrorCode::from(ErrorCode::Overloaded).into();
    let presence = pairs.into_iter().map(|(user, by)| PresenceNow {
        of: Some(PresenceOf { user: user.to_string(), by: by.to_string() }),
        refused,
        ..PresenceNow::default()
    });
    WatchUpdate { presence: presence.collect(), ..WatchUpdate::default() }
}

fn told(news: News) -> WatchUpdate {
    let appended = news.appended.into_iter().map(|(user, seq, entry)| Appended {
        user: user.to_string(),
        seq: seq.get(),
        entry,
    });
    let heads = news.heads.into_iter();
    let heads = heads.map(|(user, head)| Head { user: user.to_string(), head: head.get() });
    let unseated = news.unseated.into_iter();
    let unseated = unseated.map(|((user, device), (below, code))| Unseated {
        user: user.to_string(),
        device: device.to_string(),
        below,
        code: v1::ErrorCode::from(code).into(),
    });
    let typing = news.typing.into_iter();
    let typing = typing.map(|((user, by), typing)| Typing {
        user: user.to_string(),
        by: by.to_string(),
        typing,
    });
    WatchUpdate {
        typing: typing.collect(),
        appended: appended.collect(),
        heads: heads.collect(),
        unseated: unseated.collect(),
        ..WatchUpdate::default()
    }
}

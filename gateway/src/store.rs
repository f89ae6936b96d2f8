//! What the gateway asks of the store: the seam behind which tests and the simulation put a
//! state machine of their own.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidemark_proto::store::v1::{Postponed, StatusResponse};
use tidemark_store_client::{Attempt, Client, Error, Present, WatchEvent};
use tidemark_store_core::hints::Hint;
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::ClusterMap;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{NodeId, ShardId, UserId};
use tokio::sync::mpsc;

/// The store, as the gateway sees it.
pub trait Store: Send + Sync + 'static {
    /// The cluster's map.
    fn map(&self) -> &ClusterMap;

    /// Proposes a command until there is a reply or the store client's deadline passes.
    fn command(&self, command: Command) -> BoxFuture<'static, Result<Reply, Error>>;

    /// Asks the leader of the shard that can answer.
    fn query(&self, query: Query) -> BoxFuture<'static, Result<Answer, Error>>;

    /// Makes one attempt at a command, and answers with the reply to come. What one caller
    /// submits, awaiting the outer future each time, reaches its shard in that order.
    fn submit(&self, command: Command) -> BoxFuture<'static, Result<PendingReply, Attempt>>;

    /// Starts watching mailboxes; once per gateway.
    fn watch(&self) -> (Box<dyn Watch>, mpsc::Receiver<WatchEvent>);

    /// Leases up to `max` hints of shards that `node` leads, and tells it of some that could not be
    /// delivered (R18).
    fn lease_hints(
        &self,
        node: NodeId,
        max: u32,
        postponed: Vec<Postponed>,
    ) -> BoxFuture<'static, Result<Vec<Hint>, Error>>;

    /// Tells a user that `by` types, or has stopped; once, and perhaps not.
    fn typing(
        &self,
        user: UserId,
        by: UserId,
        typing: bool,
    ) -> BoxFuture<'static, Result<(), Error>>;

    /// Asks whether a user is there, for `by`.
    fn presence(
        &self,
        user: UserId,
        by: Option<UserId>,
    ) -> BoxFuture<'static, Result<Present, Error>>;

    /// Waits until a shard's feed has a record after `after`, a second or `within` at most; has it? A hint.
    fn await_feed(
        &self,
        shard: ShardId,
        after: u64,
        within: Duration,
    ) -> BoxFuture<'static, Result<bool, Error>>;

    /// How the groups stand, as `node` sees them, without `outbox_bytes`.
    fn status(&self, node: NodeId) -> BoxFuture<'static, Result<StatusResponse, Error>>;

    /// Moves a group's leadership from `from` to `to`; the term in which it leads then.
    fn transfer_leader(
        &self,
        group: u32,
        from: NodeId,
        to: NodeId,
    ) -> BoxFuture<'static, Result<u64, Error>>;
}

/// The outcome of one attempt.
pub type PendingReply = BoxFuture<'static, Result<Reply, Attempt>>;

/// Which users' mailboxes are watched (R15).
pub trait Watch: Send + Sync {
    /// Watches a user's mailbox from now on: a [`WatchEvent::Registered`] follows, and then every
    /// append. Nothing happens if it is watched already.
    fn register(&self, user: UserId);

    /// Watches it no longer.
    fn unregister(&self, user: &UserId);

    /// Hears from now on, for `by`, whether a user is there: a [`WatchEvent::Presence`] follows, and then
    /// one whenever it may have changed.
    fn follow(&self, user: UserId, by: UserId);

    /// Hears of it no longer.
    fn unfollow(&self, user: &UserId, by: &UserId);

    /// May what was heard of the user's head be used? The leader beats (R15).
    fn is_live(&self, user: &UserId) -> bool;
}

impl Store for Client {
    fn map(&self) -> &ClusterMap {
        Client::map(self)
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Reply, Error>> {
        let client = self.clone();
        Box::pin(async move { client.command(&command).await })
    }

    fn query(&self, query: Query) -> BoxFuture<'static, Result<Answer, Error>> {
        let client = self.clone();
        Box::pin(async move { client.query(&query).await })
    }

    fn submit(&self, command: Command) -> BoxFuture<'static, Result<PendingReply, Attempt>> {
        let client = self.clone();
        Box::pin(async move {
            let pending = client.submit(&command).await?;
            Ok(pending.reply().boxed())
        })
    }

    fn watch(&self) -> (Box<dyn Watch>, mpsc::Receiver<WatchEvent>) {
        let (watch, events) = Client::watch(self);
        (Box::new(watch), events)
    }

    fn lease_hints(
        &self,
        node: NodeId,
        max: u32,
        postponed: Vec<Postponed>,
    ) -> BoxFuture<'static, Result<Vec<Hint>, Error>> {
        let client = self.clone();
        Box::pin(async move { client.lease_hints(node, max, postponed).await })
    }

    fn typing(
        &self,
        user: UserId,
        by: UserId,
        typing: bool,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let client = self.clone();
        Box::pin(async move {
            let told = client.typing(&user, &by, typing).await;
            told.map_err(|failed| Error::Unavailable(failed.to_string()))
        })
    }

    fn presence(
        &self,
        user: UserId,
        by: Option<UserId>,
    ) -> BoxFuture<'static, Result<Present, Error>> {
        let client = self.clone();
        Box::pin(async move { client.presence(&user, by.as_ref()).await })
    }

    fn await_feed(
        &self,
        shard: ShardId,
        after: u64,
        within: Duration,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        let client = self.clone();
        Box::pin(async move {
            let grown = client.await_feed(shard, after, within).await;
            grown.map_err(|failed| Error::Unavailable(failed.to_string()))
        })
    }

    fn status(&self, node: NodeId) -> BoxFuture<'static, Result<StatusResponse, Error>> {
        let client = self.clone();
        Box::pin(async move { client.brief_status(node).await })
    }

    fn transfer_leader(
        &self,
        group: u32,
        from: NodeId,
        to: NodeId,
    ) -> BoxFuture<'static, Result<u64, Error>> {
        let client = self.clone();
        Box::pin(async move { client.transfer_leader(group, from, to).await })
    }
}

impl Watch for tidemark_store_client::Watch {
    fn register(&self, user: UserId) {
        tidemark_store_client::Watch::register(self, user);
    }

    fn unregister(&self, user: &UserId) {
        tidemark_store_client::Watch::unregister(self, user);
    }

    fn follow(&self, user: UserId, by: UserId) {
        tidemark_store_client::Watch::follow(self, user, by);
    }

    fn unfollow(&self, user: &UserId, by: &UserId) {
        tidemark_store_client::Watch::unfollow(self, user, by);
    }

    fn is_live(&self, user: &UserId) -> bool {
        tidemark_store_client::Watch::is_live(self, user)
    }
}

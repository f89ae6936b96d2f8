//! etcd: a key per message, under a prefix per user.
//!
//! Stored: puts of new keys. Inboxes: a watched prefix per user, and a cursor of each user that is put
//! once a second. etcd keeps no order among puts that are under way at once, so that there is no work
//! here with more than one of a sender in flight where order counts.
//!
//! Connections go over all nodes in turn: no one node is better, since all of them apply every put.

pub(crate) mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use crate::ledger::Ledger;
use crate::meter::Phase;
use crate::peers::etcd::wire::{Connection, Failed, WatchResponse, watch_request};
use crate::peers::ground::{Ground, NODES};
use crate::peers::intake::{Intake, POSITION_EVERY, Read, ticks};
use crate::peers::load::{Ack, Books, Clients, Desk, Fault, Letter, Load, Made, Peer, Work, Write};
use crate::peers::provision::{Missing, Unpacked};
use crate::peers::servers::{Program, Servers};

/// How long a cluster may take to take a put.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections of a load that is not an inbox's.
const CONNECTIONS: usize = 6;

/// Calls under way at once.
const CALLS: usize = 32;

/// Users report their positions in so many turns within [`POSITION_EVERY`], as independent ones do.
const TURNS: u32 = 10;

/// Prefixes: of users' messages, of users' cursors, and the key of [`Peer::probe`].
const USERS: &str = "u/";
const CURSORS: &str = "c/";
const PROBE: &str = "probe";

/// A cluster.
pub(crate) struct Etcd {
    servers: Servers,
    /// Of each node, in their order.
    ports: Vec<u16>,
}

impl Etcd {
    /// Starts a cluster.
    pub(crate) async fn start(ground: &Ground, unpacked: &Unpacked) -> Result<Self> {
        let program = program(unpacked)?;
        let (ports, peers) = (ground.ports(0)?, ground.ports(1)?);
        let mut servers = Servers::default();
        for node in 1..=NODES {
            let place = usize::from(node - 1);
            let arguments = arguments(node, ports[place], peers[place], &peers);
            servers.start(
                &ground.node(node),
                Program {
                    name: format!("etcd-{node}"),
                    path: program.clone(),
                    arguments,
                    environment: Vec::new(),
                    measured: true,
                },
            )?;
        }
        for port in &ports {
            let put = servers.until("a put in etcd", START_TIMEOUT, async || {
                Ok(Connection::open(*port).await?.put(PROBE.into(), Bytes::new()).await?)
            });
            put.await?;
        }
        Ok(Etcd { servers, ports })
    }

    /// A connection, to the node whose turn it is.
    async fn connection(&self, turn: usize) -> Result<Connection> {
        Connection::open(self.ports[turn % self.ports.len()]).await
    }
}

impl Peer for Etcd {
    type Writer = Writer;

    fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    fn into_servers(self) -> Servers {
        self.servers
    }

    async fn prepare(&self, load: &Load, made: &Made) -> Result<()> {
        // A prefix needs no making.
        if load.work == Work::Inboxes {
            (0..load.recipients()).for_each(|_| made.one());
        }
        Ok(())
    }

    async fn connect(&self, load: &Load, desk: &Arc<Desk>) -> Result<Clients<Writer>> {
        let count = match load.work {
            Work::Stored { .. } => CONNECTIONS,
            Work::Inboxes => load.connections as usize,
            Work::Shared => bail!("etcd keeps no order of puts that are in flight at once"),
        };
        ensure!(load.work != Work::Inboxes || load.in_flight == 1, "one in flight keeps its order");
        let connections = stream::iter(0..count).map(|turn| self.connection(turn));
        let connections: Vec<_> = connections.buffered(CALLS).try_collect().await?;
        let place = |index: u32| index as usize % connections.len();
        let writers = (0..load.senders)
            .map(|sender| Writer { connection: connections[place(sender)].clone() })
            .collect();
        let mut readers = JoinSet::new();
        if load.is_read() {
            for (at, connection) in connections.iter().enumerate() {
                let users = (0..load.recipients()).filter(|user| place(*user) == at);
                let users: Vec<u32> = users.collect();
                let reader = Reader::new(connection.clone(), users, desk).await?;
                readers.spawn(reader.run(desk.clone()));
            }
        }
        Ok(Clients { writers, readers, connections: connections.len() })
    }

    async fn audit(&self, books: &Books<'_>, ledger: &mut Ledger) -> Result<()> {
        let connection = self.connection(0).await?;
        if let Work::Stored { .. } = books.load.work {
            // Every message has a key of its own: as many keys are all of them.
            let sent: u64 = books.sent.iter().sum();
            let has = u64::try_from(connection.count(USERS).await?)?;
            ledger.delivered = has;
            ledger.lost += sent.saturating_sub(has);
            ledger.duplicated += has.saturating_sub(sent);
            return Ok(());
        }
        let cursors = connection.all(CURSORS).await?.into_iter().map(|cursor| {
            let user = user_of(&cursor.key, CURSORS).context("a cursor's key")?;
            let revision: [u8; 8] = cursor.value.as_ref().try_into().context("a cursor")?;
            Ok((user, u64::from_be_bytes(revision)))
        });
        let cursors: BTreeMap<u32, u64> = cursors.collect::<Result<_>>()?;
        for (user, position) in books.read.iter().flat_map(|read| &read.positions) {
            ledger.unconfirmed += u64::from(cursors.get(user) != Some(position));
        }
        ledger.confirmed = if ledger.unconfirmed == 0 { ledger.delivered } else { 0 };
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        for turn in 0..self.ports.len() {
            self.connection(turn).await?.put(PROBE.into(), Bytes::new()).await?;
        }
        Ok(())
    }
}

/// One sender's puts.
pub(crate) struct Writer {
    connection: Connection,
}

impl Write for Writer {
    async fn write(&mut self, letter: Letter) -> Result<Ack, Fault> {
        let Letter { sender, to, k, body } = letter;
        let key = format!("{USERS}{to}/{sender}/{k}");
        let connection = self.connection.clone();
        Ok(async move { connection.put(key.into(), body).await.map_err(Fault::ack) }.boxed())
    }
}

/// The watches of one connection's users.
struct Reader {
    connection: Connection,
    events: BoxStream<'static, Result<WatchResponse, Failed>>,
    intake: Intake,
    /// How far each user has read, and what was put of it.
    read: BTreeMap<u32, u64>,
    put: BTreeMap<u32, u64>,
}

impl Reader {
    /// Watches for these users; what is put afterwards is seen.
    async fn new(connection: Connection, users: Vec<u32>, desk: &Arc<Desk>) -> Result<Self> {
        let count = users.len();
        let requests: Vec<_> =
            users.iter().map(|user| watch_request(&format!("{USERS}{user}/"))).collect();
        // The stream of requests stays open: with its end the watches would end.
        let requests = stream::iter(requests).chain(stream::pending());
        let mut events = connection.watch(requests).await?;
        for _ in 0..count {
            let answer = events.try_next().await?.context("etcd ended a watch")?;
            ensure!(answer.created && !answer.canceled, "no watch: {}", answer.cancel_reason);
        }
        let intake = Intake::new(desk.clone(), users);
        let (read, put) = (BTreeMap::new(), BTreeMap::new());
        Ok(Reader { connection, events, intake, read, put })
    }

    async fn run(mut self, desk: Arc<Desk>) -> Read {
        let ended = self.serve(&desk).await;
        let positions = std::mem::take(&mut self.read);
        Read { positions, ..self.intake.leave(ended) }
    }

    async fn serve(&mut self, desk: &Desk) -> Result<(), Fault> {
        let mut phases = desk.meter.phases();
        let mut puts = FuturesUnordered::<Ack>::new();
        let mut ticks = ticks(POSITION_EVERY / TURNS);
        let mut turn = 0;
        loop {
            tokio::select! {
                answer = self.events.next() => {
                    let answer = answer.ok_or_else(|| Fault::read("the watch has ended"))?;
                    self.take(answer.map_err(Fault::read)?)?;
                }
                Some(put) = puts.next() => { let () = put?; }
                _ = ticks.tick() => {
                    turn = (turn + 1) % TURNS;
                    puts.extend(self.cursors(|user| user % TURNS == turn));
                }
                Ok(()) = phases.changed() => {
                    if *phases.borrow_and_update() == Phase::Finish {
                        // One after the other for each user, so that the last one stays.
                        while puts.next().await.transpose()?.is_some() {}
                        puts.extend(self.cursors(|_| true));
                        while puts.next().await.transpose()?.is_some() {}
                        return Ok(());
                    }
                }
            }
        }
    }

    fn take(&mut self, answer: WatchResponse) -> Result<(), Fault> {
        if answer.canceled {
            return Err(Fault::read(answer.cancel_reason));
        }
        for kv in answer.events.into_iter().filter_map(|event| event.kv) {
            let user = user_of(&kv.key, USERS);
            self.intake.take(user, &kv.value)?;
            let revision = u64::try_from(kv.mod_revision).map_err(Fault::read)?;
            self.read.extend(user.map(|user| (user, revision)));
        }
        Ok(())
    }

    /// Puts the cursors of these users that have moved.
    fn cursors(&mut self, whose: impl Fn(u32) -> bool) -> Vec<Ack> {
        let Reader { read, put, .. } = self;
        let moved = read.iter().filter(|(user, to)| whose(**user) && put.get(user) != Some(to));
        let moved: Vec<(u32, u64)> = moved.map(|(user, to)| (*user, *to)).collect();
        put.extend(moved.iter().copied());
        let puts = moved.into_iter().map(|(user, revision)| {
            let connection = self.connection.clone();
            let key = Bytes::from(format!("{CURSORS}{user}/"));
            let value = Bytes::copy_from_slice(&revision.to_be_bytes());
            async move { connection.put(key, value).await.map_err(Fault::read) }.boxed()
        });
        puts.collect()
    }
}

/// Whose key it is: what stands between the prefix and the next slash.
fn user_of(key: &[u8], prefix: &str) -> Option<u32> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    rest.split_once('/')?.0.parse().ok()
}

fn program(unpacked: &Unpacked) -> Result<PathBuf, Missing> {
    unpacked.file("etcd-server", "usr/bin/etcd")
}

/// What is said of a cluster in the report.
pub(crate) fn configuration() -> String {
    format!("defaults; {CONNECTIONS} connections over the three nodes; a key per message")
}

fn arguments(node: u16, port: u16, peer: u16, peers: &[u16]) -> Vec<String> {
    let name = |node: u16| format!("e{node}");
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let members: Vec<_> =
        (1..).zip(peers).map(|(node, port)| format!("{}={}", name(node), url(*port))).collect();
    let options = [
        ("--name", name(node)),
        ("--data-dir", "data".to_owned()),
        ("--listen-client-urls", url(port)),
        ("--advertise-client-urls", url(port)),
        ("--listen-peer-urls", url(peer)),
        ("--initial-advertise-peer-urls", url(peer)),
        ("--initial-cluster", members.join(",")),
        ("--initial-cluster-state", "new".to_owned()),
        ("--log-level", "warn".to_owned()),
    ];
    options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_in_its_keys() {
        assert_eq!(user_of(b"u/42/7/1", USERS), Some(42));
        assert_eq!(user_of(b"c/42/", CURSORS), Some(42));
        assert_eq!(user_of(b"probe", USERS), None);
        assert_eq!(user_of(b"u/x/7/1", USERS), None);
    }

    #[test]
    fn members_know_each_other_by_name() {
        let arguments = arguments(2, 9, 12, &[11, 12, 13]);
        let members = "e1=http://127.0.0.1:11,e2=http://127.0.0.1:12,e3=http://127.0.0.1:13";
        assert!(arguments.contains(&members.to_owned()));
        assert_eq!(arguments[1], "e2");
    }
}

//! NATS JetStream: one stream of three replicas in files, a subject per user.
//!
//! Stored: publishes and their acknowledgements. Shared: one push consumer over all subjects, on one
//! server, its position reported by the last message (ack-all); that is the cheapest consumer that
//! acknowledges. Inboxes: a durable push consumer of three replicas per user, ack-all, once a second.
//!
//! All connections go to the node that leads the stream, where an acknowledgement is cheapest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::consumer::{AckPolicy, Info, push};
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::{Client, ConnectOptions, Message, Subject, Subscriber};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::ledger::Ledger;
use crate::meter::Phase;
use crate::peers::ground::{Ground, NODES};
use crate::peers::intake::{Intake, POSITION_EVERY, Read, ticks};
use crate::peers::load::{Ack, Books, Clients, Desk, Fault, Letter, Load, Made, Peer, Work, Write};
use crate::peers::provision::{Missing, NATS_PACKAGE, Unpacked, nats_program};
use crate::peers::servers::{Program, Servers};

/// How long a cluster may take to take a message.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call may take, and an acknowledgement: longer than an election.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the last positions may take to be known.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stream, and the subjects of users and of [`Peer::probe`].
const STREAM: &str = "S";
const SUBJECTS: &str = "S.>";
const USERS: &str = "S.u.";
const PROBE: &str = "S.probe";

/// Connections of a load that is not an inbox's, for writing; reading has one of its own.
const CONNECTIONS: usize = 4;

/// What the shared consumer has on its way without an acknowledgement, and how many messages it
/// reports at once: its queue in the client, which drops what does not fit, is larger than the first,
/// and the second is small enough never to hold it up.
const SHARED_PENDING_MAX: i64 = 49_152;
const SHARED_ACK_EVERY: usize = 8_192;
const SUBSCRIPTION_MESSAGES: usize = 65_536;

/// How long the shared consumer is kept without a reader: until it was asked for its position.
const SHARED_KEPT: Duration = Duration::from_secs(600);

/// What one user has on its way without an acknowledgement.
const INBOX_PENDING_MAX: i64 = 16_384;

/// Messages that are read at once.
const BATCH: usize = 256;

/// Calls under way at once.
const CALLS: usize = 32;

const _: () = assert!((SHARED_PENDING_MAX as usize) < SUBSCRIPTION_MESSAGES);
const _: () = assert!((INBOX_PENDING_MAX as usize) < SUBSCRIPTION_MESSAGES);
const _: () = assert!(2 * SHARED_ACK_EVERY < SHARED_PENDING_MAX as usize);

/// When a node's files are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before each acknowledgement.
    Always,
    /// As nats-server has it, every two minutes.
    Default,
}

/// A cluster.
pub(crate) struct Nats {
    servers: Servers,
    /// Of each node, in their order.
    ports: Vec<u16>,
    context: Context,
}

impl Nats {
    /// Starts a cluster with its stream.
    pub(crate) async fn start(ground: &Ground, unpacked: &Unpacked, sync: Sync) -> Result<Self> {
        let program = program(unpacked)?;
        let (ports, routes) = (ground.ports(0)?, ground.ports(1)?);
        let mut servers = Servers::default();
        for node in 1..=NODES {
            let folder = ground.node(node);
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            let place = usize::from(node - 1);
            let text = config(node, ports[place], routes[place], &routes, sync);
            let file = folder.join("nats.conf");
            std::fs::write(&file, text).with_context(|| file.display().to_string())?;
            servers.start(
                &folder,
                Program {
                    name: format!("nats-{node}"),
                    path: program.clone(),
                    arguments: vec!["--config".to_owned(), file.display().to_string()],
                    environment: Vec::new(),
                    measured: true,
                },
            )?;
        }
        let made = servers.until("a JetStream cluster", START_TIMEOUT, async || {
            let context = context(ports[0]).await?;
            let stream = context.create_stream(stream_config()).await?;
            // Not before it has all its replicas: an acknowledgement would be cheaper till then.
            let cluster = stream.cached_info().cluster.as_ref().context("no cluster")?;
            ensure!(cluster.replicas.len() + 1 == usize::from(NODES), "replicas are missing");
            Ok(context)
        });
        let context = made.await?;
        let mut nats = Nats { servers, ports, context };
        let probed = nats.context.clone();
        let ready = nats.servers.until("an acknowledgement", START_TIMEOUT, async || {
            probed.publish(PROBE, "".into()).await?.await?;
            Ok(())
        });
        ready.await?;
        Ok(nats)
    }

    async fn stream(&self) -> Result<Stream> {
        Ok(self.context.get_stream(STREAM).await?)
    }

    /// The port of the node that leads the stream.
    async fn leader(&self) -> Result<u16> {
        let stream = self.stream().await?;
        let cluster = stream.cached_info().cluster.as_ref().context("the stream has no cluster")?;
        let leader = cluster.leader.as_deref().context("the stream has no leader")?;
        let ports = (1..=NODES).zip(&self.ports);
        let mut named = ports.filter(|(node, _)| leader == node_name(*node));
        let (_, port) = named.next().with_context(|| format!("there is no node {leader}"))?;
        Ok(*port)
    }

    /// Makes a durable consumer for every user.
    async fn inboxes(&self, users: u32, made: &Made) -> Result<()> {
        let stream = self.stream().await?;
        let calls = stream::iter(0..users).map(Ok::<_, anyhow::Error>);
        calls
            .try_for_each_concurrent(CALLS, async |user| {
                stream.create_consumer(inbox_config(user)).await?;
                made.one();
                Ok(())
            })
            .await
    }
}

impl Peer for Nats {
    type Writer = Writer;

    fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    fn into_servers(self) -> Servers {
        self.servers
    }

    async fn prepare(&self, load: &Load, made: &Made) -> Result<()> {
        match load.work {
            Work::Stored { .. } | Work::Shared => Ok(()),
            Work::Inboxes => self.inboxes(load.recipients(), made).await,
        }
    }

    async fn connect(&self, load: &Load, desk: &Arc<Desk>) -> Result<Clients<Writer>> {
        let leader = self.leader().await?;
        let connections = match load.work {
            Work::Stored { .. } | Work::Shared => CONNECTIONS,
            Work::Inboxes => load.connections as usize,
        };
        let contexts: Vec<Context> = stream::iter(0..connections)
            .map(|_| context(leader))
            .buffered(CALLS)
            .try_collect()
            .await?;
        let subjects: Arc<[Subject]> = (0..load.recipients()).map(subject).collect();
        let place = |index: u32| contexts[index as usize % contexts.len()].clone();
        let writers = (0..load.senders)
            .map(|sender| Writer { context: place(sender), subjects: subjects.clone() })
            .collect();
        let mut readers = JoinSet::new();
        match load.work {
            Work::Stored { .. } => {}
            Work::Shared => {
                let context = context(leader).await?;
                let client = context.client();
                let inbox = client.new_inbox();
                let subscriber = client.subscribe(inbox.clone()).await?;
                self.stream().await?.create_consumer(shared_config(inbox)).await?;
                let intake = Intake::new(desk.clone(), 0..load.recipients());
                let reader = Reader { client, intake, pending: 0, last: None };
                readers.spawn(reader.run(subscriber, SHARED_ACK_EVERY, desk.clone()));
            }
            Work::Inboxes => {
                for user in 0..load.recipients() {
                    let client = place(user).client();
                    let subscriber = client.subscribe(deliver_subject(user)).await?;
                    let intake = Intake::new(desk.clone(), [user]);
                    let reader = Reader { client, intake, pending: 0, last: None };
                    readers.spawn(reader.run(subscriber, usize::MAX, desk.clone()));
                }
                // The servers know who listens before anything is sent.
                for context in &contexts {
                    context.client().flush().await?;
                }
            }
        }
        Ok(Clients { writers, readers, connections })
    }

    async fn audit(&self, books: &Books<'_>, ledger: &mut Ledger) -> Result<()> {
        match books.load.work {
            Work::Stored { .. } => {
                let mut has = vec![0; books.sent.len()];
                let mut subjects =
                    self.stream().await?.info_with_subjects(format!("{USERS}>")).await?;
                while let Some((subject, count)) = subjects.try_next().await? {
                    let user = user_of(&subject).with_context(|| format!("subject {subject}"))?;
                    let has = has.get_mut(user as usize).context("a user that is not there")?;
                    *has += u64::try_from(count)?;
                }
                ledger.delivered = has.iter().sum();
                for (sent, has) in books.sent.iter().zip(has) {
                    ledger.lost += sent.saturating_sub(has);
                    ledger.duplicated += has.saturating_sub(*sent);
                }
            }
            Work::Shared | Work::Inboxes => {
                let began = Instant::now();
                loop {
                    let open = self.unconfirmed().await?;
                    if open == 0 || began.elapsed() > PATIENCE {
                        ledger.unconfirmed += open;
                        ledger.confirmed = ledger.delivered.saturating_sub(open);
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        self.context.publish(PROBE, "".into()).await?.await?;
        // Consumers have leaders of their own.
        let unled =
            self.consumers().await?.into_iter().filter(|info| {
                info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_none())
            });
        match unled.count() {
            0 => Ok(()),
            unled => bail!("{unled} consumers have no leader"),
        }
    }
}

impl Nats {
    /// What each consumer's leader says of it; fails while one has none.
    async fn consumers(&self) -> Result<Vec<Info>> {
        let stream = self.stream().await?;
        // By name: a list of them leaves those out that do not answer in time.
        let names: Vec<String> = stream.consumer_names().try_collect().await?;
        let infos = stream::iter(names).map(async |name| stream.consumer_info(name).await);
        Ok(infos.buffered(CALLS).try_collect().await?)
    }

    /// Messages that a consumer has not delivered, or whose position was not reported.
    async fn unconfirmed(&self) -> Result<u64> {
        let infos = self.consumers().await?;
        ensure!(!infos.is_empty(), "there is no consumer to ask for its position");
        Ok(infos.iter().map(|info| info.num_ack_pending as u64 + info.num_pending).sum())
    }
}

/// One sender's publishes.
pub(crate) struct Writer {
    context: Context,
    subjects: Arc<[Subject]>,
}

impl Write for Writer {
    async fn write(&mut self, letter: Letter) -> Result<Ack, Fault> {
        let subject = self.subjects[letter.to as usize].clone();
        let ack = self.context.publish(subject, letter.body).await.map_err(Fault::write)?;
        Ok(async move {
            let acked = ack.await.map_err(Fault::ack)?;
            if acked.duplicate { Err(Fault::ack("taken for a repetition")) } else { Ok(()) }
        }
        .boxed())
    }
}

/// One subscription.
struct Reader {
    client: Client,
    intake: Intake,
    /// Messages since the position was reported.
    pending: usize,
    /// Where to report it.
    last: Option<Subject>,
}

impl Reader {
    async fn run(mut self, subscriber: Subscriber, ack_every: usize, desk: Arc<Desk>) -> Read {
        let ended = self.read(subscriber, ack_every, &desk).await;
        self.intake.leave(ended)
    }

    async fn read(
        &mut self,
        subscriber: Subscriber,
        ack_every: usize,
        desk: &Desk,
    ) -> Result<(), Fault> {
        let mut phases = desk.meter.phases();
        let mut messages = subscriber.ready_chunks(BATCH);
        let mut ticks = ticks(POSITION_EVERY);
        loop {
            tokio::select! {
                batch = messages.next() => {
                    let batch = batch.ok_or_else(|| Fault::read("the subscription has ended"))?;
                    self.take(batch)?;
                    if self.pending >= ack_every {
                        self.report().await?;
                    }
                }
                _ = ticks.tick() => self.report().await?,
                Ok(()) = phases.changed() => {
                    if *phases.borrow_and_update() == Phase::Finish {
                        self.report().await?;
                        return self.client.flush().await.map_err(Fault::read);
                    }
                }
            }
        }
    }

    fn take(&mut self, batch: Vec<Message>) -> Result<(), Fault> {
        for message in batch {
            // A heartbeat or the like.
            if message.status.is_some() {
                continue;
            }
            self.intake.take(user_of(&message.subject), &message.payload)?;
            self.pending += 1;
            self.last = message.reply;
        }
        Ok(())
    }

    async fn report(&mut self) -> Result<(), Fault> {
        self.pending = 0;
        let Some(last) = self.last.take() else { return Ok(()) };
        self.client.publish(last, "".into()).await.map_err(Fault::read)
    }
}

/// A connection to one node, and to no other.
async fn context(port: u16) -> Result<Context> {
    let client = ConnectOptions::new()
        .ignore_discovered_servers()
        .skip_subject_validation(true)
        .connection_timeout(Duration::from_secs(5))
        .request_timeout(Some(CALL_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .connect(format!("nats://127.0.0.1:{port}"))
        .await?;
    Ok(ContextBuilder::new().timeout(CALL_TIMEOUT).build(client))
}

fn stream_config() -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        num_replicas: usize::from(NODES),
        ..Config::default()
    }
}

fn shared_config(deliver_subject: String) -> push::Config {
    push::Config {
        deliver_subject,
        filter_subject: format!("{USERS}>"),
        ack_policy: AckPolicy::All,
        max_ack_pending: SHARED_PENDING_MAX,
        num_replicas: 1,
        memory_storage: true,
        inactive_threshold: SHARED_KEPT,
        ..push::Config::default()
    }
}

fn inbox_config(user: u32) -> push::Config {
    push::Config {
        durable_name: Some(format!("inbox-{user}")),
        deliver_subject: deliver_subject(user),
        filter_subject: subject(user).to_string(),
        ack_policy: AckPolicy::All,
        max_ack_pending: INBOX_PENDING_MAX,
        num_replicas: usize::from(NODES),
        ..push::Config::default()
    }
}

fn subject(user: u32) -> Subject {
    Subject::from(format!("{USERS}{user}"))
}

fn deliver_subject(user: u32) -> String {
    format!("deliver.{user}")
}

/// Whose subject it is.
fn user_of(subject: &str) -> Option<u32> {
    subject.strip_prefix(USERS)?.parse().ok()
}

fn node_name(node: u16) -> String {
    format!("n{node}")
}

fn program(unpacked: &Unpacked) -> Result<PathBuf, Missing> {
    unpacked.file(NATS_PACKAGE, &nats_program())
}

/// What is said of a cluster in the report.
pub(crate) fn configuration(sync: Sync) -> String {
    let sync = match sync {
        Sync::Always => "always",
        Sync::Default => "default (two minutes)",
    };
    format!(
        "JetStream, file storage, {NODES} replicas, sync_interval {sync}; {CONNECTIONS} connections to \
         the stream's leader"
    )
}

fn config(node: u16, port: u16, route: u16, routes: &[u16], sync: Sync) -> String {
    let routes: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let sync = match sync {
        Sync::Always => "sync_interval: always",
        Sync::Default => "",
    };
    format!(
        "server_name: {}\nlisten: 127.0.0.1:{port}\n\
         jetstream {{ store_dir: jetstream\n{sync} }}\n\
         cluster {{ name: bench, listen: 127.0.0.1:{route}, routes: [{}] }}\n",
        node_name(node),
        routes.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_in_its_subject() {
        assert_eq!(user_of(&subject(42)), Some(42));
        assert_eq!(user_of(PROBE), None);
        assert_eq!(user_of("S.u.x"), None);
    }

    #[test]
    fn only_the_durable_form_syncs_before_each_acknowledgement() {
        let always = config(1, 1, 2, &[2, 3, 4], Sync::Always);
        assert!(always.contains("sync_interval: always") && always.contains("nats://127.0.0.1:4"));
        assert!(!config(1, 1, 2, &[2, 3, 4], Sync::Default).contains("sync_interval"));
    }
}

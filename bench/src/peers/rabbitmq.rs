//! RabbitMQ: quorum queues of three members, persistent messages, publisher confirms, acknowledgements
//! of many messages at once.
//!
//! Stored and shared: sixteen queues, users spread over them. Inboxes: a queue and a consumer per
//! user. A queue is made, written and read through the node that leads it, as far as connections
//! allow. Nodes run by Erlang's own starter with the options of RabbitMQ's script, so that their
//! process ids are ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::ledger::Ledger;
use crate::meter::Phase;
use crate::peers::ground::{Ground, NODES};
use crate::peers::intake::{Intake, POSITION_EVERY, Read, ticks};
use crate::peers::load::{Ack, Books, Clients, Desk, Fault, Letter, Load, Made, Peer, Work, Write};
use crate::peers::provision::{Missing, Unpacked};
use crate::peers::servers::{Program, Servers};

/// How long each step of a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the last positions may take to be known.
const PATIENCE: Duration = Duration::from_secs(30);

/// Queues of a load that is not an inbox's.
const QUEUES: u32 = 16;

/// Connections to each node for writing, and as many for reading, of a load that is not an inbox's.
const CONNECTIONS: usize = 1;

/// Messages on their way to one consumer, and how many of them are acknowledged at once.
const PREFETCH: u16 = 1_024;
const ACK_EVERY: usize = 256;

/// Messages that are read at once.
const BATCH: usize = 64;

/// Queues that are made at once: some on each node, so that queue q is led by node q modulo nodes.
const LANES: usize = 15;

/// Connections that are opened at once, and users that are connected.
const CALLS: usize = 16;

/// The queue of [`Peer::probe`].
const PROBE: &str = "probe";

/// AMQP's number for a message that is to be on disk.
const PERSISTENT: u8 = 2;

const _: () = assert!(2 * ACK_EVERY <= PREFETCH as usize);
const _: () = assert!(LANES.is_multiple_of(NODES as usize));

/// A cluster.
pub(crate) struct RabbitMq {
    servers: Servers,
    /// Of each node, in their order.
    ports: Vec<u16>,
}

impl RabbitMq {
    /// Starts a cluster: the first node, then the others, which join it.
    pub(crate) async fn start(ground: &Ground, unpacked: &Unpacked) -> Result<Self> {
        let erlang = Erlang::find(unpacked)?;
        let (ports, names) = (ground.ports(0)?, ground.port(2, 0)?);
        let distribution = ground.ports(1)?;
        let mut servers = Servers::default();
        servers.start(&ground.folder().join("epmd"), erlang.epmd(names))?;
        for node in 1..=NODES {
            let place = usize::from(node - 1);
            let folder = ground.node(node);
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            let file = folder.join("rabbitmq.conf");
            std::fs::write(&file, config(node, ports[place]))
                .with_context(|| file.display().to_string())?;
            let at = Ports { amqp: ports[place], distribution: distribution[place], names };
            servers.start(&folder, erlang.node(node, ground.folder(), &folder, &at))?;
            // Whom they are to join is there first.
            if node == 1 {
                servers.until("RabbitMQ", START_TIMEOUT, async || connect(at.amqp).await).await?;
            }
        }
        for port in &ports {
            servers.until("RabbitMQ", START_TIMEOUT, async || connect(*port).await).await?;
        }
        let rabbit = RabbitMq { servers, ports };
        rabbit.declare(&rabbit.channel(0).await?, PROBE).await?;
        // A node that has not joined has a cluster of its own, and does not know the queue.
        rabbit.probe().await.context("not all nodes are in one cluster")?;
        Ok(rabbit)
    }

    /// A channel on a connection of its own, to the node whose turn it is.
    async fn channel(&self, turn: usize) -> Result<Channel> {
        let connection = connect(self.ports[turn % self.ports.len()]).await?;
        Ok(connection.create_channel().await?)
    }

    /// Connections to the nodes in turn.
    async fn connections(&self, count: usize) -> Result<Vec<Connection>> {
        let turns = stream::iter(0..count).map(|turn| connect(self.ports[turn % self.ports.len()]));
        turns.buffered(CALLS).try_collect().await
    }

    /// Makes a queue, which the node of this channel leads then.
    async fn declare(&self, channel: &Channel, name: &str) -> Result<()> {
        let text = |value: &str| AMQPValue::LongString(value.into());
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments
            .insert("x-quorum-initial-group-size".into(), AMQPValue::LongLongInt(NODES.into()));
        channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(())
    }

    /// Messages that wait in a queue.
    async fn waiting(&self, channel: &Channel, name: &str) -> Result<u64> {
        let passive = QueueDeclareOptions::default().passive();
        let queue = channel.queue_declare(name.into(), passive, FieldTable::default()).await?;
        Ok(queue.message_count().into())
    }
}

impl Peer for RabbitMq {
    type Writer = Writer;

    fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    fn into_servers(self) -> Servers {
        self.servers
    }

    async fn prepare(&self, load: &Load, made: &Made) -> Result<()> {
        let queues = queues(load);
        let lanes = stream::iter(0..LANES).map(Ok::<_, anyhow::Error>);
        lanes
            .try_for_each_concurrent(None, async |lane| {
                let channel = self.channel(lane).await?;
                for queue in (0..queues).filter(|queue| *queue as usize % LANES == lane) {
                    self.declare(&channel, &queue_name(queue)).await?;
                    made.one();
                }
                Ok(())
            })
            .await
    }

    async fn connect(&self, load: &Load, desk: &Arc<Desk>) -> Result<Clients<Writer>> {
        match load.work {
            Work::Stored { .. } | Work::Shared => self.connect_shared(load, desk).await,
            Work::Inboxes => self.connect_inboxes(load, desk).await,
        }
    }

    async fn audit(&self, books: &Books<'_>, ledger: &mut Ledger) -> Result<()> {
        let channel = self.channel(0).await?;
        let wanted: u64 = if books.load.is_read() { 0 } else { books.sent.iter().sum() };
        let began = Instant::now();
        loop {
            let mut waiting = 0;
            for queue in 0..queues(books.load) {
                waiting += self.waiting(&channel, &queue_name(queue)).await?;
            }
            // How many wait is told once in a while; those of a reader that left wait again at once.
            if waiting != wanted && began.elapsed() < PATIENCE {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            if books.load.is_read() {
                ledger.unconfirmed += waiting;
                ledger.confirmed = ledger.delivered.saturating_sub(waiting);
            } else {
                ledger.delivered = waiting;
                ledger.lost += wanted.saturating_sub(waiting);
                ledger.duplicated += waiting.saturating_sub(wanted);
            }
            return Ok(());
        }
    }

    async fn probe(&self) -> Result<()> {
        for turn in 0..self.ports.len() {
            let channel = self.channel(turn).await?;
            self.waiting(&channel, PROBE).await?;
        }
        Ok(())
    }
}

impl RabbitMq {
    /// A channel per sender and one per queue, on connections to the nodes that lead the queues.
    async fn connect_shared(&self, load: &Load, desk: &Arc<Desk>) -> Result<Clients<Writer>> {
        let nodes = self.ports.len();
        let writing = self.connections(nodes * CONNECTIONS).await?;
        let reading = self.connections(nodes * CONNECTIONS).await?;
        let names = names(load);
        let (mut writers, mut readers) = (Vec::new(), JoinSet::new());
        for sender in 0..load.senders as usize {
            let queue = sender % names.len();
            let channel = writing[queue % writing.len()].create_channel().await?;
            writers.push(Writer::new(channel, names.clone()).await?);
        }
        if load.is_read() {
            for queue in 0..queues(load) {
                let users = (0..load.recipients()).filter(|user| user % queues(load) == queue);
                let channel = reading[queue as usize % reading.len()].create_channel().await?;
                let consumer = consume(&channel, &queue_name(queue)).await?;
                let reader = Reader::new(channel, Intake::new(desk.clone(), users), None);
                readers.spawn(reader.run(consumer, ACK_EVERY, desk.clone()));
            }
        }
        let connections = writing.len() + reading.len();
        Ok(Clients { writers, readers, connections })
    }

    /// A channel per user, for writing and reading.
    async fn connect_inboxes(&self, load: &Load, desk: &Arc<Desk>) -> Result<Clients<Writer>> {
        let count = load.connections as usize;
        // As many for each node, so that every user's connection goes to its queue's leader.
        let count = (count - count % self.ports.len()).max(self.ports.len());
        let connections = self.connections(count).await?;
        let names = names(load);
        let users = stream::iter(0..load.senders).map(async |user| {
            let channel = connections[user as usize % connections.len()].create_channel().await?;
            let consumer = consume(&channel, &queue_name(user)).await?;
            let intake = Intake::new(desk.clone(), [user]);
            let reader = Reader::new(channel.clone(), intake, Some(user));
            let writer = Writer::new(channel, names.clone()).await?;
            Ok::<_, anyhow::Error>((writer, reader, consumer))
        });
        let users: Vec<_> = users.buffered(CALLS).try_collect().await?;
        let (mut writers, mut readers) = (Vec::new(), JoinSet::new());
        for (writer, reader, consumer) in users {
            writers.push(writer);
            readers.spawn(reader.run(consumer, usize::MAX, desk.clone()));
        }
        Ok(Clients { writers, readers, connections: connections.len() })
    }
}

/// One sender's publishes.
pub(crate) struct Writer {
    channel: Channel,
    /// Of the queues.
    names: Arc<[ShortString]>,
}

impl Writer {
    async fn new(channel: Channel, names: Arc<[ShortString]>) -> Result<Self> {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Writer { channel, names })
    }
}

impl Write for Writer {
    async fn write(&mut self, letter: Letter) -> Result<Ack, Fault> {
        let queue = self.names[letter.to as usize % self.names.len()].clone();
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions::default();
        let published =
            self.channel.basic_publish("".into(), queue, options, &letter.body, properties).await;
        let confirm = published.map_err(Fault::write)?;
        Ok(async move {
            match confirm.await.map_err(Fault::ack)? {
                Confirmation::Ack(None) => Ok(()),
                other => Err(Fault::ack(format!("{other:?}"))),
            }
        }
        .boxed())
    }
}

/// The reader of one queue.
struct Reader {
    channel: Channel,
    intake: Intake,
    /// Whose queue it is; none of a queue that many share.
    user: Option<u32>,
    /// Messages since the last acknowledgement, and the last one's tag.
    pending: usize,
    last: Option<u64>,
}

impl Reader {
    fn new(channel: Channel, intake: Intake, user: Option<u32>) -> Self {
        Reader { channel, intake, user, pending: 0, last: None }
    }

    async fn run(mut self, consumer: Consumer, ack_every: usize, desk: Arc<Desk>) -> Read {
        let ended = self.read(consumer, ack_every, &desk).await;
        self.intake.leave(ended)
    }

    async fn read(
        &mut self,
        consumer: Consumer,
        ack_every: usize,
        desk: &Desk,
    ) -> Result<(), Fault> {
        let mut phases = desk.meter.phases();
        let mut deliveries = consumer.ready_chunks(BATCH);
        let mut ticks = ticks(POSITION_EVERY);
        loop {
            tokio::select! {
                batch = deliveries.next() => {
                    let batch = batch.ok_or_else(|| Fault::read("the consumer has ended"))?;
                    for delivery in batch {
                        self.take(&delivery.map_err(Fault::read)?)?;
                    }
                    if self.pending >= ack_every {
                        self.report().await?;
                    }
                }
                _ = ticks.tick() => self.report().await?,
                Ok(()) = phases.changed() => {
                    if *phases.borrow_and_update() == Phase::Finish {
                        self.report().await?;
                        // What is not acknowledged by now waits in the queue again.
                        let closed = self.channel.close(200, "".into()).await;
                        return closed.map_err(Fault::read);
                    }
                }
            }
        }
    }

    fn take(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        match self.user {
            Some(user) => self.intake.take(Some(user), &delivery.data)?,
            None => self.intake.take_shared(&delivery.data)?,
        }
        self.pending += 1;
        self.last = Some(delivery.delivery_tag);
        Ok(())
    }

    async fn report(&mut self) -> Result<(), Fault> {
        self.pending = 0;
        let Some(last) = self.last.take() else { return Ok(()) };
        let acked = self.channel.basic_ack(last, BasicAckOptions { multiple: true }).await;
        acked.map_err(Fault::read)
    }
}

/// Starts to consume a queue.
async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    Ok(channel.basic_consume(queue.into(), "".into(), options, arguments).await?)
}

/// A connection to one node, without heartbeats, as the node has it too: it may be paused for longer
/// than those allow.
async fn connect(port: u16) -> Result<Connection> {
    let uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2f?heartbeat=0");
    Ok(Connection::connect(&uri, ConnectionProperties::default()).await?)
}

/// How many queues a load has.
fn queues(load: &Load) -> u32 {
    match load.work {
        Work::Stored { .. } | Work::Shared => QUEUES,
        Work::Inboxes => load.recipients(),
    }
}

fn queue_name(queue: u32) -> String {
    format!("q{queue}")
}

fn names(load: &Load) -> Arc<[ShortString]> {
    (0..queues(load)).map(|queue| queue_name(queue).into()).collect()
}

/// What is said of a cluster in the report.
pub(crate) fn configuration() -> String {
    format!(
        "quorum queues of {NODES} members, {QUEUES} of them, persistent messages, publisher confirms, \
         prefetch {PREFETCH}, acknowledgements of many; a connection to each node for writing and one \
         for reading, each with a thread of the client library's own"
    )
}

fn config(node: u16, port: u16) -> String {
    let mut text = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\n\
         heartbeat = 0\nvm_memory_high_watermark.absolute = 4GB\n\
         log.console = true\nlog.console.level = warning\nlog.file = false\n\
         cluster_formation.peer_discovery_backend = classic_config\n\
         cluster_formation.classic_config.nodes.1 = {}\n",
        node_name(1)
    );
    if node > 1 {
        text += &format!("cluster_formation.classic_config.nodes.2 = {}\n", node_name(node));
    }
    text
}

fn node_name(node: u16) -> String {
    format!("r{node}@localhost")
}

/// Ports of a node.
struct Ports {
    amqp: u16,
    distribution: u16,
    /// Where nodes learn each other's: of a daemon that all of them share.
    names: u16,
}

/// An Erlang that lies somewhere else than where it was to be installed, and RabbitMQ beside it.
struct Erlang {
    /// Of Erlang.
    root: PathBuf,
    /// Of Erlang's own programs.
    programs: PathBuf,
    /// Of RabbitMQ.
    rabbit: PathBuf,
}

impl Erlang {
    fn find(unpacked: &Unpacked) -> Result<Self, Missing> {
        let root = unpacked.file("erlang-base", "usr/lib/erlang")?;
        let runtime = unpacked.versioned("erlang-base", "usr/lib/erlang", "erts-")?;
        let servers = "usr/lib/rabbitmq/lib";
        let rabbit = unpacked.versioned("rabbitmq-server", servers, "rabbitmq_server-")?;
        Ok(Erlang { root, programs: runtime.join("bin"), rabbit })
    }

    /// The daemon that knows the nodes' ports.
    fn epmd(&self, port: u16) -> Program {
        let arguments = ["-address", "127.0.0.1", "-port", &port.to_string()].map(str::to_owned);
        Program {
            name: "epmd".to_owned(),
            path: self.programs.join("epmd"),
            arguments: arguments.into(),
            environment: Vec::new(),
            measured: false,
        }
    }

    /// A node. `home` has what all nodes share: the secret by which they know each other.
    fn node(&self, node: u16, home: &Path, folder: &Path, ports: &Ports) -> Program {
        let boot = self.root.join("bin/start_sasl");
        let start = ["-noinput", "-s", "rabbit", "boot", "-boot", &text(&boot)].map(str::to_owned);
        let options = OPTIONS.split_whitespace().map(str::to_owned);
        // Nodes are reached from this machine only.
        let inner = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"].map(str::to_owned);
        let environment = [
            ("ROOTDIR", text(&self.root)),
            ("BINDIR", text(&self.programs)),
            ("EMU", "beam".to_owned()),
            ("PROGNAME", "erl".to_owned()),
            ("HOME", text(home)),
            ("ERL_LIBS", text(&self.rabbit.join("plugins"))),
            ("ERL_EPMD_PORT", ports.names.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_MAX_PORTS", "65536".to_owned()),
            ("ERL_MAX_ETS_TABLES", "50000".to_owned()),
            ("RABBITMQ_HOME", text(&self.rabbit)),
            ("RABBITMQ_NODENAME", node_name(node)),
            ("RABBITMQ_NODE_PORT", ports.amqp.to_string()),
            ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
            ("RABBITMQ_CONFIG_FILE", text(&folder.join("rabbitmq.conf"))),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", text(&folder.join("plugins"))),
            ("RABBITMQ_MNESIA_BASE", text(&folder.join("mnesia"))),
            ("RABBITMQ_LOG_BASE", text(&folder.join("log"))),
        ];
        Program {
            name: format!("rabbitmq-{node}"),
            path: self.programs.join("erlexec"),
            arguments: start.into_iter().chain(options).chain(inner).collect(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            measured: true,
        }
    }
}

/// What RabbitMQ's own script starts a node with.
const OPTIONS: &str = "+W w +MBas ageffcbf +MHas ageffcbf +MBlmbcs 512 +MHlmbcs 512 +MMmcs 30 \
    +P 1048576 +t 5000000 +stbt db +zdbbl 128000 +sbwt none +sbwtdcpu none +sbwtdio none +B i \
    -start_epmd false -syslog logger [] -syslog syslog_error_logger false \
    -kernel prevent_overlapping_partitions false";

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_waits_for_nobody_and_the_others_join_it() {
        let first = config(1, 9);
        assert!(first.contains("127.0.0.1:9") && !first.contains("nodes.2"));
        let third = config(3, 9);
        assert!(
            third.contains("nodes.1 = r1@localhost") && third.contains("nodes.2 = r3@localhost")
        );
    }

    #[test]
    fn a_node_is_its_own_folder_and_shares_a_home() {
        let unpacked = |path: &str| PathBuf::from("/cache").join(path);
        let erlang = Erlang {
            root: unpacked("erlang"),
            programs: unpacked("erlang/erts/bin"),
            rabbit: unpacked("rabbit"),
        };
        let ports = Ports { amqp: 1, distribution: 2, names: 3 };
        let program = erlang.node(2, Path::new("/d"), Path::new("/d/node-2"), &ports);
        let value = |wanted: &str| {
            let mut all = program.environment.iter();
            all.find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
        };
        assert_eq!(value("HOME"), Some("/d"));
        assert_eq!(value("RABBITMQ_MNESIA_BASE"), Some("/d/node-2/mnesia"));
        assert_eq!(value("RABBITMQ_NODENAME"), Some("r2@localhost"));
        assert!(program.arguments.contains(&"/cache/erlang/bin/start_sasl".to_owned()));
    }
}

//! A comparison as it runs: cell after cell, each on a fresh cluster that is gone afterwards.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidemark_version::VERSION;
use tokio::time::{Instant, sleep, timeout};

use crate::peers::disk::{Disk, PerAck};
use crate::peers::drive;
use crate::peers::etcd::{self, Etcd};
use crate::peers::findings::{About, Findings, Scout, Try, best, durability};
use crate::peers::floor::{self, Shape};
use crate::peers::ground::{Ground, settle};
use crate::peers::load::{Load, Made, Peer, Work};
use crate::peers::nats::{self, Nats, Sync};
use crate::peers::ours::{self, Ours};
use crate::peers::plan::{self, Cell, INBOX_PEERS, Job, Of, PEERS, Ratio, System};
use crate::peers::provision::{Cache, Unpacked};
use crate::peers::rabbitmq::{self, RabbitMq};
use crate::peers::ratio::Figure;
use crate::peers::settings::Arguments;
use crate::report::Measured;
use crate::run::run;
use crate::settings::Settings;

/// Ports of peers lie so far behind ours.
const PEER_PORTS: u16 = 500;

/// Seconds that a cell with one message in flight is measured at most: it counts flushes.
const WINDOW_1_SECONDS: u32 = 3;

/// Seconds that bytes are counted at least, and messages in a second meanwhile: fewer than any system
/// can take here, so that both sides of a ratio have the same load.
const BYTES_SECONDS: u32 = 60;
const BYTES_RATE: u32 = 10_000;

/// How long a peer may take to make room for an inbox's users.
const INBOX_SETUP: Duration = Duration::from_secs(45);

/// Connections of an inbox's users: the better of these and one for each.
const INBOX_CONNECTIONS: u32 = 64;

/// Pairs of inboxes.
const INBOX_PAIRS: u32 = 3;

/// How long a peer may take to go on after a pause, and how long it is left alone then.
const WAKE_TIMEOUT: Duration = Duration::from_secs(60);
const WAKE_REST: Duration = Duration::from_secs(2);

/// Programs of the peers.
struct Programs {
    nats: Unpacked,
    etcd: Unpacked,
    rabbitmq: Unpacked,
}

/// A peer that could not make room for as many users as were asked for.
struct Refused {
    why: String,
    /// For how many there was room.
    room: u32,
}

/// A comparison.
pub(crate) struct Session {
    /// What our own load is told, and the peers' follows.
    settings: Settings,
    rounds: u32,
    quick: bool,
    /// Whether single ratios were named, and nothing else is to be run.
    partial: bool,
    wanted: Vec<Ratio>,
    folder: PathBuf,
    ours: Ours,
    ground: Ground,
    cache: Cache,
    disk: Option<Disk>,
    pub(crate) findings: Findings,
}

impl Session {
    /// Prepares one; nothing runs yet.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self> {
        let settings = arguments.common.settings();
        let (rounds, quick) = (arguments.rounds, arguments.quick);
        let folder = std::path::absolute(&arguments.data)?;
        let base_port = arguments.base_port;
        let ours = Ours::new(&arguments.scripts, folder.join("tidemark"), base_port)?;
        let ground = Ground::new(folder.join("peers"), base_port + PEER_PORTS);
        Ok(Session {
            findings: Findings::new(VERSION, arguments.common.clone(), rounds, quick),
            settings,
            rounds,
            quick,
            partial: !arguments.only.is_empty(),
            wanted: arguments.wanted(),
            folder,
            ours,
            ground,
            cache: Cache::new(arguments.cache.clone())?,
            disk: None,
        })
    }

    /// Runs all of it; ends early when a cell is void.
    pub(crate) async fn run(&mut self) -> Result<()> {
        // An earlier run may have been killed with its cluster up.
        self.ours.down().await?;
        let programs = self.provision().await?;
        let began = Instant::now();
        self.ground.clear().await?;
        self.disk = Disk::of(self.ground.folder());
        let ended = self.cells(&programs).await;
        self.findings.seconds = began.elapsed().as_secs_f64();
        self.findings.complete = ended.is_ok() && self.findings.void.is_none();
        ended
    }

    /// Ends what may still run of ours, and removes all data.
    pub(crate) async fn clean(&self) -> Result<()> {
        self.ours.down().await?;
        self.ground.remove().await?;
        // Not if there is anything else in it.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }

    /// The ratios that are asked for.
    pub(crate) fn wanted(&self) -> &[Ratio] {
        &self.wanted
    }

    async fn provision(&mut self) -> Result<Programs> {
        let programs = Programs {
            nats: self.cache.nats().await?,
            etcd: self.cache.etcd().await?,
            rabbitmq: self.cache.rabbitmq().await?,
        };
        let shards = format!("3 stores, 1 gateway, {} shards unless said", plan::SHARDS);
        let mut about = |system, version: &str, configuration| {
            let version = version.to_owned();
            self.findings.systems.push(About { system, version, configuration });
        };
        about(System::Tidemark, VERSION, shards);
        for system in PEERS {
            match system {
                System::Tidemark => {}
                System::NatsFsync => {
                    about(system, &programs.nats.version, nats::configuration(Sync::Always));
                }
                System::NatsDefault => {
                    about(system, &programs.nats.version, nats::configuration(Sync::Default));
                }
                System::Etcd => about(system, &programs.etcd.version, etcd::configuration()),
                System::RabbitMq => {
                    about(system, &programs.rabbitmq.version, rabbitmq::configuration());
                }
            }
        }
        Ok(programs)
    }

    async fn cells(&mut self, programs: &Programs) -> Result<()> {
        if !self.partial {
            self.floors().await?;
            for cell in plan::once() {
                self.measure(programs, cell, 0).await?;
                if self.findings.void.is_some() {
                    return Ok(());
                }
            }
        }
        for round in 0..self.rounds {
            for cell in plan::round(round, &self.wanted) {
                self.measure(programs, cell, round).await?;
                if self.findings.void.is_some() {
                    return Ok(());
                }
            }
        }
        if self.wanted.contains(&Ratio::InboxVsBestPeer) {
            self.inboxes(programs).await?;
        }
        Ok(())
    }

    /// What the machine does at most of parts of the work.
    async fn floors(&mut self) -> Result<()> {
        let own = self.own_settings(Job::Append);
        let scale = own.scale(&ours::workload(Job::Append));
        let shape = Shape {
            senders: scale.senders as usize,
            in_flight: scale.in_flight as usize,
            body: own.body,
            warmup: Duration::from_secs(own.warmup.into()),
            measured: Duration::from_secs(scale.seconds.into()),
        };
        self.ground.clear().await?;
        let raw_log = floor::raw_log(self.ground.folder(), &shape).await?;
        let echo = floor::echo(&shape).await?;
        self.ground.clear().await?;
        let target = self.ours.up(plan::SHARDS).await?;
        let one_commit = floor::one_commit(&target, &shape).await?;
        self.ours.down().await?;
        self.findings.floors = vec![raw_log, echo, one_commit];
        Ok(())
    }

    /// Runs a cell and enters what it found.
    async fn measure(&mut self, programs: &Programs, cell: Cell, round: u32) -> Result<()> {
        eprintln!("== {cell}, round {} of {}", round + 1, self.rounds);
        self.ground.clear().await?;
        let (ground, Programs { nats, etcd, rabbitmq }) = (&self.ground, programs);
        let found = match cell.system {
            System::Tidemark => self.own(cell).await,
            System::NatsFsync => match Nats::start(ground, nats, Sync::Always).await {
                Ok(peer) => self.peer(peer, cell).await,
                Err(error) => Err(error),
            },
            System::NatsDefault => match Nats::start(ground, nats, Sync::Default).await {
                Ok(peer) => self.peer(peer, cell).await,
                Err(error) => Err(error),
            },
            System::Etcd => match Etcd::start(ground, etcd).await {
                Ok(peer) => self.peer(peer, cell).await,
                Err(error) => Err(error),
            },
            System::RabbitMq => match RabbitMq::start(ground, rabbitmq).await {
                Ok(peer) => self.peer(peer, cell).await,
                Err(error) => Err(error),
            },
        };
        let (measured, device) = found.with_context(|| cell.to_string())?;
        if cell.job == Job::Window1 {
            let flushes = device.map(|device| device.flushes);
            self.findings.durability.push(durability(cell.system, flushes));
        }
        self.enter(cell, round, None, device, measured);
        Ok(())
    }

    fn enter(
        &mut self,
        cell: Cell,
        round: u32,
        users: Option<u32>,
        device: Option<PerAck>,
        measured: Measured,
    ) {
        self.findings.judge(cell, &measured.ledger);
        self.findings.figures.push(Figure { cell, round, users, device, measured });
    }

    /// A cell of ours.
    async fn own(&self, cell: Cell) -> Result<(Measured, Option<PerAck>)> {
        let target = self.ours.up(cell.job.shards()).await?;
        let from = self.disk.as_ref().and_then(Disk::done);
        let measured =
            run(&target, &ours::workload(cell.job), &self.own_settings(cell.job)).await?;
        let counts_bytes = self.counts_bytes(cell.job);
        if counts_bytes {
            self.ours.stop().await?;
            settle(&self.folder).await?;
        }
        let to = self.disk.as_ref().and_then(Disk::done);
        self.ours.down().await?;
        let device = from.zip(to).and_then(|(from, to)| to.per_ack(&from, measured.ledger.acked));
        Ok((measured, device))
    }

    /// A cell of a peer that was just started.
    async fn peer<P: Peer>(&self, mut peer: P, cell: Cell) -> Result<(Measured, Option<PerAck>)> {
        let load = self.load(cell.job)?;
        peer.prepare(&load, &Made::default()).await?;
        let from = self.disk.as_ref().and_then(Disk::done);
        let measured = drive::drive(&mut peer, cell.job.name(), &load).await?;
        let counts_bytes = self.counts_bytes(cell.job);
        let servers = peer.into_servers();
        let to = if counts_bytes {
            servers.stop().await?;
            settle(self.ground.folder()).await?;
            self.disk.as_ref().and_then(Disk::done)
        } else {
            let to = self.disk.as_ref().and_then(Disk::done);
            servers.kill().await?;
            to
        };
        let device = from.zip(to).and_then(|(from, to)| to.per_ack(&from, measured.ledger.acked));
        Ok((measured, device))
    }

    fn counts_bytes(&self, job: Job) -> bool {
        matches!(job, Job::AppendBytes | Job::DeliverBytes)
    }

    /// What our own load is told for a job.
    fn own_settings(&self, job: Job) -> Settings {
        let mut settings = Settings { in_flight: job.in_flight(), ..self.settings.clone() };
        match job {
            Job::Window1 => {
                settings.pairs = Some(1);
                settings.seconds = settings.seconds.min(Some(WINDOW_1_SECONDS));
            }
            Job::AppendBytes | Job::DeliverBytes => {
                settings.rate = Some(BYTES_RATE);
                if !self.quick {
                    settings.seconds = settings.seconds.max(Some(BYTES_SECONDS));
                }
            }
            _ => {}
        }
        settings
    }

    /// What a peer is loaded with for a job.
    fn load(&self, job: Job) -> Result<Load> {
        let own = self.own_settings(job);
        let scale = own.scale(&ours::workload(job));
        let (work, rate) = match job {
            Job::Append | Job::Window1 => (Work::Stored { users: own.users }, None),
            Job::AppendBytes => (Work::Stored { users: own.users }, Some(scale.rate)),
            Job::Deliver => (Work::Shared, None),
            Job::Latency | Job::DeliverBytes => (Work::Shared, Some(scale.rate)),
            Job::Inbox => (Work::Inboxes, None),
            Job::Send | Job::Shards { .. } => bail!("{} is Tidemark's alone", job.name()),
        };
        Ok(Load {
            work,
            senders: scale.senders,
            in_flight: scale.in_flight,
            rate,
            connections: INBOX_CONNECTIONS,
            body: own.body,
            warmup: Duration::from_secs(own.warmup.into()),
            measured: Duration::from_secs(scale.seconds.into()),
            threads: own.threads,
        })
    }

    /// A load of so many users with an inbox each.
    fn inbox_load(&self, users: u32, connections: u32) -> Result<Load> {
        Ok(Load { senders: users, connections, ..self.load(Job::Inbox)? })
    }
}

/// Inboxes: each peer is scouted, the best one paired with ours.
impl Session {
    async fn inboxes(&mut self, programs: &Programs) -> Result<()> {
        let Programs { nats, etcd, rabbitmq } = programs;
        for system in INBOX_PEERS {
            let ground = self.ground.clone();
            let scout = match system {
                System::Tidemark | System::NatsDefault => continue,
                System::NatsFsync => {
                    let start = async || Nats::start(&ground, nats, Sync::Always).await;
                    self.scout(system, start).await
                }
                System::Etcd => self.scout(system, async || Etcd::start(&ground, etcd).await).await,
                System::RabbitMq => {
                    self.scout(system, async || RabbitMq::start(&ground, rabbitmq).await).await
                }
            };
            let scout = scout.with_context(|| format!("{system}: inbox"))?;
            for measured in scout.tries.iter().filter(|it| it.failed.is_none()) {
                let ledger = measured.measured.iter().map(|measured| &measured.ledger);
                ledger.for_each(|ledger| self.findings.judge(format!("{system}: inbox"), ledger));
            }
            self.findings.inbox.scouts.push(scout);
            if self.findings.void.is_some() {
                return Ok(());
            }
        }
        let Some((system, users, connections)) = best(&self.findings.inbox.scouts) else {
            self.findings.inbox.missing = Some("no peer could be set up for it".to_owned());
            return Ok(());
        };
        self.findings.inbox.best = Some(system);
        let load = self.inbox_load(users, connections)?;
        self.ground.clear().await?;
        let ground = self.ground.clone();
        let paired = match system {
            System::Tidemark | System::NatsDefault => return Ok(()),
            System::NatsFsync => {
                let peer = Nats::start(&ground, nats, Sync::Always).await?;
                self.pair(system, peer, &load).await
            }
            System::Etcd => self.pair(system, Etcd::start(&ground, etcd).await?, &load).await,
            System::RabbitMq => {
                self.pair(system, RabbitMq::start(&ground, rabbitmq).await?, &load).await
            }
        };
        paired.with_context(|| format!("{system}: inbox"))
    }

    /// Finds how many users a peer can make room for, and over how many connections it does better.
    async fn scout<P: Peer>(
        &self,
        system: System,
        start: impl AsyncFn() -> Result<P>,
    ) -> Result<Scout> {
        let mut scout = Scout {
            system,
            users: None,
            setup_seconds: 0.0,
            refused: Vec::new(),
            tries: Vec::new(),
        };
        let mut next = plan::inbox_sizes(self.quick).first().copied();
        while let Some(users) = next {
            eprintln!("== {system}: inbox for {users} users");
            let (mut peer, seconds) = match self.furnish(&start, users).await? {
                Ok(furnished) => furnished,
                Err(Refused { why, room }) => {
                    scout.refused.push(why);
                    next = plan::next_inbox_size(users, room);
                    continue;
                }
            };
            (scout.users, scout.setup_seconds) = (Some(users), seconds);
            for connections in [INBOX_CONNECTIONS, users] {
                if scout.tries.last().is_some_and(|last| last.failed.is_some()) {
                    // What it left behind would be taken for the next one's.
                    peer.into_servers().kill().await?;
                    peer = match self.furnish(&start, users).await? {
                        Ok((again, _)) => again,
                        Err(Refused { why, .. }) => {
                            scout.refused.push(why);
                            return Ok(scout);
                        }
                    };
                }
                let load = self.inbox_load(users, connections)?;
                scout.tries.push(attempt(&mut peer, &load).await);
            }
            peer.into_servers().kill().await?;
            return Ok(scout);
        }
        Ok(scout)
    }

    /// Starts a fresh cluster with inboxes for so many users: it, and how long the inboxes took.
    async fn furnish<P: Peer>(
        &self,
        start: &impl AsyncFn() -> Result<P>,
        users: u32,
    ) -> Result<Result<(P, f64), Refused>> {
        self.ground.clear().await?;
        let peer = start().await?;
        let (made, began) = (Made::default(), Instant::now());
        let load = self.inbox_load(users, INBOX_CONNECTIONS)?;
        let prepared = timeout(INBOX_SETUP, peer.prepare(&load, &made)).await;
        let why = match prepared {
            Ok(Ok(())) => return Ok(Ok((peer, began.elapsed().as_secs_f64()))),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("not within {INBOX_SETUP:?}"),
        };
        peer.into_servers().kill().await?;
        let room = made.count();
        let why = format!("{users} users: {why}; there was room for {room}");
        Ok(Err(Refused { why, room }))
    }

    /// Pairs a peer's inboxes with ours: its cluster is set up once and paused while ours runs.
    async fn pair<P: Peer>(&mut self, system: System, mut peer: P, load: &Load) -> Result<()> {
        // It was made in time when it was scouted.
        let prepared = timeout(2 * INBOX_SETUP, peer.prepare(load, &Made::default())).await;
        prepared.context("its inboxes could not be made again")??;
        peer.servers().pause()?;
        let users = Some(load.senders);
        for round in 0..INBOX_PAIRS.min(self.rounds) {
            let mut turns = [System::Tidemark, system];
            if round % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                let cell = turn.does(Job::Inbox);
                eprintln!("== {cell}, pair {} of {INBOX_PAIRS}", round + 1);
                let measured = if turn == System::Tidemark {
                    self.own_inbox(cell, load.senders).await?
                } else {
                    wake(&mut peer).await?;
                    let measured = drive::drive(&mut peer, cell.job.name(), load).await?;
                    peer.servers().pause()?;
                    measured
                };
                self.enter(cell, round, users, None, measured);
                if self.findings.void.is_some() {
                    return Ok(());
                }
            }
        }
        peer.into_servers().kill().await
    }

    /// Our own inboxes: as many users as the peer has, a session and one message in flight each.
    async fn own_inbox(&self, cell: Cell, users: u32) -> Result<Measured> {
        let target = self.ours.up(cell.job.shards()).await?;
        let settings = Settings { pairs: Some(users), ..self.own_settings(cell.job) };
        let measured = run(&target, &ours::workload(cell.job), &settings).await?;
        self.ours.down().await?;
        Ok(measured)
    }
}

/// A scouting cell: one that cannot be run is not the better one.
async fn attempt<P: Peer>(peer: &mut P, load: &Load) -> Try {
    let connections = load.connections;
    match drive::drive(peer, Job::Inbox.name(), load).await {
        Ok(measured) => {
            let cell = System::Tidemark.does(Job::Inbox);
            let figure = Figure { cell, round: 0, users: None, device: None, measured };
            let counted_per_second = figure.value(Of::Counted);
            let measured = Some(figure.measured);
            Try { connections, counted_per_second, measured, failed: None }.checked()
        }
        Err(error) => {
            let failed = Some(format!("{connections} connections: {error:#}"));
            Try { connections, counted_per_second: None, measured: None, failed }
        }
    }
}

/// Lets a paused peer go on, and waits until it takes messages.
async fn wake<P: Peer>(peer: &mut P) -> Result<()> {
    peer.servers().resume()?;
    let began = Instant::now();
    loop {
        let probed = timeout(WAKE_TIMEOUT, peer.probe()).await;
        peer.servers().all_run()?;
        match probed {
            Ok(Ok(())) => break,
            Ok(Err(_)) if began.elapsed() < WAKE_TIMEOUT => sleep(Duration::from_millis(200)).await,
            Ok(Err(error)) => return Err(error.context("it does not go on after a pause")),
            Err(_) => bail!("it does not go on after a pause"),
        }
    }
    sleep(WAKE_REST).await;
    Ok(())
}

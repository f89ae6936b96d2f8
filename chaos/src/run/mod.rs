//! A run: a cluster, load, faults, and the verdict of the checker.
//!
//! ```text
//!   load, probes, facts, faults ──► history ──► checker ──► report.json, report.html
//!   replicas' files in the end  ──►
//! ```

mod back_ends;
mod checks;
mod facts;
mod fault;
mod groups;
mod load;
pub mod mutants;
mod others;
mod probe;
pub mod report;
pub mod scenario;
mod sleepers;
mod stage;
mod talk;
pub mod truth;
mod visits;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_checker::history::Nanos;
use tidemark_checker::{Demands, Files, Report, Verdict, check};
use tidemark_env::SeededRng;
use tidemark_store_client::Client;

use crate::air::Air;
use crate::build::Build;
use crate::cluster::{Cluster, Spec};
use crate::notes::Notes;
use crate::stores;
use back_ends::BackEnds;
use facts::Facts;
use groups::Groups;
use load::{Load, Pace};
use others::Others;
use probe::Probes;
use report::{Spread, Summary};
use scenario::{SCENARIOS, Scenario};
use sleepers::Sleepers;
use stage::Stage;
use talk::Talk;

/// Shards of a run's cluster.
const SHARDS: u16 = 8;
/// Its gateways.
const GATEWAYS: usize = 2;

/// A call of the runner itself.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long the rest may take once the load has stopped: a device that was cut off comes back
/// within a minute.
const REST_WITHIN: Duration = Duration::from_secs(180);

/// Of a run with as many seconds, at least so many sends a second must be accepted.
const ACCEPTED_PER_SECOND: u64 = 100;

/// A server of such a small cluster that needs more leaks.
const RSS_BYTES_MAX: u64 = 3 << 30;
/// The same for open files.
const FILES_MAX: u64 = 1_000;

/// A send is carried to gateways so often, on average over a run; more is a storm of retries.
const TRIES_MAX: u64 = 3;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which faults.
    pub scenario: &'static Scenario,
    /// How long the load lasts.
    pub seconds: u64,
    /// For everything that is left to chance.
    pub seed: u64,
    /// Where the report goes.
    pub folder: PathBuf,
    /// Networks and disks of their own.
    pub lab: bool,
    /// What is not as it is by default.
    pub variant: Variant,
}

/// What of a run is not as it is by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// Which build of the servers runs.
    pub build: Build,
    /// Sends a second, all users together, or 0 for as fast as answers come; else as the scenario
    /// says.
    pub rate: Option<u32>,
    /// The stores' configuration, in TOML; if empty, as the scenario says.
    pub stores: &'static str,
    /// How long the run may take to come to rest.
    pub rest_within: Option<Duration>,
}

/// Runs it; the report is in the plan's folder then.
pub async fn run(plan: &Plan) -> Result<Summary> {
    Ok(judged(plan).await?.0)
}

/// The same, with everything that the checker found.
async fn judged(plan: &Plan) -> Result<(Summary, Report)> {
    fs::create_dir_all(&plan.folder).with_context(|| format!("{}", plan.folder.display()))?;
    let path = plan.folder.join("run.history");
    // An earlier run's report is replaced.
    if path.exists() {
        fs::remove_file(&path)?;
    }
    let notes = Notes::create(&path)?;
    let (mut stage, crowd) = start(plan, &notes).await?;
    let Crowd { load, back_ends, mut beside } = crowd;
    let telling = tokio::spawn(tell(load.counts()));
    let played = stage.play(plan.scenario, plan.seconds).await;
    telling.abort();
    played?;
    let Stage {
        mut cluster, client, probes, facts, air, counts, felt, unsynced_bytes_lost, ..
    } = stage;
    println!("the load has stopped; waiting until everything is where it belongs");
    drop(probes);
    back_ends.finish().await?;
    let within = plan.variant.rest_within.unwrap_or(REST_WITHIN);
    beside.stop(&client, within).await?;
    let mut rested = None;
    if load.finish(&client, &notes, within).await? {
        match stores::settled(&client).await {
            Ok(settled) => rested = Some(settled),
            Err(why) => {
                eprintln!("{why:#}");
                notes.amount(&"cluster", "groups or outboxes that do not come to rest", 1, 0);
            }
        }
    }
    let groups = beside.finish(&cluster, &client, within).await?;
    drop(facts);
    let devices_away = away(&counts);
    costs(&cluster, &notes)?;
    let (begun, tries) = (counts.begun.load(Ordering::Relaxed), air.sends());
    println!("{begun} sends were begun by devices, which took {tries} Send frames");
    notes.amount(&"devices", "Send frames for all sends", tries, begun * TRIES_MAX);
    cluster.kill_all()?;
    println!("reading what every replica holds");
    let all_read = truth::read(&cluster, rested.as_ref(), &notes).unwrap_or_else(|error| {
        // Of a mailbox that nobody could read the checker says so.
        eprintln!("the replicas cannot be read: {error:#}");
        false
    });
    if let Some(known) = &groups {
        groups::judge(&cluster, known, &notes)?;
    }
    notes.finish()?;
    drop(cluster);
    println!("checking");
    let report = check(&Files::default().whole(&path), &demands(plan.seconds))?;
    let mut summary = Summary::of(plan, &report, felt, devices_away, unsynced_bytes_lost);
    if !all_read && report.verdict == Verdict::Holds {
        // What a node holds that could not be read is not known.
        summary.verdict = Verdict::Void.to_string();
    }
    report::write(&plan.folder, &path, &summary, &report)?;
    println!("{report}");
    Ok((summary, report))
}

/// Everybody who asks a run's cluster for something.
struct Crowd {
    load: Load,
    back_ends: BackEnds,
    beside: Beside,
}

/// Those who live beside the load, as the scenario has them.
struct Beside {
    groups: Option<Groups>,
    talk: Option<Talk>,
    sleepers: Option<Sleepers>,
    others: Others,
}

impl Beside {
    /// Starts them.
    async fn start(
        plan: &Plan,
        cluster: &Cluster,
        client: &Client,
        mut others: Others,
        notes: &Notes,
    ) -> Result<Self> {
        let Plan { scenario, seed, .. } = plan;
        let groups = match scenario.has_groups() {
            true => Some(Groups::start(cluster, client.clone(), *seed, notes).await?),
            false => None,
        };
        let talk = match scenario.has_talk() {
            true => Some(Talk::start(cluster, scenario.has_sleepers(), notes).await?),
            false => None,
        };
        let users = scenario.shape().users;
        let sleepers = match others.services.take() {
            Some(services) => Some(Sleepers::start(cluster, services, users, *seed, notes).await?),
            None => None,
        };
        Ok(Beside { groups, talk, sleepers, others })
    }

    /// Lets nobody ask for more, and waits until what was asked is answered, for so long at most.
    async fn stop(&mut self, client: &Client, within: Duration) -> Result<()> {
        if let Some(groups) = &mut self.groups {
            groups.stop(client, within).await?;
        }
        if let Some(talk) = &mut self.talk {
            talk.stop().await?;
        }
        if let Some(sleepers) = &mut self.sleepers {
            sleepers.stop().await?;
        }
        Ok(())
    }

    /// Once all is healed, waits for what comes last, for so long at most; what is known of the groups
    /// then.
    async fn finish(
        self,
        cluster: &Cluster,
        client: &Client,
        within: Duration,
    ) -> Result<Option<crate::groups::Groups>> {
        if let Some(talk) = self.talk {
            talk.finish(cluster).await?;
        }
        if let Some(sleepers) = self.sleepers {
            sleepers.finish(client, within).await?;
        }
        if let Some(operator) = self.others.operator {
            operator.finish();
        }
        Ok(match self.groups {
            Some(groups) => Some(groups.finish(client, within).await),
            None => None,
        })
    }
}

/// Starts the cluster, everybody who asks it for something, and everybody who looks at it.
async fn start(plan: &Plan, notes: &Notes) -> Result<(Stage, Crowd)> {
    let Plan { scenario, variant, .. } = plan;
    let stores = if variant.stores.is_empty() { scenario.stores() } else { variant.stores };
    let spec = Spec { nodes: 3, shards: SHARDS, gateways: GATEWAYS, stores, build: variant.build };
    let preload = scenario.preload();
    let mut shape = scenario.shape();
    shape.pace = variant.rate.map_or(shape.pace, Pace::at);
    let mut others = Others::start(plan, notes).await?;
    let gateways = others.gateways(shape);
    let cluster = match plan.lab {
        true => Cluster::start_in_lab(spec, preload, &gateways).await?,
        false => Cluster::start_configured(spec, preload, &gateways).await?,
    };
    others.reach(&cluster)?;
    let client = cluster.client(CALL_DEADLINE).await?;
    let lives = facts::Lives::default();
    let probes = Probes::start(&client, notes)?;
    let facts = Facts::start(&client, &lives, notes);
    let air = Air::new(plan.seed);
    let load = Load::start(&cluster, GATEWAYS, shape, plan.seed, &air, notes).await?;
    let reading = cluster.client(CALL_DEADLINE).await?;
    let back_ends = BackEnds::start(&cluster, GATEWAYS, reading, shape, plan.seed, notes).await?;
    let beside = Beside::start(plan, &cluster, &client, others, notes).await?;
    println!("{} users with two devices each write at {:?}", shape.users, shape.pace);
    let stage = Stage {
        cluster,
        client,
        notes: notes.clone(),
        probes,
        facts,
        lives,
        air,
        people: load.people(),
        counts: load.counts(),
        rng: Arc::new(SeededRng::new(plan.seed)),
        shard_count: SHARDS,
        gateways: GATEWAYS,
        felt: Vec::new(),
        unsynced_bytes_lost: 0,
        down: None,
    };
    Ok((stage, Crowd { load, back_ends, beside }))
}

/// Judges histories of earlier runs.
pub fn judge(files: &[PathBuf]) -> Result<Report> {
    let history = files.iter().fold(Files::default(), Files::whole);
    Ok(check(&history, &demands(0))?)
}

fn demands(seconds: u64) -> Demands {
    let effects = SCENARIOS.iter().filter(|scenario| !scenario.effects.is_empty());
    let effects = effects.map(|scenario| {
        let names = scenario.effects.iter().map(|name| (*name).to_owned());
        (scenario.fault_kind().to_owned(), names.collect())
    });
    Demands {
        accepted_min: seconds * ACCEPTED_PER_SECOND,
        effects: effects.collect(),
        recovery: Nanos(30_000_000_000),
        ..Demands::default()
    }
}

fn costs(cluster: &Cluster, notes: &Notes) -> Result<()> {
    for member in cluster.members() {
        let peak = cluster.peak(member)?;
        notes.amount(&member, "bytes of memory, at most", peak.memory_max, RSS_BYTES_MAX);
        notes.amount(&member, "open files, at most", peak.files, FILES_MAX);
    }
    Ok(())
}

/// How long devices were without a connection, by the kind of the fault that took it.
fn away(counts: &load::Counts) -> BTreeMap<String, Spread> {
    let times = std::mem::take(&mut *counts.away_ms.lock());
    let spread = |(kind, mut times): (&str, Vec<u64>)| {
        let spread = Spread::of(&mut times);
        println!("{kind}: devices without a connection {spread}");
        (kind.to_owned(), spread)
    };
    times.into_iter().map(spread).collect()
}

/// Says every five seconds how it goes.
async fn tell(counts: Arc<load::Counts>) {
    const EVERY: Duration = Duration::from_secs(5);
    let mut before = (0, 0);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = (counts.acked.load(Ordering::Relaxed), counts.taken.load(Ordering::Relaxed));
        let rate = |now: u64, before: u64| (now - before) / EVERY.as_secs();
        println!(
            "           {} acked/s, {} taken/s; {} acked so far",
            rate(now.0, before.0),
            rate(now.1, before.1),
            now.0
        );
        before = now;
    }
}

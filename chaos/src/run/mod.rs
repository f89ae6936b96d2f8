//! A run: a cluster, load, faults, and the verdict of the checker.
//!
//! ```text
//!   load, probes, facts, faults ──► history ──► checker ──► report.json, report.html
//!   replicas' files in the end  ──►
//! ```

mod facts;
mod fault;
mod load;
mod probe;
pub mod report;
pub mod scenario;
mod stage;
pub mod truth;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_checker::history::Nanos;
use tidemark_checker::{Demands, Event, Files, Report, check};
use tidemark_env::SeededRng;

use crate::cluster::{Cluster, Spec};
use crate::notes::Notes;
use crate::stores;
use facts::Facts;
use load::Load;
use probe::Probes;
use report::Summary;
use scenario::{SCENARIOS, Scenario};
use stage::Stage;

/// Shards of a run's cluster.
const SHARDS: u16 = 8;
/// Its gateways.
const GATEWAYS: usize = 2;
/// Users: three on each shard, about.
const USERS: u32 = 24;

/// A call of the runner itself.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Of a run with as many seconds, at least so many sends a second must be accepted.
const ACCEPTED_PER_SECOND: u64 = 100;

/// A server of such a small cluster that needs more leaks.
const RSS_BYTES_MAX: u64 = 3 << 30;
/// The same for open files.
const FILES_MAX: u64 = 1_000;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which faults.
    pub scenario: Scenario,
    /// How long the load lasts.
    pub seconds: u64,
    /// For everything that is left to chance.
    pub seed: u64,
    /// Where the report goes.
    pub folder: PathBuf,
    /// Networks and disks of their own.
    pub lab: bool,
}

/// Runs it; the report is in the plan's folder then.
pub async fn run(plan: &Plan) -> Result<Summary> {
    fs::create_dir_all(&plan.folder).with_context(|| format!("{}", plan.folder.display()))?;
    let path = plan.folder.join("run.history");
    // An earlier run's report is replaced.
    if path.exists() {
        fs::remove_file(&path)?;
    }
    let notes = Notes::create(&path)?;
    let spec = Spec { nodes: 3, shards: SHARDS, gateways: GATEWAYS, stores: "" };
    let cluster = match plan.lab {
        true => Cluster::start_in_lab(spec).await?,
        false => Cluster::start(spec).await?,
    };
    let client = cluster.client(CALL_DEADLINE).await?;
    let lives = facts::Lives::default();
    let probes = Probes::start(&client, &notes)?;
    let facts = Facts::start(&client, &lives, &notes);
    let pace = plan.scenario.pace();
    let load = Load::start(&cluster, GATEWAYS, USERS, pace, plan.seed, &notes).await?;
    println!("{USERS} users with two devices each write at {pace:?}");
    let telling = tokio::spawn(tell(load.counts()));
    let mut stage = Stage {
        cluster,
        client,
        notes: notes.clone(),
        probes,
        facts,
        lives,
        rng: Arc::new(SeededRng::new(plan.seed)),
        shard_count: SHARDS,
        gateways: GATEWAYS,
        felt: Vec::new(),
        unsynced_bytes_lost: 0,
    };
    stage.play(&plan.scenario, plan.seconds).await?;
    telling.abort();
    let Stage { mut cluster, client, probes, facts, felt, unsynced_bytes_lost, .. } = stage;
    println!("the load has stopped; waiting until everything is where it belongs");
    drop(probes);
    load.finish(&client, &notes).await?;
    drop(facts);
    stores::settled(&client).await?;
    costs(&cluster, &notes)?;
    cluster.kill_all()?;
    println!("reading what every replica holds");
    truth::read(&cluster, &notes)?;
    notes.finish()?;
    drop(cluster);
    println!("checking");
    let report = check(&Files::default().whole(&path), &demands(plan.seconds))?;
    let summary = Summary::of(plan, &report, felt, unsynced_bytes_lost);
    report::write(&plan.folder, &path, &summary, &report)?;
    println!("{report}");
    Ok(summary)
}

/// Judges histories of earlier runs.
pub fn judge(files: &[PathBuf]) -> Result<Report> {
    let history = files.iter().fold(Files::default(), Files::whole);
    Ok(check(&history, &demands(0))?)
}

fn demands(seconds: u64) -> Demands {
    let effects = SCENARIOS.iter().filter(|scenario| !scenario.effect.is_empty());
    let effects = effects.map(|scenario| {
        let kind = scenario.name.trim_end_matches("-all");
        (kind.to_owned(), vec![scenario.effect.to_owned()])
    });
    let mut effects: std::collections::BTreeMap<_, _> = effects.collect();
    effects.entry("leader-kill".to_owned()).or_default().push("leaders changed".to_owned());
    Demands {
        accepted_min: seconds * ACCEPTED_PER_SECOND,
        effects,
        recovery: Nanos(30_000_000_000),
        ..Demands::default()
    }
}

fn costs(cluster: &Cluster, notes: &Notes) -> Result<()> {
    for member in cluster.members() {
        let usage = cluster.usage(member)?;
        for (what, amount, bound) in [
            ("bytes of memory, at most", usage.memory_max, RSS_BYTES_MAX),
            ("open files", usage.files, FILES_MAX),
        ] {
            let (process, what) = (member.to_string(), what.to_owned());
            notes.note(|at| Event::Cost { at, process, what, amount, bound });
        }
    }
    Ok(())
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

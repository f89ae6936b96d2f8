//! What is kept does not depend on one clock: a node whose clock is far ahead, and which leads, removes
//! nothing; two of three are a majority, and what is then older than a year goes.
//!
//! The last part is what shows that the first could fail.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidemark_lab::preload::{Library, Pace};
use tidemark_types::{Seq, UserId};

use crate::cluster::Cluster;
use crate::phone::{PATIENCE, Phone};

/// Expiry goes by the cluster's time this often, and all mailboxes are looked at.
const STORES: &str = "[retention]\nexpire_every_ms = 200\nwalk_every_ms = 200\n";

/// Long enough for some looks at each mailbox.
const LOOKS: Duration = Duration::from_secs(2);

const DAY_S: i64 = 24 * 60 * 60;

/// How far a clock is ahead, in days: the second is further than anything is kept.
const AHEAD: [i64; 2] = [31, 400];

/// What is sent, and must be kept.
const TEXTS: [&str; 3] = ["one", "two", "three"];

/// The clocks of a cluster's stores.
struct Clocks<'a> {
    cluster: &'a Cluster,
    library: Library,
    folder: &'a Path,
}

/// Shows it, on a cluster of its own.
pub(crate) async fn run(root: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::up(root, "", STORES)?;
    let library = Library::compile(folder.path())?;
    let clocks = Clocks { cluster: &cluster, library, folder: folder.path() };
    let (alice, bob) = (UserId::new("alice")?, UserId::new("bob")?);
    let device = |user: &UserId, name: &str| Phone::new(&cluster, folder.path(), user, name);
    let (mut sender, mut phone) = (device(&alice, "phone")?, device(&bob, "phone")?);
    sender.on().await?;
    phone.on().await?;
    for text in TEXTS {
        sender.send(&bob, text).await?;
        phone.took(text).await?;
    }
    let all = Seq::new(3);
    phone.until(phone.name(), "at 3", |it| it.cursor == all).await?;
    for days in AHEAD {
        clocks.wrong(1, days).await?;
        clocks.leads(1).await?;
        tokio::time::sleep(LOOKS).await;
        let mut other = device(&bob, &format!("after-{days}-days"))?;
        other.on().await?;
        other.took(TEXTS[2]).await?;
        other.has_exactly(&TEXTS)?;
        other.off().await;
        println!("clocks: one of three {days} days ahead, and it leads: nothing is removed");
    }
    clocks.wrong(2, AHEAD[1]).await?;
    let ends = Instant::now() + PATIENCE;
    for number in 0.. {
        let mut other = device(&bob, &format!("late-{number}"))?;
        other.on().await?;
        // It starts after what was removed.
        let cursor = other.cursor();
        other.off().await;
        if cursor == all && other.has_exactly(&[]).is_ok() {
            break;
        }
        ensure!(
            Instant::now() < ends,
            "two clocks ahead remove nothing: so the test proves nothing"
        );
        tokio::time::sleep(LOOKS).await;
    }
    println!("clocks: two of three {} days ahead: everything is removed", AHEAD[1]);
    sender.off().await;
    phone.off().await;
    cluster.down()
}

impl Clocks<'_> {
    /// A node starts again with a clock that is so many days ahead, and is seen to be.
    async fn wrong(&self, node: usize, days: i64) -> Result<()> {
        let control = self.folder.join(format!("clock-{node}-{days}"));
        let preload = self.library.before(&control)?;
        preload.set_clock(Pace::Off(days * DAY_S))?;
        self.cluster.restart(node, &preload.environment(None))?;
        // Of two nodes that are ahead, cluster time is; the others are behind.
        let (seen, ends) = (if node == 1 { 1 } else { 3 }, Instant::now() + PATIENCE);
        let wanted = (days * DAY_S) as f64 * 0.99;
        while self.cluster.metric(seen, "store_clock_offset_seconds")?.abs() < wanted {
            ensure!(Instant::now() < ends, "node {node}'s clock is not {days} days ahead");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Waits until a node leads some shard.
    async fn leads(&self, node: usize) -> Result<()> {
        let (leader, ends) = (format!(" leader={node} "), Instant::now() + PATIENCE);
        loop {
            let status = self.cluster.script(&["status"])?;
            let mut shards = status.lines().filter(|line| line.starts_with("shard-"));
            if shards.any(|line| line.contains(&leader)) {
                return Ok(());
            }
            ensure!(Instant::now() < ends, "node {node} leads no shard: {status}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

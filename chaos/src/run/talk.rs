//! Two users beside the load who mark, recall and edit (R19), type, and see whether the other one is
//! there; devices of one of them are logged out and displaced meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidemark_types::UserId;
use tokio::task::JoinHandle;

use super::visits::Visits;
use crate::acts::{self, Asked, Judged, Talker};
use crate::cluster::Cluster;
use crate::login::Login;
use crate::notes::Notes;
use crate::wire::Wire;

/// Between two messages of one of them, and between two visits.
const PAUSE: Duration = Duration::from_millis(100);
const VISIT_EVERY: Duration = Duration::from_secs(1);

/// Fewer acts than these show too little.
const ACTS_MIN: usize = 30;

/// What passes by comes at last, when it is said again and again.
const PASSES_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(250);

const PREFIX: &str = "talker-";

/// Is it one of these, and none of the history's users?
pub(super) fn is_talker(name: &UserId) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// Those who talk.
pub(super) struct Talk {
    talkers: Arc<[Talker; 2]>,
    talking: [JoinHandle<Result<Vec<Asked>>>; 2],
    visiting: Option<JoinHandle<Result<u32>>>,
    visits: Visits,
    stop: Arc<AtomicBool>,
    asked: Vec<Asked>,
    notes: Notes,
}

impl Talk {
    /// Lets them talk; visitors come and are sent away under faults, if there are any.
    pub(super) async fn start(cluster: &Cluster, visitors: bool, notes: &Notes) -> Result<Self> {
        let name = |number: u32| UserId::new(format!("{PREFIX}{number}"));
        let talkers = Arc::new([
            Talker::open(cluster, 0, &name(0)?).await?,
            Talker::open(cluster, 1, &name(1)?).await?,
        ]);
        let stop = Arc::<AtomicBool>::default();
        let talking = [0, 1].map(|me| {
            let (talkers, stop) = (talkers.clone(), stop.clone());
            tokio::spawn(async move {
                let goes_on = |_| !stop.load(Ordering::Relaxed);
                talkers[me].talk(&talkers[1 - me], goes_on, PAUSE).await
            })
        });
        let visits = Visits::new(cluster, &talkers[0].user)?;
        let visiting = visitors.then(|| tokio::spawn(visit(visits.clone(), stop.clone())));
        let (asked, notes) = (Vec::new(), notes.clone());
        Ok(Talk { talkers, talking, visiting, visits, stop, asked, notes })
    }

    /// Waits until what was asked has its outcome.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for talking in &mut self.talking {
            match talking.await? {
                Ok(asked) => self.asked.extend(asked),
                Err(why) => wrong(&self.notes, &why),
            }
        }
        if let Some(visiting) = self.visiting.take() {
            match visiting.await? {
                Ok(count) => {
                    println!("devices: {count} logged out and {count} displaced under faults")
                }
                Err(why) => wrong(&self.notes, &why),
            }
        }
        Ok(())
    }

    /// Once all is healed: what must hold then, and what the mailboxes hold.
    pub(super) async fn finish(mut self, cluster: &Cluster) -> Result<()> {
        for kept in
            [self.visits.log_out().await, self.visits.displace().await, self.pass_by().await]
        {
            if let Err(why) = kept {
                wrong(&self.notes, &why);
            }
        }
        let asked = std::mem::take(&mut self.asked);
        let wire = Wire::new(&cluster.gateway(0)?, &Login::service(&cluster.key())?.sign())?;
        match acts::judge(&wire, &*self.talkers, asked).await {
            Ok(Judged { wrong, acts }) => {
                println!("acts: {acts} accepted");
                for what in &wrong {
                    eprintln!("{what}");
                }
                let (count, few) = (wrong.len(), ACTS_MIN.saturating_sub(acts));
                let few = u64::try_from(few)?;
                self.notes.amount(&"acts", "promises not kept", u64::try_from(count)?, 0);
                self.notes.amount(&"acts", "acts too few to show anything", few, 0);
            }
            Err(why) => wrong(&self.notes, &why),
        }
        self.talkers[0].device.close().await;
        Ok(())
    }

    /// Who types is seen to type, and who is there to be there, and no longer once gone.
    async fn pass_by(&self) -> Result<()> {
        let [one, other] = &*self.talkers;
        let (before, began) = (other.heard_typing(), Instant::now());
        while other.heard_typing() == before {
            ensure!(began.elapsed() < PASSES_WITHIN, "nobody hears who types");
            one.device.typing(&other.user, true).await;
            tokio::time::sleep(AGAIN).await;
        }
        self.is_there(true).await?;
        other.device.close().await;
        self.is_there(false).await
    }

    async fn is_there(&self, wanted: bool) -> Result<()> {
        let [one, other] = &*self.talkers;
        let began = Instant::now();
        loop {
            let said = one.device.presence(&other.user).await;
            if said.as_ref().is_ok_and(|status| status.online == wanted) {
                return Ok(());
            }
            let late = || format!("{said:?}, and online is {wanted}");
            ensure!(began.elapsed() < PASSES_WITHIN, late());
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn wrong(notes: &Notes, why: &anyhow::Error) {
    eprintln!("{why:#}");
    notes.amount(&"devices", &format!("{why:#}"), 1, 0);
}

async fn visit(visits: Visits, stop: Arc<AtomicBool>) -> Result<u32> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        visits.log_out().await.context("under faults")?;
        visits.displace().await.context("under faults")?;
        count += 1;
        tokio::time::sleep(VISIT_EVERY).await;
    }
    Ok(count)
}

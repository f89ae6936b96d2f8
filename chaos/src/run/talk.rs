//! Two users beside the load who mark, recall and edit (R19), type, and see whether the other one is
//! there; devices of one of them are logged out and displaced meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::visits::Visits;
use crate::acts::{self, Judged, Talked, Talker};
use crate::cluster::Cluster;
use crate::login::Login;
use crate::notes::Notes;
use crate::wire::Wire;

/// Between two messages of one of them, and between two visits.
const PAUSE: Duration = Duration::from_millis(100);
const VISIT_EVERY: Duration = Duration::from_secs(1);

/// Fewer acts than these show too little.
const ACTS_MIN: usize = 30;

/// Those who talk.
pub(super) struct Talk {
    talkers: Arc<[Talker; 2]>,
    talking: [JoinHandle<Result<Talked>>; 2],
    visiting: Option<JoinHandle<Result<u32>>>,
    visits: Visits,
    stop: Arc<AtomicBool>,
    talked: Vec<Talked>,
    notes: Notes,
}

impl Talk {
    /// Lets them talk; visitors come and are sent away under faults, if there are any.
    pub(super) async fn start(cluster: &Cluster, visitors: bool, notes: &Notes) -> Result<Self> {
        let talkers = Arc::new([
            Talker::open(cluster, 0, &acts::name(0)).await?,
            Talker::open(cluster, 1, &acts::name(1)).await?,
        ]);
        let stop = Arc::<AtomicBool>::default();
        let talking = [0, 1].map(|me| {
            let (talkers, stop) = (talkers.clone(), stop.clone());
            tokio::spawn(async move {
                let goes_on = |_| !stop.load(Ordering::Relaxed);
                talkers[me].talk(&*talkers, goes_on, PAUSE).await
            })
        });
        let visits = Visits::new(cluster, &talkers[0].user)?;
        let visiting = visitors.then(|| tokio::spawn(visit(visits.clone(), stop.clone())));
        let (talked, notes) = (Vec::new(), notes.clone());
        Ok(Talk { talkers, talking, visiting, visits, stop, talked, notes })
    }

    /// Waits until what was asked has its outcome.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for talking in &mut self.talking {
            match talking.await? {
                Ok(talked) => self.talked.push(talked),
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
        let [one, other] = &*self.talkers;
        for kept in [
            self.visits.log_out().await,
            self.visits.displace().await,
            acts::pass_by(one, other).await,
        ] {
            if let Err(why) = kept {
                wrong(&self.notes, &why);
            }
        }
        let talked = std::mem::take(&mut self.talked);
        let wire = Wire::new(&cluster.gateway(0)?, &Login::service(&cluster.key())?.sign())?;
        match acts::judge(&wire, &*self.talkers, talked).await {
            Ok(Judged { wrong, acts, counted }) => {
                println!("acts: {acts} accepted, {counted} answers of what is unread");
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

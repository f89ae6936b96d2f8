//! What every workload of ours runs on: the cluster, what can be set, and who watches.

use std::time::Duration;

use tidemark_env::{Rng, SystemRng};

use crate::lookout::{Look, Lookout};
use crate::names::Names;
use crate::report::Conditions;
use crate::settings::Settings;
use crate::target::Target;
use crate::workload::{Scale, Workload};

/// What a workload runs on.
pub(crate) struct Stage<'a> {
    pub(crate) target: &'a Target,
    pub(crate) settings: &'a Settings,
    pub(crate) scale: Scale,
    pub(crate) lookout: Lookout,
    /// What the names of this run begin with.
    prefix: String,
}

impl<'a> Stage<'a> {
    /// Nothing has happened yet.
    pub(crate) fn new(target: &'a Target, workload: &Workload, settings: &'a Settings) -> Self {
        Stage {
            target,
            settings,
            scale: settings.scale(workload),
            lookout: Lookout::new(workload.name, target.processes.clone()),
            prefix: format!("bench-{:08x}", SystemRng.number() >> 32),
        }
    }

    /// Users whom no other run has met.
    pub(crate) fn names(&self) -> Names {
        Names::new(self.target.shards, self.prefix.clone())
    }

    /// A counter that no other run has used.
    pub(crate) fn counter(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// The warm-up passes.
    pub(crate) async fn warm_up(&self) {
        let time = Duration::from_secs(self.settings.warmup.into());
        self.lookout.pass(time, "warm-up").await;
    }

    /// How long is measured.
    pub(crate) fn measured_time(&self) -> Duration {
        Duration::from_secs(self.scale.seconds.into())
    }

    /// The gateway's memory at that moment, if its process is known.
    pub(crate) fn gateway_bytes(&self, look: &Look) -> Option<u64> {
        let mut usages = self.lookout.processes.iter().zip(&look.usages);
        let (_, usage) = usages.find(|(process, _)| process.is_gateway())?;
        usage.map(|usage| usage.rss_bytes)
    }

    /// With what a workload runs that has so many recipients, on so many connections.
    pub(crate) fn conditions(&self, recipients: usize, connections: usize) -> Conditions {
        Conditions {
            shards: self.target.shards.get(),
            senders: self.scale.senders as usize,
            in_flight: None,
            rate: None,
            recipients,
            body: Some(self.settings.body),
            connections,
            threads: self.settings.threads,
            warmup: self.settings.warmup,
        }
    }
}

//! What goes between hosts: cut, lost, late, reset.

use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_env::Rng;
use tidemark_lab::lan::{HERE, Host, Lan};
use tidemark_lab::packets::{Tally, WeakHost, Weather};

use super::Effects;
use crate::run::stage::Stage;

impl Stage {
    /// The network of the run.
    pub(super) fn lan(&self) -> Result<&Lan> {
        self.cluster.lan().context("a network of its own")
    }

    pub(super) async fn split(
        &mut self,
        cuts: &[(Host, Host)],
        each: Duration,
        rounds: u32,
    ) -> Result<Effects> {
        let mut dropped = 0;
        for round in 0..rounds {
            if round > 0 {
                tokio::time::sleep(each).await;
            }
            for (from, to) in cuts {
                self.lan()?.cut(*from, *to)?;
            }
            tokio::time::sleep(each).await;
            dropped += self.heal_all()?;
        }
        self.all_ready().await?;
        Ok(vec![("packets dropped", dropped)])
    }

    /// Nothing is dropped anywhere any more; how many packets were.
    pub(super) fn heal_all(&self) -> Result<u64> {
        let hosts = self.cluster.members().map(|member| self.lan()?.heal(member.host()));
        Ok(hosts.collect::<Result<Vec<_>>>()?.iter().map(|dropped| dropped.packets).sum())
    }

    /// Nothing comes from anybody to this host, nor from it to anybody.
    pub(super) fn isolate(&self, host: Host) -> Result<()> {
        for other in self.others(host) {
            self.lan()?.cut(host, other)?;
            self.lan()?.cut(other, host)?;
        }
        Ok(())
    }

    /// Undoes one isolation of this host and nothing else; packets that were dropped meanwhile.
    pub(super) fn rejoin(&self, host: Host) -> Result<u64> {
        let mut dropped = 0;
        for other in self.others(host) {
            dropped += self.lan()?.allow(host, other)? + self.lan()?.allow(other, host)?;
        }
        Ok(dropped)
    }

    fn others(&self, host: Host) -> Vec<Host> {
        let all = self.cluster.members().map(|member| member.host()).chain([HERE]);
        all.filter(|other| *other != host).collect()
    }

    pub(super) async fn weaken(
        &mut self,
        links: &[(Host, Vec<Host>)],
        weather: Weather,
        resets: f64,
        each: Duration,
    ) -> Result<Effects> {
        let mut weak = Vec::new();
        for (host, others) in links {
            // Before the weather's rules: a packet that is asked about comes back to no rule.
            for other in others.iter().filter(|_| resets > 0.0) {
                self.lan()?.reset(*other, *host, resets)?;
            }
            weak.push(WeakHost::start(*host, others, weather, self.rng.number())?);
        }
        tokio::time::sleep(each).await;
        let mut sum = Tally::default();
        for host in weak {
            let Tally { lost, late, overtook } = host.end()?;
            sum = Tally {
                lost: sum.lost + lost,
                late: sum.late + late,
                overtook: sum.overtook + overtook,
            };
        }
        let mut reset = 0;
        for (host, _) in links {
            reset += self.lan()?.heal(*host)?.resets;
        }
        self.all_ready().await?;
        Ok(vec![
            ("packets lost", sum.lost),
            ("packets late", sum.late),
            ("packets that overtook", sum.overtook),
            ("connections reset", reset),
        ])
    }
}

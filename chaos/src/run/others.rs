//! Whom gateways call: push services, and an operator's hook. They listen on this process's loopback, as
//! they must; a gateway with a host of its own reaches them on its own.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::checks::Operator;
use super::load::Shape;
use super::sleepers::Services;
use super::{GATEWAYS, Plan};
use crate::cluster::{Cluster, Member};
use crate::notes::Notes;

/// Connections of a gateway to one of them; more wait.
const CONNECTIONS_MAX: usize = 256;

/// Those of a run, as the scenario has them.
pub(super) struct Others {
    pub(super) services: Option<Services>,
    pub(super) operator: Option<Operator>,
    /// What gateways with hosts of their own reach them by.
    _doors: JoinSet<()>,
}

impl Others {
    /// Starts them.
    pub(super) async fn start(plan: &Plan, notes: &Notes) -> Result<Self> {
        let services = match plan.scenario.has_sleepers() {
            true => Some(Services::start(plan.scenario.has_vendors()).await?),
            false => None,
        };
        let operator = match plan.scenario.has_checks() {
            true => Some(Operator::start(plan.seed, notes).await?),
            false => None,
        };
        Ok(Others { services, operator, _doors: JoinSet::new() })
    }

    /// The configuration of each gateway.
    pub(super) fn gateways(&self, shape: Shape) -> Vec<String> {
        let gateway = |number| {
            let services = self.services.as_ref().map(|services| services.gateways().to_owned());
            let checks = self.operator.as_ref().map(|operator| operator.gateway(number, shape));
            [services, checks].into_iter().flatten().collect::<String>()
        };
        (0..GATEWAYS).map(gateway).collect()
    }

    /// Lets each gateway reach them where it is.
    pub(super) fn reach(&mut self, cluster: &Cluster) -> Result<()> {
        let Some(lan) = cluster.lan() else { return Ok(()) };
        let services = self.services.iter().flat_map(Services::addresses);
        let operator = self.operator.as_ref().map(Operator::address);
        for address in services.chain(operator) {
            for gateway in (0..GATEWAYS).map(Member::Gateway) {
                let door = lan.listen(gateway.host(), address)?;
                door.set_nonblocking(true)?;
                self._doors.spawn(forward(TcpListener::from_std(door)?, address));
            }
        }
        Ok(())
    }
}

/// What comes to one address is for the other, which is the same in another network.
async fn forward(door: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((mut from, _)) = door.accept().await else { continue };
        connections.spawn(async move {
            let Ok(mut to) = TcpStream::connect(to).await else { return };
            // Either end may break off.
            drop(copy_bidirectional(&mut from, &mut to).await);
        });
    }
}

//! `shard leader` and `shard transfer`: who leads a shard, and who shall.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::TransferRequest;
use tidemark_proto::v1::cluster_client::ClusterClient;
use tidemark_token::Role;

use crate::arguments::Shard;
use crate::command::cluster;
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::Output;

/// Asks or moves, and prints the leader.
pub(crate) async fn run(
    command: &Shard,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let leader = match *command {
        Shard::Leader { shard } => leader(shard, gateways).await?,
        Shard::Transfer { shard, to } => {
            let rpc = async |channel, request| ClusterClient::new(channel).transfer(request).await;
            let request = TransferRequest { shard, node: to };
            // A leadership that was moved already is moved once more to where it is.
            let moved = gateways.call(Role::Admin, Outcome::of_change(), request, rpc).await?;
            Leader { shard, leader: moved.leader }
        }
    };
    Ok(output.print(&leader)?)
}

async fn leader(shard: u32, gateways: &mut Gateways) -> Result<Leader, Error> {
    let shards = cluster::status(gateways).await?.shards;
    let count = shards.len();
    let found = shards.into_iter().find(|found| found.shard == shard);
    let found = found.ok_or_else(|| {
        Error::Usage(format!("there is no shard {shard}: the cluster has {count}, from 0"))
    })?;
    match found.leader {
        0 => Err(Error::Unavailable(format!("shard {shard} has no leader that is known"))),
        leader => Ok(Leader { shard, leader }),
    }
}

#[derive(Serialize)]
struct Leader {
    shard: u32,
    leader: u64,
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} is led by node {}", self.shard, self.leader)
    }
}

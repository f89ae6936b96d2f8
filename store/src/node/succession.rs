//! Succeeds the leaders of a node whose process is gone (ADR 14).

use std::sync::Arc;

use futures::{StreamExt, stream};
use tidemark_types::NodeId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::shard::Hosted;

/// Elections under way at once: their votes share fsyncs, and a node may have led hundreds of groups.
const ELECTIONS_MAX: usize = 64;

/// Runs until nobody can tell any more which node is gone.
pub(super) async fn run(hosted: Arc<Hosted>, mut gone: broadcast::Receiver<NodeId>) {
    loop {
        match gone.recv().await {
            Ok(node) => succeed(&hosted, node).await,
            // Those that were missed are left to the timers.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn succeed(hosted: &Hosted, node: NodeId) {
    let groups: Vec<_> = hosted.groups().map(|(_, group)| group.clone()).collect();
    let elections = stream::iter(groups).for_each_concurrent(ELECTIONS_MAX, |group| async move {
        if let Err(error) = group.succeed(node).await {
            tracing::warn!(group = %group.id(), %node, %error, "nobody stands in its place here");
        }
    });
    elections.await;
}

//! One stream to one node, as long as it lasts.

use tidemark_proto::store::v1::{WatchRequest, WatchUpdate};
use tidemark_types::NodeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::link::{addressed, store_client};

/// Requests that wait to be written; beyond it the director waits with the rest.
const REQUESTS: usize = 64;

/// What came from a node's stream.
pub(super) struct Heard {
    /// Which node.
    pub(super) node: NodeId,
    /// Which of its streams.
    pub(super) generation: u64,
    /// What it said; none when the stream ended.
    pub(super) update: Option<WatchUpdate>,
}

/// One stream to one node.
pub(super) struct NodeStream {
    /// Later streams have higher ones.
    pub(super) generation: u64,
    /// Where requests go in.
    pub(super) requests: mpsc::Sender<WatchRequest>,
}

impl NodeStream {
    /// Opens it in the background; it ends with a [`Heard`] without an update, also when it never
    /// opened. Dropping the requests closes it.
    pub(super) fn open(
        client: Client,
        node: NodeId,
        generation: u64,
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        let (requests, queued) = mpsc::channel(REQUESTS);
        tokio::spawn(async move {
            if let Err(reason) = follow(&client, node, generation, queued, &heard).await {
                tracing::debug!(%node, reason, "a watch of a store node ended");
            }
            // Nobody listens any more if this fails.
            let _ = heard.send(Heard { node, generation, update: None }).await;
        });
        NodeStream { generation, requests }
    }
}

async fn follow(
    client: &Client,
    node: NodeId,
    generation: u64,
    queued: mpsc::Receiver<WatchRequest>,
    heard: &mpsc::Sender<Heard>,
) -> Result<(), String> {
    let mut store = store_client(client.channel(node).map_err(|error| error.to_string())?);
    let requests = ReceiverStream::new(queued);
    let opened = store.watch(addressed(requests, client.map().cluster)).await;
    let mut updates = opened.map_err(|status| status.message().to_owned())?.into_inner();
    loop {
        match updates.message().await {
            Ok(Some(update)) => {
                let heard = heard.send(Heard { node, generation, update: Some(update) }).await;
                heard.map_err(|_| "nobody listens")?;
            }
            Ok(None) => return Ok(()),
            Err(status) => return Err(status.message().to_owned()),
        }
    }
}

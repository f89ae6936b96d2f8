//! TCP that can be cut, or made to hang, between two nodes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tidemark_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::watch;

use tidemark_env::{Connector, Duplex};

/// What becomes of what one node sends to another over connections that it dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection breaks, and new ones are refused.
    Cut,
    /// As when a process ends: so many new ones break as well before they are refused.
    Ends(u32),
    /// Nothing arrives any more, and nobody is told.
    Hang,
}

/// The faults between nodes; clones are the same network.
#[derive(Clone)]
pub(super) struct Net {
    nodes: Arc<Mutex<BTreeMap<String, NodeId>>>,
    faults: watch::Sender<BTreeMap<(NodeId, NodeId), Fault>>,
}

impl Default for Net {
    fn default() -> Self {
        Net { nodes: Arc::default(), faults: watch::channel(BTreeMap::new()).0 }
    }
}

impl Net {
    pub(super) fn add(&self, node: NodeId, address: &str) {
        self.nodes.lock().insert(address.to_owned(), node);
    }

    pub(super) fn set(&self, from: u64, to: u64, fault: Option<Fault>) {
        let pair = (NodeId::new(from), NodeId::new(to));
        self.faults.send_modify(|faults| {
            match fault {
                Some(fault) => faults.insert(pair, fault),
                None => faults.remove(&pair),
            };
        });
    }

    /// What becomes of a new connection.
    fn dial(&self, pair: (NodeId, NodeId)) -> Option<Fault> {
        let mut found = None;
        self.faults.send_modify(|faults| {
            let fault = faults.get_mut(&pair);
            found = fault.as_deref().copied();
            if let Some(Fault::Ends(left)) = fault {
                *left = left.saturating_sub(1);
            }
        });
        found
    }

    /// Sets the fault between `node` and the two others, in both directions.
    pub(super) fn isolate(&self, node: u64, fault: Option<Fault>) {
        for other in (1..=3).filter(|other| *other != node) {
            self.set(node, other, fault);
            self.set(other, node, fault);
        }
    }
}

/// How one node connects.
pub(super) struct Wire {
    pub(super) from: NodeId,
    pub(super) net: Net,
}

impl Connector for Wire {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let to = self.net.nodes.lock().get(&address).copied();
        let pair = (self.from, to.expect("a node's address"));
        let net = self.net.clone();
        Box::pin(async move {
            match net.dial(pair) {
                Some(Fault::Cut | Fault::Ends(0)) => {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Some(Fault::Ends(_)) => return Ok(Box::new(tokio::io::duplex(1).0) as _),
                Some(Fault::Hang) | None => {}
            }
            let faults = net.faults.subscribe();
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            tokio::spawn(carry(theirs, stream, pair, faults));
            Ok(Box::new(ours) as Box<dyn Duplex>)
        })
    }
}

async fn carry(
    mut near: DuplexStream,
    mut far: TcpStream,
    pair: (NodeId, NodeId),
    mut faults: watch::Receiver<BTreeMap<(NodeId, NodeId), Fault>>,
) {
    let (mut near_bytes, mut far_bytes) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let fault = faults.borrow_and_update().get(&pair).copied();
        if matches!(fault, Some(Fault::Cut | Fault::Ends(_))) {
            return;
        }
        let flows = fault.is_none();
        let done = tokio::select! {
            changed = faults.changed() => changed.is_err(),
            read = near.read(&mut near_bytes), if flows => match read {
                Ok(read @ 1..) => far.write_all(&near_bytes[..read]).await.is_err(),
                _ => true,
            },
            read = far.read(&mut far_bytes), if flows => match read {
                Ok(read @ 1..) => near.write_all(&far_bytes[..read]).await.is_err(),
                _ => true,
            },
        };
        if done {
            return;
        }
    }
}

//! Raft between store nodes: one gRPC stream per ordered pair of nodes, shared by all groups.
//!
//! ```text
//!   group ─┐                                                             ┌─ group
//!   group ─┼─ Link ── Connection ── Outbox ══ batches of frames ══► Session ─┼─ group
//!   group ─┘    ▲          ▲                                         │   └─ group
//!               └──────────┴───────────────◄══ answers ══ Outbox ◄───┘
//!   dialer: asks for its groups                      acceptor: answers for its groups
//! ```
//!
//! A snapshot takes a connection of its own: the replica that needs it fetches it, frame by frame,
//! from a node that has it, because the leader asks it to (`fetch.rs`) or because it lost its state.
//!
//! A node dials every other node that it has something to ask; what the other asks of it comes over
//! the other's own stream. Whatever is ready when the transport can take more leaves in one
//! message, so the cost of a message is shared by all groups that have something to say.
//!
//! Invariants:
//! * Frames arrive in the order in which they were queued, or the connection ends. A broken frame
//!   ends it; none is ever skipped: a gap in a stream of appends would be a hole nobody looks for.
//! * Nothing waits for ever: when a connection ends, every call and stream on it fails at once;
//!   calls have deadlines, and an append that gets no answer in time ends its stream.
//! * A slow group holds up only itself. Neither reader ever waits for a group; each stream's
//!   requests under way are bounded, in number and bytes, by whoever asks.
//! * A frame names the replica it is for, not only the group: a replica that was replaced by
//!   another on the same node never answers for its predecessor.
//!
//! It refuses a node of another cluster, of another protocol version, or one that is not whom it
//! was taken for. It does not authenticate or encrypt: that is the connector's and the listener's.

mod accept;
mod connect;
mod connection;
mod dial;
mod fetch;
mod frame;
mod link;
mod outbox;
mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tidemark_types::{ClusterId, NodeId};

pub use accept::Acceptor;
pub use connect::{incoming, server};
pub use dial::Peers;
pub use fetch::FetchError;
pub use link::{Link, Network};

/// Who a node is towards the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
}

/// From the first packet to the other's hello. A node that takes longer is as good as down.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// An append that gets no answer for so long ends its stream. Longer than a slow fsync, shorter
/// than anybody's patience.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Appends of one stream that may be unanswered; as many as openraft takes at once.
const STREAM_WINDOW: usize = 64;

/// And their bytes, unless a single one has more: bounds what waits in the other's memory.
const STREAM_WINDOW_BYTES: usize = 4 << 20;

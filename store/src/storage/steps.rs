//! The durable steps of the state, where a simulation looks on and may end a node's life.

use std::io;

use tidemark_store_core::storage::Writes;

use super::GroupId;

/// Something that changes what a crash leaves of the state, or what is seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Applied entries and their position are written to memory.
    Apply,
    /// Pairs of a snapshot are written to memory, or an old generation is removed there.
    Stage,
    /// A complete generation becomes the live one, in memory.
    Flip,
    /// All that is in memory is written to the disk.
    Flush,
}

/// Looks on while the state changes; an error ends the node, as one of the disk would.
pub trait Steps: Send + Sync + 'static {
    /// Before it happens: after an error it does not.
    fn before(&self, step: Step) -> io::Result<()>;

    /// After it has happened, before anybody is told.
    fn after(&self, step: Step) -> io::Result<()>;

    /// What a group applied, and up to where, as it is in memory now.
    fn applied(&self, group: GroupId, writes: &Writes, position: &[u8]);
}

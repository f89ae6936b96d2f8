//! What a server's tasks run on.

use tokio::runtime::Builder;

/// A runtime on which a task that is woken waits for its turn, behind those that were woken before it.
///
/// Tokio's own choice is to run it next, which is good for two tasks that talk to each other. Here many tasks hand
/// frames to one connection: it would be run after each one, and write each frame to its socket by itself
/// (`docs/adr/0024-tasks-wait-for-their-turn.md`).
pub fn runtime() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().disable_lifo_slot();
    builder
}

//! Why the log takes nothing more.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// The end of the log's intake. After [`Failure::Io`] nothing that was waiting is acknowledged,
/// nothing is retried, and the process has to stop: what is on disk is no longer known, and a
/// second fsync may succeed without having written what the first one failed to.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// A commit failed.
    #[error("the raft log failed and accepts nothing more: {0}")]
    Io(Arc<io::Error>),
    /// The writer went away without being asked to: it panicked.
    #[error("the raft log's writer ended unexpectedly")]
    WriterGone,
    /// The node is shutting down.
    #[error("the raft log is shut down")]
    ShutDown,
}

impl Failure {
    /// The same as an I/O error, for the many who wait.
    pub(crate) fn to_io(&self) -> io::Error {
        let kind = match self {
            Failure::Io(error) => error.kind(),
            Failure::WriterGone | Failure::ShutDown => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, self.clone())
    }
}

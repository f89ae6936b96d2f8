//! What a peer is loaded with, and what its adapter has to offer for it: the two traits that every
//! peer implements, so that all are driven and checked by the same code.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::task::JoinSet;

use crate::body::{Bodies, Spoilt};
use crate::ledger::Ledger;
use crate::meter::Meter;
use crate::peers::intake::Read;
use crate::peers::servers::Servers;
use crate::report::Conditions;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Messages to any of so many users, who do not read.
    Stored {
        /// How many.
        users: u32,
    },
    /// Each sender has a recipient of its own; all are read through as few consumers as the peer is
    /// best with.
    Shared,
    /// Every sender is a user with an inbox and a durable position of its own, and writes to any other.
    Inboxes,
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) work: Work,
    /// Senders.
    pub(crate) senders: u32,
    /// Messages that each has in flight in a closed loop.
    pub(crate) in_flight: u32,
    /// Messages in a second, of all senders, where the loop is open.
    pub(crate) rate: Option<u32>,
    /// Connections of an inbox's users; the other kinds of work have as many as the peer is best with.
    pub(crate) connections: u32,
    /// Bytes of a body.
    pub(crate) body: usize,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
    /// Threads that the load runs on.
    pub(crate) threads: u32,
}

impl Load {
    /// How many different recipients there are.
    pub(crate) fn recipients(&self) -> u32 {
        match self.work {
            Work::Stored { users } => users,
            Work::Shared | Work::Inboxes => self.senders,
        }
    }

    /// What a report says of it.
    pub(crate) fn conditions(&self, connections: usize) -> Conditions {
        Conditions {
            shards: 0,
            senders: self.senders as usize,
            in_flight: self.rate.is_none().then_some(self.in_flight),
            rate: self.rate,
            recipients: self.recipients() as usize,
            body: Some(self.body),
            connections,
            threads: self.threads,
            warmup: self.warmup.as_secs() as u32,
        }
    }

    /// Does somebody read?
    pub(crate) fn is_read(&self) -> bool {
        !matches!(self.work, Work::Stored { .. })
    }
}

/// Why a writer or reader stopped before its time.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// A message could not be handed over.
    #[error("writing: {0}")]
    Write(String),
    /// It was not acknowledged.
    #[error("no acknowledgement: {0}")]
    Ack(String),
    /// Reading ended, or a position could not be reported.
    #[error("reading: {0}")]
    Read(String),
    /// A body is not what was sent.
    #[error("{0}")]
    Body(#[from] Spoilt),
    /// It came where it does not belong.
    #[error("a message of {sender} to {to:?}, who has no such inbox here")]
    Astray {
        /// Who sent it.
        sender: u32,
        /// To whom it came.
        to: Option<u32>,
    },
}

impl Fault {
    /// For `map_err`.
    pub(crate) fn write(error: impl ToString) -> Self {
        Fault::Write(error.to_string())
    }

    /// For `map_err`.
    pub(crate) fn ack(error: impl ToString) -> Self {
        Fault::Ack(error.to_string())
    }

    /// For `map_err`.
    pub(crate) fn read(error: impl ToString) -> Self {
        Fault::Read(error.to_string())
    }
}

/// What writers and readers of a cell share.
pub(crate) struct Desk {
    pub(crate) meter: Arc<Meter>,
    pub(crate) bodies: Bodies,
}

/// What is written: from whom to whom, and which one of those.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) sender: u32,
    pub(crate) to: u32,
    pub(crate) k: u64,
    pub(crate) body: Bytes,
}

/// The acknowledgement of a message, to come.
pub(crate) type Ack = BoxFuture<'static, Result<(), Fault>>;

/// One sender's way into a peer.
pub(crate) trait Write: Send + 'static {
    /// Hands a message over; letters of one sender are handed over one after the other.
    fn write(&mut self, letter: Letter) -> impl Future<Output = Result<Ack, Fault>> + Send;
}

/// The clients of a cell.
pub(crate) struct Clients<W> {
    /// One for each sender.
    pub(crate) writers: Vec<W>,
    /// They read until the run is over, and leave what they have read.
    pub(crate) readers: JoinSet<Read>,
    /// TCP connections of all of them.
    pub(crate) connections: usize,
}

/// What is known when all have left: how much was sent to each recipient, and what was read.
pub(crate) struct Books<'a> {
    pub(crate) load: &'a Load,
    pub(crate) sent: &'a [u64],
    pub(crate) read: &'a [Read],
}

/// A peer that runs.
pub(crate) trait Peer {
    /// Its way in.
    type Writer: Write;

    /// Its processes.
    fn servers(&mut self) -> &mut Servers;

    /// They are no longer needed.
    fn into_servers(self) -> Servers;

    /// Makes what the load needs: streams, queues, inboxes. Counts recipients in `made` as they are made.
    async fn prepare(&self, load: &Load, made: &Made) -> Result<()>;

    /// Connects all clients; whoever is to read can miss nothing afterwards.
    async fn connect(&self, load: &Load, desk: &Arc<Desk>) -> Result<Clients<Self::Writer>>;

    /// Asks the servers what they have, and enters what is wrong.
    async fn audit(&self, books: &Books<'_>, ledger: &mut Ledger) -> Result<()>;

    /// Succeeds when the servers take a message again, after a pause.
    async fn probe(&self) -> Result<()>;
}

/// How many recipients there are places for.
#[derive(Debug, Default)]
pub(crate) struct Made(AtomicU32);

impl Made {
    /// One more.
    pub(crate) fn one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// So far.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

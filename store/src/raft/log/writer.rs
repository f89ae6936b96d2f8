//! The one writer: turns whatever has queued up into one batch and one fsync.
//!
//! ```text
//!  take ──> one batch ──> commit (one fsync) ──> acknowledge, in order ──> take ...
//!                            │ error
//!                            └──> close the queue, refuse everything, raise `failed`, end
//! ```
//!
//! A lone append waits for nothing. Under load batches grow by themselves, since the next one queues
//! up while an fsync runs; a fast disk's fsyncs are also kept [`COMMIT_EVERY`] apart, because each
//! costs the processor more than the appends that it carries.
//!
//! Invariants: nothing is acknowledged before its commit returned; nothing at all after one has
//! failed; acknowledgements come in queue order.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_mutants::{Mutant, is};

use super::failure::Failure;
use super::group_state::SharedState;
use super::queue::{Done, Op, Queue, Queued, Room};
use crate::metrics;
use crate::storage::{Change, LogBackend, LogBatch, LogWrite};

/// From one commit's beginning to the next one's, at least.
const COMMIT_EVERY: Duration = Duration::from_millis(1);

/// What waits for the batch that is being written.
struct Waiting {
    state: SharedState,
    done: Done,
    /// Held until after the acknowledgement, then the room is free again.
    _room: Room,
}

/// Writes the queue to a backend. Either [`LogWriter::spawn`] gives it a thread, or a simulation
/// calls [`LogWriter::step`].
pub struct LogWriter<B: LogBackend> {
    backend: B,
    queue: Arc<Queue>,
    batch_bytes_max: usize,
    /// Whether it has come to a proper end: drained, or failed and said so.
    ended: bool,
}

impl<B: LogBackend> LogWriter<B> {
    pub(crate) fn new(backend: B, queue: Arc<Queue>, batch_bytes_max: usize) -> Self {
        Self { backend, queue, batch_bytes_max, ended: false }
    }

    /// Runs it in a thread of its own: an fsync blocks, and must block nobody else.
    pub fn spawn(self) -> io::Result<LogThread> {
        let queue = Arc::clone(&self.queue);
        let thread = std::thread::Builder::new().name("raft-log".into());
        let thread = thread.spawn(move || self.run())?;
        Ok(LogThread { queue, thread: Some(thread) })
    }

    /// Commits what is queued now, as one batch. False if there was nothing.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let ops = self.queue.try_take(self.batch_bytes_max);
        match ops.is_empty() {
            true => Ok(false),
            false => self.write(ops).map(|()| true),
        }
    }

    fn run(mut self) -> Result<(), Failure> {
        while let Some(ops) = self.queue.take(self.batch_bytes_max) {
            let next = Instant::now() + COMMIT_EVERY;
            self.write(ops)?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.ended = true;
        Ok(())
    }

    fn write(&mut self, ops: Vec<Queued>) -> Result<(), Failure> {
        let (batch, waiting) = assemble(ops);
        let committed = self.commit(batch);
        let swallowed = is(Mutant::SwallowWriteErrors) && committed.is_err();
        match committed.or_else(|error| if swallowed { Ok(()) } else { Err(error) }) {
            Ok(()) => {
                waiting.into_iter().for_each(Waiting::acknowledge);
                Ok(())
            }
            Err(error) => {
                metrics::log_failed();
                let failure = Failure::Io(Arc::new(error));
                self.end(failure.clone(), waiting);
                Err(failure)
            }
        }
    }

    fn commit(&mut self, batch: LogBatch) -> io::Result<()> {
        fail::fail_point!("store_log_before_commit", failpoint_error);
        let durable = batch.durable;
        let entries = batch.writes.iter().filter(|write| is_entry(write)).count();
        let started = Instant::now();
        self.backend.commit(batch)?;
        metrics::log_committed(started.elapsed(), durable, entries);
        fail::fail_point!("store_log_after_commit", failpoint_error);
        Ok(())
    }

    /// Closes the queue first: nobody may slip in behind the ones that are refused.
    fn end(&mut self, failure: Failure, waiting: Vec<Waiting>) {
        self.ended = true;
        let (_, queued) = assemble(self.queue.fail(failure.clone()));
        for waiting in waiting.into_iter().chain(queued) {
            waiting.refuse(&failure);
        }
    }
}

/// A writer that goes away by a panic must not leave others waiting for it.
impl<B: LogBackend> Drop for LogWriter<B> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Failure::WriterGone, Vec::new());
        }
    }
}

impl Waiting {
    fn acknowledge(self) {
        match self.done {
            Done::Lazy => {}
            Done::Appended { generation, upto, flushed } => {
                self.state.lock().appended(generation, upto);
                flushed.io_completed(Ok(()));
            }
            Done::Voted { vote, saved } => {
                self.state.lock().voted(vote);
                // Its saver may have been cancelled; the vote counts all the same.
                let _ = saved.send(Ok(()));
            }
        }
    }

    fn refuse(self, failure: &Failure) {
        match self.done {
            Done::Lazy => {}
            Done::Appended { flushed, .. } => flushed.io_completed(Err(failure.to_io())),
            Done::Voted { saved, .. } => {
                // Nobody waits any more if the saver was cancelled.
                let _ = saved.send(Err(failure.clone()));
            }
        }
    }
}

fn assemble(ops: Vec<Queued>) -> (LogBatch, Vec<Waiting>) {
    let mut batch = LogBatch::default();
    let mut waiting = Vec::with_capacity(ops.len());
    for Queued { op, room } in ops {
        let Op { group, state, changes, done } = op;
        batch.durable |= match done {
            Done::Lazy => false,
            Done::Appended { .. } => true,
            Done::Voted { .. } => !is(Mutant::VoteNotSynced),
        };
        let writes = changes.into_iter();
        batch.writes.extend(writes.map(|change| LogWrite { group, change }));
        waiting.push(Waiting { state, done, _room: room });
    }
    (batch, waiting)
}

fn is_entry(write: &LogWrite) -> bool {
    matches!(write.change, Change::Entry { .. })
}

#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "only failpoints call it"))]
fn failpoint_error(what: Option<String>) -> io::Result<()> {
    Err(io::Error::other(what.unwrap_or_else(|| "failpoint".into())))
}

/// The writer's thread.
pub struct LogThread {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl LogThread {
    /// Stops the intake, writes what is queued, and waits for the end. Blocks: call it after all
    /// groups were shut down, from where blocking is allowed.
    pub fn shut_down(mut self) -> Result<(), Failure> {
        self.join()
    }

    fn join(&mut self) -> Result<(), Failure> {
        self.queue.shut_down();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(end)) => end,
            Some(Err(_panic)) => Err(Failure::WriterGone),
        }
    }
}

/// The thread never outlives its owner, and never loses what was queued.
impl Drop for LogThread {
    fn drop(&mut self) {
        if let Err(failure) = self.join() {
            tracing::error!(%failure, "the raft log ended");
        }
    }
}

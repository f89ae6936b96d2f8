//! Coalesces commands into batches, and hands them to Raft in order.
//!
//! ```text
//!   propose ─┐  room: bytes, per class                submit, in order
//!   propose ─┼──► queue ──► one batch at a time ──► Raft ──► answers, in order
//!   propose ─┘                └ up to `batches_in_flight_max` under way
//! ```
//!
//! No linger: while batches are under way the next one fills up, so batches grow with the load. Only what
//! nobody waits for waits for company.
//! A command's room is given back when it is answered, so what waits and what is under way are
//! bounded together. Where no majority answers nobody waits either: what is under way is unknown then,
//! and who asks again finds the next leader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use parking_lot::Mutex;
use tidemark_env::Clock;
use tidemark_mutants::{Mutant, is, keep_number};
use tidemark_store_core::{Batch, Command, Reply};
use tidemark_types::{Recipient, UnixMs};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::{Error, RETRY_AFTER};
use crate::config::ProposalConfig;
use crate::metrics;
use crate::raft::group::{Group, Lost, NotSubmitted, WriteError};
use crate::time::ClusterTime;

/// How often it is looked whether what is under way can still be answered.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A leader that has no time yet takes nothing for so long: ten times what measuring takes where most
/// clocks answer and are trusted.
pub(crate) const TIMELESS_MAX: Duration = Duration::from_secs(10);

/// What nobody waits for is proposed with what somebody waits for, or together after this: each batch is a
/// commit on all nodes, whatever it carries, and devices confirm all through the second.
const PATIENCE: Duration = Duration::from_millis(100);

const NOBODY_ANSWERS: &str = "the leader hears no majority";

/// Where commands go in; a cheap handle.
#[derive(Clone)]
pub(super) struct Proposer {
    /// What is in it has room.
    queue: mpsc::UnboundedSender<Proposal>,
    clients: Room,
    internal: Room,
    clock: Arc<dyn Clock>,
    /// The task, until it is stopped.
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Room for commands of one class, in bytes.
#[derive(Clone)]
struct Room {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

impl Room {
    fn of(bytes_max: usize) -> Self {
        Room { free: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    /// A command larger than all the room takes all of it, instead of being refused for ever.
    fn take(&self, command: &Command) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(command.cost().min(self.bytes_max));
        let bytes = bytes.expect("the configuration keeps room within u32");
        self.free.clone().try_acquire_many_owned(bytes).ok()
    }

    fn held(&self) -> usize {
        self.bytes_max - self.free.available_permits()
    }
}

struct Proposal {
    command: Command,
    waiting: Waiting,
}

/// Who waits for a command's reply, and the room it takes meanwhile.
struct Waiting {
    answer: oneshot::Sender<Result<Reply, Error>>,
    since: Duration,
    _room: OwnedSemaphorePermit,
}

impl Proposer {
    /// Starts the task; it ends when it is stopped, or the last handle is dropped and everything is
    /// answered.
    pub(super) fn start(
        group: Group,
        config: &ProposalConfig,
        clock: Arc<dyn Clock>,
        time: ClusterTime,
    ) -> Self {
        let (queue, commands) = mpsc::unbounded_channel();
        let task = Task {
            group,
            config: config.clone(),
            clock: clock.clone(),
            time,
            commands,
            next: VecDeque::new(),
            timeless: None,
            given_up: Arc::default(),
        };
        let task = Arc::new(Mutex::new(Some(tokio::spawn(task.run()))));
        let clients = Room::of(config.client_bytes_max);
        let internal = Room::of(config.internal_bytes_max);
        Proposer { queue, clients, internal, clock, task }
    }

    /// Ends the task, and with it what holds the group and its state: what is under way is unknown.
    pub(super) async fn stop(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // Aborted or just at its end: either way it is over.
            let _ = task.await;
        }
    }

    /// Room for a command; the cluster's own have a share of it that no client can take (R7).
    pub(super) fn room(&self, command: &Command) -> Result<OwnedSemaphorePermit, Error> {
        let room = if command.is_internal() { &self.internal } else { &self.clients };
        room.take(command).ok_or(Error::Overloaded { retry_after: RETRY_AFTER })
    }

    /// What waits or is under way, and how much there may be, in bytes, by class.
    pub(super) fn held(&self) -> [(&'static str, usize, usize); 2] {
        [("clients", &self.clients), ("internal", &self.internal)]
            .map(|(class, room)| (class, room.held(), room.bytes_max))
    }

    /// Queues a command; commands are proposed in the order of these calls.
    pub(super) fn enqueue(
        &self,
        command: Command,
        room: OwnedSemaphorePermit,
    ) -> Result<Pending, Error> {
        let (answer, reply) = oneshot::channel();
        let waiting = Waiting { answer, since: self.clock.monotonic(), _room: room };
        let queued = self.queue.send(Proposal { command, waiting });
        queued.map_err(|_| Error::Stopped("it takes no more commands".to_owned()))?;
        Ok(Pending(reply))
    }
}

/// A queued command's reply to come.
pub struct Pending(oneshot::Receiver<Result<Reply, Error>>);

impl Pending {
    /// Waits for it.
    pub async fn reply(self) -> Result<Reply, Error> {
        // Without an answer the task is gone, perhaps in the middle of submitting.
        self.0.await.unwrap_or_else(|_| Err(Lost("the proposer stopped".to_owned()).into()))
    }
}

struct Task {
    group: Group,
    config: ProposalConfig,
    clock: Arc<dyn Clock>,
    time: ClusterTime,
    commands: mpsc::UnboundedReceiver<Proposal>,
    /// Taken from the queue, not yet in a batch.
    next: VecDeque<Proposal>,
    /// In which term there was no time to stamp, and since when.
    timeless: Option<(u64, Duration)>,
    /// What is under way is not waited for any more.
    given_up: Arc<Notify>,
}

impl Task {
    async fn run(mut self) {
        let mut in_flight = FuturesOrdered::<BoxFuture<'static, ()>>::new();
        let mut closed = false;
        let mut was_deaf = false;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !closed || !self.next.is_empty() || !in_flight.is_empty() {
            let may_submit = in_flight.len() < self.in_flight_max();
            let wait = self.wait().filter(|_| may_submit);
            if wait.is_some_and(|wait| wait.is_zero()) {
                in_flight.extend(self.submit().await);
                continue;
            }
            tokio::select! {
                taken = take(&mut self.commands, &mut self.next, &self.config),
                    if may_submit && !closed => closed = taken == 0,
                Some(()) = in_flight.next() => {}
                // A timer costs something though nobody polls it: this one is made when it is polled.
                () = async { tokio::time::sleep(wait.unwrap_or_default()).await },
                    if wait.is_some() => {}
                _ = look.tick(), if !in_flight.is_empty() => {
                    // Twice: after a pause of this process the first look is at what was before it.
                    let is_deaf = self.group.is_deaf();
                    if was_deaf && is_deaf {
                        self.given_up.notify_waiters();
                    }
                    was_deaf = is_deaf;
                }
            }
        }
    }

    /// How long what was taken waits for company; `None` if there is nothing.
    fn wait(&self) -> Option<Duration> {
        let oldest = self.next.front()?;
        let confirmations = self.next.iter().map(|next| next.command.confirmations());
        let is_full = self.next.len().max(confirmations.sum()) >= self.config.batch_commands_max;
        let waits = |next: &Proposal| next.command.is_patient();
        if is_full || !self.next.iter().all(waits) || !self.group.is_leader() {
            return Some(Duration::ZERO);
        }
        Some((oldest.waiting.since + PATIENCE).saturating_sub(self.clock.monotonic()))
    }

    fn in_flight_max(&self) -> usize {
        match is(Mutant::AckBeforeCommit) || is(Mutant::PushBeforeCommit) {
            // What a batch will say is known before it is applied only if no other comes first.
            true => 1,
            false => self.config.batches_in_flight_max,
        }
    }

    /// Submits the next batch; the future that will answer it, unless it was refused at once.
    async fn submit(&mut self) -> Option<BoxFuture<'static, ()>> {
        let mut commands = Vec::new();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        let now = self.clock.monotonic();
        while let Some(proposal) = self.next.pop_front() {
            let Proposal { command, waiting: mut caller } = proposal;
            if command.is_patient() {
                // That it waited for others is no time that a proposal takes.
                caller.since = now;
            }
            bytes += command.cost();
            commands.push(command);
            waiting.push(caller);
            let full = commands.len() == self.config.batch_commands_max;
            let next = self.next.front().map_or(0, |next| next.command.cost());
            if full || bytes + next > self.config.batch_bytes_max {
                break;
            }
        }
        metrics::proposal_batch(commands.len());
        let time = match self.stamp() {
            Ok(Some(time)) => time,
            Ok(None) => return refuse(waiting, || Error::NoTime),
            Err(error) => return refuse(waiting, || error.clone().into()),
        };
        let batch = Batch { time, commands };
        let payload = batch.encode();
        match self.group.submit(payload.clone()).await {
            Ok(submitted) => {
                #[cfg(feature = "mutants")]
                if is(Mutant::PushBeforeCommit) {
                    self.group.foresee(&payload);
                }
                #[cfg(feature = "mutants")]
                if is(Mutant::AckBeforeCommit) {
                    for reply in self.group.foresee(&payload) {
                        let waiting = waiting.remove(0);
                        let _ = waiting.answer.send(Ok(reply));
                    }
                    return Some(Box::pin(async { drop(submitted.replies().await) }));
                }
                let senders = if is(Mutant::KeepLostNumbers) { senders(&batch) } else { vec![] };
                let given_up = self.given_up.clone();
                let (clock, handed) = (self.clock.clone(), self.clock.monotonic());
                let replies = async move {
                    tokio::select! {
                        biased;
                        replies = submitted.replies() => replies,
                        () = given_up.notified() => Err(Lost(NOBODY_ANSWERS.to_owned()).into()),
                    }
                };
                Some(Box::pin(answer(replies, waiting, senders, clock, handed)))
            }
            Err(error) => refuse(waiting, || error.clone().into()),
        }
    }

    /// What the next batch is stamped with (R17). Before cluster time was measured that is nothing: by
    /// the log's last time, after a long downtime, what is taken would be old at once. But where most
    /// clocks are not trusted there is none to wait for: after [`TIMELESS_MAX`] it is the log's last
    /// time, to which apply keeps when it is given 0.
    fn stamp(&mut self) -> Result<Option<UnixMs>, NotSubmitted> {
        if let Some(time) = self.time.now() {
            return Ok(Some(time));
        }
        let (term, now) = (self.group.must_lead()?, self.clock.monotonic());
        let known = self.timeless.filter(|(in_term, _)| *in_term == term);
        let (_, since) = *self.timeless.insert(known.unwrap_or((term, now)));
        Ok((now - since >= TIMELESS_MAX).then(UnixMs::default))
    }
}

/// Tells whoever waits why nothing was submitted.
fn refuse(waiting: Vec<Waiting>, error: impl Fn() -> Error) -> Option<BoxFuture<'static, ()>> {
    for waiting in waiting {
        // A caller that has gone does not want to know.
        let _ = waiting.answer.send(Err(error()));
    }
    None
}

/// Waits for commands, and takes as many as a batch may hold.
async fn take(
    commands: &mut mpsc::UnboundedReceiver<Proposal>,
    next: &mut VecDeque<Proposal>,
    config: &ProposalConfig,
) -> usize {
    let mut taken = Vec::new();
    let count = commands.recv_many(&mut taken, config.batch_commands_max).await;
    next.extend(taken);
    count
}

/// Whose mailboxes get a number by this batch, for [`Mutant::KeepLostNumbers`].
fn senders(batch: &Batch) -> Vec<String> {
    let sender = |command: &Command| match command {
        Command::Send(send) => Some(Recipient::User(send.user.clone()).to_string()),
        _ => None,
    };
    batch.commands.iter().filter_map(sender).collect()
}

async fn answer(
    replies: impl Future<Output = Result<Vec<Reply>, WriteError>>,
    waiting: Vec<Waiting>,
    senders: Vec<String>,
    clock: Arc<dyn Clock>,
    handed: Duration,
) {
    match replies.await {
        Ok(replies) => {
            assert_eq!(replies.len(), waiting.len(), "one reply per command");
            let now = clock.monotonic();
            metrics::committed(now - handed);
            for (reply, waiting) in replies.into_iter().zip(waiting) {
                metrics::proposal_answered(now - waiting.since);
                let _ = waiting.answer.send(Ok(reply));
            }
        }
        Err(error) => {
            if matches!(error, WriteError::Lost(_)) {
                senders.iter().for_each(|sender| keep_number(sender));
            }
            for waiting in waiting {
                let _ = waiting.answer.send(Err(error.clone().into()));
            }
        }
    }
}

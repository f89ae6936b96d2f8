//! Coalesces allocations: what waits for a shard goes to it in one command.
//!
//! ```text
//!   calls of streams ─┐
//!   unary calls ──────┼─► queue of the shard ─► AllocateMany ─► store ─► to each call its answer
//!                     ┘        └ waits while one is under way (ADR 18)
//! ```
//!
//! No timer: a call goes at once where nothing is under way, and while something is, the next command
//! fills up, so that commands grow with the load. Only allocations without an id come here: whatever
//! becomes of a command, it may be repeated, and skips numbers at worst (R9).
//!
//! Invariants: every call gets one answer. What is told to have failed without an effect was in no
//! command that may have been taken (R3).

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::Clock;
use tidemark_proto::Failure;
use tidemark_store_core::{Command, Reply};
use tidemark_types::limits::ALLOCATE_CALLS_MAX;
use tidemark_types::{CounterId, ErrorCode, Id, ShardCount, ShardId};
use tokio::sync::mpsc;

use crate::limits::REFUSED_RETRY;
use crate::store::Store;
use crate::{failure, metrics};

/// Calls that wait for one shard: what a few commands take, some hundred kilobytes.
const WAITING_MAX: usize = 4 * ALLOCATE_CALLS_MAX;

/// A call for numbers.
pub(super) struct Call {
    /// What its caller knows it by.
    pub(super) call: u64,
    /// Which counter.
    pub(super) counter: CounterId,
    /// How many numbers.
    pub(super) count: u32,
}

/// What became of a call: its caller's number for it, and the first number that it got.
pub(super) type Answer = (u64, Result<u64, Failure>);

/// Where answers go; whoever makes calls bounds how many have none.
pub(super) type Answers = mpsc::UnboundedSender<Answer>;

/// Where calls go in; a cheap handle.
#[derive(Clone)]
pub(crate) struct Numbers(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    count: ShardCount,
    queues: Vec<Mutex<Queue>>,
}

/// What one shard is to be asked.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A command is under way.
    busy: bool,
}

struct Waiting {
    call: Call,
    since: Duration,
    answers: Answers,
}

impl Numbers {
    /// Nobody has called yet.
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let count = store.map().shard_count().expect("a map without one is refused");
        let queues = count.shards().map(|_| Mutex::default()).collect();
        Numbers(Arc::new(Inner { store, clock, count, queues }))
    }

    /// Takes calls: each is answered there, in any order, at once where its shard has no room for it.
    pub(super) fn take(&self, calls: impl IntoIterator<Item = Call>, answers: &Answers) {
        let since = self.0.clock.monotonic();
        let mut by_shard = BTreeMap::<ShardId, Vec<Waiting>>::new();
        for call in calls {
            let shard = self.0.count.shard_of(&Id::Counter(call.counter.clone()));
            let waiting = Waiting { call, since, answers: answers.clone() };
            by_shard.entry(shard).or_default().push(waiting);
        }
        for (shard, calls) in by_shard {
            self.enqueue(shard, calls);
        }
    }

    /// Takes one call, and waits for its answer: the first number.
    pub(super) async fn take_one(&self, counter: CounterId, count: u32) -> Result<u64, Failure> {
        let (answers, mut answered) = mpsc::unbounded_channel();
        self.take([Call { call: 0, counter, count }], &answers);
        let (_, outcome) = answered.recv().await.expect("every call gets an answer");
        outcome
    }

    fn enqueue(&self, shard: ShardId, mut calls: Vec<Waiting>) {
        let (refused, next) = {
            let mut queue = self.queue(shard).lock();
            let room = WAITING_MAX - queue.waiting.len();
            let refused = calls.split_off(calls.len().min(room));
            queue.waiting.extend(calls);
            (refused, queue.begin())
        };
        if !refused.is_empty() {
            let text = format!("{WAITING_MAX} calls wait for the counters of shard {shard}");
            let full = Failure::new(ErrorCode::Overloaded).message(text).retry_after(REFUSED_RETRY);
            self.refuse(refused, &full);
        }
        if let Some(next) = next {
            tokio::spawn(self.clone().work(shard, next));
        }
    }

    /// Commands one after the other, as long as something waits.
    async fn work(self, shard: ShardId, mut calls: Vec<Waiting>) {
        loop {
            self.command(shard, calls).await;
            let mut queue = self.queue(shard).lock();
            queue.busy = false;
            match queue.begin() {
                Some(next) => calls = next,
                None => return,
            }
        }
    }

    /// One command, and the answers to its calls.
    async fn command(&self, shard: ShardId, calls: Vec<Waiting>) {
        metrics::allocations(calls.len());
        let allocation = |Waiting { call, .. }: &Waiting| (call.counter.clone(), call.count);
        let allocations = calls.iter().map(allocation).collect();
        match self.0.store.command(Command::AllocateMany { allocations }).await {
            Ok(Reply::AllocatedMany(outcomes)) if outcomes.len() == calls.len() => {
                let outcomes = outcomes.into_iter();
                let outcomes = outcomes.map(|outcome| outcome.map_err(failure::of_reject));
                self.answer(calls.into_iter().zip(outcomes));
            }
            Ok(other) => self.refuse(calls, &failure::of_reply(other)),
            Err(error) => {
                let failure = failure::of_error(error);
                self.refuse(calls, &failure);
                // Who waited for this does not wait for the next deadline too: it was not taken.
                let behind = mem::take(&mut self.queue(shard).lock().waiting);
                let not_taken = match failure.code.has_no_effect() {
                    true => failure,
                    false => Failure::new(ErrorCode::Unavailable),
                };
                self.refuse(behind, &not_taken);
            }
        }
    }

    fn refuse(&self, calls: impl IntoIterator<Item = Waiting>, failure: &Failure) {
        self.answer(calls.into_iter().map(|call| (call, Err(failure.clone()))));
    }

    fn answer(&self, answers: impl Iterator<Item = (Waiting, Result<u64, Failure>)>) {
        let now = self.0.clock.monotonic();
        metrics::allocated(answers.map(|(waiting, outcome)| {
            let code = outcome.as_ref().err().map(|failure| failure.code);
            // A caller that has gone does not want to know.
            let _ = waiting.answers.send((waiting.call.call, outcome));
            (code, now - waiting.since)
        }));
    }

    fn queue(&self, shard: ShardId) -> &Mutex<Queue> {
        &self.0.queues[usize::from(shard.get())]
    }
}

impl Queue {
    /// The calls of the next command, if one may begin.
    fn begin(&mut self) -> Option<Vec<Waiting>> {
        if self.waiting.is_empty() || self.busy {
            return None;
        }
        self.busy = true;
        let count = self.waiting.len().min(ALLOCATE_CALLS_MAX);
        Some(self.waiting.drain(..count).collect())
    }
}

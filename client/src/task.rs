//! The task of a device: carries out what its engine wants, and tells the engine what happened.
//!
//! ```text
//!   frames ─┐                    ┌─► commit (one for all) ─► frames, items, outcomes, events
//!   sends  ─┼─► take what is ─► engine
//!   handler ┤   ready                            ▲
//!   timer  ─┘                                    └── only once the commit is durable
//! ```
//!
//! While a commit is under way inputs pile up; they share the next one. So a device commits as
//! often as its disk can, and many sends share one fsync. Invariant: one task per device, and one
//! place that writes its store.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tidemark_proto::v1;
use tidemark_proto::v1::server_frame;
use tidemark_types::UserId;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::act::AskError;
use crate::carrier::{Connector, Wire};
use crate::config::Config;
use crate::engine::{Action, ConnectionState, Engine, Input, Link, Output};
use crate::entry::Item;
use crate::event::{Event, Fatal};
use crate::handler::{AppError, Handler, TokenSource};
use crate::outcome::Settled;
use crate::shared::{Reported, Shared};
use crate::store::{OutboxId, Store, StoreError};

/// Inputs that share a commit at most, so that a busy device still carries out what it was told.
const BATCH: usize = 512;

/// How long a device that closes waits for its gateway to have read everything.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far in the future a timer is that is not needed.
const NEVER: Duration = Duration::from_secs(60 * 60);

/// What a handle asks of the task.
pub(crate) enum Command {
    /// Store a send, and say when it is stored; later, what became of it.
    Send { send: v1::Send, stored: oneshot::Sender<()>, outcome: oneshot::Sender<Reported> },
    /// Ask something, by a frame with this number for a request id.
    Ask { question: fn(u64, String) -> v1::ClientFrame, about: String, answer: Answer },
    /// Say something once, if there is a connection.
    Say(v1::ClientFrame),
    /// Watch these users, whether they are there.
    WatchPresence(Vec<UserId>),
    /// Stop.
    Close,
}

/// Who waits for the answer to a question.
pub(crate) type Answer = oneshot::Sender<Result<server_frame::Frame, AskError>>;

/// Questions under way.
const QUESTIONS_MAX: usize = 64;

/// What the application reads as an event.
pub(crate) enum Told {
    /// An event.
    Event(Event),
    /// An outcome, which stays in the store until it was read.
    Outcome(Reported),
}

/// Who waits for an outcome, and the room that it holds.
pub(crate) struct Waiter {
    /// None for sends of an earlier run: their outcomes are events.
    pub(crate) outcome: Option<oneshot::Sender<Reported>>,
    pub(crate) bytes: usize,
}

/// What a device's task works with.
pub(crate) struct Task<S, H, T, C> {
    pub(crate) config: Arc<Config>,
    pub(crate) engine: Engine,
    pub(crate) store: S,
    pub(crate) handler: Arc<H>,
    pub(crate) tokens: Arc<T>,
    pub(crate) connector: Arc<C>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<Told>,
    pub(crate) waiters: HashMap<OutboxId, Waiter>,
    pub(crate) work: Work,
}

/// What is under way.
pub(crate) struct Work {
    connecting: Option<(Link, BoxFuture<'static, Result<Wire, String>>)>,
    /// The connection in use, and one that is being left.
    wires: Vec<(Link, Wire)>,
    /// The one that was in use when the device stopped: its last frames are still on their way.
    closed: Option<Wire>,
    token: Option<BoxFuture<'static, Result<String, String>>>,
    handling: Option<BoxFuture<'static, Result<(), String>>>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to.
    due: Option<Duration>,
    /// Sends to confirm once they are stored.
    stored: Vec<oneshot::Sender<()>>,
    /// Outcomes for which there was no room among the events.
    backlog: VecDeque<Reported>,
    /// Events for which there was no room.
    missed: u64,
    /// A connection that failed under an action.
    broken: Option<(Link, &'static str)>,
    /// Questions under way, by their numbers.
    asked: BTreeMap<u64, Answer>,
    questions: u64,
    /// The last handle is gone.
    orphaned: bool,
    stopped: bool,
}

/// What happened.
enum Happened {
    Input(Input),
    Connected(Link, Result<Wire, String>),
    Command(Option<Command>),
    Taken,
    /// The first of the backlog was put among the events; false when nobody reads them.
    Told(bool),
}

impl Work {
    pub(crate) fn new() -> Self {
        Work {
            connecting: None,
            wires: Vec::new(),
            closed: None,
            token: None,
            handling: None,
            timer: Box::pin(tokio::time::sleep(NEVER)),
            due: None,
            stored: Vec::new(),
            backlog: VecDeque::new(),
            missed: 0,
            broken: None,
            asked: BTreeMap::new(),
            questions: 0,
            orphaned: false,
            stopped: false,
        }
    }
}

impl<S: Store, H: Handler, T: TokenSource, C: Connector> Task<S, H, T, C> {
    /// Runs until the device stops.
    pub(crate) async fn run(mut self) {
        self.take(Happened::Input(Input::Tick));
        loop {
            // A busy device never comes to wait for its timer.
            let now = self.shared.clock.monotonic();
            if self.engine.deadline().is_some_and(|due| due <= now) {
                self.take(Happened::Input(Input::Tick));
            }
            if let Err(error) = self.carry_out().await {
                self.store_failed(&error);
                break;
            }
            if self.work.stopped {
                break;
            }
            tokio::task::consume_budget().await;
            let happened = self.happened().await;
            self.take(happened);
            for _ in 1..BATCH {
                let Some(happened) = self.happened().now_or_never() else { break };
                self.take(happened);
            }
        }
        self.shared.room.close();
        if let Some(Wire { outgoing, mut incoming }) = self.work.closed.take() {
            drop(outgoing);
            let drained = async { while incoming.next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_WORDS, drained).await;
        }
    }

    /// The next thing that happens. Cancelling it loses nothing.
    async fn happened(&mut self) -> Happened {
        let Work { connecting, wires, token, handling, timer, backlog, broken, orphaned, .. } =
            &mut self.work;
        if let Some((link, reason)) = broken.take() {
            return Happened::Input(Input::Lost { link, reason: reason.to_owned() });
        }
        let connected = async {
            match connecting {
                Some((link, connecting)) => (*link, connecting.await),
                None => pending().await,
            }
        };
        tokio::select! {
            result = optional(handling) => Happened::Input(Input::Handled(result)),
            input = frame(wires) => Happened::Input(input),
            command = self.commands.recv(), if !*orphaned => Happened::Command(command),
            () = self.shared.taken_some.notified() => Happened::Taken,
            (link, wire) = connected => Happened::Connected(link, wire),
            token = optional(token) => Happened::Input(Input::Token(token)),
            told = tell(&self.events, backlog) => Happened::Told(told),
            () = timer.as_mut() => Happened::Input(Input::Tick),
        }
    }

    fn take(&mut self, happened: Happened) {
        let now = self.shared.clock.monotonic();
        match happened {
            Happened::Input(input) => {
                match &input {
                    Input::Handled(_) => self.work.handling = None,
                    Input::Token(_) => self.work.token = None,
                    Input::Tick => self.set_timer(None),
                    Input::Lost { link, .. } => self.work.wires.retain(|(open, _)| open != link),
                    Input::Connected(_) | Input::Frame { .. } | Input::Taken(_) | Input::Close => {}
                }
                self.engine.input(now, input);
            }
            Happened::Connected(link, Ok(wire)) => {
                self.work.connecting = None;
                self.work.wires.push((link, wire));
                self.engine.input(now, Input::Connected(link));
            }
            Happened::Connected(link, Err(reason)) => {
                self.work.connecting = None;
                self.engine.input(now, Input::Lost { link, reason });
            }
            Happened::Command(Some(Command::Send { send, stored, outcome })) => {
                let bytes = send.body.len();
                let id = self.engine.send(now, send);
                self.waiters.insert(id, Waiter { outcome: Some(outcome), bytes });
                self.work.stored.push(stored);
            }
            Happened::Command(Some(Command::Ask { question, about, answer })) => {
                self.ask(now, question, about, answer);
            }
            Happened::Command(Some(Command::Say(frame))) => drop(self.engine.ask(now, frame)),
            Happened::Command(Some(Command::WatchPresence(users))) => {
                self.engine.watch_presence(now, users);
            }
            Happened::Command(Some(Command::Close)) => self.close(now),
            Happened::Command(None) => {
                self.work.orphaned = true;
                self.close(now);
            }
            Happened::Taken => self.forget(now),
            Happened::Told(true) => {}
            Happened::Told(false) => self.work.backlog.clear(),
        }
    }

    /// A question goes out at once, or not at all.
    fn ask(
        &mut self,
        now: Duration,
        question: fn(u64, String) -> v1::ClientFrame,
        about: String,
        answer: Answer,
    ) {
        let Work { asked, questions, .. } = &mut self.work;
        asked.retain(|_, waiting| !waiting.is_closed());
        *questions += 1;
        let question = question(*questions, about);
        let refused = match asked.len() < QUESTIONS_MAX {
            false => Some(AskError::Busy),
            true => (!self.engine.ask(now, question)).then_some(AskError::Offline),
        };
        match refused {
            // Whoever asked may have given up.
            Some(error) => drop(answer.send(Err(error))),
            None => drop(asked.insert(*questions, answer)),
        }
    }

    /// A question was answered, or refused.
    fn answered(&mut self, request_id: u64, answer: Result<server_frame::Frame, AskError>) {
        if let Some(waiting) = self.work.asked.remove(&request_id) {
            drop(waiting.send(answer));
        }
    }

    /// A device that stops takes no more inputs: what was taken before counts.
    fn close(&mut self, now: Duration) {
        self.forget(now);
        self.engine.input(now, Input::Close);
    }

    /// The store need not keep what the application has taken.
    fn forget(&mut self, now: Duration) {
        let taken = std::mem::take(&mut *self.shared.taken.lock());
        for id in taken {
            self.engine.input(now, Input::Taken(id));
        }
    }

    /// Makes the changes durable, then acts on them.
    async fn carry_out(&mut self) -> Result<(), StoreError> {
        let Output { changes, actions } = self.engine.output();
        if !changes.is_empty() {
            self.store.commit(changes).await?;
        }
        for stored in self.work.stored.drain(..) {
            // Whoever sent may have given up waiting.
            let _ = stored.send(());
        }
        for action in actions {
            self.act(action);
        }
        *self.shared.server_time.lock() = self.engine.server_time();
        let status = self.engine.status();
        self.shared.status.send_if_modified(|old| std::mem::replace(old, status) != status);
        let due = self.engine.deadline();
        if due != self.work.due {
            self.set_timer(due);
        }
        Ok(())
    }

    fn set_timer(&mut self, due: Option<Duration>) {
        let now = self.shared.clock.monotonic();
        let after = due.map_or(NEVER, |due| due.saturating_sub(now));
        self.work.timer.as_mut().reset(Instant::now() + after);
        self.work.due = due;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { link, gateway } => self.connect(link, gateway),
            Action::Close(link) => {
                self.work.connecting.take_if(|(connecting, _)| *connecting == link);
                let place = self.work.wires.iter().position(|(open, _)| *open == link);
                let wire = place.map(|place| self.work.wires.swap_remove(place).1);
                // Only a device that stops has last words.
                self.work.closed = wire.filter(|_| self.engine.is_stopped());
            }
            Action::Send { link, frame } => self.send(link, frame),
            Action::FetchToken { refused } => {
                let tokens = self.tokens.clone();
                let token = async move { tokens.token(refused).await };
                self.work.token = Some(text_error(token));
            }
            Action::Hand(item) => {
                let handler = self.handler.clone();
                self.work.handling = Some(text_error(async move {
                    match item {
                        Item::Entry(entry) => handler.entry(&entry).await,
                        Item::Gap(gap) => handler.gap(gap).await,
                    }
                }));
            }
            Action::Report { id, settled } => self.report(id, settled),
            Action::Answer(frame) => {
                let Some(frame) = frame.frame else { return };
                if let Some(request_id) = answer_to(&frame) {
                    self.answered(request_id, Ok(frame));
                }
            }
            Action::Unanswered { request_id, failure } => {
                self.answered(request_id, Err(AskError::Refused(failure)));
            }
            Action::Event(event) => self.event(event),
            Action::Stop => self.work.stopped = true,
        }
    }

    fn connect(&mut self, link: Link, gateway: usize) {
        let (connector, config) = (self.connector.clone(), self.config.clone());
        let connecting = async move { connector.connect(&config.gateways[gateway]).await };
        self.work.connecting = Some((link, connecting.boxed()));
    }

    fn send(&mut self, link: Link, frame: v1::ClientFrame) {
        // A connection that is gone has said so, or is about to.
        let wire = self.work.wires.iter().find(|(open, _)| *open == link);
        let Some((_, wire)) = wire else { return };
        if let Err(TrySendError::Full(_)) = wire.outgoing.try_send(frame) {
            self.work.broken = Some((link, "the gateway does not read"));
        }
    }

    fn report(&mut self, id: OutboxId, settled: Settled) {
        let Some(Waiter { outcome, bytes }) = self.waiters.remove(&id) else { return };
        let reported = |shared| Reported { id, settled, bytes, shared };
        match outcome {
            // An application that has dropped its `Sending` does not want to know.
            Some(waiting) => drop(waiting.send(reported(Some(self.shared.clone())))),
            None => self.work.backlog.push_back(reported(None)),
        }
    }

    /// An event for which there is no room is counted, and the device goes on.
    fn event(&mut self, event: Event) {
        if self.work.missed > 0 {
            let missed = Told::Event(Event::Missed(self.work.missed));
            if self.events.try_send(missed).is_ok() {
                self.work.missed = 0;
            }
        }
        if self.work.missed > 0 || self.events.try_send(Told::Event(event)).is_err() {
            self.work.missed += 1;
        }
    }

    /// What the store holds is not known any more, so nothing may rely on it.
    fn store_failed(&mut self, error: &StoreError) {
        tracing::error!(%error, "the device stops");
        self.event(Event::Stopped(Fatal::Store(error.to_string())));
    }
}

impl<S, H, T, C> Drop for Task<S, H, T, C> {
    /// However it ends, by a panic of the application's or with its runtime: nobody waits for it.
    fn drop(&mut self) {
        self.shared.room.close();
        self.shared.status.send_if_modified(|status| {
            let stopped = ConnectionState::Stopped;
            std::mem::replace(&mut status.connection, stopped) != stopped
        });
    }
}

/// Which question the frame answers.
fn answer_to(frame: &server_frame::Frame) -> Option<u64> {
    match frame {
        server_frame::Frame::UnreadReply(reply) => Some(reply.request_id),
        server_frame::Frame::PresenceReply(reply) => Some(reply.request_id),
        _ => None,
    }
}

/// The next frame of a connection, or its end.
async fn frame(wires: &mut [(Link, Wire)]) -> Input {
    poll_fn(|context| {
        for (link, wire) in wires.iter_mut() {
            let Poll::Ready(next) = wire.incoming.poll_next_unpin(context) else { continue };
            let link = *link;
            let lost = |reason: String| Input::Lost { link, reason };
            return Poll::Ready(match next {
                Some(Ok(frame)) => Input::Frame { link, frame: Box::new(frame) },
                Some(Err(reason)) => lost(reason),
                None => lost("the gateway closed the connection".to_owned()),
            });
        }
        Poll::Pending
    })
    .await
}

/// Puts the first of the backlog among the events, when there is room.
async fn tell(events: &mpsc::Sender<Told>, backlog: &mut VecDeque<Reported>) -> bool {
    if backlog.is_empty() {
        return pending().await;
    }
    let Ok(permit) = events.reserve().await else { return false };
    if let Some(reported) = backlog.pop_front() {
        permit.send(Told::Outcome(reported));
    }
    true
}

async fn optional<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

fn text_error<V>(
    future: impl Future<Output = Result<V, AppError>> + Send + 'static,
) -> BoxFuture<'static, Result<V, String>> {
    future.map(|result| result.map_err(|error| error.to_string())).boxed()
}

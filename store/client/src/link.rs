//! One stream to one node: requests of all callers go out together, answers come in any order.
//!
//! A link is opened when it is first needed and again after it broke. When it breaks, everything
//! that was sent and not answered is *lost*: it may have been taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::{Connector, TcpConnector};
use tidemark_proto::over::Over;
use tidemark_proto::store::MESSAGE_BYTES_MAX;
use tidemark_proto::store::v1::store_client::StoreClient;
use tidemark_proto::store::v1::{Request, Requests, Responses, request, response};
use tidemark_proto::{Failure, headers};
use tidemark_types::{ClusterId, ErrorCode, ShardId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::Attempt;

/// Requests that wait to be written; callers wait when it is full.
const OUTGOING: usize = 1_024;

/// Requests in one message.
const MESSAGE_REQUESTS: usize = 256;

/// A node that does not answer the connection attempt in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection over which nothing comes back is dead after interval plus timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What has no answer for so long is lost: its leader has most likely lost its majority. It is looked for
/// [`LOST_EVERY`] so often.
const LOST_AFTER: Duration = Duration::from_secs(2);
const LOST_EVERY: Duration = Duration::from_millis(250);

/// Answers' bytes under way, on the whole connection.
const WINDOW_BYTES: u32 = 8 << 20;

/// What a node answered.
pub(crate) type Answered = response::What;

type Waiting = Arc<Mutex<Option<Waiters>>>;

/// Who waits for an answer, by the request's id.
#[derive(Default)]
struct Waiters {
    by_id: HashMap<u64, Waiter>,
    /// How often it was looked for what is lost.
    looks: u32,
}

struct Waiter {
    answer: oneshot::Sender<Answered>,
    /// The looks before the request was sent.
    since: u32,
}

impl Waiters {
    /// Ends the wait for what was sent too long ago.
    fn look(&mut self) {
        const LOOKS_MAX: u32 = (LOST_AFTER.as_millis() / LOST_EVERY.as_millis()) as u32;
        self.looks += 1;
        // The first look comes sooner after a request than the others after each other.
        self.by_id.retain(|_, waiter| self.looks - waiter.since <= LOOKS_MAX);
    }
}

/// A stream to one node, while it lasts.
pub(crate) struct Link {
    outgoing: mpsc::Sender<Request>,
    /// Who waits for which answer; `None` once the stream is broken.
    waiting: Waiting,
    next_id: AtomicU64,
}

/// A channel to a node, connected when it is first used; by TCP where there is no connector.
pub(crate) fn channel(
    address: &str,
    connector: Option<&Arc<dyn Connector>>,
) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint
        .map_err(|error| format!("{address}: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
    let connector = connector.cloned().unwrap_or_else(|| Arc::new(TcpConnector));
    Ok(endpoint.connect_with_connector_lazy(Over::new(connector, address)))
}

/// A client over a channel, with our limits.
pub(crate) fn store_client(channel: Channel) -> StoreClient<Channel> {
    StoreClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A request to a node of this cluster and no other.
pub(crate) fn addressed<T>(message: T, cluster: ClusterId) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let cluster = cluster.to_string().parse().expect("a UUID is a header");
    request.metadata_mut().insert(headers::CLUSTER, cluster);
    request
}

impl Link {
    /// Opens the stream to the node at `address`.
    pub(crate) async fn open(
        address: &str,
        channel: Channel,
        cluster: ClusterId,
    ) -> Result<Self, Attempt> {
        let (outgoing, queued) = mpsc::channel(OUTGOING);
        let (messages_tx, messages) = mpsc::channel(1);
        let mut store = store_client(channel);
        let messages = ReceiverStream::new(messages);
        let opened = store.exchange(addressed(messages, cluster)).await;
        let responses = opened.map_err(|status| refused(address, &status))?.into_inner();
        let waiting = Arc::new(Mutex::new(Some(Waiters::default())));
        tokio::spawn(coalesce(queued, messages_tx));
        tokio::spawn(receive(responses, waiting.clone()));
        Ok(Link { outgoing, waiting, next_id: AtomicU64::new(1) })
    }

    /// Is the stream still whole?
    pub(crate) fn is_open(&self) -> bool {
        self.waiting.lock().is_some() && !self.outgoing.is_closed()
    }

    /// Sends a request; the answer to come, or none where it is lost. Requests go out in the order in which
    /// this returns.
    pub(crate) async fn send(
        &self,
        shard: ShardId,
        what: request::What,
    ) -> Result<oneshot::Receiver<Answered>, Attempt> {
        let broken = || Attempt::NotSent("the stream is broken".to_owned());
        // From here on nothing waits, so that nobody stands in the list without being sent.
        let place = self.outgoing.reserve().await.map_err(|_| broken())?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let waiters = waiting.as_mut().ok_or_else(broken)?;
        waiters.by_id.insert(id, Waiter { answer, since: waiters.looks });
        drop(waiting);
        place.send(Request { id, shard: u32::from(shard.get()), what: Some(what) });
        Ok(answered)
    }
}

fn refused(address: &str, status: &tonic::Status) -> Attempt {
    match Failure::from(status) {
        // A status that is not ours: the connection itself was refused, so nothing was sent.
        Failure { code: ErrorCode::Unknown, message, .. } => {
            Attempt::NotSent(format!("{address}: {message}"))
        }
        failure => Attempt::Failed(failure),
    }
}

/// Puts everything that is ready into one message.
async fn coalesce(mut queued: mpsc::Receiver<Request>, messages: mpsc::Sender<Requests>) {
    let mut requests = Vec::new();
    while queued.recv_many(&mut requests, MESSAGE_REQUESTS).await > 0 {
        let message = Requests { requests: std::mem::take(&mut requests) };
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

/// Hands answers to those who wait; when the stream ends, nobody waits any longer. One clock tells what is lost: a
/// timer for each request would cost more than the request.
async fn receive(mut responses: tonic::Streaming<Responses>, waiting: Waiting) {
    let mut looks = tokio::time::interval(LOST_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            // What was read of a message stays in the stream.
            message = responses.message() => message,
            _ = looks.tick() => {
                waiting.lock().as_mut().expect("it is ended here").look();
                continue;
            }
        };
        match message {
            Ok(Some(message)) => {
                let mut waiting = waiting.lock();
                let Some(waiting) = waiting.as_mut() else { return };
                for response in message.responses {
                    let waiter = waiting.by_id.remove(&response.id);
                    if let (Some(Waiter { answer, .. }), Some(what)) = (waiter, response.what) {
                        // Whoever asked may have given up.
                        let _ = answer.send(what);
                    }
                }
            }
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%status, "a stream to a store node ended");
                break;
            }
        }
    }
    *waiting.lock() = None;
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[test]
    fn what_has_no_answer_for_two_seconds_is_lost_and_nothing_else() {
        let mut waiters = Waiters::default();
        let wait = |waiters: &mut Waiters, id| {
            let (answer, answered) = oneshot::channel();
            waiters.by_id.insert(id, Waiter { answer, since: waiters.looks });
            answered
        };
        let mut first = wait(&mut waiters, 1);
        waiters.look();
        let mut second = wait(&mut waiters, 2);
        for _ in 0..7 {
            waiters.look();
        }
        assert_eq!(first.try_recv().expect_err("none came"), TryRecvError::Empty);
        waiters.look();
        assert_eq!(first.try_recv().expect_err("none came"), TryRecvError::Closed);
        assert_eq!(second.try_recv().expect_err("none came"), TryRecvError::Empty);
        waiters.look();
        assert_eq!(second.try_recv().expect_err("none came"), TryRecvError::Closed);
    }
}

//! One shard as a source: its streams while this node leads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tidemark_store_core::read::{self, PageLimits};
use tidemark_store_core::reply::Relayed;
use tidemark_store_core::value::{OutSeq, Outbound};
use tidemark_store_core::{Command, Reply};
use tidemark_types::ShardId;
use tokio::time::Instant;

use super::stream::{Stream, Suspicion};
use super::{Relay, Wake};
use crate::metrics;
use crate::shard::{self, Shard};

/// After a leader could not make sure that it leads.
const LEAD_AGAIN: Duration = Duration::from_millis(50);

/// Acknowledged records wait this long to be trimmed together: a trim is a commit of its own, and
/// nobody waits for it.
const TRIM_AFTER: Duration = Duration::from_millis(100);

/// Sleeps while it does not lead, ships while it does.
pub(super) async fn run(relay: Relay, source: ShardId, wake: Arc<Wake>) {
    let hosted = relay.hosted.clone();
    let shard = hosted.shard(source).expect("it is there");
    let mut leadership = shard.group().leadership();
    while let Some(term) = leadership.gained().await {
        // Afterwards an entry of this term is applied, so the outbox holds all that was committed.
        if shard.group().read_index().await.is_err() {
            tokio::time::sleep(LEAD_AGAIN).await;
            continue;
        }
        let mut lead = Lead::new(&relay, source, shard);
        tokio::select! {
            () = leadership.lost(term) => {}
            ended = lead.ship(&wake) => {
                if let Err(error) = ended {
                    let reason = format!("the outbox of shard {source} cannot be read: {error}");
                    relay.fatal.send_replace(Some(reason));
                    return;
                }
            }
        }
    }
}

/// What became of something under way.
enum Done {
    /// A batch that is on its way since then was handed to the transport, which will bring the answer.
    HandedOver(ShardId, Instant, BoxFuture<'static, Result<Relayed, String>>),
    /// The destination answered it.
    Answered(ShardId, Relayed),
    /// It came to nothing, or nobody knows.
    Failed(ShardId, String),
    /// A trim was applied up to here, of what was asked; or it failed.
    Trimmed(ShardId, Option<(OutSeq, OutSeq)>),
    /// A suspicion was looked into by reads through both quorums: it holds, or not, or nobody
    /// knows.
    Confirmed(ShardId, Result<bool, String>),
}

/// The source while it leads.
struct Lead<'a> {
    relay: &'a Relay,
    source: ShardId,
    shard: &'a Shard,
    streams: BTreeMap<ShardId, Stream>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// When all streams are trimmed next, once there is something to trim.
    trim_at: Option<Instant>,
}

impl<'a> Lead<'a> {
    fn new(relay: &'a Relay, source: ShardId, shard: &'a Shard) -> Self {
        let (streams, under_way) = (BTreeMap::new(), FuturesUnordered::new());
        Lead { relay, source, shard, streams, under_way, trim_at: None }
    }

    /// Ships for ever; ends only when the state cannot be read.
    async fn ship(&mut self, wake: &Wake) -> Result<(), shard::Error> {
        for (to, stream) in self.shard.look(read::outbounds)?? {
            self.streams.insert(to, Stream::new(stream));
            self.send(to)?;
        }
        loop {
            let retry =
                self.streams.iter().filter_map(|(to, stream)| Some((stream.retry_at()?, *to)));
            let retry = retry.min();
            let now = self.relay.clock.monotonic();
            let pause = async {
                match retry {
                    Some((at, to)) => {
                        tokio::time::sleep(at.saturating_sub(now)).await;
                        to
                    }
                    None => std::future::pending().await,
                }
            };
            let trim_at = self.trim_at;
            let trim = async {
                match trim_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.under_way.next() => self.done(done)?,
                () = trim => {
                    self.trim_at = None;
                    for to in self.streams.keys().copied().collect::<Vec<_>>() {
                        self.trim(to);
                    }
                }
                woken = wake.taken() => for to in woken {
                    if !self.streams.contains_key(&to) {
                        self.streams.insert(to, Stream::new(self.outbound(to)?));
                    }
                    self.send(to)?;
                },
                to = pause => {
                    self.stream(to).retry();
                    self.trim_soon();
                    self.send(to)?;
                }
            }
        }
    }

    fn outbound(&self, to: ShardId) -> Result<Outbound, shard::Error> {
        Ok(self.shard.peek(|state| read::outbound(state, to))?)
    }

    /// Hands over the next batch, if there is one and the stream may go on.
    fn send(&mut self, to: ShardId) -> Result<(), shard::Error> {
        let config = &self.relay.config;
        let Some(after) = self.stream(to).may_send(config.batches_in_flight_max) else {
            return Ok(());
        };
        if after == self.outbound(to)?.head {
            return Ok(());
        }
        let limits =
            PageLimits { entries: config.batch_records_max, bytes: config.batch_bytes_max };
        let records = self.shard.peek(|state| read::out_records(state, to, after, limits))?;
        let Some((last, _)) = records.last() else { return Ok(()) };
        self.stream(to).sending(*last);
        metrics::relay_batch(records.len());
        let relay_in = Command::RelayIn { source: self.source, records };
        let since = Instant::now();
        let handing = hand_over(self.relay.clone(), to, relay_in);
        let handed = handing.map(move |handed| match handed {
            Ok(answer) => Done::HandedOver(to, since, answer),
            Err(reason) => Done::Failed(to, reason),
        });
        self.under_way.push(handed.boxed());
        Ok(())
    }

    fn done(&mut self, done: Done) -> Result<(), shard::Error> {
        match done {
            Done::HandedOver(to, since, answer) => {
                self.stream(to).handed_over();
                let answered = answer.map(move |answer| match answer {
                    Ok(answer) => {
                        metrics::relay_answered(since.elapsed());
                        Done::Answered(to, answer)
                    }
                    Err(reason) => Done::Failed(to, reason),
                });
                self.under_way.push(answered.boxed());
                self.send(to)
            }
            Done::Answered(to, answer) => {
                let head = self.outbound(to)?.head;
                if let Some(suspicion) = self.stream(to).answered(&answer, head) {
                    self.suspect(to, suspicion);
                }
                self.trim_soon();
                self.send(to)
            }
            Done::Failed(to, reason) => {
                metrics::relay_failed();
                tracing::debug!(source = %self.source, %to, %reason, "records go again");
                let (now, jitter) = (self.relay.clock.monotonic(), self.relay.rng.unit());
                self.stream(to).failed(now, jitter);
                Ok(())
            }
            Done::Trimmed(to, Some((trim, asked))) => {
                self.stream(to).trimmed(trim);
                // One trim removes so many records and no more.
                match trim < asked {
                    true => self.trim(to),
                    false => self.trim_soon(),
                }
                Ok(())
            }
            Done::Trimmed(to, None) => {
                let now = self.relay.clock.monotonic();
                self.stream(to).not_trimmed(now);
                Ok(())
            }
            Done::Confirmed(to, confirmed) => self.confirmed(to, confirmed),
        }
    }

    fn stream(&mut self, to: ShardId) -> &mut Stream {
        self.streams.get_mut(&to).expect("nothing is under way for an unknown stream")
    }

    fn trim_soon(&mut self) {
        if self.trim_at.is_none() && self.streams.values().any(Stream::may_trim) {
            self.trim_at = Some(Instant::now() + TRIM_AFTER);
        }
    }

    fn trim(&mut self, to: ShardId) {
        let Some((upto, returns)) = self.stream(to).start_trim() else { return };
        let shard = self.shard.clone();
        let trim = async move {
            match shard.propose(Command::TrimOutbox { shard: to, upto, returns }).await {
                Ok(Reply::OutboxTrimmed { trim }) => Done::Trimmed(to, Some((trim, upto))),
                Ok(_) | Err(_) => Done::Trimmed(to, None),
            }
        };
        self.under_way.push(trim.boxed());
    }

    /// Stops the stream, and looks whether the suspicion holds.
    fn suspect(&mut self, to: ShardId, suspicion: Suspicion) {
        tracing::warn!(source = %self.source, %to, ?suspicion, "a stream contradicts itself");
        self.stream(to).halt();
        let (relay, source) = (self.relay.clone(), self.source);
        let confirm = confirm(relay, source, to, suspicion);
        self.under_way.push(confirm.map(move |held| Done::Confirmed(to, held)).boxed());
    }

    fn confirmed(
        &mut self,
        to: ShardId,
        confirmed: Result<bool, String>,
    ) -> Result<(), shard::Error> {
        match confirmed {
            Ok(true) => {
                metrics::alarm("relay_halted");
                tracing::error!(
                    source = %self.source, %to,
                    "the stream to this shard is corrupt and stays halted: a person must look"
                );
                Ok(())
            }
            Ok(false) | Err(_) => {
                // It was a late answer, or nobody could be asked; then the next one tells.
                self.stream(to).resume();
                self.trim_soon();
                self.send(to)
            }
        }
    }
}

/// Hands a `RelayIn` to the leader of `to`, here or elsewhere; the answer to come.
async fn hand_over(
    relay: Relay,
    to: ShardId,
    relay_in: Command,
) -> Result<BoxFuture<'static, Result<Relayed, String>>, String> {
    let here = relay.hosted.shard(to).filter(|shard| shard.group().leads().is_some());
    if let Some(shard) = here {
        let pending = shard.enqueue(relay_in).map_err(|error| error.to_string())?;
        let reply = async { relayed(pending.reply().await.map_err(|error| error.to_string())?) };
        return Ok(reply.boxed());
    }
    let pending = relay.client.relay(to, &relay_in).await.map_err(|error| error.to_string())?;
    let reply = async { relayed(pending.reply().await.map_err(|error| error.to_string())?) };
    Ok(reply.boxed())
}

fn relayed(reply: Reply) -> Result<Relayed, String> {
    match reply {
        Reply::Relayed(relayed) => Ok(relayed),
        other => Err(format!("{other:?} to records")),
    }
}

/// Does the suspicion hold, asked through both quorums? Against the head the destination is asked
/// first, against the trim mark the source: each may only have moved on since (R4).
async fn confirm(
    relay: Relay,
    source: ShardId,
    to: ShardId,
    suspicion: Suspicion,
) -> Result<bool, String> {
    let shard = relay.hosted.shard(source).expect("it is there");
    let outbound = async || {
        let read = shard.read(|state| read::outbound(state, to)).await;
        read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    };
    // An empty batch goes through the destination's quorum, and tells where it is.
    let probe = async || {
        let probe = Command::RelayIn { source, records: Vec::new() };
        hand_over(relay.clone(), to, probe).await?.await
    };
    match suspicion {
        Suspicion::WrongShard => Ok(true),
        Suspicion::AboveHead => {
            let in_seq = probe().await?.in_seq;
            Ok(in_seq > outbound().await?.head)
        }
        Suspicion::BelowTrim => {
            let trim = outbound().await?.trim;
            Ok(probe().await?.in_seq < trim)
        }
    }
}

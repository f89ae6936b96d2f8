//! The workload `allocate`: numbers of counters, one in each call, many calls in flight, over a few
//! streams or each a unary one.
//!
//! Checked: no number is given twice; a call that began when another one of the same counter had ended
//! gets a higher one; and no number lies above what the counter says of itself (R9). That numbers are
//! skipped is legal, and told.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tidemark_client::Numbers;
use tidemark_env::{Rng, SeededRng};
use tidemark_proto::Failure;
use tidemark_types::ErrorCode;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::books::CALLS;
use crate::ledger::{Arrived, Ledger, Stream};
use crate::meter::{Meter, Phase, Pulse, count};
use crate::report::{Conditions, Counters, Measured};
use crate::stage::Stage;
use crate::wire::{Calls, Gateway};

/// A call that is not answered by then is made again; what became of it is unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before a call is made again, when the server asks for none.
const PAUSE: Duration = Duration::from_millis(20);

/// A counter, as its callers see it.
#[derive(Debug, Default)]
struct Counter {
    given: Stream,
    duplicated: u64,
    out_of_order: u64,
}

/// What all callers share.
struct Office {
    calls: Calls,
    /// None where each call is a unary one.
    streams: Vec<Numbers>,
    meter: Arc<Meter>,
    counters: Vec<(String, Mutex<Counter>)>,
}

impl Counter {
    /// A call begins: what it gets is higher than this.
    fn begins(&self) -> u64 {
        self.given.last()
    }

    /// A call that began with that floor got this number.
    fn given(&mut self, number: u64, floor: u64) {
        self.duplicated += u64::from(self.given.arrived(number) == Arrived::Again);
        self.out_of_order += u64::from(number <= floor);
    }

    /// The counter says that it stands at `last`: how many numbers nobody got, or none when it is wrong.
    fn skipped(&self, last: u64) -> Option<u64> {
        (last >= self.given.last()).then(|| self.given.lost(last))
    }
}

/// Runs the workload.
pub(crate) async fn run(stage: &Stage<'_>) -> Result<Measured> {
    let Stage { target, settings, scale, .. } = stage;
    let in_flight = scale.senders as usize * scale.in_flight as usize;
    let connections = settings.connections as usize;
    let streams = if settings.unary { in_flight } else { connections };
    let gateway = Gateway::connect(&target.gateway, connections, streams).await?;
    let token = target.service_token();
    let calls = gateway.calls(&token);
    let streams = if settings.unary { Vec::new() } else { gateway.numbers(&token).await? };
    let names = (0..settings.keys).map(|number| stage.counter(number));
    let office = Arc::new(Office {
        calls,
        streams,
        meter: stage.lookout.meter.clone(),
        counters: names.map(|name| (name, Mutex::default())).collect(),
    });
    let mut callers = JoinSet::new();
    for turn in 0..in_flight {
        callers.spawn(office.clone().call_on(turn));
    }
    stage.warm_up().await;
    let from = stage.lookout.begin().await;
    stage.lookout.pass(stage.measured_time(), "measured").await;
    let to = stage.lookout.end().await;
    stage.lookout.meter.enter(Phase::Drain);
    let faults: Vec<String> = callers.join_all().await.into_iter().flatten().collect();
    let (counters, ledger) = office.close(faults).await?;
    let conditions = Conditions {
        in_flight: Some(scale.in_flight),
        body: None,
        ..stage.conditions(office.counters.len(), gateway.connections())
    };
    let acked = to.counts.acked - from.counts.acked;
    let measured = stage.lookout.measured(conditions, &from, &to, acked);
    Ok(Measured { counters: Some(counters), ledger, ..measured })
}

impl Office {
    /// Calls for the next number of one counter after the other, until the run is over: what went wrong,
    /// if something did.
    async fn call_on(self: Arc<Self>, turn: usize) -> Option<String> {
        let rng = SeededRng::new(turn as u64);
        let phases = self.meter.phases();
        let mut pulse = Pulse::default();
        while *phases.borrow() == Phase::Run && !self.meter.is_faulty() {
            let which = rng.number() % self.counters.len() as u64;
            let (name, counter) = &self.counters[usize::try_from(which).expect("below a length")];
            let floor = counter.lock().begins();
            count(&self.meter.counters.sent);
            let due = self.meter.now();
            match self.next_of(turn, name).await {
                Ok(number) => {
                    counter.lock().given(number, floor);
                    self.meter.acked(due, &mut pulse);
                }
                Err(failure) => {
                    self.meter.fault();
                    return Some(format!("{name}: {failure}"));
                }
            }
        }
        None
    }

    /// The next number, however often it takes to get an answer.
    async fn next_of(&self, turn: usize, name: &str) -> Result<u64, Failure> {
        loop {
            let answer = timeout(CALL_TIMEOUT, self.call(turn, name)).await;
            let late = |_| Err(Failure::new(ErrorCode::Unknown).message("no answer in time"));
            match answer.unwrap_or_else(late) {
                Err(failure)
                    if failure.code.is_retryable()
                        && !self.meter.is_faulty()
                        && self.lasts(turn) =>
                {
                    count(&self.meter.counters.resends);
                    sleep(failure.retry_after.unwrap_or(PAUSE)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Would another call have a chance? A stream is not opened again.
    fn lasts(&self, turn: usize) -> bool {
        turn.checked_rem(self.streams.len()).is_none_or(|stream| self.streams[stream].is_open())
    }

    /// One call, on the stream whose turn it is, if there are any.
    async fn call(&self, turn: usize, name: &str) -> Result<u64, Failure> {
        match turn.checked_rem(self.streams.len()) {
            Some(stream) => self.streams[stream].next(name).await,
            None => self.calls.allocate(turn, name).await,
        }
    }

    /// What the callers were given, against what the counters say.
    async fn close(&self, faults: Vec<String>) -> Result<(Counters, Ledger)> {
        let meter = self.meter.counts();
        let mut ledger =
            Ledger { sent: meter.sent, acked: meter.acked, faults, ..Ledger::default() };
        let asked = stream::iter(self.counters.iter().enumerate());
        let asked = asked.map(async |(turn, (name, _))| self.calls.current(turn, name).await);
        let stand: Vec<u64> = asked.buffered(CALLS).try_collect().await?;
        let mut skipped = 0;
        for ((name, counter), last) in self.counters.iter().zip(stand) {
            let counter = counter.lock();
            ledger.duplicated += counter.duplicated;
            ledger.out_of_order += counter.out_of_order;
            match counter.skipped(last) {
                Some(more) => skipped += more,
                None => {
                    let given = counter.begins();
                    ledger.faults.push(format!("{name} stands at {last}, and {given} was given"));
                }
            }
        }
        Ok((Counters { streams: self.streams.len(), skipped }, ledger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a counter's callers saw, who began with such floors and got such numbers.
    fn counter(given: &[(u64, u64)]) -> Counter {
        let mut counter = Counter::default();
        given.iter().for_each(|(floor, number)| counter.given(*number, *floor));
        counter
    }

    #[test]
    fn numbers_may_come_out_of_order_to_calls_that_were_made_at_once() {
        let counter = counter(&[(0, 2), (0, 1), (2, 3)]);
        assert_eq!((counter.duplicated, counter.out_of_order, counter.begins()), (0, 0, 3));
        assert_eq!(counter.skipped(3), Some(0));
    }

    #[test]
    fn a_number_that_is_given_twice_or_goes_back_is_seen() {
        let twice = counter(&[(0, 1), (0, 2), (0, 2)]);
        assert_eq!((twice.duplicated, twice.out_of_order), (1, 0));
        let back = counter(&[(0, 5), (5, 4)]);
        assert_eq!((back.duplicated, back.out_of_order), (0, 1));
    }

    #[test]
    fn what_is_skipped_is_counted_and_a_counter_that_stands_too_low_is_wrong() {
        let counter = counter(&[(0, 1), (1, 4)]);
        assert_eq!((counter.skipped(4), counter.skipped(6)), (Some(2), Some(4)));
        assert_eq!(counter.skipped(3), None);
    }
}

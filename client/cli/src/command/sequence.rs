//! `sequence`: numbers of counters. It takes them under an id that is told before, so that a repetition
//! gets the same ones.

use std::fmt;

use serde::Serialize;
use tidemark_proto::convert::bytes_of;
use tidemark_proto::v1::sequence_client::SequenceClient;
use tidemark_proto::v1::{AllocateRequest, CurrentRequest};
use tidemark_token::Role;

use super::send::{announce, new_id, with_id};
use crate::arguments::Sequence;
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, plain};

/// Takes numbers of a counter, or prints the last one taken.
pub(crate) async fn run(
    command: Sequence,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    match command {
        Sequence::Take { counter, count, id } => {
            let outcome =
                if id.is_some() { Outcome::of_repetition() } else { Outcome::of_change() };
            let id = id.unwrap_or_else(|| new_id(gateways));
            announce(id, output)?;
            let counter = counter.to_string();
            let request_id = bytes_of(id.as_bytes());
            let request = AllocateRequest { counter: counter.clone(), count, request_id };
            let rpc = async |channel, request| SequenceClient::new(channel).allocate(request).await;
            let taken = gateways.call(Role::Service, outcome, request, rpc).await;
            let first = taken.map_err(|error| with_id(error, id))?.first;
            let last = first + u64::from(count - 1);
            Ok(output.print(&Taken { id: id.to_string(), counter, first, last })?)
        }
        Sequence::Current { counter } => {
            let counter = counter.to_string();
            let request = CurrentRequest { counter: counter.clone() };
            let rpc = async |channel, request| SequenceClient::new(channel).current(request).await;
            let answer = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
            Ok(output.print(&Current { counter, last: answer.last })?)
        }
    }
}

#[derive(Serialize)]
struct Taken {
    id: String,
    counter: String,
    first: u64,
    last: u64,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = plain(&self.counter);
        match self.first == self.last {
            true => write!(f, "{} of {counter}", self.first),
            false => write!(f, "{} to {} of {counter}", self.first, self.last),
        }
    }
}

#[derive(Serialize)]
struct Current {
    counter: String,
    /// 0 for none.
    last: u64,
}

impl fmt::Display for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = plain(&self.counter);
        match self.last {
            0 => write!(f, "no number of {counter} was taken"),
            last => write!(f, "{last} is the last number of {counter} that was taken"),
        }
    }
}

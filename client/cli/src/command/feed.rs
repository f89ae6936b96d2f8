//! `feed`: what happened in a shard, record after record (R20). With the last record's number that
//! was printed, reading goes on where it stopped.

use std::fmt;

use serde::Serialize;
use tidemark_client::Entry;
use tidemark_proto::convert::required;
use tidemark_proto::v1::feed_change::What;
use tidemark_proto::v1::feed_client::FeedClient;
use tidemark_proto::v1::{FeedChange, FeedEntry, ReadFeedRequest, ReadFeedResponse};
use tidemark_token::Role;
use tidemark_types::{Epoch, Recipient};

use crate::error::Error;
use crate::gateways::Gateways;
use crate::line::Line;
use crate::outcome::Outcome;
use crate::output::{Output, date, plain};

/// How long a call may wait where it is followed: shorter than a call's default deadline.
const WAIT_MS: u32 = 2_000;

/// Prints the records after a number, up to `limit`, or all there are, or for ever.
pub(crate) async fn run(
    shard: u32,
    after: u64,
    limit: Option<u32>,
    follow: bool,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let rpc = async |channel, request| FeedClient::new(channel).read(request).await;
    let (mut after, mut left) = (after, limit.unwrap_or(u32::MAX));
    while left > 0 {
        let wait_ms = if follow { WAIT_MS } else { 0 };
        let wanted = limit.map_or(0, |_| left);
        let request = ReadFeedRequest { shard, after, limit: wanted, wait_ms };
        let answer = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
        let ReadFeedResponse { floor, records, .. } = answer;
        if after < floor {
            output.print(&Told::Gap { from: after + 1, to: floor })?;
            after = floor;
        }
        if records.is_empty() && !follow {
            return Ok(());
        }
        for record in records {
            if record.number != after + 1 {
                let text = format!("record {} follows {after}", record.number);
                return Err(Error::bad_answer(text));
            }
            after = record.number;
            left -= 1;
            for change in record.changes {
                output.print(&Told::of(record.number, record.time_ms, change)?)?;
            }
        }
    }
    Ok(())
}

/// One line of the feed.
#[derive(Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Told {
    /// A mailbox has a new entry.
    Entry {
        record: u64,
        time_ms: u64,
        mailbox: String,
        seq: u32,
        /// None where the feed does not hold it.
        #[serde(skip_serializing_if = "Option::is_none")]
        entry: Option<Box<Line>>,
    },
    /// A device stands like this.
    Device {
        record: u64,
        time_ms: u64,
        user: String,
        device: String,
        epoch: u32,
        cursor: u32,
        connected: bool,
        /// 0 for never.
        logged_out_ms: u64,
    },
    /// A device was forgotten.
    Forgotten { record: u64, time_ms: u64, user: String, device: String },
    /// Something that this version does not know.
    Unknown { record: u64, time_ms: u64 },
    /// Records that are not kept any more, both ends included.
    Gap { from: u64, to: u64 },
}

impl Told {
    fn of(record: u64, time_ms: u64, change: FeedChange) -> Result<Self, Error> {
        Ok(match change.what {
            Some(What::Entry(it)) => {
                let FeedEntry { mailbox, seq, entry } = *it;
                let mailbox = required("mailbox", mailbox.as_ref()).and_then(Recipient::try_from);
                let mailbox = mailbox.map_err(Error::bad_answer)?.to_string();
                let read = |raw| Box::new(Line::from(&Entry::read(Epoch::NONE, raw)));
                let entry = entry.map(read);
                Told::Entry { record, time_ms, mailbox, seq, entry }
            }
            Some(What::Device(it)) => Told::Device {
                record,
                time_ms,
                user: it.user,
                device: it.device,
                epoch: it.epoch,
                cursor: it.cursor,
                connected: it.connected,
                logged_out_ms: it.logged_out_ms,
            },
            Some(What::Forgotten(it)) => {
                Told::Forgotten { record, time_ms, user: it.user, device: it.device }
            }
            None => Told::Unknown { record, time_ms },
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Entry { record, mailbox, entry: Some(entry), .. } => {
                write!(f, "{record:>6}  {}: {entry}", plain(mailbox))
            }
            Told::Entry { record, mailbox, seq, entry: None, .. } => {
                write!(f, "{record:>6}  {}: {seq:>6}", plain(mailbox))
            }
            Told::Device { record, time_ms, user, device, cursor, connected, .. } => {
                let connected = if *connected { "connected" } else { "not connected" };
                let (user, device) = (plain(user), plain(device));
                write!(
                    f,
                    "{record:>6}  {user}/{device}: cursor {cursor}, {connected}  {}",
                    date(*time_ms)
                )
            }
            Told::Forgotten { record, time_ms, user, device } => {
                let (user, device) = (plain(user), plain(device));
                write!(f, "{record:>6}  {user}/{device}: forgotten  {}", date(*time_ms))
            }
            Told::Unknown { record, .. } => write!(f, "{record:>6}  (newer than this program)"),
            Told::Gap { from, to } => write!(f, "{from} to {to} are no longer kept"),
        }
    }
}

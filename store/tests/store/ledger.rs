//! The ledger of the crash tests: what was acknowledged to whom, and what a node must then hold.
//!
//! Every send follows from its sender, session and number alone, so that the ledger needs no
//! content to know what must be in which mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::join_all;
use tidemark_store::node::Node;
use tidemark_store_core::value::{Content, Entry, Origin, Verdict};
use tidemark_store_core::{Command, Reject, Reply};
use tidemark_types::{Recipient, Seq, SessionId, UnixMs, UserId};

use crate::device::Device;
use crate::look;

/// So many users send, each to the next ones.
pub(crate) const USERS: usize = 16;

/// A device asks for so many acknowledgements once more: it says that it lacks them.
const LACKING: u64 = 64;

pub(crate) fn user(at: usize) -> UserId {
    UserId::new(format!("user-{at}")).unwrap()
}

/// Send number `n` of a session of user `at`.
pub(crate) fn send(at: usize, session: SessionId, n: u64) -> Command {
    let (to, body) = message(at, session, n);
    let to = to.into_iter().map(Recipient::User).collect();
    let base = (n + 1).saturating_sub(LACKING).max(1);
    Device { user: user(at), session }.send(n, base, to, body)
}

/// Whom it goes to, and what it says: mostly something small, now and then several pages.
fn message(at: usize, session: SessionId, n: u64) -> (BTreeSet<UserId>, Bytes) {
    let step = usize::try_from(n).unwrap() % (USERS - 1) + 1;
    let mut to = BTreeSet::from([user((at + step) % USERS)]);
    if n.is_multiple_of(5) {
        to.insert(user((at + 1) % USERS));
    }
    let words = format!("{n} of session {session} of user {at}; ");
    let length = if n.is_multiple_of(64) { 40_000 } else { usize::try_from(n).unwrap() * 37 % 900 };
    let body = words.repeat(length / words.len() + 1);
    (to, Bytes::from(body))
}

/// What the child says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A session was opened.
    Opened { at: usize, session: SessionId },
    /// A send was accepted.
    Acked { at: usize, session: SessionId, n: u64, seq: Seq, time: UnixMs },
}

/// A line: when it was said, on this machine's clock, and what.
pub(crate) fn line(when: Duration, said: &Said) -> String {
    let when = when.as_micros();
    match said {
        Said::Opened { at, session } => format!("opened {when} {at} {session}"),
        Said::Acked { at, session, n, seq, time } => {
            format!("acked {when} {at} {session} {n} {seq} {}", time.get())
        }
    }
}

/// `None` for what the test harness says. A line that a kill cut off was never said.
fn parse(line: &str) -> Option<(Duration, Said)> {
    let mut words = line.split(' ');
    let (kind, numbers) = (words.next()?, words.map(|word| word.parse::<u64>().ok()));
    let numbers = numbers.collect::<Option<Vec<_>>>()?;
    let (when, numbers) = numbers.split_first()?;
    let session = |number: u64| SessionId::new(number).ok();
    let said = match (kind, numbers) {
        ("opened", [at, id]) => {
            Said::Opened { at: usize::try_from(*at).ok()?, session: session(*id)? }
        }
        ("acked", [at, id, n, seq, time]) => Said::Acked {
            at: usize::try_from(*at).ok()?,
            session: session(*id)?,
            n: *n,
            seq: Seq::new(u32::try_from(*seq).ok()?),
            time: UnixMs::new(*time),
        },
        _ => return None,
    };
    Some((Duration::from_micros(*when), said))
}

/// Everything that was acknowledged.
///
/// What was said after the power was cut may be there or not: a real cut would have silenced it.
/// (ext4 lets an fsync that was under way return without an error then, though nothing came of it.)
#[derive(Default)]
pub(crate) struct Ledger {
    sessions: BTreeMap<(usize, SessionId), Sends>,
    /// Sends acknowledged before the cut.
    pub(crate) acked: usize,
    /// And after it.
    pub(crate) late: usize,
}

#[derive(Default)]
struct Sends {
    /// The verdicts that must be there, from number 1 on.
    verdicts: Vec<Verdict>,
    /// Those after them that were said too late: what is there of them is the same.
    late: Vec<Verdict>,
    /// Whether the session itself must be there.
    opened_late: bool,
    /// It was asked about since: what is in `verdicts` is all there is.
    settled: bool,
}

impl Ledger {
    /// Notes a line of the child; is it an acknowledged send?
    pub(crate) fn note(&mut self, line: &str, cut: Option<Duration>) -> Result<bool> {
        let Some((when, said)) = parse(line) else { return Ok(false) };
        let late = cut.is_some_and(|cut| when >= cut);
        match said {
            Said::Opened { at, session } => {
                let sends = Sends { opened_late: late, ..Sends::default() };
                // One that was opened too late may be forgotten, and then its number is free.
                let replaced = self.sessions.insert((at, session), sends);
                let again = replaced.is_some_and(|sends| !sends.opened_late);
                ensure!(!again, "{line}: opened twice");
                Ok(false)
            }
            Said::Acked { at, session, n, seq, time } => {
                let sends =
                    self.sessions.get_mut(&(at, session)).context("a session was opened")?;
                let expected = (sends.verdicts.len() + sends.late.len() + 1) as u64;
                ensure!(n == expected, "{line}: acknowledged out of order");
                let (verdicts, count) = match late {
                    true => (&mut sends.late, &mut self.late),
                    false => (&mut sends.verdicts, &mut self.acked),
                };
                verdicts.push(Verdict::Accepted { seq, time });
                *count += 1;
                Ok(true)
            }
        }
    }

    /// Compares the node's whole state with what was acknowledged, asks again for all that a
    /// device could ask for, and compares again; how much was asked.
    pub(crate) async fn verify(&mut self, node: &Node) -> Result<usize, Wrong> {
        let found = Found::read(node).await?;
        self.compare(&found)?;
        for (key, sends) in &mut self.sessions {
            // What was unknown is known now.
            sends.late.clear();
            sends.verdicts = found.own.get(key).cloned().unwrap_or_default();
        }
        let retries = self.retry(node).await?;
        self.compare(&Found::read(node).await?)?;
        Ok(retries)
    }

    /// Asks again for the last sends of each session, and for the one after them, which the device
    /// cannot know about.
    async fn retry(&mut self, node: &Node) -> Result<usize, Wrong> {
        let mut retries = 0;
        for ((at, session), sends) in self.sessions.iter_mut().filter(|(_, sends)| !sends.settled) {
            let last = sends.verdicts.len() as u64;
            let numbers = last.saturating_sub(LACKING - 1) + 1..=last;
            let again = numbers.clone().map(|n| node.propose(send(*at, *session, n)));
            for (n, reply) in numbers.zip(join_all(again).await) {
                retries += 1;
                let stored = sends.verdicts[usize::try_from(n).unwrap() - 1];
                if !matches!(&reply, Ok(Reply::Sent(verdict)) if *verdict == stored) {
                    let is = format!("was {stored:?}, is {reply:?}");
                    return Err(Wrong(format!("send {n} of {session} of user {at} {is}")));
                }
            }
            match node.propose(send(*at, *session, last + 1)).await {
                Ok(Reply::Sent(verdict)) => sends.verdicts.push(verdict),
                Ok(Reply::Rejected(Reject::SessionEnded { last_n })) if last_n == last => {}
                Ok(Reply::Rejected(Reject::Invalid(_))) if sends.opened_late && last == 0 => {}
                other => {
                    let is = format!("{} of {session} of user {at}: {other:?}", last + 1);
                    return Err(Wrong(format!("the unknown send {is}")));
                }
            }
            sends.settled = true;
        }
        Ok(retries)
    }

    fn compare(&self, found: &Found) -> Result<(), Wrong> {
        for ((at, session), sends) in &self.sessions {
            let own = found.own.get(&(*at, *session)).map_or(&[][..], Vec::as_slice);
            let context = format!("session {session} of user {at}");
            let (acked, kept) = (sends.verdicts.len(), own.len());
            if kept < acked {
                return Err(Wrong(format!("{context}: {acked} acknowledged, {kept} kept")));
            }
            // One send may have had no answer yet.
            let unknown = if sends.settled { 0 } else { sends.late.len() + 1 };
            if kept > acked + unknown {
                return Err(Wrong(format!("{context}: {acked} acknowledged, {kept} sent")));
            }
            for (n, (is, was)) in
                (1..).zip(own.iter().zip(sends.verdicts.iter().chain(&sends.late)))
            {
                if is != was {
                    return Err(Wrong(format!("{context}: send {n} was {was:?}, is {is:?}")));
                }
            }
        }
        match found.own.keys().find(|key| !self.sessions.contains_key(key)) {
            Some((at, session)) => {
                Err(Wrong(format!("user {at} sent in session {session}, which it never had")))
            }
            None => Ok(()),
        }
    }
}

/// What is wrong with a node's state: acknowledged and lost, or there and never sent.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

/// What a node holds.
struct Found {
    /// The sends in their sender's own mailbox, from number 1 on.
    own: BTreeMap<(usize, SessionId), Vec<Verdict>>,
}

impl Found {
    /// Reads all mailboxes once the outboxes are empty; everything in them must be a copy of a send
    /// that its sender has, where it belongs, once and in order.
    async fn read(node: &Node) -> Result<Found, Wrong> {
        look::drained(node).await.map_err(Wrong)?;
        let mut own = BTreeMap::<_, Vec<Verdict>>::new();
        let mut wanted = BTreeSet::new();
        let mut copies = BTreeSet::new();
        for at in 0..USERS {
            let mut last = BTreeMap::new();
            for (seq, entry) in look::entries(node, &user(at)).await {
                let (from, session, n) =
                    identify(&entry).map_err(|wrong| at_seq(at, seq, &wrong))?;
                if from != at {
                    if last.insert((from, session), n) >= Some(n) {
                        return Err(at_seq(at, seq, "the message is there twice, or too late"));
                    }
                    copies.insert((from, session, n, user(at)));
                    continue;
                }
                let sends = own.entry((at, session)).or_default();
                sends.push(Verdict::Accepted { seq, time: entry.time });
                if n != sends.len() as u64 {
                    return Err(at_seq(at, seq, &format!("send {n} of {session} is out of order")));
                }
                let (to, _) = message(at, session, n);
                wanted.extend(to.into_iter().map(|to| (from, session, n, to)));
            }
        }
        match wanted.symmetric_difference(&copies).next() {
            Some(copy) if wanted.contains(copy) => {
                Err(Wrong(format!("a copy is missing: {copy:?}")))
            }
            Some(copy) => Err(Wrong(format!("a copy of what nobody sent: {copy:?}"))),
            None => Ok(Found { own }),
        }
    }
}

fn at_seq(at: usize, seq: Seq, what: &str) -> Wrong {
    Wrong(format!("mailbox of user {at}, seq {seq}: {what}"))
}

/// Which send an entry is of, after comparing its content with that send's.
fn identify(entry: &Entry) -> Result<(usize, SessionId, u64), String> {
    let Content::Message { message: found, outgoing } = &entry.content else {
        return Err(format!("nobody refuses here: {entry:?}"));
    };
    let (from, session, n) = identify_origin(&entry.origin)?;
    let (to, body) = message(from, session, n);
    if found.body != body {
        return Err(format!("the body of send {n} of {session} of user {from} is another one"));
    }
    let went = outgoing.as_ref().map(|outgoing| &outgoing.to);
    if went.is_some_and(|went| !went.iter().cloned().eq(to.into_iter().map(Recipient::User))) {
        return Err(format!("send {n} of {session} of user {from} went to {went:?}"));
    }
    Ok((from, session, n))
}

fn identify_origin(origin: &Origin) -> Result<(usize, SessionId, u64), String> {
    let Origin::Session { sender, session, n } = origin else {
        return Err(format!("no back end sends here: {origin:?}"));
    };
    let at = sender.as_str().strip_prefix("user-").and_then(|at| at.parse().ok());
    Ok((at.ok_or_else(|| format!("{sender} does not send here"))?, *session, *n))
}

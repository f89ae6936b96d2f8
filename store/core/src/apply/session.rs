//! Send sessions (R1): opening one, and the sends inside it.
//!
//! ```text
//!      base             last_n    last_n+1
//!   ────|─────────────────|──────────|──────────────────────────
//!  SETTLED   stored ack       executed   OUT_OF_ORDER / WINDOW_FULL
//! ```

use std::ops::RangeInclusive;

use tidemark_mutants::{Mutant, is};
use tidemark_types::limits::{ENDED_SESSIONS_MAX, SEND_WINDOW};
use tidemark_types::{DeviceId, OpenId, SessionId, UnixMs, UserId};

use super::deliver::{self, Fate};
use super::mailbox::Open;
use crate::command::{Draft, Judged, Send};
use crate::key::{AckKey, DeviceKey, IdleKey, SessionKey};
use crate::reply::{Reject, Reply};
use crate::storage::Fatal;
use crate::transaction::{Held, Step, Stop};
use crate::value::{Ack, Idle, Origin, Session, Shard, Verdict};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The day of a time; sessions are marked by the day of their last use, so that a busy one is
/// marked anew once a day only.
pub(super) fn day(time: UnixMs) -> u32 {
    u32::try_from(time.get() / DAY_MS).unwrap_or(u32::MAX)
}

/// `Open`.
pub(super) fn open(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    device: &DeviceId,
    open_id: OpenId,
    ends: Option<SessionId>,
) -> Result<Reply, Stop> {
    let device_key = DeviceKey { user: user.clone(), device: device.clone() };
    let mut owner = step.get(&device_key)?.ok_or(Reject::NoDevice)?;
    if let Some(live) = owner.live {
        let key = SessionKey { user: user.clone(), session: live };
        let mut session = step.get(&key)?.ok_or_else(|| missing(&key))?;
        if session.open_id == open_id {
            return Ok(Reply::Opened { session: live });
        }
        if ends == Some(live) {
            session.ended = true;
            step.put(&key, &session);
            owner.ended.push(live);
        }
    }
    if ends != owner.live {
        return Err(Reject::Stale { live: owner.live }.into());
    }
    if owner.ended.len() > ENDED_SESSIONS_MAX {
        let oldest = owner.ended.remove(0);
        forget(step, user, oldest)?;
    }

    let mut mailbox = Open::of(step, user)?;
    mailbox.value.last_session += 1;
    let session = SessionId::new(mailbox.value.last_session).expect("counted from 1");
    mailbox.save(step);
    owner.live = Some(session);
    step.put(&device_key, &owner);
    let used_day = day(shard.time);
    let value =
        Session { device: device.clone(), open_id, ended: false, base: 1, last_n: 0, used_day };
    step.put(&SessionKey { user: user.clone(), session }, &value);
    step.put(&IdleKey { day: used_day, user: user.clone(), session }, &Idle);
    Ok(Reply::Opened { session })
}

/// Removes a session with all that belongs to it, and gives it back; what it took is unknown from
/// now on.
pub(super) fn forget(
    step: &mut Step<'_>,
    user: &UserId,
    session: SessionId,
) -> Result<Session, Fatal> {
    let key = SessionKey { user: user.clone(), session };
    let value = step.get(&key)?.ok_or_else(|| missing(&key))?;
    step.delete(&key);
    drop_acks(step, &key, value.base..=value.last_n);
    step.delete(&IdleKey { day: value.used_day, user: user.clone(), session });
    Ok(value)
}

fn missing(key: &SessionKey) -> Fatal {
    let SessionKey { user, session } = key;
    Fatal::Corrupt(format!("session {session} of user {user} is named and not there"))
}

/// `Send`.
pub(super) fn send(step: &mut Step<'_>, shard: &mut Shard, send: &Send) -> Result<Reply, Stop> {
    let key = SessionKey { user: send.user.clone(), session: send.session };
    let (session, held) = find(step, &key, send)?;
    if let Some(verdict) = answered(step, &session, send)? {
        return Ok(Reply::Sent(verdict));
    }
    let verdict = judge(step, shard, send)?;
    record(step, shard, &key, held, session, send, verdict);
    Ok(Reply::Sent(verdict))
}

/// The session of a send, if it is one of this device's.
fn find(
    step: &Step<'_>,
    key: &SessionKey,
    send: &Send,
) -> Result<(Session, Held<SessionKey>), Stop> {
    let (session, held) = step.take(key)?;
    match session {
        Some(session) if session.device == send.device => Ok((session, held)),
        Some(_) => Err(Reject::Invalid("session: it is another device's".to_owned()).into()),
        None => {
            let known = Open::of(step, &send.user)?.value.last_session;
            match send.session.get() <= known {
                true => Err(Reject::SessionExpired.into()),
                false => Err(Reject::Invalid("session: it was never opened".to_owned()).into()),
            }
        }
    }
}

/// The stored verdict, if the send was taken before; a reject, if it cannot be taken now.
fn answered(step: &Step<'_>, session: &Session, send: &Send) -> Result<Option<Verdict>, Stop> {
    let last_n = session.last_n;
    let base = session.base.max(send.base);
    if send.base == 0 || send.n == 0 {
        return Err(Reject::Invalid("n and base count from 1".to_owned()).into());
    }
    if base > last_n + 1 {
        let text = format!("base {base} is above the next n {}", last_n + 1);
        return Err(Reject::Invalid(text).into());
    }
    if send.n < base {
        return Err(Reject::Settled.into());
    }
    if is(Mutant::ForgetfulSession) && send.n < last_n {
        return Ok(None);
    }
    if send.n <= last_n {
        let key = AckKey { user: send.user.clone(), session: send.session, n: send.n };
        let ack = step.get(&key)?.ok_or_else(|| {
            let AckKey { user, session, n } = key;
            Fatal::Corrupt(format!("the acknowledgement of {user}'s {n} in {session} is not there"))
        })?;
        return match ack.content == send.content {
            true => Ok(Some(ack.verdict)),
            false => Err(Reject::Conflict.into()),
        };
    }
    if session.ended {
        return Err(Reject::SessionEnded { last_n }.into());
    }
    if send.n > last_n + 1 {
        return Err(Reject::OutOfOrder { expected: last_n + 1 }.into());
    }
    if send.n - base >= SEND_WINDOW {
        return Err(Reject::WindowFull.into());
    }
    Ok(None)
}

/// The verdict on the session's next send (R2).
fn judge(step: &mut Step<'_>, shard: &mut Shard, send: &Send) -> Result<Verdict, Stop> {
    let mut accept = |draft: &Draft, fate| {
        deliver::check_draft(draft)?;
        let origin =
            Origin::Session { sender: send.user.clone(), session: send.session, n: send.n };
        deliver::accept(step, shard, origin, Some(&send.device), draft, fate)
    };
    match &send.judged {
        Judged::Refuse(code) => Ok(deliver::refused_by_gateway(*code)?),
        Judged::Allow(draft) => accept(draft, Fate::Delivered),
        Judged::Drop(draft) => accept(draft, Fate::Dropped),
    }
}

/// Stores the verdict, and drops what the device has had.
fn record(
    step: &mut Step<'_>,
    shard: &Shard,
    key: &SessionKey,
    held: Held<SessionKey>,
    mut session: Session,
    send: &Send,
    verdict: Verdict,
) {
    let ack = AckKey { user: key.user.clone(), session: key.session, n: send.n };
    step.put(&ack, &Ack { content: send.content, verdict });
    session.last_n = session.last_n.max(send.n);
    if send.base > session.base {
        drop_acks(step, key, session.base..=send.base - 1);
        session.base = send.base;
    }
    let today = day(shard.time);
    if today != session.used_day {
        let SessionKey { user, session: id } = key.clone();
        step.delete(&IdleKey { day: session.used_day, user: user.clone(), session: id });
        step.put(&IdleKey { day: today, user, session: id }, &Idle);
        session.used_day = today;
    }
    step.put_back(held, &session);
}

fn drop_acks(step: &mut Step<'_>, key: &SessionKey, numbers: RangeInclusive<u64>) {
    for n in numbers {
        step.delete(&AckKey { user: key.user.clone(), session: key.session, n });
    }
}

//! A mailbox, or a group's log, which is one: append, trim, retain, delete, adopt, and its owner's
//! settings.
//!
//! Invariant: `swept <= floor <= head`, and the entries `floor+1 ..= head` are all there.

use std::num::NonZeroU32;

use bytes::Bytes;
use tidemark_mutants::{Mutant, is, kept_numbers};
use tidemark_types::{ErrorCode, Recipient, Seq, SeqRange, UserId};

use super::{device, push, share};
use crate::key::{BlockKey, EntryKey, MailboxKey, MarksKey};
use crate::reply::{Effect, Reject, Reply};
use crate::retention;
use crate::slot;
use crate::storage::Fatal;
use crate::transaction::{Held, Step, Stop};
use crate::value::{Block, Mailbox, Shard};

/// Entries that one trim removes from the storage; the floor rises at once, the rest follows.
const SWEEP_PER_TRIM: NonZeroU32 = NonZeroU32::new(1_000).expect("not 0");

/// Marks that one deletion removes; the reply says whether there may be more.
const MARKS_PER_DELETE: usize = 1_000;

/// Entries that one append removes: more than the one it adds, so that a backlog shrinks.
const SWEEP_PER_APPEND: NonZeroU32 = NonZeroU32::new(2).expect("not 0");

/// A mailbox being worked on; [`Self::save`] writes it.
pub(super) struct Open {
    mailbox: Recipient,
    held: Held<MailboxKey>,
    /// Its value.
    pub(super) value: Mailbox,
}

impl Open {
    /// A user's mailbox, a new one where there is none (R6).
    pub(super) fn of(step: &Step<'_>, user: &UserId) -> Result<Self, Fatal> {
        Self::at(step, Recipient::User(user.clone()))
    }

    /// A user's mailbox, or the log of a group.
    pub(super) fn at(step: &Step<'_>, mailbox: Recipient) -> Result<Self, Fatal> {
        let key = MailboxKey { mailbox };
        let (value, held) = step.take(&key)?;
        Ok(Open { mailbox: key.mailbox, held, value: value.unwrap_or_default() })
    }

    /// Writes it.
    pub(super) fn save(self, step: &mut Step<'_>) {
        step.put_back(self.held, &self.value);
    }

    /// The seq that the next entry would get, or why there can be none.
    pub(super) fn vacancy(&self) -> Result<Seq, ErrorCode> {
        match self.value.deleted {
            true => Err(ErrorCode::NoMailbox),
            false => self.value.head.next().ok_or(ErrorCode::SeqExhausted),
        }
    }

    /// Appends an encoded entry under the next seq, and removes the oldest one where the maximum
    /// is exceeded. What is kept of the entry is `reference`, if there is one.
    pub(super) fn append(
        &mut self,
        step: &mut Step<'_>,
        shard: &Shard,
        entry: &Bytes,
        reference: Option<&Bytes>,
    ) -> Result<Result<Seq, ErrorCode>, Fatal> {
        let seq = match self.vacancy() {
            Ok(seq) => seq,
            Err(code) => return Ok(Err(code)),
        };
        let oldest = seq.back(shard.settings.mailbox_entries_max);
        self.append_above(step, oldest, entry, reference)
    }

    /// As [`Self::append`], and removes some entries up to `oldest`.
    pub(super) fn append_above(
        &mut self,
        step: &mut Step<'_>,
        oldest: Seq,
        entry: &Bytes,
        reference: Option<&Bytes>,
    ) -> Result<Result<Seq, ErrorCode>, Fatal> {
        let mut seq = match self.vacancy() {
            Ok(seq) => seq,
            Err(code) => return Ok(Err(code)),
        };
        let mailbox = self.mailbox.clone();
        if is(Mutant::KeepLostNumbers) {
            let kept = kept_numbers(&mailbox.to_string());
            seq = (0..kept).fold(seq, |seq, _| seq.next().unwrap_or(seq));
        }
        let slot = reference.unwrap_or(entry);
        step.put_encoded(&EntryKey { mailbox: mailbox.clone(), seq }, slot.clone());
        self.value.shared += u32::from(reference.is_some());
        step.effects.push(Effect::Appended { mailbox, seq, entry: entry.clone() });
        self.value.head = seq;
        self.raise_floor(step, oldest, SWEEP_PER_APPEND)?;
        Ok(Ok(seq))
    }

    /// Deletes the content, as much as one command may remove; is all of it gone?
    pub(super) fn sweep_all(&mut self, step: &mut Step<'_>) -> Result<bool, Fatal> {
        self.value.deleted = true;
        self.raise_floor(step, self.value.head, SWEEP_PER_TRIM)?;
        Ok(self.value.swept == self.value.floor)
    }

    /// Raises the floor, and removes up to `sweep` entries below it.
    fn raise_floor(
        &mut self,
        step: &mut Step<'_>,
        floor: Seq,
        sweep: NonZeroU32,
    ) -> Result<(), Fatal> {
        self.value.floor = self.value.floor.max(floor);
        if let Some(due) = SeqRange::missing(self.value.swept, self.value.floor) {
            let now = due.truncated(sweep);
            if self.value.shared > 0 {
                for reference in slot::references(&step.layers(), &self.mailbox, now)? {
                    share::release(step, &reference)?;
                    self.value.shared -= 1;
                }
            }
            for seq in now.iter() {
                step.delete(&EntryKey { mailbox: self.mailbox.clone(), seq });
            }
            self.value.swept = now.last();
        }
        Ok(())
    }

    /// Does its owner, `user`, block `sender`?
    pub(super) fn blocks(
        &self,
        step: &Step<'_>,
        user: &UserId,
        sender: &UserId,
    ) -> Result<bool, Fatal> {
        let key = || BlockKey { user: user.clone(), sender: sender.clone() };
        Ok(self.value.blocks > 0 && step.get(&key())?.is_some())
    }

    fn trimmed(&self) -> Reply {
        let Mailbox { floor, swept, .. } = self.value;
        Reply::MailboxTrimmed { floor, more: swept < floor }
    }
}

/// `TrimMailbox`.
pub(super) fn trim(step: &mut Step<'_>, user: &UserId, upto: Seq) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    let head = mailbox.value.head;
    if upto > head {
        return Err(Reject::Invalid(format!("upto {upto} is above the head {head}")).into());
    }
    mailbox.raise_floor(step, upto, SWEEP_PER_TRIM)?;
    let reply = mailbox.trimmed();
    mailbox.save(step);
    Ok(reply)
}

/// `Retain`: what need not be kept goes, and so do devices that nobody has used for long (R14).
pub(super) fn retain(step: &mut Step<'_>, shard: &Shard, id: &Recipient) -> Result<Reply, Stop> {
    let verdict = retention::judge(&step.layers(), shard, id)?;
    let mut mailbox = Open::at(step, id.clone())?;
    let before = mailbox.value.clone();
    if let Recipient::User(user) = id
        && !verdict.devices.is_empty()
    {
        for name in &verdict.devices {
            device::drop_device(step, user, name, &mut mailbox)?;
        }
        push::reckon(step, shard, user, &mut mailbox)?;
    }
    mailbox.raise_floor(step, verdict.floor, SWEEP_PER_TRIM)?;
    let Mailbox { floor, swept, .. } = mailbox.value;
    if mailbox.value != before {
        mailbox.save(step);
    }
    Ok(Reply::Retained { floor, more: verdict.more || swept < floor })
}

/// `DeleteMailbox`: the content goes, the numbers stay (R14).
pub(super) fn delete(step: &mut Step<'_>, user: &UserId) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    let swept = mailbox.sweep_all(step)?;
    let floor = mailbox.value.floor;
    mailbox.save(step);
    // Where the user had come in each conversation is content too; no new mark can lie below it.
    let (from, to) = MarksKey::range_of(user);
    let marks: Vec<MarksKey> = step.keys(&from, &to, MARKS_PER_DELETE)?;
    for key in &marks {
        step.delete(key);
    }
    let more = !swept || marks.len() == MARKS_PER_DELETE;
    Ok(Reply::MailboxTrimmed { floor, more })
}

/// `Adopt`: the mailbox goes on after a seq that another system assigned.
pub(super) fn adopt(step: &mut Step<'_>, user: &UserId, seq: Seq) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    let Mailbox { floor, head, deleted, .. } = mailbox.value;
    if !deleted && head != Seq::NONE && floor == seq {
        // It goes on after that seq: the command has come again, maybe after a message.
        return Ok(Reply::Done);
    }
    if deleted || head != Seq::NONE {
        return Err(Reject::NotEmpty.into());
    }
    mailbox.value.head = seq;
    mailbox.value.floor = seq;
    mailbox.value.swept = seq;
    mailbox.save(step);
    Ok(Reply::Done)
}

/// `Block`: decided by the recipient's shard from this command on (R6).
pub(super) fn block(
    step: &mut Step<'_>,
    user: &UserId,
    sender: &UserId,
    blocked: bool,
) -> Result<Reply, Stop> {
    if user == sender {
        return Err(Reject::Invalid("nobody can block themselves".to_owned()).into());
    }
    let key = BlockKey { user: user.clone(), sender: sender.clone() };
    if step.get(&key)?.is_some() == blocked {
        return Ok(Reply::Done);
    }
    let mut mailbox = Open::of(step, user)?;
    match blocked {
        true => {
            mailbox.value.blocks += 1;
            step.put(&key, &Block);
        }
        false => {
            mailbox.value.blocks -= 1;
            step.delete(&key);
        }
    }
    mailbox.save(step);
    Ok(Reply::Done)
}

/// `Silence`.
pub(super) fn silence(step: &mut Step<'_>, user: &UserId, silent: bool) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    mailbox.value.silent = silent;
    mailbox.save(step);
    Ok(Reply::Done)
}

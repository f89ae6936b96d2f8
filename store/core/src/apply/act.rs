//! The judgement of acts: by the user's own copy of the message they are about, in the apply that
//! accepts them, so that a retry gets the stored verdict as for any send (R2).
//!
//! Recalls and edits are the sender's alone, and only for some time after the message was accepted.
//! Marks are for messages that were received. A mark that is behind is accepted, and does nothing.

use tidemark_mutants::{Mutant, is};
use tidemark_types::{ErrorCode, Recipient, UserId};

use crate::act::{self, Act, ActKind, Asked, Held, Marks, Place};
use crate::command::Draft;
use crate::key::MarksKey;
use crate::reply::Reject;
use crate::storage::Fatal;
use crate::transaction::Step;
use crate::value::Shard;

/// What becomes of an act.
pub(super) enum Judgement {
    /// It goes its way as a message does.
    Send(Sent),
    /// It says nothing new: there is no entry of it.
    Nothing,
    /// It is refused for good.
    Refused(ErrorCode),
}

/// An act that is accepted.
pub(super) struct Sent {
    /// What every copy says.
    pub(super) act: Act,
    /// The kind of the message that it is about, by which applications know what they read.
    pub(super) kind: u32,
    /// Whom it concerns, as the user's own copy says.
    pub(super) to: Vec<Recipient>,
    /// Nobody but the user's own devices gets it.
    pub(super) kept: bool,
}

/// Refuses an act that a gateway should never have let through.
pub(super) fn check(draft: &Draft, asked: Asked) -> Result<(), Reject> {
    let invalid = |text: &str| Err(Reject::Invalid(text.to_owned()));
    if !draft.to.is_empty() {
        return invalid("to: an act goes where its message went");
    }
    if asked.kind != ActKind::Edit && !draft.body.is_empty() {
        return invalid("body: only an edit has one");
    }
    Ok(())
}

/// Judges what a user asks for.
pub(super) fn judge(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    asked: Asked,
    draft: &Draft,
) -> Result<Judgement, Fatal> {
    let Some(held) = act::held(&step.layers(), user, asked)? else {
        return Ok(Judgement::Refused(ErrorCode::NoMessage));
    };
    match asked.kind {
        ActKind::Delivered | ActKind::Read => mark(step, user, asked, held),
        ActKind::Recall => Ok(change(shard, user, asked.kind, held)),
        // What a gateway checked is checked for this kind.
        ActKind::Edit if draft.kind != held.kind => Ok(Judgement::Refused(ErrorCode::NoMessage)),
        ActKind::Edit => Ok(change(shard, user, asked.kind, held)),
    }
}

/// A recall or an edit.
fn change(shard: &Shard, user: &UserId, kind: ActKind, held: Held) -> Judgement {
    let (is_own, mut to, kept) = match &held.place {
        Place::Sent(outgoing) => (true, outgoing.to.clone(), outgoing.dropped),
        Place::InGroup(group) => (held.origin.sender() == user, vec![group.clone()], false),
        Place::From(_) => (false, Vec::new(), true),
    };
    if !is_own && !is(Mutant::AnybodyChanges) {
        return Judgement::Refused(ErrorCode::NoMessage);
    }
    let within = match kind {
        ActKind::Edit => shard.settings.edit_within,
        _ => shard.settings.recall_within,
    };
    if shard.time > held.sent.plus(within) && !is(Mutant::ChangeTooLate) {
        return Judgement::Refused(ErrorCode::TooLate);
    }
    if is(Mutant::ChangeForOne) {
        to.truncate(1);
    }
    let act = Act { kind, of: held.origin };
    Judgement::Send(Sent { act, kind: held.kind, to, kept })
}

/// A delivered or read mark. In a group it stays with the user's own devices: told to all members,
/// each member's marks would be as many entries as the group has members, for every one of them.
fn mark(step: &mut Step<'_>, user: &UserId, asked: Asked, held: Held) -> Result<Judgement, Fatal> {
    let Some(conversation) = held.place.conversation() else {
        return Ok(Judgement::Refused(ErrorCode::NoMessage));
    };
    let key = MarksKey { user: user.clone(), conversation: conversation.clone() };
    let before = step.get(&key)?.unwrap_or_default();
    let read = match asked.kind {
        ActKind::Read => before.read.max(asked.seq),
        _ => before.read,
    };
    let after = Marks { delivered: before.delivered.max(asked.seq), read };
    if after == before && !is(Mutant::RepeatMarks) {
        return Ok(Judgement::Nothing);
    }
    step.put(&key, &after);
    let kept = matches!(held.place, Place::InGroup(_));
    let act = Act { kind: asked.kind, of: held.origin };
    Ok(Judgement::Send(Sent { act, kind: held.kind, to: vec![conversation], kept }))
}

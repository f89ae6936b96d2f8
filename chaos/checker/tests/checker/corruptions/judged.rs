//! Messages that are not what the operator's checks have made of them: C18.

use tidemark_checker::Code;
use tidemark_checker::history::{Copy, Event, Judgement, Outcome};

use super::{Kind, log};
use crate::corrupt::{Entry, Message, Tape};

use Code::{C4, C4b, C6, C11, C18};

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "what nobody let pass", code: C18, also: &[C4, C6, C11], apply: unjudged },
    Kind { name: "a dropped send is delivered", code: C18, also: &[], apply: dropped },
    Kind { name: "two judgements of one send", code: C18, also: &[C4, C11], apply: two },
    Kind { name: "a refusal that nobody judged", code: C18, also: &[], apply: refusal },
    Kind { name: "dropped on the way to one of two", code: C4, also: &[], apply: half },
    Kind { name: "lost, and somebody said drop", code: C4, also: &[], apply: lost },
    Kind { name: "dropped, and nobody said so", code: C18, also: &[C4, C11], apply: fallen },
    Kind { name: "dropped by its verdict, and there", code: C18, also: &[], apply: there },
    Kind { name: "a retry judged anew", code: C4b, also: &[], apply: anew },
];

/// From now on these are all the judgements of a message.
fn judge(tape: &mut Tape, of: &Message, judgements: &[Option<Judgement>]) {
    let mut left = judgements.iter().rev().copied().collect::<Vec<_>>();
    tape.events.retain_mut(|event| match event {
        Event::Judged { sender, id, judgement, .. } if (*sender, *id) == (of.sender, of.id) => {
            let kept = left.pop();
            kept.is_some_and(|kept| {
                *judgement = kept;
                true
            })
        }
        _ => true,
    });
    assert!(left.is_empty(), "there were fewer");
}

/// A judged message that was acknowledged, and any recipient's copy of it.
fn some_judged(tape: &mut Tape) -> Option<(Message, Entry)> {
    let (message, entry) = log::any_copy(tape, |it| it.judged && it.ack().is_some())?;
    tape.find(message.sender, message.sender, message.id)?;
    Some((message, entry))
}

fn unjudged(tape: &mut Tape) -> Option<()> {
    let (message, _) = some_judged(tape)?;
    judge(tape, &message, &[None]);
    Some(())
}

/// One that was delivered as it was sent, so that it might have been dropped.
fn some_as_sent(tape: &mut Tape) -> Option<(Message, Entry)> {
    let (message, entry) = some_judged(tape)?;
    let sent = tape.events.iter().find_map(|event| match event {
        Event::Send { op, content, .. } if message.ops.contains(op) => Some(*content),
        _ => None,
    });
    let as_sent = matches!(entry.copy, Copy::Message { content, .. } if Some(content) == sent);
    as_sent.then_some((message, entry))
}

fn dropped(tape: &mut Tape) -> Option<()> {
    let (message, _) = some_as_sent(tape)?;
    judge(tape, &message, &[Some(Judgement::Drop)]);
    Some(())
}

/// Nobody has it, as if it had been dropped; its verdict says otherwise.
fn lost(tape: &mut Tape) -> Option<()> {
    let (message, _) = some_as_sent(tape)?;
    judge(tape, &message, &[Some(Judgement::Drop)]);
    for user in message.to.iter().filter(|user| **user != message.sender) {
        let Entry { user, seq, .. } = tape.find(*user, message.sender, message.id)?;
        tape.is_whole(user).then_some(())?;
        tape.remove(user, seq);
    }
    Some(())
}

/// One that was dropped, of which only other judgements are known.
fn fallen(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::Dropped { .. }))?;
    let Event::Dropped { user, seq } = tape.events[at] else { unreachable!("as picked") };
    let own = tape.entries().into_iter().find(|entry| (entry.user, entry.seq) == (user, seq))?;
    let message = tape.message_of(&own.copy)?;
    judge(tape, &message, &[Some(Judgement::Allow)]);
    Some(())
}

/// Its verdict says that it was dropped, as one of the judgements does, and others have it.
fn there(tape: &mut Tape) -> Option<()> {
    let (message, _) = some_as_sent(tape)?;
    if count(tape, &message) < 2 {
        return None;
    }
    let Entry { user, seq, .. } = tape.find(message.sender, message.sender, message.id)?;
    judge(tape, &message, &[Some(Judgement::Allow), Some(Judgement::Drop)]);
    tape.events.push(Event::Dropped { user, seq });
    Some(())
}

/// One recipient has what another judgement made of it.
fn two(tape: &mut Tape) -> Option<()> {
    let (message, Entry { user, seq, copy }) = some_judged(tape)?;
    let Copy::Message { sender, origin, id, content } = copy else { return None };
    let other = !content;
    let judgements = [content, other].map(|content| Some(Judgement::Replace { content }));
    if count(tape, &message) < judgements.len() {
        return None;
    }
    judge(tape, &message, &judgements);
    tape.replace(user, seq, Copy::Message { sender, origin, id, content: other });
    Some(())
}

fn count(tape: &Tape, of: &Message) -> usize {
    let its = |event: &&Event| matches!(event, Event::Judged { sender, id, .. } if (*sender, *id) == (of.sender, of.id));
    tape.events.iter().filter(its).count()
}

fn refused(message: &Message) -> bool {
    let by_hook = |outcome: &Outcome| {
        matches!(outcome, Outcome::Refused { code: tidemark_types::ErrorCode::HookRefused })
    };
    message.answers.iter().any(|(.., outcome)| by_hook(outcome))
}

fn refusal(tape: &mut Tape) -> Option<()> {
    let messages: Vec<_> = tape.messages().into_iter().filter(refused).collect();
    let message = tape.any(&messages)?;
    judge(tape, &message, &[None]);
    Some(())
}

/// It may have been dropped; but then nobody would have it.
fn half(tape: &mut Tape) -> Option<()> {
    let (message, entry) = some_judged(tape)?;
    let others = message.to.iter().filter(|user| **user != entry.user && **user != message.sender);
    let other = others.copied().find(|user| tape.find(*user, message.sender, message.id).is_some());
    other.filter(|other| tape.is_whole(*other))?;
    let Copy::Message { content, .. } = entry.copy else { return None };
    if count(tape, &message) < 2 {
        return None;
    }
    judge(tape, &message, &[Some(Judgement::Replace { content }), Some(Judgement::Drop)]);
    tape.remove(entry.user, entry.seq);
    Some(())
}

/// An attempt was refused, as whoever judged it said, and an earlier one was accepted.
fn anew(tape: &mut Tape) -> Option<()> {
    let code = tidemark_types::ErrorCode::HookRefused;
    let fits = |it: &Message| it.judged && it.ack().is_some() && it.answers.len() > 1;
    let (message, Entry { copy, .. }) = log::any_copy(tape, fits)?;
    let last = message.answers.iter().max_by_key(|(at, ..)| *at)?.1;
    let Copy::Message { content, .. } = copy else { return None };
    if last == message.ack()?.1 || count(tape, &message) < 2 {
        return None;
    }
    let judgements = [Judgement::Replace { content }, Judgement::Refuse { code }];
    judge(tape, &message, &judgements.map(Some));
    for event in &mut tape.events {
        if let Event::Sent { op, outcome, .. } = event
            && *op == last
        {
            *outcome = Outcome::Refused { code };
        }
    }
    Some(())
}

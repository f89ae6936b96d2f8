//! What is wrong in mailboxes and acknowledgements: C1 to C6, C11.

use tidemark_checker::Code;
use tidemark_checker::history::{Copy, Digest, Event, Nanos, Node, Op, Origin, Outcome, User, Way};
use tidemark_types::{ErrorCode, Seq};

use super::Kind;
use crate::corrupt::{Entry, Message, Tape, altered, id_of, next};

use Code::{C1, C2, C3, C4, C4b, C5, C6, C7a, C7d, C8, C9c, C9d, C11, C16, C17};

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "a hole", code: C1, also: &[C4, C5, C8, C9c, C11], apply: hole },
    Kind { name: "a seq twice", code: C1, also: &[C3, C4], apply: seq_twice },
    Kind { name: "a head beyond the entries", code: C1, also: &[C9d, C17], apply: head_beyond },
    Kind { name: "a replica with another digest", code: C2, also: &[], apply: digest },
    Kind { name: "a replica that is behind", code: C2, also: &[], apply: behind },
    Kind { name: "an entry that one replica has otherwise", code: C2, also: &[], apply: otherwise },
    Kind { name: "a hole on one replica", code: C1, also: &[C2], apply: replica_hole },
    Kind { name: "a mailbox that one replica lacks", code: C2, also: &[], apply: replica_lacks },
    Kind { name: "another state hash", code: C2, also: &[], apply: state_hash },
    Kind { name: "a message twice", code: C3, also: &[C6, C9d], apply: twice },
    Kind { name: "a send taken in two sessions", code: C3, also: &[C9d], apply: two_sessions },
    Kind { name: "a number used twice", code: C3, also: &[C4, C5, C6, C11], apply: number_twice },
    Kind { name: "a recipient's copy lost", code: C4, also: &[], apply: copy_lost },
    Kind { name: "a copy lost after retention", code: C4, also: &[], apply: lost_after_floor },
    Kind { name: "a copy lost after a head", code: C4, also: &[], apply: lost_after_head },
    Kind { name: "a refusal lost", code: C4, also: &[], apply: refusal_lost },
    Kind { name: "a send lost", code: C4, also: &[C7a, C8], apply: send_lost },
    Kind { name: "a wrong acknowledgement", code: C4, also: &[C7a, C8], apply: wrong_ack },
    Kind { name: "a copy and a refusal", code: C4, also: &[C9d], apply: copy_and_refusal },
    Kind { name: "a refusal twice", code: C4, also: &[C9d], apply: refusal_twice },
    Kind { name: "the sender's copy altered", code: C4, also: &[C5], apply: own_altered },
    Kind { name: "a retry acknowledged otherwise", code: C4b, also: &[], apply: retry_otherwise },
    Kind { name: "a retry refused", code: C4b, also: &[], apply: retry_refused },
    Kind { name: "a phantom", code: C5, also: &[C9d], apply: phantom },
    Kind { name: "a wrong recipient", code: C5, also: &[C6, C9d], apply: wrong_recipient },
    Kind { name: "a copy altered", code: C5, also: &[C4], apply: copy_altered },
    Kind { name: "a copy of another origin", code: C5, also: &[C4], apply: other_origin },
    Kind { name: "taken before it was sent", code: C5, also: &[C6, C7d], apply: taken_before },
    Kind { name: "a refusal of nothing", code: C5, also: &[C9d], apply: refusal_of_nothing },
    Kind { name: "a refusal of no number", code: C5, also: &[C9d], apply: refusal_of_no_number },
    Kind { name: "a refusal told to another", code: C5, also: &[C9d], apply: told_to_another },
    Kind { name: "order of time", code: C6, also: &[C5, C7a, C7d, C8], apply: order_of_time },
    Kind { name: "order of a session", code: C6, also: &[C5, C7a, C7d, C8], apply: session_order },
    Kind { name: "a refused send is there", code: C11, also: &[C9d], apply: refused_is_there },
    Kind {
        name: "a refused send is everywhere",
        code: C11,
        also: &[C9d, C16],
        apply: refused_everywhere,
    },
    Kind {
        name: "a refused send is told refused",
        code: C11,
        also: &[C9d, C16],
        apply: refused_told,
    },
    Kind { name: "unknown, and not at a recipient", code: C11, also: &[], apply: half_lost },
    Kind { name: "unknown, and only at a recipient", code: C11, also: &[C16], apply: half_there },
];

fn some_entry(tape: &mut Tape) -> Option<Entry> {
    let entries = tape.entries();
    tape.any(&entries)
}

fn some_message(tape: &mut Tape, fits: impl Fn(&Tape, &Message) -> bool) -> Option<Message> {
    // What is judged has a promise of its own.
    let messages = tape.messages().into_iter().filter(|it| !it.judged && fits(tape, it));
    let messages: Vec<_> = messages.collect();
    tape.any(&messages)
}

/// Any recipient's copy of such a message, which nobody judges, and whose outcome retention cannot have
/// hidden.
pub(super) fn some_copy(
    tape: &mut Tape,
    fits: impl Fn(&Message) -> bool,
) -> Option<(Message, Entry)> {
    any_copy(tape, |message| !message.judged && fits(message))
}

/// The same, judged or not.
pub(super) fn any_copy(
    tape: &mut Tape,
    fits: impl Fn(&Message) -> bool,
) -> Option<(Message, Entry)> {
    let copies = tape.entries().into_iter().filter_map(|entry| {
        let message = tape.message_of(&entry.copy)?;
        let whole = tape.is_whole(entry.user) && tape.is_whole(message.sender);
        let apart = entry.user != message.sender && !tape.is_silent(entry.user);
        (whole && apart && fits(&message)).then_some((message, entry))
    });
    let copies: Vec<_> = copies.collect();
    tape.any(&copies)
}

/// The refusals among the entries.
fn some_refusal(tape: &mut Tape) -> Option<Entry> {
    let refusals: Vec<_> =
        tape.entries().into_iter().filter(|entry| id_of(&entry.copy).is_none()).collect();
    tape.any(&refusals)
}

fn mailbox_events(tape: &mut Tape, user: User) -> impl Iterator<Item = &mut Event> {
    let its =
        move |event: &&mut Event| matches!(event, Event::Mailbox { user: of, .. } if *of == user);
    tape.events.iter_mut().filter(its)
}

fn accepted(message: &Message) -> bool {
    message.ack().is_some()
}

fn hole(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::Entry { .. }))?;
    tape.events.remove(at);
    tape.refresh();
    Some(())
}

fn seq_twice(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::Entry { .. }))?;
    let again = tape.events[at].clone();
    tape.events.insert(at, again);
    tape.refresh();
    Some(())
}

fn head_beyond(tape: &mut Tape) -> Option<()> {
    let user = some_entry(tape)?.user;
    for event in mailbox_events(tape, user) {
        if let Event::Mailbox { head, .. } = event {
            *head = next(*head);
        }
    }
    Some(())
}

fn digest(tape: &mut Tape) -> Option<()> {
    let user = some_entry(tape)?.user;
    if let Event::Mailbox { digest, .. } = mailbox_events(tape, user).last()? {
        *digest = !*digest;
    }
    Some(())
}

fn behind(tape: &mut Tape) -> Option<()> {
    let user = some_entry(tape)?.user;
    let entries: Vec<_> = tape.entries().into_iter().filter(|it| it.user == user).collect();
    let fewer = &entries[..entries.len() - 1];
    let less = Digest::of(fewer.iter().map(|entry| (entry.seq, &entry.copy)));
    if let Event::Mailbox { head, digest, .. } = mailbox_events(tape, user).last()? {
        (*head, *digest) = (head.back(1), less.value());
    }
    Some(())
}

/// The runner writes what each replica has, once their digests differ.
pub(super) fn otherwise(tape: &mut Tape) -> Option<()> {
    differ(tape, |copy| Some(altered(copy)))
}

/// One replica has not got an entry that its head covers.
fn replica_hole(tape: &mut Tape) -> Option<()> {
    differ(tape, |_| None)
}

fn differ(tape: &mut Tape, differs: impl Fn(Copy) -> Option<Copy>) -> Option<()> {
    let Entry { user, seq, copy } = some_entry(tape)?;
    let with = differs(copy);
    let its: Vec<_> = tape.entries().into_iter().filter(|entry| entry.user == user).collect();
    let nodes: Vec<Node> = mailbox_events(tape, user)
        .filter_map(|event| match event {
            Event::Mailbox { node, .. } => Some(*node),
            _ => None,
        })
        .collect();
    let odd = *nodes.last()?;
    let mut changed = Digest::default();
    for Entry { seq: at, copy, .. } in its {
        let others = if at == seq { with } else { Some(copy) };
        others.iter().for_each(|copy| changed.add(at, copy));
        for node in &nodes {
            let its = if *node == odd { others } else { Some(copy) };
            let entry = |copy| Event::ReplicaEntry { node: *node, user, seq: at, copy };
            tape.events.extend(its.map(entry));
        }
    }
    if let Event::Mailbox { digest, .. } = mailbox_events(tape, user).last()? {
        *digest = changed.value();
    }
    Some(())
}

/// One replica has not got the mailbox at all.
fn replica_lacks(tape: &mut Tape) -> Option<()> {
    let user = some_entry(tape)?.user;
    let its = |event: &Event| matches!(event, Event::Mailbox { user: of, .. } if *of == user);
    let place = tape.pick(its)?;
    tape.events.remove(place);
    Some(())
}

fn state_hash(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::StateHash { .. }))?;
    let mut other = tape.events[at].clone();
    if let Event::StateHash { node, hash, .. } = &mut other {
        (*node, *hash) = (Node(node.0 + 1), !*hash);
    }
    tape.events.push(other);
    Some(())
}

fn twice(tape: &mut Tape) -> Option<()> {
    let messages: Vec<_> =
        tape.entries().into_iter().filter(|entry| id_of(&entry.copy).is_some()).collect();
    let Entry { user, copy, .. } = tape.any(&messages)?;
    tape.append(user, copy);
    Some(())
}

fn two_sessions(tape: &mut Tape) -> Option<()> {
    let entry = some_entry(tape)?;
    let Copy::Message { sender, origin: Origin::Session { session, n }, id, content } = entry.copy
    else {
        return None;
    };
    let origin = Origin::Session { session: session + 1_000, n };
    tape.append(entry.user, Copy::Message { sender, origin, id, content });
    Some(())
}

fn number_twice(tape: &mut Tape) -> Option<()> {
    let is_session = |_: &Tape, it: &Message| accepted(it) && it.way == Way::Session;
    let first = some_message(tape, is_session)?;
    let (sender, id) = (first.sender, first.id);
    let other =
        some_message(tape, |tape, it| is_session(tape, it) && it.sender == sender && it.id != id)?;
    let Copy::Message { origin, .. } = tape.find(sender, sender, id)?.copy else { return None };
    tape.find(sender, sender, other.id)?;
    tape.renumber(&other, origin);
    Some(())
}

fn copy_lost(tape: &mut Tape) -> Option<()> {
    let (_, Entry { user, seq, .. }) = some_copy(tape, accepted)?;
    tape.remove(user, seq);
    Some(())
}

/// What was seen before the send began says that its copy was not among what retention removed.
fn lost_after_floor(tape: &mut Tape) -> Option<()> {
    lost_above(tape, |tape, user, began| tape.seen_before(user, began))
}

/// A head says it.
fn lost_after_head(tape: &mut Tape) -> Option<()> {
    lost_above(tape, |tape, user, began| {
        let heads = tape.events.iter().filter_map(|event| match event {
            Event::HeadIs { op, at, seq } if *at < began && tape.owner(*op) == Some(user) => {
                Some(*seq)
            }
            _ => None,
        });
        heads.max().unwrap_or_default()
    })
}

/// A copy is lost of a send that began when so much had been removed already.
fn lost_above(tape: &mut Tape, known: impl Fn(&Tape, User, Nanos) -> Seq) -> Option<()> {
    let copies = tape.entries().into_iter().filter(|entry| {
        let Some(message) = tape.message_of(&entry.copy) else { return false };
        let floor = tape.ends(entry.user).0;
        accepted(&message)
            && !message.judged
            && entry.user != message.sender
            && !tape.is_silent(entry.user)
            && floor > Seq::NONE
            && known(tape, entry.user, message.began) >= floor
            && tape.find(message.sender, message.sender, message.id).is_some()
    });
    let copies: Vec<Entry> = copies.collect();
    let Entry { user, seq, .. } = tape.any(&copies)?;
    tape.remove(user, seq);
    Some(())
}

fn refusal_lost(tape: &mut Tape) -> Option<()> {
    let Entry { user, seq, copy } = some_refusal(tape)?;
    let Copy::Refusal { sender, origin, id, recipient, .. } = copy else { return None };
    let its = tape.entries().into_iter().find(|entry| match entry.copy {
        Copy::Message { sender: of, origin: by, id: its, .. } => {
            (of, by) == (sender, origin) && id.is_none_or(|id| id == its)
        }
        Copy::Refusal { .. } => false,
    });
    let message = tape.message_of(&its?.copy)?;
    let hidden = tape.is_silent(recipient) || !tape.is_whole(recipient) || !tape.is_whole(user);
    if hidden || message.judged || !accepted(&message) {
        return None;
    }
    tape.remove(user, seq);
    Some(())
}

fn send_lost(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, |tape, it| {
        accepted(it) && it.to.iter().chain([&it.sender]).all(|user| tape.is_whole(*user))
    })?;
    let (sender, id) = (message.sender, message.id);
    let Copy::Message { origin, .. } = tape.find(sender, sender, id)?.copy else { return None };
    let its = |entry: &Entry| match entry.copy {
        Copy::Message { sender: by, id: of, .. } => (by, of) == (sender, id),
        Copy::Refusal { sender: by, origin: of, id: its, .. } => {
            (by, of) == (sender, origin) && its.is_none_or(|its| its == id)
        }
    };
    while let Some(entry) = tape.entries().into_iter().find(its) {
        tape.remove(entry.user, entry.seq);
    }
    Some(())
}

fn wrong_ack(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, |tape, it| {
        accepted(it) && tape.find(it.sender, it.sender, it.id).is_some()
    })?;
    for event in &mut tape.events {
        if let Event::Sent { op, outcome: Outcome::Accepted { seq, .. }, .. } = event
            && message.ops.contains(op)
        {
            *seq = next(*seq);
        }
    }
    Some(())
}

fn copy_and_refusal(tape: &mut Tape) -> Option<()> {
    let (_, Entry { user: recipient, copy, .. }) = some_copy(tape, accepted)?;
    let Copy::Message { sender, origin, id, .. } = copy else { return None };
    let id = (origin == Origin::Backend).then_some(id);
    let code = ErrorCode::Blocked;
    tape.append(sender, Copy::Refusal { sender, origin, id, recipient, code });
    Some(())
}

fn refusal_twice(tape: &mut Tape) -> Option<()> {
    let Entry { user, copy, .. } = some_refusal(tape)?;
    tape.append(user, copy);
    Some(())
}

fn own_altered(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, |_, it| accepted(it))?;
    let Entry { user, seq, copy } = tape.find(message.sender, message.sender, message.id)?;
    tape.replace(user, seq, altered(copy));
    Some(())
}

/// A later attempt at a message that was acknowledged before, and what it is told.
fn tell_retry(tape: &mut Tape, tell: impl Fn(Outcome) -> Outcome) -> Option<()> {
    let message = some_message(tape, |_, it| accepted(it) && it.answers.len() > 1)?;
    let first = message.ack()?.1;
    let first = message.answers.iter().find(|(_, op, _)| *op == first)?.2;
    let retry = message.answers.iter().max_by_key(|(at, ..)| *at)?.1;
    if retry == message.ack()?.1 {
        return None;
    }
    for event in &mut tape.events {
        if let Event::Sent { op, outcome, .. } = event
            && *op == retry
        {
            *outcome = tell(first);
        }
    }
    Some(())
}

fn retry_otherwise(tape: &mut Tape) -> Option<()> {
    tell_retry(tape, |outcome| match outcome {
        Outcome::Accepted { seq, origin } => Outcome::Accepted { seq: seq.back(1), origin },
        outcome => outcome,
    })
}

fn retry_refused(tape: &mut Tape) -> Option<()> {
    tell_retry(tape, |_| Outcome::Refused { code: ErrorCode::SeqExhausted })
}

fn phantom(tape: &mut Tape) -> Option<()> {
    let Entry { user, .. } = some_entry(tape)?;
    let id = u128::from(tape.number());
    let content = tape.number();
    tape.append(user, Copy::Message { sender: user, origin: Origin::Backend, id, content });
    Some(())
}

fn wrong_recipient(tape: &mut Tape) -> Option<()> {
    let (entry, user) = (some_entry(tape)?, some_entry(tape)?.user);
    let message = tape.message_of(&entry.copy)?;
    if message.to.contains(&user) || message.sender == user {
        return None;
    }
    tape.append(user, entry.copy);
    Some(())
}

fn copy_altered(tape: &mut Tape) -> Option<()> {
    let (_, Entry { user, seq, copy }) = some_copy(tape, accepted)?;
    tape.replace(user, seq, altered(copy));
    Some(())
}

fn other_origin(tape: &mut Tape) -> Option<()> {
    let (_, Entry { user, seq, copy }) = some_copy(tape, accepted)?;
    let Copy::Message { sender, origin: Origin::Session { session, n }, id, content } = copy else {
        return None;
    };
    let origin = Origin::Session { session: session + 1_000, n };
    tape.replace(user, seq, Copy::Message { sender, origin, id, content });
    Some(())
}

fn taken_before(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::Taken { copy: Copy::Message { .. }, .. }))?;
    let Event::Taken { at: taken, copy, .. } = tape.events[at] else { return None };
    let message = tape.message_of(&copy).filter(|message| !message.judged)?;
    for event in &mut tape.events {
        match event {
            Event::Send { op, at, .. } | Event::Sent { op, at, .. } if message.ops.contains(op) => {
                at.0 = at.0.max(taken.0 + 1);
            }
            _ => {}
        }
    }
    // In the order in which their writer would have written them.
    let rank = |event: &Event| event.at().map_or(u64::MAX, |at| at.0);
    tape.events.sort_by_key(rank);
    Some(())
}

fn refusal_of_nothing(tape: &mut Tape) -> Option<()> {
    let (entry, recipient) = (some_entry(tape)?, some_entry(tape)?.user);
    let message = tape.message_of(&entry.copy)?;
    let Copy::Message { sender, origin, id, .. } = entry.copy else { return None };
    if message.to.contains(&recipient) || sender == recipient {
        return None;
    }
    let id = (origin == Origin::Backend).then_some(id);
    let code = ErrorCode::Blocked;
    tape.append(sender, Copy::Refusal { sender, origin, id, recipient, code });
    Some(())
}

/// In a mailbox that hides nothing, and whose user has sends that nobody saw a number of.
fn refusal_of_no_number(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, |tape, it| {
        it.way == Way::Session
            && tape.is_whole(it.sender)
            && it.to.iter().any(|user| *user != it.sender)
            && tape.find(it.sender, it.sender, it.id).is_none()
    })?;
    let (sender, code) = (message.sender, ErrorCode::Blocked);
    let recipient = *message.to.iter().find(|user| **user != sender)?;
    let origin = Origin::Session { session: 1_000, n: 1 };
    tape.append(sender, Copy::Refusal { sender, origin, id: None, recipient, code });
    Some(())
}

fn told_to_another(tape: &mut Tape) -> Option<()> {
    let (entry, user) = (some_refusal(tape)?, some_entry(tape)?.user);
    if user == entry.user {
        return None;
    }
    tape.append(user, entry.copy);
    Some(())
}

fn order_of_time(tape: &mut Tape) -> Option<()> {
    let own = |tape: &Tape, it: &Message| tape.find(it.sender, it.sender, it.id);
    let first = some_message(tape, |tape, it| accepted(it) && own(tape, it).is_some())?;
    let acked = first.ack()?.0;
    let other = some_message(tape, |tape, it| {
        it.sender == first.sender && it.began > acked && own(tape, it).is_some()
    })?;
    let (a, b) = (own(tape, &first)?, own(tape, &other)?);
    tape.swap(a, b);
    Some(())
}

fn session_order(tape: &mut Tape) -> Option<()> {
    let session_of = |entry: &Entry| match entry.copy {
        Copy::Message { sender, origin: Origin::Session { session, .. }, .. }
            if sender != entry.user =>
        {
            Some((entry.user, sender, session))
        }
        _ => None,
    };
    let first = some_entry(tape)?;
    let session = session_of(&first)?;
    let others = tape.entries().into_iter();
    let others: Vec<_> =
        others.filter(|it| session_of(it) == Some(session) && it.seq != first.seq).collect();
    let other = tape.any(&others)?;
    tape.swap(first, other);
    Some(())
}

fn refused(_: &Tape, message: &Message) -> bool {
    let is_final =
        |outcome: &Outcome| matches!(outcome, Outcome::Refused { code } if code.is_final());
    message.answers.iter().any(|(.., outcome)| is_final(outcome))
}

fn refused_is_there(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, refused)?;
    let content = tape.events.iter().find_map(|event| match event {
        Event::Send { op, content, .. } if message.ops.contains(op) => Some(*content),
        _ => None,
    })?;
    let (sender, id) = (message.sender, message.id);
    let origin = Origin::Session { session: 1_000, n: 1 };
    let to = message.to.first().copied().unwrap_or(sender);
    tape.append(to, Copy::Message { sender, origin, id, content });
    Some(())
}

/// A back end's, all attempts at which were refused, is nevertheless at everybody.
fn refused_everywhere(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, refused_by_all)?;
    let content = tape.events.iter().find_map(|event| match event {
        Event::Send { op, content, .. } if message.ops.contains(op) => Some(*content),
        _ => None,
    })?;
    let (sender, id) = (message.sender, message.id);
    let mut users = message.to;
    users.push(sender);
    users.sort_unstable();
    users.dedup();
    for user in users {
        tape.append(user, Copy::Message { sender, origin: Origin::Backend, id, content });
    }
    Some(())
}

fn refused_by_all(_: &Tape, message: &Message) -> bool {
    message.way == Way::Backend
        && message.ops.len() == message.answers.len()
        && message.answers.iter().all(|(.., outcome)| matches!(outcome, Outcome::Refused { .. }))
}

/// Only a send that has a number can be named by a refusal, so a back end's is refused here.
fn refused_told(tape: &mut Tape) -> Option<()> {
    let message = some_message(tape, |tape, it| {
        refused_by_all(tape, it) && it.to.iter().any(|user| *user != it.sender)
    })?;
    let recipient = *message.to.iter().find(|user| **user != message.sender)?;
    let (sender, origin, code) = (message.sender, Origin::Backend, ErrorCode::Blocked);
    tape.append(sender, Copy::Refusal { sender, origin, id: Some(message.id), recipient, code });
    Some(())
}

fn half_lost(tape: &mut Tape) -> Option<()> {
    let (_, Entry { user, seq, .. }) = some_copy(tape, Message::is_unknown)?;
    tape.remove(user, seq);
    Some(())
}

fn half_there(tape: &mut Tape) -> Option<()> {
    let (message, _) = some_copy(tape, Message::is_unknown)?;
    let own = tape.find(message.sender, message.sender, message.id)?;
    tape.remove(own.user, own.seq);
    Some(())
}

/// Whatever is asked, there is a name for it.
#[test]
fn a_message_is_found_by_its_attempts() {
    let tape = Tape::new(1);
    let messages = tape.messages();
    assert!(messages.iter().any(|message| message.ops.len() > 1));
    assert_eq!(tape.owner(Op(u64::MAX)), None);
    assert!(tape.entries().iter().all(|entry| entry.seq > Seq::NONE));
}

//! What acts have promised (R19): exactly once and in order as messages are, about a message that was
//! there, marks that never go back, recalls and edits in time; and that what is unread is counted right.
//!
//! Everything is read when a run is over: what was asked and answered, and what each user's mailbox
//! holds from its first entry on. Nothing of it was removed, and nobody refused anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

pub use crate::groups::{Answer, User};

/// A message or an act, by its id.
pub type Id = u128;

/// What an act does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A delivered mark.
    Delivered,
    /// A read mark.
    Read,
    /// A recall.
    Recall,
    /// An edit.
    Edit,
}

/// What a send is, and what each of its copies says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message.
    Message,
    /// An act.
    Act {
        /// What it does.
        what: What,
        /// About which message.
        of: Id,
    },
}

/// A send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Whose.
    pub by: User,
    /// To whom a message goes; nobody for an act, which goes where its message says.
    pub to: Vec<User>,
    /// What it is.
    pub said: Said,
    /// What its sender was told.
    pub answer: Answer,
    /// It was accepted, and said nothing new: a mark that was behind, of which there is no entry.
    pub silent: bool,
}

/// An entry of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its seq.
    pub seq: u32,
    /// When it was appended, by the cluster's time in milliseconds.
    pub time_ms: u64,
    /// Which send it is a copy of.
    pub id: Id,
    /// What it says.
    pub said: Said,
}

/// What a user was told to have unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Who.
    pub user: User,
    /// Of the mailbox what lies after this seq...
    pub from: u32,
    /// ... up to this one, the last one then.
    pub head: u32,
    /// Each conversation, by the other user.
    pub conversations: BTreeMap<User, Stand>,
}

/// How a user stands in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// Messages received and not read; none that was recalled.
    pub unread: u32,
    /// Everything up to this seq of the user's mailbox is delivered.
    pub delivered: u32,
    /// And read up to this one.
    pub read: u32,
}

/// A run when it is over.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// For how long a message can be recalled.
    pub recall_within: Duration,
    /// For how long it can be edited.
    pub edit_within: Duration,
    /// Every send, by id.
    pub sends: BTreeMap<Id, Send>,
    /// Every mailbox, in its order.
    pub mailboxes: BTreeMap<User, Vec<Kept>>,
    /// What users were told to have unread.
    pub counted: Vec<Counted>,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Wrong {
    /// A mailbox has a hole, or a seq twice.
    #[error("{user} has {found} where {wanted} belongs")]
    Hole {
        /// Whose mailbox.
        user: User,
        /// The seq that comes next.
        wanted: u32,
        /// What stands there.
        found: u32,
    },
    /// A copy is of nothing that was sent, or says something else.
    #[error("{user}'s copy of {id:x} says what nobody has sent")]
    Unsent {
        /// Whose copy.
        user: User,
        /// Of which send.
        id: Id,
    },
    /// A send has more or fewer copies at somebody than it must have.
    #[error("{user} has {copies} copies of {id:x} ({answer:?})")]
    Copies {
        /// At whom.
        user: User,
        /// Which send.
        id: Id,
        /// What its sender was told.
        answer: Answer,
        /// How many.
        copies: usize,
    },
    /// An act stands before the message that it is about.
    #[error("{user} has the act {id:x} before its message")]
    Before {
        /// In whose mailbox.
        user: User,
        /// Which act.
        id: Id,
    },
    /// Of what one user sent something stands in another order than in that user's own mailbox.
    #[error("{user} has {id:x} out of its sender's order")]
    Order {
        /// In whose mailbox.
        user: User,
        /// What stands too late.
        id: Id,
    },
    /// A mark goes back, or says again what was said.
    #[error("{user} is told by {id:x} what a mark before it has told")]
    Back {
        /// Who is told.
        user: User,
        /// By which mark.
        id: Id,
    },
    /// Somebody did what only another may do: marked an own message, changed another's.
    #[error("{by} may not do {id:x}")]
    NotTheirs {
        /// Who did.
        by: User,
        /// What.
        id: Id,
    },
    /// A recall or an edit was accepted after its time.
    #[error("{id:x} was accepted {late_ms} ms too late")]
    Late {
        /// Which act.
        id: Id,
        /// By how much.
        late_ms: u64,
    },
    /// What was counted is not what the mailbox says.
    #[error("{user} was told to have {told:?} unread up to {head}, and has {has:?}")]
    Unread {
        /// Who.
        user: User,
        /// When the mailbox ended here.
        head: u32,
        /// What was said.
        told: BTreeMap<User, Stand>,
        /// What is so.
        has: BTreeMap<User, Stand>,
    },
}

/// What was not kept; nothing, if all was.
pub fn check(run: &Run) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (user, mailbox) in &run.mailboxes {
        mailbox_of(run, *user, mailbox, &mut wrong);
    }
    let found = Found::of(run);
    for (id, send) in &run.sends {
        copies(run, &found, *id, send, &mut wrong);
        in_time(run, &found, *id, send, &mut wrong);
    }
    in_order(run, &mut wrong);
    run.counted.iter().for_each(|counted| count(run, counted, &mut wrong));
    wrong
}

/// Whatever a user sends comes to everybody in the order in which it lies in that user's own mailbox.
fn in_order(run: &Run, wrong: &mut Vec<Wrong>) {
    let own = |by: &User| run.mailboxes.get(by).into_iter().flatten();
    let places: BTreeMap<(User, Id), u32> = run
        .mailboxes
        .keys()
        .flat_map(|by| own(by).map(|kept| ((*by, kept.id), kept.seq)))
        .collect();
    for (user, mailbox) in &run.mailboxes {
        let mut last = BTreeMap::<User, u32>::new();
        for Kept { id, .. } in mailbox {
            let Some(by) = run.sends.get(id).map(|send| send.by) else { continue };
            let Some(place) = places.get(&(by, *id)) else { continue };
            let last = last.entry(by).or_default();
            if place < last {
                wrong.push(Wrong::Order { user: *user, id: *id });
            }
            *last = *place.max(last);
        }
    }
}

/// What is unread follows from the mailbox as it was then: its first entries.
fn count(run: &Run, counted: &Counted, wrong: &mut Vec<Wrong>) {
    let Counted { user, from, head, conversations } = counted;
    let mailbox = run.mailboxes.get(user).map(Vec::as_slice).unwrap_or_default();
    let then = || mailbox.iter().filter(|kept| kept.seq <= *head);
    let seqs: BTreeMap<Id, u32> = then().map(|kept| (kept.id, kept.seq)).collect();
    let by = |id: &Id| run.sends.get(id).map(|send| send.by);
    let mut stands = BTreeMap::<User, Stand>::new();
    let mut recalled = BTreeSet::new();
    for Kept { id, said, .. } in then() {
        let Said::Act { what, of } = said else { continue };
        let (Some(seq), Some(with)) = (seqs.get(of), by(of)) else { continue };
        match what {
            What::Recall => drop(recalled.insert(*of)),
            What::Delivered | What::Read if by(id) == Some(*user) => {
                let stand = stands.entry(with).or_default();
                stand.delivered = stand.delivered.max(*seq);
                if *what == What::Read {
                    stand.read = stand.read.max(*seq);
                }
            }
            What::Delivered | What::Read | What::Edit => {}
        }
    }
    let mut has = BTreeMap::<User, Stand>::new();
    for Kept { seq, id, said, .. } in then().filter(|kept| kept.seq > *from) {
        let Some(with) = by(id).filter(|with| with != user && *said == Said::Message) else {
            continue;
        };
        let before = stands.get(&with).copied().unwrap_or_default();
        let stand = has.entry(with).or_insert(before);
        stand.unread += u32::from(*seq > stand.read && !recalled.contains(id));
    }
    if has != *conversations {
        wrong.push(Wrong::Unread { user: *user, head: *head, told: conversations.clone(), has });
    }
}

/// How many copies of a send each user has, and the time of the first.
struct Found(BTreeMap<(Id, User), (usize, u64)>);

impl Found {
    fn of(run: &Run) -> Self {
        let mut found = BTreeMap::new();
        for (user, mailbox) in &run.mailboxes {
            for kept in mailbox {
                found.entry((kept.id, *user)).or_insert((0, kept.time_ms)).0 += 1;
            }
        }
        Found(found)
    }

    fn copies(&self, id: Id, user: User) -> usize {
        self.0.get(&(id, user)).map_or(0, |(copies, _)| *copies)
    }

    fn time(&self, id: Id, user: User) -> Option<u64> {
        self.0.get(&(id, user)).map(|(_, time)| *time)
    }
}

/// What one mailbox shows by itself: no hole, nothing that nobody sent, each act behind its message,
/// marks that go on.
fn mailbox_of(run: &Run, user: User, mailbox: &[Kept], wrong: &mut Vec<Wrong>) {
    let mut places = BTreeMap::new();
    // By who marks, and whose messages.
    let mut told: BTreeMap<(User, User), (Option<usize>, Option<usize>)> = BTreeMap::new();
    for ((at, kept), wanted) in mailbox.iter().enumerate().zip(1..) {
        let Kept { seq, id, said, .. } = *kept;
        if seq != wanted {
            wrong.push(Wrong::Hole { user, wanted, found: seq });
        }
        let Some(send) = run.sends.get(&id).filter(|send| send.said == said) else {
            wrong.push(Wrong::Unsent { user, id });
            continue;
        };
        let Said::Act { what, of } = said else {
            places.insert(id, at);
            continue;
        };
        let Some(place) = places.get(&of).copied().map(Some) else {
            wrong.push(Wrong::Before { user, id });
            continue;
        };
        let of_whom = run.sends.get(&of).map_or(send.by, |message| message.by);
        let (delivered, read) = told.entry((send.by, of_whom)).or_default();
        let (goes_back, mark) = match what {
            What::Delivered => (place <= *delivered.max(read), delivered),
            What::Read => (place <= *read, read),
            What::Recall | What::Edit => continue,
        };
        if goes_back {
            wrong.push(Wrong::Back { user, id });
        }
        *mark = place;
    }
}

/// Who must have a copy: the sender, whom a message was sent to, whom a mark tells of, and whom the
/// message went to that is changed.
fn concerned(run: &Run, id: Id, send: &Send, wrong: &mut Vec<Wrong>) -> Vec<User> {
    let to = match send.said {
        Said::Message => send.to.clone(),
        Said::Act { what, of } => {
            let Some(message) = run.sends.get(&of) else { return vec![send.by] };
            let is_mark = matches!(what, What::Delivered | What::Read);
            let received = message.by != send.by && message.to.contains(&send.by);
            let may = if is_mark { received } else { message.by == send.by };
            if !may && send.answer == Answer::Accepted {
                wrong.push(Wrong::NotTheirs { by: send.by, id });
            }
            if is_mark { vec![message.by] } else { message.to.clone() }
        }
    };
    let mut users = [to, vec![send.by]].concat();
    users.sort_unstable();
    users.dedup();
    users
}

/// An accepted send has one copy at each of them, one that was not taken none, and an unknown one the
/// same number at all.
fn copies(run: &Run, found: &Found, id: Id, send: &Send, wrong: &mut Vec<Wrong>) {
    let users = concerned(run, id, send, wrong);
    let own = found.copies(id, send.by);
    for user in run.mailboxes.keys().chain(&users) {
        let copies = found.copies(id, *user);
        let must = match send.answer {
            Answer::Accepted => usize::from(users.contains(user) && !send.silent),
            Answer::NotTaken => 0,
            Answer::Unknown => own.min(1) * usize::from(users.contains(user)),
        };
        let differs = Wrong::Copies { user: *user, id, answer: send.answer, copies };
        if copies != must && !wrong.contains(&differs) {
            wrong.push(differs);
        }
    }
}

/// By the cluster's times in its sender's mailbox, where both were accepted.
fn in_time(run: &Run, found: &Found, id: Id, send: &Send, wrong: &mut Vec<Wrong>) {
    let (within, of) = match send.said {
        Said::Act { what: What::Recall, of } => (run.recall_within, of),
        Said::Act { what: What::Edit, of } => (run.edit_within, of),
        Said::Act { .. } | Said::Message => return,
    };
    let time = |id| found.time(id, send.by);
    let Some((message, act)) = time(of).zip(time(id)) else { return };
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let late_ms = act.saturating_sub(message.saturating_add(within));
    if late_ms > 0 {
        wrong.push(Wrong::Late { id, late_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(by: User, to: &[User], said: Said, answer: Answer) -> Send {
        Send { by, to: to.to_vec(), said, answer, silent: false }
    }

    fn act(by: User, what: What, of: Id) -> Send {
        send(by, &[], Said::Act { what, of }, Answer::Accepted)
    }

    /// 1 sends two messages to 2 and one to 3; 2 has them and reads one; 1 edits and recalls.
    fn good() -> Run {
        let message = |to: &[User]| send(1, to, Said::Message, Answer::Accepted);
        let late = Send { answer: Answer::NotTaken, ..act(1, What::Recall, 11) };
        let sends = BTreeMap::from([
            (10, message(&[2])),
            (11, message(&[2, 3])),
            (20, act(2, What::Delivered, 11)),
            (21, act(2, What::Read, 10)),
            (22, Send { silent: true, ..act(2, What::Delivered, 10) }),
            (30, act(1, What::Edit, 11)),
            (31, act(1, What::Recall, 10)),
            (32, late),
            (33, Send { answer: Answer::Unknown, ..act(1, What::Edit, 10) }),
        ]);
        let mailbox = |ids: &[Id]| -> Vec<Kept> {
            let kept = |(seq, id): (u32, &Id)| Kept {
                seq,
                time_ms: u64::from(seq) * 100,
                id: *id,
                said: sends[id].said,
            };
            (1..).zip(ids).map(kept).collect()
        };
        let mailboxes = BTreeMap::from([
            (1, mailbox(&[10, 11, 20, 21, 30, 31])),
            (2, mailbox(&[10, 11, 20, 21, 30, 31])),
            (3, mailbox(&[11, 30])),
        ]);
        let (recall_within, edit_within) = (Duration::from_millis(500), Duration::from_secs(1));
        let stand = |unread, delivered, read| Stand { unread, delivered, read };
        let one = |user, stand| BTreeMap::from([(user, stand)]);
        let counted = vec![
            Counted { user: 2, from: 0, head: 2, conversations: one(1, stand(2, 0, 0)) },
            Counted { user: 2, from: 0, head: 3, conversations: one(1, stand(2, 2, 0)) },
            Counted { user: 2, from: 0, head: 4, conversations: one(1, stand(1, 2, 1)) },
            Counted { user: 3, from: 0, head: 2, conversations: one(1, stand(1, 0, 0)) },
            Counted { user: 1, from: 0, head: 6, conversations: BTreeMap::new() },
        ];
        Run { recall_within, edit_within, sends, mailboxes, counted }
    }

    fn caught(spoil: impl FnOnce(&mut Run)) -> Vec<Wrong> {
        let mut run = good();
        spoil(&mut run);
        check(&run)
    }

    fn mailbox(run: &mut Run, user: User) -> &mut Vec<Kept> {
        run.mailboxes.get_mut(&user).expect("a user of the test")
    }

    /// Puts another entry at the end.
    fn append(run: &mut Run, user: User, id: Id) {
        let said = run.sends[&id].said;
        let mailbox = mailbox(run, user);
        let seq = u32::try_from(mailbox.len()).expect("few") + 1;
        mailbox.push(Kept { seq, time_ms: 600, id, said });
    }

    fn answered(id: Id, user: User, answer: Answer, copies: usize) -> Wrong {
        Wrong::Copies { user, id, answer, copies }
    }

    #[test]
    fn a_run_that_kept_everything_is_found_so() {
        assert_eq!(check(&good()), []);
        assert_eq!(check(&Run::default()), []);
    }

    #[test]
    fn a_copy_that_is_missing_or_too_many_is_caught() {
        let lost = caught(|run| mailbox(run, 3).truncate(1));
        assert_eq!(lost, [answered(30, 3, Answer::Accepted, 0)]);
        let twice = caught(|run| append(run, 3, 30));
        assert_eq!(twice, [answered(30, 3, Answer::Accepted, 2)]);
        let refused = caught(|run| append(run, 2, 32));
        assert_eq!(refused, [answered(32, 2, Answer::NotTaken, 1)]);
        let half = caught(|run| append(run, 1, 33));
        assert_eq!(half, [answered(33, 2, Answer::Unknown, 0)]);
        let stranger = caught(|run| append(run, 3, 33));
        assert_eq!(stranger[..1], [Wrong::Before { user: 3, id: 33 }]);
        let silent = caught(|run| append(run, 2, 22));
        assert!(silent.contains(&answered(22, 2, Answer::Accepted, 1)), "{silent:?}");
    }

    #[test]
    fn a_mark_that_goes_back_is_caught() {
        let swapped = caught(|run| {
            run.sends.insert(23, act(2, What::Read, 10));
            append(run, 1, 23);
            append(run, 2, 23);
        });
        assert_eq!(swapped, [Wrong::Back { user: 1, id: 23 }, Wrong::Back { user: 2, id: 23 }]);
        let delivered = caught(|run| run.sends.get_mut(&22).expect("there").silent = false);
        assert_eq!(delivered[..1], [answered(22, 1, Answer::Accepted, 0)]);
    }

    #[test]
    fn an_act_before_its_message_is_caught() {
        let early = caught(|run| {
            let mailbox = mailbox(run, 3);
            mailbox.swap(0, 1);
            (mailbox[0].seq, mailbox[1].seq) = (1, 2);
        });
        let late = Wrong::Order { user: 3, id: 11 };
        assert_eq!(early, [Wrong::Before { user: 3, id: 30 }, late]);
    }

    #[test]
    fn who_does_what_only_another_may_is_caught() {
        let own = caught(|run| run.sends.get_mut(&21).expect("there").by = 1);
        assert!(own.contains(&Wrong::NotTheirs { by: 1, id: 21 }), "{own:?}");
        let others = caught(|run| run.sends.get_mut(&31).expect("there").by = 2);
        assert!(others.contains(&Wrong::NotTheirs { by: 2, id: 31 }), "{others:?}");
    }

    #[test]
    fn a_recall_after_its_time_is_caught() {
        let late = caught(|run| mailbox(run, 1)[5].time_ms = 607);
        assert_eq!(late, [Wrong::Late { id: 31, late_ms: 7 }]);
        assert_eq!(caught(|run| mailbox(run, 1)[4].time_ms = 1_200), []);
    }

    #[test]
    fn what_one_sent_in_another_order_is_caught() {
        let swapped = caught(|run| {
            let mailbox = mailbox(run, 2);
            mailbox.swap(4, 5);
            (mailbox[4].seq, mailbox[5].seq) = (5, 6);
        });
        assert_eq!(swapped, [Wrong::Order { user: 2, id: 30 }]);
    }

    #[test]
    fn a_count_of_what_is_unread_that_is_not_so_is_caught() {
        let more = caught(|run| {
            run.counted[2].conversations.get_mut(&1).expect("there").unread += 1;
        });
        assert!(matches!(more[..], [Wrong::Unread { user: 2, head: 4, .. }]), "{more:?}");
        let recalled = caught(|run| {
            run.sends.insert(34, act(1, What::Recall, 11));
            (1..=3).for_each(|user| append(run, user, 34));
            run.counted[2].head = 7;
        });
        assert!(matches!(recalled[..], [Wrong::Unread { user: 2, head: 7, .. }]), "{recalled:?}");
        let forgotten = caught(|run| run.counted[3].conversations.clear());
        assert!(matches!(forgotten[..], [Wrong::Unread { user: 3, .. }]), "{forgotten:?}");
    }

    #[test]
    fn a_mailbox_that_contradicts_itself_is_caught() {
        let hole = caught(|run| mailbox(run, 3)[1].seq = 3);
        assert_eq!(hole, [Wrong::Hole { user: 3, wanted: 2, found: 3 }]);
        let other =
            caught(|run| mailbox(run, 3)[1].said = Said::Act { what: What::Recall, of: 11 });
        assert_eq!(other[..1], [Wrong::Unsent { user: 3, id: 30 }]);
    }
}

//! What the store keeps, as devices and back ends read it: entries, origins, pages.
//!
//! The one place where the one becomes the other. Nothing is judged here.

use tidemark_proto::convert::bytes_of;
use tidemark_proto::send::About;
use tidemark_proto::v1;
use tidemark_store_core::act::{Act, ActKind, Asked};
use tidemark_store_core::group::{GroupEntry, GroupEvent};
use tidemark_store_core::read::Page;
use tidemark_store_core::value::{Content, Entry, Message, Origin};
use tidemark_types::{Recipient, Seq};

use crate::groups;

/// An entry, under its seq.
pub(crate) fn entry(seq: Seq, entry: &Entry) -> v1::Entry {
    let content = match &entry.content {
        Content::Message { message, outgoing } => {
            let to = outgoing.iter().flat_map(|outgoing| &outgoing.to);
            // A group here is one in which its member has marked a message for the own devices.
            let group = to.clone().find(|to| matches!(to, Recipient::Group(_)));
            let conversation = group.map(v1::Id::from);
            let to = to.map(v1::Id::from).collect();
            content(message, v1::Message { to, conversation, ..self::message(message) })
        }
        Content::Refused { recipient, code } => v1::entry::Content::Refused(v1::Refused {
            recipient: Some(v1::Id::from(recipient)),
            code: v1::ErrorCode::from(*code).into(),
        }),
        Content::Group(GroupEntry { group, seq, event: GroupEvent::Message(message) }) => {
            let conversation = Some(v1::Id::from(&Recipient::Group(group.clone())));
            let group_seq = seq.get();
            content(message, v1::Message { conversation, group_seq, ..self::message(message) })
        }
        Content::Group(GroupEntry { group, seq, event }) => {
            v1::entry::Content::GroupChange(v1::GroupChange {
                group: group.to_string(),
                group_seq: seq.get(),
                change: groups::change(event),
            })
        }
    };
    v1::Entry {
        seq: seq.get(),
        time_ms: entry.time.get(),
        origin: Some(origin(&entry.origin)),
        content: Some(content),
    }
}

/// A message of its own, or an act about another one.
fn content(stored: &Message, message: v1::Message) -> v1::entry::Content {
    let Some(Act { kind, of }) = &stored.act else { return v1::entry::Content::Message(message) };
    let kind = match kind {
        ActKind::Delivered => v1::ActKind::Delivered,
        ActKind::Read => v1::ActKind::Read,
        ActKind::Recall => v1::ActKind::Recall,
        ActKind::Edit => v1::ActKind::Edit,
    };
    v1::entry::Content::Act(v1::Act {
        kind: kind.into(),
        of: Some(origin(of)),
        message: Some(message),
    })
}

/// What is asked for about a message.
pub(crate) fn asked(About { kind, epoch, seq }: About) -> Asked {
    let kind = match kind {
        v1::ActKind::Delivered => ActKind::Delivered,
        v1::ActKind::Read => ActKind::Read,
        v1::ActKind::Recall => ActKind::Recall,
        v1::ActKind::Edit => ActKind::Edit,
        v1::ActKind::Unspecified => unreachable!("it was checked"),
    };
    Asked { kind, epoch, seq }
}

/// Which send something comes from.
pub(crate) fn origin(origin: &Origin) -> v1::Origin {
    v1::Origin::from(&match origin.clone() {
        Origin::Session { sender, session, n } => {
            tidemark_proto::Origin::Session { sender, session, n }
        }
        Origin::Backend { sender, id } => tidemark_proto::Origin::Backend { sender, id },
        Origin::Group { sender, group, seq } => {
            tidemark_proto::Origin::Group { sender, group, seq }
        }
    })
}

/// A page, for a device that asked for what comes after `seq_cli`.
pub(crate) fn page(seq_cli: Seq, page: &Page) -> v1::Page {
    let prev = page.gap.map_or(seq_cli, |gap| gap.last());
    let last = page.entries.last().map_or(prev, |(seq, _)| *seq);
    v1::Page {
        epoch: page.epoch.get(),
        floor: page.floor.get(),
        head: page.head.get(),
        gap: page.gap.map(|gap| v1::Gap { from: gap.first().get(), to: gap.last().get() }),
        prev_seq: prev.get(),
        entries: page.entries.iter().map(|(seq, stored)| entry(*seq, stored)).collect(),
        // The leader read floor, head and entries from one snapshot after a read index (R16).
        more: last < page.head,
    }
}

/// What all copies of a message have in common.
fn message(message: &Message) -> v1::Message {
    v1::Message {
        device: message.device.as_ref().map(ToString::to_string).unwrap_or_default(),
        client_msg_id: bytes_of(message.client_msg_id.as_bytes()),
        sent_ms: message.sent.get(),
        to: Vec::new(),
        conversation: None,
        group_seq: 0,
        kind: message.kind,
        body: message.body.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use tidemark_proto::page::Page as Checked;
    use tidemark_store_core::value::Outgoing;
    use tidemark_types::{ClientMsgId, Epoch, ErrorCode, SeqRange, SessionId, UnixMs, UserId};

    use super::*;

    fn refusal() -> Entry {
        let sender = UserId::new("alice").expect("legal");
        Entry {
            time: UnixMs::new(5),
            origin: Origin::Session { sender, session: SessionId::new(3).expect("legal"), n: 8 },
            content: Content::Refused {
                recipient: Recipient::User(UserId::new("bob").expect("legal")),
                code: ErrorCode::Blocked,
            },
        }
    }

    fn stored(gap: Option<SeqRange>, seqs: std::ops::Range<u32>, head: u32) -> Page {
        Page {
            epoch: Epoch::FIRST,
            floor: gap.map_or(Seq::NONE, SeqRange::last),
            head: Seq::new(head),
            gap,
            entries: seqs.map(|seq| (Seq::new(seq), refusal())).collect(),
        }
    }

    #[test]
    fn a_page_is_one_that_devices_accept() {
        let gap = SeqRange::missing(Seq::new(2), Seq::new(4));
        for (seq_cli, stored, more) in [
            (2, stored(gap, 5..7, 9), true),
            (2, stored(gap, 5..7, 6), false),
            (4, stored(None, 5..7, 6), false),
            (6, stored(None, 7..7, 6), false),
        ] {
            let page = page(Seq::new(seq_cli), &stored);
            assert_eq!(page.more, more);
            let checked = Checked::try_from(page).expect("its parts agree");
            assert_eq!(checked.last, Seq::new(6));
        }
    }

    #[test]
    fn a_message_keeps_everything() {
        let id = ClientMsgId::new(UnixMs::new(1), [9; 10]);
        let to = vec![Recipient::User(UserId::new("bob").expect("legal"))];
        let stored = Entry {
            content: Content::Message {
                message: Message {
                    device: "phone".parse().ok(),
                    sent: UnixMs::new(4),
                    client_msg_id: id,
                    kind: 7,
                    body: "hello".into(),
                    act: None,
                },
                outgoing: Some(Outgoing { to, records: Vec::new(), dropped: false }),
            },
            ..refusal()
        };
        let entry = entry(Seq::new(6), &stored);
        assert_eq!((entry.seq, entry.time_ms), (6, 5));
        let Some(v1::entry::Content::Message(message)) = entry.content else { panic!() };
        assert_eq!((message.device.as_str(), message.sent_ms, message.kind), ("phone", 4, 7));
        assert_eq!((&message.body[..], message.to.len()), (&b"hello"[..], 1));
        assert_eq!(message.client_msg_id, id.as_bytes()[..]);
    }
}

//! What commands did, and what entries say, as golden scripts have it.

use tidemark_store_core::act::{Act, ActKind};
use tidemark_store_core::group::{GroupEntry, GroupEvent};
use tidemark_store_core::reply::{Applied, Effect};
use tidemark_store_core::value::{Content, Entry, Message, Origin, Value as _};
use tidemark_types::Id;

/// Entries shown of one command; the others are counted.
const ENTRIES_SHOWN: usize = 6;

/// Users shown of one change or group; more are counted.
pub(crate) const NAMES_SHOWN: usize = 8;

pub(crate) fn show(applied: &Applied) -> String {
    let mut output = format!("{:?}\n", applied.reply);
    let mut entries = 0;
    for effect in &applied.effects {
        output += &match effect {
            Effect::Appended { .. } if entries == ENTRIES_SHOWN => continue,
            Effect::Appended { mailbox, seq, entry } => {
                entries += 1;
                let entry = Entry::decode(entry).expect("an entry");
                format!("  {mailbox} {seq}: {}\n", show_entry(&entry))
            }
            Effect::Outgoing { shard } => format!("  a record for shard {shard}\n"),
            Effect::Unseated { user, device, below, code } => {
                format!("  {user}'s {device} below connection {below}: {code}\n")
            }
            Effect::FanOut { group } => format!("  {group} has more to give\n"),
            Effect::MapChanged => "  the map changed\n".to_owned(),
            Effect::Alarm(alarm) => format!("  ALARM {alarm:?}\n"),
        };
    }
    let is_entry = |effect: &&Effect| matches!(effect, Effect::Appended { .. });
    let all = applied.effects.iter().filter(is_entry).count();
    if all > entries {
        output += &format!("  {} entries more\n", all - entries);
    }
    output
}

fn show_origin(origin: &Origin) -> String {
    match origin {
        Origin::Session { sender, session, n } => format!("{sender}#{session}.{n}"),
        Origin::Backend { sender, id } => format!("{sender}@{}", id.created()),
        Origin::Group { sender, group, seq } => format!("{sender}*{group}.{seq}"),
    }
}

/// What a message says: its body, or what it does about another one.
fn show_message(message: &Message) -> String {
    let body = String::from_utf8_lossy(&message.body);
    match &message.act {
        None => format!("{body:?}"),
        Some(Act { kind: ActKind::Edit, of }) => format!("Edit of {} {body:?}", show_origin(of)),
        Some(Act { kind, of }) => format!("{kind:?} of {}", show_origin(of)),
    }
}

pub(crate) fn show_entry(entry: &Entry) -> String {
    let origin = show_origin(&entry.origin);
    let content = match &entry.content {
        Content::Message { message, outgoing } => {
            let said = show_message(message);
            let outgoing = outgoing.as_ref().map_or(String::new(), |outgoing| {
                let to = outgoing.to.iter().map(|to| Id::name(&to.id()).to_owned());
                let records = outgoing.records.iter();
                let records = records.map(|(shard, out_seq)| format!(" {shard}.{}", out_seq.get()));
                let to = to.collect::<Vec<_>>().join(",");
                format!(" to {to}{}", records.collect::<String>())
            });
            format!("{said}{outgoing}")
        }
        Content::Refused { recipient, code } => format!("{code} by {}", recipient.id().name()),
        Content::Group(GroupEntry { group, seq, event: GroupEvent::Message(message) }) => {
            format!("{group}.{seq} {}", show_message(message))
        }
        Content::Group(GroupEntry { group, seq, event }) => {
            let users = match event {
                GroupEvent::Created { members: users }
                | GroupEvent::Joined { users }
                | GroupEvent::Left { users } => users.as_slice(),
                _ => &[],
            };
            match users.len() {
                0..=NAMES_SHOWN => format!("{group}.{seq} {event:?}"),
                many => format!("{group}.{seq} of {many} users, {} the first", users[0]),
            }
        }
    };
    format!("{origin} {content}")
}

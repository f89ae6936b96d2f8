//! A group's entry and those of its members who live here: they share it where they are several, and
//! the last one who lets it go removes it (R10).

use bytes::Bytes;
use tidemark_types::{GroupId, Seq, UserId};

use super::mailbox::Open;
use super::push;
use crate::group::GroupEntry;
use crate::key::{HoldersKey, SharedKey};
use crate::slot::{Holders, Reference, Shared};
use crate::storage::Fatal;
use crate::transaction::Step;
use crate::value::{Content, Entry, Origin, Shard, Value};

/// Appends a group's entry to mailboxes of this shard; `more` members here may follow in other
/// commands. `bytes` are the entry's, if it was encoded just now.
pub(super) fn to_members(
    step: &mut Step<'_>,
    shard: &mut Shard,
    (origin, entry): (&Origin, &GroupEntry),
    bytes: Option<&Bytes>,
    users: &[UserId],
    more: bool,
) -> Result<(), Fatal> {
    let (group, seq) = (entry.group.clone(), entry.seq);
    let content = Content::Group(entry.clone());
    let entry = Entry { time: shard.time, origin: origin.clone(), content };
    let bytes = bytes.cloned().unwrap_or_else(|| entry.encode_chunked());
    if users.len() < 2 && !more {
        return give(step, shard, users, &bytes, None).map(drop);
    }
    let (key, holders) = keys(&group, seq);
    step.put(&key, &Shared { entry });
    step.put(&holders, &Holders { references: 0, open: true });
    hold(step, shard, (group, seq), &bytes, users, more)
}

/// Appends an entry that this shard has already to mailboxes of more members.
pub(super) fn to_more_members(
    step: &mut Step<'_>,
    shard: &mut Shard,
    (group, seq): (&GroupId, Seq),
    users: &[UserId],
    more: bool,
) -> Result<(), Fatal> {
    let (key, _) = keys(group, seq);
    let Shared { entry } = step.get(&key)?.ok_or_else(|| missing(group, seq))?;
    let bytes = Entry { time: shard.time, ..entry }.encode_chunked();
    hold(step, shard, (group.clone(), seq), &bytes, users, more)
}

/// A mailbox lets a shared entry go.
pub(super) fn release(step: &mut Step<'_>, reference: &Reference) -> Result<(), Fatal> {
    change(step, &reference.group, reference.seq, |holders| holders.references -= 1)
}

fn hold(
    step: &mut Step<'_>,
    shard: &mut Shard,
    (group, seq): (GroupId, Seq),
    bytes: &Bytes,
    users: &[UserId],
    more: bool,
) -> Result<(), Fatal> {
    let reference = Reference { time: shard.time, group, seq };
    let taken = give(step, shard, users, bytes, Some(&reference.encode_chunked()))?;
    change(step, &reference.group, seq, |holders| {
        holders.references += taken;
        holders.open = more;
    })
}

/// Appends an entry to mailboxes, which keep `reference` instead, if there is one; how many took it.
/// Blocks do not apply, and what a mailbox cannot take is counted, not told.
fn give(
    step: &mut Step<'_>,
    shard: &mut Shard,
    users: &[UserId],
    entry: &Bytes,
    reference: Option<&Bytes>,
) -> Result<u32, Fatal> {
    let mut taken = 0;
    for user in users {
        let mut mailbox = Open::of(step, user)?;
        match mailbox.append(step, shard, entry, reference)? {
            Ok(_) => {
                taken += 1;
                push::arm(step, shard, user, &mut mailbox)?;
                mailbox.save(step);
            }
            Err(_) => shard.group_entries_untaken += 1,
        }
    }
    Ok(taken)
}

/// Changes who holds a shared entry, which goes when nobody does and nobody will.
fn change(
    step: &mut Step<'_>,
    group: &GroupId,
    seq: Seq,
    change: impl FnOnce(&mut Holders),
) -> Result<(), Fatal> {
    let (key, holders_key) = keys(group, seq);
    let mut holders = step.get(&holders_key)?.ok_or_else(|| missing(group, seq))?;
    change(&mut holders);
    if holders == Holders::default() {
        step.delete(&key);
        step.delete(&holders_key);
    } else {
        step.put(&holders_key, &holders);
    }
    Ok(())
}

fn keys(group: &GroupId, seq: Seq) -> (SharedKey, HoldersKey) {
    (SharedKey { group: group.clone(), seq }, HoldersKey { group: group.clone(), seq })
}

fn missing(group: &GroupId, seq: Seq) -> Fatal {
    Fatal::Corrupt(format!("group {group}: the shared entry {seq} is missing"))
}

//! Whose messages a user takes (R6). Like a block it is decided where the recipient lives, in the
//! apply that would append: a setting holds for every message that is applied after it.
//!
//! Invariant: a mailbox whose owner blocks nobody and takes everybody's messages is not looked up
//! for.

use tidemark_types::{ErrorCode, UserId};

use super::mailbox::Open;
use crate::key::AllowKey;
use crate::reply::{Reject, Reply};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{AcceptFrom, Allow};

/// Why the mailbox's owner, `user`, takes no message of `sender`, if that is so.
pub(super) fn unwelcome(
    step: &Step<'_>,
    mailbox: &Open,
    user: &UserId,
    sender: &UserId,
) -> Result<Option<ErrorCode>, Fatal> {
    if mailbox.blocks(step, user, sender)? {
        return Ok(Some(ErrorCode::Blocked));
    }
    let is_contact = || {
        let key = AllowKey { user: user.clone(), sender: sender.clone() };
        Ok::<_, Fatal>(mailbox.value.allows > 0 && step.get(&key)?.is_some())
    };
    Ok(match mailbox.value.accept_from {
        AcceptFrom::Everybody => None,
        AcceptFrom::Contacts => (!is_contact()?).then_some(ErrorCode::Stranger),
    })
}

/// `AcceptFrom`.
pub(super) fn accept_from(
    step: &mut Step<'_>,
    user: &UserId,
    from: AcceptFrom,
) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    mailbox.value.accept_from = from;
    mailbox.save(step);
    Ok(Reply::Done)
}

/// `Allow`. The list is kept whatever `AcceptFrom` says, so that it can be made before it counts.
pub(super) fn allow(
    step: &mut Step<'_>,
    user: &UserId,
    sender: &UserId,
    allowed: bool,
) -> Result<Reply, Stop> {
    if user == sender {
        return Err(Reject::Invalid("nobody is a stranger to themselves".to_owned()).into());
    }
    let key = AllowKey { user: user.clone(), sender: sender.clone() };
    if step.get(&key)?.is_some() == allowed {
        return Ok(Reply::Done);
    }
    let mut mailbox = Open::of(step, user)?;
    match allowed {
        true => {
            mailbox.value.allows += 1;
            step.put(&key, &Allow);
        }
        false => {
            mailbox.value.allows -= 1;
            step.delete(&key);
        }
    }
    mailbox.save(step);
    Ok(Reply::Done)
}

//! What the state says of a user for whom something passes by that is never stored: is another one
//! welcome, and when was the user last seen?

use tidemark_types::{Recipient, UnixMs, UserId};

use crate::devices;
use crate::key::{AllowKey, BlockKey};
use crate::read::{get, mailbox};
use crate::storage::{Fatal, Read};
use crate::value::AcceptFrom;

/// What is known of a user's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A connection of one of them was not said to have ended.
    pub connected: bool,
    /// Log time at which one was last heard of, to the hour; 0 for never.
    pub last: UnixMs,
}

/// Does `user` take messages of `sender`?
pub fn welcomes(state: &dyn Read, user: &UserId, sender: &UserId) -> Result<bool, Fatal> {
    let mailbox = mailbox(state, &Recipient::User(user.clone()))?;
    let blocked = || get(state, &BlockKey { user: user.clone(), sender: sender.clone() });
    if mailbox.blocks > 0 && blocked()?.is_some() {
        return Ok(false);
    }
    let allowed = || get(state, &AllowKey { user: user.clone(), sender: sender.clone() });
    Ok(match mailbox.accept_from {
        AcceptFrom::Everybody => true,
        AcceptFrom::Contacts => user == sender || (mailbox.allows > 0 && allowed()?.is_some()),
    })
}

/// What is known of a user's devices, for `by`, if somebody is named; of one who does not want to
/// be known nothing is.
pub fn seen(state: &dyn Read, user: &UserId, by: Option<&UserId>) -> Result<Seen, Fatal> {
    if let Some(by) = by
        && !welcomes(state, user, by)?
    {
        return Ok(Seen::default());
    }
    let devices = devices::all(state, user)?;
    Ok(Seen {
        connected: devices.iter().any(|(_, device)| device.connected),
        last: devices.iter().map(|(_, device)| device.last_seen).max().unwrap_or_default(),
    })
}

//! A user's devices, as they are read: all of them, and which of their connections have ended.

use tidemark_types::{DeviceId, ErrorCode, UnixMs, UserId};

use crate::key::{DeviceKey, DevicesKey};
use crate::read;
use crate::storage::{Fatal, Read};
use crate::value::Device;

/// Which connections of a device have ended, as whoever was told of none before must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The device.
    pub device: DeviceId,
    /// The lowest number of a connection that goes on.
    pub below: u64,
    /// Why the others do not.
    pub code: ErrorCode,
}

/// The user's devices, by name.
pub fn all(state: &dyn Read, user: &UserId) -> Result<Vec<(DeviceId, Device)>, Fatal> {
    Ok(listed(state, user)?.1)
}

/// The last number given to a connection of any of the user's devices, and the seat of each.
pub fn seats(state: &dyn Read, user: &UserId) -> Result<(u64, Vec<Seat>), Fatal> {
    let (last_number, devices) = listed(state, user)?;
    let seat = |(name, device): (DeviceId, Device)| {
        let logged_out = !device.connected && device.logged_out != UnixMs::default();
        let (below, code) = match logged_out {
            true => (device.connection + 1, ErrorCode::LoggedOut),
            false => (device.connection, ErrorCode::Displaced),
        };
        Seat { device: name, below, code }
    };
    Ok((last_number, devices.into_iter().map(seat).collect()))
}

fn listed(state: &dyn Read, user: &UserId) -> Result<(u64, Vec<(DeviceId, Device)>), Fatal> {
    let list = read::get(state, &DevicesKey { user: user.clone() })?.unwrap_or_default();
    let mut devices = Vec::with_capacity(list.names.len());
    for name in list.names {
        let key = DeviceKey { user: user.clone(), device: name.clone() };
        let device = read::get(state, &key)?.ok_or_else(|| {
            Fatal::Corrupt(format!("device {name} of user {user} is listed and not there"))
        })?;
        devices.push((name, device));
    }
    Ok((list.last_number, devices))
}

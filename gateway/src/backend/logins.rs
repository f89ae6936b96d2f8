//! Devices that were logged out: their tokens are as good for calls as they are for a `Hello`, not at all.
//!
//! The store knows until which time a device's tokens are void. It is asked once, and for a while
//! remembered: a log-out holds for calls after [`LOGINS_FRESH`] at the latest, and at once where it was
//! made.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_proto::Failure;
use tidemark_token::{Claims, Role};
use tidemark_types::{DeviceId, ErrorCode, UnixMs, UserId};

use super::Backend;
use super::caller::Caller;
use crate::limits::{LOGINS_FRESH, LOGINS_MAX};
use crate::receive;

/// When devices were logged out, as the store said a moment ago.
#[derive(Default)]
pub(super) struct Logins(Mutex<HashMap<(UserId, DeviceId), Known>>);

/// When a device was logged out, 0 for never; and when the store said so, on the monotonic clock.
#[derive(Clone, Copy)]
struct Known {
    logged_out: UnixMs,
    at: Duration,
}

impl Known {
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < LOGINS_FRESH
    }
}

impl Logins {
    fn get(&self, device: &(UserId, DeviceId), now: Duration) -> Option<UnixMs> {
        let known = self.0.lock().get(device).copied();
        known.filter(|known| known.is_fresh(now)).map(|known| known.logged_out)
    }

    /// Where all that is remembered is fresh and there is no room, it is asked for again.
    fn put(&self, device: (UserId, DeviceId), logged_out: UnixMs, now: Duration) {
        let mut known = self.0.lock();
        if known.len() >= LOGINS_MAX {
            known.retain(|_, known| known.is_fresh(now));
        }
        if known.len() < LOGINS_MAX {
            known.insert(device, Known { logged_out, at: now });
        }
    }

    /// What is remembered of a device is not so any more.
    pub(super) fn forget(&self, user: &UserId, device: &DeviceId) {
        self.0.lock().remove(&(user.clone(), device.clone()));
    }
}

impl Backend {
    /// Is the caller's token still good, if it is one device's?
    pub(super) async fn is_logged_in(&self, caller: &Caller) -> Result<(), Failure> {
        match &caller.claims().role {
            Role::Device { user, device: Some(device) } => {
                self.judge(caller.claims(), user, device).await
            }
            Role::Device { device: None, .. } | Role::Service | Role::Admin => Ok(()),
        }
    }

    /// May the caller speak about this user's device? A user's token without a device's name, which that
    /// device may have, not if it was made before the device was logged out.
    pub(super) async fn use_device(
        &self,
        caller: &Caller,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<(), Failure> {
        caller.use_device(user, device)?;
        match &caller.claims().role {
            Role::Device { device: None, .. } => self.judge(caller.claims(), user, device).await,
            // Its own was judged before the call.
            Role::Device { .. } | Role::Service | Role::Admin => Ok(()),
        }
    }

    async fn judge(
        &self,
        claims: &Claims,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<(), Failure> {
        let key = (user.clone(), device.clone());
        let asked = self.clock.monotonic();
        let logged_out = match self.logins.get(&key, asked) {
            Some(logged_out) => logged_out,
            None => {
                let known = receive::device(self.store.as_ref(), user, device).await?;
                let logged_out = known.map(|device| device.logged_out).unwrap_or_default();
                self.logins.put(key, logged_out, asked);
                logged_out
            }
        };
        match logged_out != UnixMs::default() && claims.issued.unwrap_or_default() <= logged_out {
            true => Err(Failure::new(ErrorCode::LoggedOut)),
            false => Ok(()),
        }
    }
}

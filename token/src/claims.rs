//! What a token says, and what that allows: the one place where roles are judged.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_types::{DeviceId, IdError, UnixMs, UserId};

use crate::error::Error;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Claims {
    /// Who it is for.
    pub role: Role,
    /// When it was made, if it says so; nothing is decided by it.
    pub issued: Option<UnixMs>,
    /// Until when it is good. In the token itself this is in whole seconds.
    pub expires: UnixMs,
}

/// Who a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A user's devices, or one of them.
    Device {
        /// Whose.
        user: UserId,
        /// Which one; any of the user's when none is named.
        device: Option<DeviceId>,
    },
    /// A back end: any user, by unary calls.
    Service,
    /// An operator: what a back end may, and the cluster itself.
    Admin,
}

impl Claims {
    /// Claims made at `now` and good for `valid` from then on.
    pub fn new(role: Role, now: UnixMs, valid: Duration) -> Self {
        Claims { role, issued: Some(now), expires: now.plus(valid) }
    }

    /// May it make unary calls in this user's name?
    pub fn may_act_for(&self, user: &UserId) -> Result<(), Error> {
        match &self.role {
            Role::Device { user: own, .. } if own != user => Err(Error::OtherUser(own.clone())),
            Role::Device { .. } | Role::Service | Role::Admin => Ok(()),
        }
    }

    /// May it make unary calls about this user's device?
    pub fn may_use_device(&self, user: &UserId, device: &DeviceId) -> Result<(), Error> {
        self.may_act_for(user)?;
        match &self.role {
            Role::Device { device: Some(own), .. } if own != device => {
                Err(Error::OtherDevice(own.clone()))
            }
            Role::Device { .. } | Role::Service | Role::Admin => Ok(()),
        }
    }

    /// May it connect as this user's device? Only a device may: a back end that could say Hello
    /// would move a user's cursor.
    pub fn may_connect(&self, user: &UserId, device: &DeviceId) -> Result<(), Error> {
        match &self.role {
            Role::Device { .. } => self.may_use_device(user, device),
            Role::Service | Role::Admin => Err(Error::NeedsRole("device")),
        }
    }

    /// May it take numbers of counters? They are no user's, so no device may.
    pub fn may_count(&self) -> Result<(), Error> {
        self.is_no_device()
    }

    /// May it change any group with its owner's rights, in nobody's name?
    pub fn may_act_for_groups(&self) -> Result<(), Error> {
        self.is_no_device()
    }

    /// May it follow what happens to everybody?
    pub fn may_follow(&self) -> Result<(), Error> {
        self.is_no_device()
    }

    fn is_no_device(&self) -> Result<(), Error> {
        match &self.role {
            Role::Device { .. } => Err(Error::NeedsRole("service")),
            Role::Service | Role::Admin => Ok(()),
        }
    }

    /// May it look at and change the cluster, adopt and trim mailboxes?
    pub fn may_administer(&self) -> Result<(), Error> {
        match &self.role {
            Role::Admin => Ok(()),
            Role::Device { .. } | Role::Service => Err(Error::NeedsRole("admin")),
        }
    }
}

/// The claims as they stand in a token; others that it may have are passed over.
#[derive(Serialize, Deserialize)]
struct Wire {
    role: RoleName,
    /// Of a service or an admin it may be anything: their issuer's own name for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<NumericDate>,
    exp: NumericDate,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleName {
    Device,
    Service,
    Admin,
}

/// Seconds since the Unix epoch. Some issuers write fractions, which RFC 7519 allows.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(from = "f64", into = "u64")]
struct NumericDate(UnixMs);

impl From<f64> for NumericDate {
    fn from(seconds: f64) -> Self {
        // The cast keeps what is out of range at its ends: long expired, or never.
        NumericDate(UnixMs::new((seconds * 1000.0) as u64))
    }
}

impl From<NumericDate> for u64 {
    fn from(date: NumericDate) -> u64 {
        date.0.get() / 1000
    }
}

/// Why claims mean nothing.
#[derive(Debug, Error)]
enum ClaimsError {
    #[error("a device's token names its user in `sub`")]
    NoUser,
    #[error(transparent)]
    Id(#[from] IdError),
}

impl TryFrom<Wire> for Claims {
    type Error = ClaimsError;
    fn try_from(wire: Wire) -> Result<Self, ClaimsError> {
        let role = match wire.role {
            RoleName::Device => Role::Device {
                user: UserId::new(wire.sub.ok_or(ClaimsError::NoUser)?)?,
                device: wire.device.map(DeviceId::new).transpose()?,
            },
            RoleName::Service => Role::Service,
            RoleName::Admin => Role::Admin,
        };
        Ok(Claims { role, issued: wire.iat.map(|date| date.0), expires: wire.exp.0 })
    }
}

impl From<Claims> for Wire {
    fn from(claims: Claims) -> Self {
        let (role, sub, device) = match claims.role {
            Role::Device { user, device } => {
                (RoleName::Device, Some(user.to_string()), device.map(|device| device.to_string()))
            }
            Role::Service => (RoleName::Service, None, None),
            Role::Admin => (RoleName::Admin, None, None),
        };
        let iat = claims.issued.map(NumericDate);
        Wire { role, sub, device, iat, exp: NumericDate(claims.expires) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidemark_types::ErrorCode;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("legal")
    }

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).expect("legal")
    }

    fn of(role: Role) -> Claims {
        Claims::new(role, UnixMs::new(1_000), Duration::from_secs(60))
    }

    fn device_token(device: Option<DeviceId>) -> Claims {
        of(Role::Device { user: user("alice"), device })
    }

    #[test]
    fn a_role_allows_what_it_says() {
        let (alice, bob, phone) = (user("alice"), user("bob"), device("phone"));
        for (claims, own, other, connect, administer) in [
            (device_token(None), true, false, true, false),
            (of(Role::Service), true, true, false, false),
            (of(Role::Admin), true, true, false, true),
        ] {
            assert_eq!(claims.may_act_for(&alice).is_ok(), own, "{claims:?}");
            assert_eq!(claims.may_act_for(&bob).is_ok(), other, "{claims:?}");
            assert_eq!(claims.may_use_device(&alice, &phone).is_ok(), own, "{claims:?}");
            assert_eq!(claims.may_use_device(&bob, &phone).is_ok(), other, "{claims:?}");
            assert_eq!(claims.may_connect(&alice, &phone).is_ok(), connect, "{claims:?}");
            assert!(claims.may_connect(&bob, &phone).is_err(), "{claims:?}");
            assert_eq!(claims.may_count().is_ok(), other, "{claims:?}");
            assert_eq!(claims.may_administer().is_ok(), administer, "{claims:?}");
        }
    }

    #[test]
    fn a_token_of_one_device_is_for_no_other() {
        let claims = device_token(Some(device("phone")));
        let alice = user("alice");
        assert!(claims.may_connect(&alice, &device("phone")).is_ok());
        let refused = claims.may_connect(&alice, &device("tablet")).expect_err("another device");
        assert_eq!(refused.code(), ErrorCode::PermissionDenied);
        assert!(claims.may_use_device(&alice, &device("tablet")).is_err());
        assert!(claims.may_act_for(&alice).is_ok());
    }

    #[test]
    fn claims_are_read_as_they_were_written() {
        for claims in [
            device_token(None),
            device_token(Some(device("phone"))),
            of(Role::Service),
            of(Role::Admin),
        ] {
            let text = serde_json::to_string(&claims).expect("JSON");
            assert_eq!(serde_json::from_str::<Claims>(&text).expect("claims"), claims, "{text}");
        }
        let text = serde_json::to_string(&device_token(Some(device("phone")))).expect("JSON");
        let wire = r#"{"role":"device","sub":"alice","device":"phone","iat":1,"exp":61}"#;
        assert_eq!(text, wire);
    }

    #[test]
    fn claims_of_other_issuers_are_understood() {
        let claims = json!({"role": "service", "sub": "x".repeat(99), "exp": 1.5, "aud": ["y"]});
        let claims: Claims = serde_json::from_value(claims).expect("unknown claims are no fault");
        assert_eq!((claims.role, claims.issued), (Role::Service, None));
        assert_eq!(claims.expires, UnixMs::new(1_500));
        let far: Claims = serde_json::from_value(json!({"role": "admin", "exp": 1e300})).expect("");
        assert_eq!(far.expires, UnixMs::new(u64::MAX));
    }

    #[test]
    fn claims_that_mean_nothing_are_refused() {
        for claims in [
            json!({"role": "device", "exp": 1}),
            json!({"role": "device", "sub": "", "exp": 1}),
            json!({"role": "device", "sub": "alice", "device": "", "exp": 1}),
            json!({"role": "root", "exp": 1}),
            json!({"sub": "alice", "exp": 1}),
            json!({"role": "admin"}),
            json!({"role": "admin", "exp": "soon"}),
        ] {
            assert!(serde_json::from_value::<Claims>(claims.clone()).is_err(), "{claims}");
        }
    }
}

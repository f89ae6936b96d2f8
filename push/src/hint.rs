//! What is due for one device, and how it is told.

use serde::Serialize;
use sha2::{Digest, Sha256};
use tidemark_types::{DeviceId, Epoch, Seq, UnixMs, UserId};
use uuid::Uuid;

/// A device that has something to fetch: one row of what the store lists as due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Whose mailbox it is.
    pub user: UserId,
    /// Which of the user's devices is to wake up.
    pub device: DeviceId,
    /// The provider that the device registered with, by its name in the configuration.
    pub provider: String,
    /// What the platform gave the device for being reached: a token, a URL, a subscription.
    pub target: String,
    /// Rises with every registration, so that a token which died late does not take the next one with
    /// it.
    pub version: u64,
    /// When the device registered this target, by the store's log time.
    pub registered_at: UnixMs,
    /// The mailbox's epoch.
    pub epoch: Epoch,
    /// The newest seq; the device has less.
    pub head: Seq,
}

/// Which device a hint is for; one attempt at a time is under way for each.
pub(crate) type DeviceKey = (UserId, DeviceId);

/// What is told to a device at most once: registration, epoch and head. A greater one replaces a
/// smaller one.
pub(crate) type Mark = (u64, Epoch, Seq);

/// All that a device is told. There is deliberately nothing of a message in it, and no count: both
/// would be another's to read, and wrong by the time it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Wake<'a> {
    /// Whose mailbox: a device may be used by several users.
    pub(crate) user: &'a str,
    /// The life of the mailbox that `head` is about.
    pub(crate) epoch: u32,
    /// The newest seq.
    pub(crate) head: u32,
}

impl Hint {
    pub(crate) fn key(&self) -> DeviceKey {
        (self.user.clone(), self.device.clone())
    }

    pub(crate) fn mark(&self) -> Mark {
        (self.version, self.epoch, self.head)
    }

    pub(crate) fn wake(&self) -> Wake<'_> {
        Wake { user: self.user.as_str(), epoch: self.epoch.get(), head: self.head.get() }
    }

    /// The wake-up as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(&self.wake()).expect("a name and two numbers are JSON")
    }

    /// An id that is the same for every attempt at this hint, so that a service which has it already
    /// can tell.
    pub(crate) fn id(&self) -> Uuid {
        let mut hash = Sha256::new();
        for name in [self.user.as_str(), self.device.as_str()] {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
        }
        hash.update(self.version.to_be_bytes());
        hash.update(self.epoch.get().to_be_bytes());
        hash.update(self.head.get().to_be_bytes());
        let digest = hash.finalize();
        let bytes = digest[..16].try_into().expect("a digest has 32 bytes");
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// What hints that replace each other have in common: a user's, as 32 hex digits, so that no
    /// service learns the name from it.
    pub(crate) fn collapse(&self) -> String {
        let digest = Sha256::digest(self.user.as_str());
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A hint for `device` of user `ann`, registered at 1000 ms.
    pub(crate) fn hint(device: &str, head: u32) -> Hint {
        Hint {
            user: UserId::new("ann").expect("legal"),
            device: DeviceId::new(device).expect("legal"),
            provider: "test".to_owned(),
            target: "token".to_owned(),
            version: 1,
            registered_at: UnixMs::new(1_000),
            epoch: Epoch::FIRST,
            head: Seq::new(head),
        }
    }

    #[test]
    fn an_id_is_the_same_for_every_attempt_and_for_no_other_hint() {
        let id = hint("phone", 7).id();
        assert_eq!(id, hint("phone", 7).id());
        assert_eq!(id.to_string().len(), 36);
        let mut others = vec![hint("phone", 8), hint("tablet", 7)];
        others.push(Hint { version: 2, ..hint("phone", 7) });
        others.push(Hint { epoch: Epoch::new(2), ..hint("phone", 7) });
        let (user, device) = (UserId::new("an"), DeviceId::new("nphone"));
        let (user, device) = (user.expect("legal"), device.expect("legal"));
        others.push(Hint { user, device, ..hint("phone", 7) });
        assert!(others.iter().all(|other| other.id() != id));
    }

    #[test]
    fn a_wake_up_says_who_and_how_far_and_nothing_else() {
        assert_eq!(hint("phone", 7).json(), r#"{"user":"ann","epoch":1,"head":7}"#);
    }

    #[test]
    fn hints_of_a_user_collapse() {
        let collapse = hint("phone", 7).collapse();
        assert_eq!(collapse, hint("phone", 8).collapse());
        assert_eq!(collapse.len(), 32);
        assert!(!collapse.contains("ann"));
    }
}

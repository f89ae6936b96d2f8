//! Who and what: names with their kind, and the numbers that identify parts of a cluster.
//!
//! A name is UTF-8, 1 to [`NAME_BYTES_MAX`] bytes, compared byte for byte: no case folding, no
//! normalisation. Users, groups and counters are routed by kind *and* name, so `user:7` and
//! `group:7` are different ids that may live on different shards.
//!
//! Every constructor checks; a value of these types is always a legal one.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::limits::NAME_BYTES_MAX;
use crate::time::UnixMs;

/// Why something is not an id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// A name with no bytes.
    #[error("a {what} id is empty: it takes 1 to {NAME_BYTES_MAX} bytes of UTF-8")]
    Empty {
        /// Which kind of id was wanted.
        what: &'static str,
    },
    /// A name with too many bytes.
    #[error("a {what} id has {bytes} bytes: it takes 1 to {NAME_BYTES_MAX}")]
    TooLong {
        /// Which kind of id was wanted.
        what: &'static str,
        /// How many bytes it had.
        bytes: usize,
    },
    /// Not 16 bytes, or not a UUID in text.
    #[error("a {what} id is not a UUID (16 bytes, in text 8-4-4-4-12 hex digits)")]
    NotUuid {
        /// Which kind of id was wanted.
        what: &'static str,
    },
    /// A UUID of another version: without the time in it a retry could not be judged.
    #[error("a {what} id is not a UUID of version 7")]
    NotVersion7 {
        /// Which kind of id was wanted.
        what: &'static str,
    },
    /// A kind number nobody knows.
    #[error("id kind {0} is unknown: 1 is a user, 2 a group, 3 a counter")]
    UnknownKind(u32),
    /// A number that means "none" where one is needed.
    #[error("a {what} id is 0, which means none")]
    Zero {
        /// Which kind of id was wanted.
        what: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "CompactString", into = "CompactString")]
        pub struct $type(CompactString);

        impl $type {
            /// The id with this name, if it is a legal one.
            pub fn new(name: impl Into<CompactString>) -> Result<Self, IdError> {
                let name = name.into();
                match name.len() {
                    0 => Err(IdError::Empty { what: $what }),
                    1..=NAME_BYTES_MAX => Ok(Self(name)),
                    bytes => Err(IdError::TooLong { what: $what, bytes }),
                }
            }

            /// Its name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<CompactString> for $type {
            type Error = IdError;
            fn try_from(name: CompactString) -> Result<Self, IdError> {
                Self::new(name)
            }
        }

        impl From<$type> for CompactString {
            fn from(id: $type) -> CompactString {
                id.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(name: &str) -> Result<Self, IdError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{:?}", $what, self.0)
            }
        }
    };
}

name!(
    /// A person or program with a mailbox.
    UserId, "user"
);
name!(
    /// A conversation of many, with a log and members of its own.
    GroupId, "group"
);
name!(
    /// A named source of numbers (R9), unrelated to any mailbox.
    CounterId, "counter"
);
name!(
    /// One of a user's devices; the name is the user's own and means nothing to others.
    DeviceId, "device"
);

/// The kinds of routed ids. The numbers stand in frames and keys and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IdKind {
    /// A [`UserId`].
    User = 1,
    /// A [`GroupId`].
    Group = 2,
    /// A [`CounterId`].
    Counter = 3,
}

/// Anything that has a shard of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Id {
    /// A user's mailbox.
    User(UserId),
    /// A group's log and members.
    Group(GroupId),
    /// A counter.
    Counter(CounterId),
}

impl Id {
    /// The id of kind number `kind` with this name, as they stand in a frame.
    pub fn from_parts(kind: u32, name: &str) -> Result<Id, IdError> {
        match kind {
            1 => UserId::new(name).map(Id::User),
            2 => GroupId::new(name).map(Id::Group),
            3 => CounterId::new(name).map(Id::Counter),
            other => Err(IdError::UnknownKind(other)),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> IdKind {
        match self {
            Id::User(_) => IdKind::User,
            Id::Group(_) => IdKind::Group,
            Id::Counter(_) => IdKind::Counter,
        }
    }

    /// Its name without the kind.
    pub fn name(&self) -> &str {
        match self {
            Id::User(id) => id.as_str(),
            Id::Group(id) => id.as_str(),
            Id::Counter(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::User(id) => write!(f, "user:{id}"),
            Id::Group(id) => write!(f, "group:{id}"),
            Id::Counter(id) => write!(f, "counter:{id}"),
        }
    }
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recipient {
    /// One user.
    User(UserId),
    /// The members that a group has when its shard takes the message; stands alone in `to`.
    Group(GroupId),
}

impl Recipient {
    /// The routed id it is.
    pub fn id(&self) -> Id {
        match self {
            Recipient::User(user) => Id::User(user.clone()),
            Recipient::Group(group) => Id::Group(group.clone()),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type([u8; 16]);

        impl $type {
            /// Its 16 bytes, as they stand in frames and keys.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes = bytes.try_into().map_err(|_| IdError::NotUuid { what: $what })?;
                Self::from_bytes(bytes)
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let uuid = Uuid::parse_str(text).map_err(|_| IdError::NotUuid { what: $what })?;
                Self::from_bytes(uuid.into_bytes())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", $what, self)
            }
        }
    };
}

uuid_id!(
    /// The application's name for a message or a request: a UUID of version 7, whose first 48
    /// bits are its creation time, so that a retry cannot change how old it is.
    ClientMsgId, "message"
);
uuid_id!(
    /// The random number by which a device finds its own `Open` again after a lost answer.
    OpenId, "open"
);
uuid_id!(
    /// A cluster, chosen at random when it is created; requests for another one are refused.
    ClusterId, "cluster"
);

impl ClientMsgId {
    /// The id with these bytes, if they are a UUID of version 7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        match Uuid::from_bytes(bytes).get_version_num() {
            7 => Ok(Self(bytes)),
            _ => Err(IdError::NotVersion7 { what: "message" }),
        }
    }

    /// A new id made at `now` from 10 random bytes (RFC 9562, section 5.7).
    pub fn new(now: UnixMs, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(now.get(), &random).into_uuid().into_bytes())
    }

    /// When it was made, by the clock of whoever made it.
    pub fn created(&self) -> UnixMs {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        UnixMs::new(u64::from_be_bytes(ms))
    }
}

impl OpenId {
    /// The id with these bytes, which the device drew at random.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        Ok(Self(bytes))
    }
}

impl ClusterId {
    /// The id with these bytes, drawn at random when the cluster is created.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        Ok(Self(bytes))
    }
}

/// A send session of one device (R1): numbered per user from 1, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// The session with this number; 0 means none and is refused.
    pub fn new(number: u64) -> Result<Self, IdError> {
        NonZeroU64::new(number).map(SessionId).ok_or(IdError::Zero { what: "session" })
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $type($inner);

        impl $type {
            /// The one with this number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// Its number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One of a cluster's virtual shards, from 0.
    ShardId(u16)
);
number!(
    /// A store node: one process with one data directory.
    NodeId(u64)
);
number!(
    /// The life of a mailbox's log (R11): changes only when the log was restored or rebuilt.
    Epoch(u32)
);

impl Epoch {
    /// What a device says that has no cursor yet.
    pub const NONE: Epoch = Epoch(0);
    /// A new mailbox's epoch.
    pub const FIRST: Epoch = Epoch(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_takes_1_to_64_bytes() {
        assert_eq!(UserId::new(""), Err(IdError::Empty { what: "user" }));
        assert!(UserId::new("a").is_ok());
        assert!(UserId::new("é".repeat(32)).is_ok());
        assert_eq!(UserId::new("é".repeat(33)), Err(IdError::TooLong { what: "user", bytes: 66 }));
    }

    #[test]
    fn an_id_round_trips_through_its_parts() {
        for id in ["user:a", "group:a", "counter:a"] {
            let (kind, name) = id.split_once(':').expect("a test's own constant");
            let kind = ["", "user", "group", "counter"].iter().position(|k| *k == kind);
            let kind = u32::try_from(kind.expect("a known kind")).expect("small");
            let parsed = Id::from_parts(kind, name).expect("legal");
            assert_eq!(parsed.to_string(), id);
            assert_eq!(parsed.kind() as u32, kind);
        }
        assert_eq!(Id::from_parts(9, "a"), Err(IdError::UnknownKind(9)));
    }

    #[test]
    fn a_message_id_keeps_its_creation_time() {
        let id = ClientMsgId::new(UnixMs::new(1_764_000_000_123), [7; 10]);
        assert_eq!(id.created(), UnixMs::new(1_764_000_000_123));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ClientMsgId::try_from(id.as_bytes().as_slice()), Ok(id));
    }

    #[test]
    fn a_message_id_of_another_version_is_refused() {
        let v4 = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let refused = Err(IdError::NotVersion7 { what: "message" });
        assert_eq!(v4.parse::<ClientMsgId>(), refused);
        assert!(v4.parse::<OpenId>().is_ok());
        assert!("67e5".parse::<OpenId>().is_err());
    }

    #[test]
    fn session_zero_means_none() {
        assert!(SessionId::new(0).is_err());
        assert_eq!(SessionId::new(3).map(SessionId::get), Ok(3));
    }
}

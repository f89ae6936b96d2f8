//! Generated messages to checked values and back: ids, origins, error codes.
//!
//! A message is what a peer wrote; a value of `tidemark-types` is legal. Every way from the one to
//! the other is here or built on this, and every failure names the field.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use tidemark_types::limits::{BODY_BYTES_MAX, RECIPIENTS_MAX};
use tidemark_types::{
    ClientMsgId, ErrorCode, GroupId, Id, IdError, IdKind, Recipient, Seq, SessionId, UserId,
};

use crate::v1;

/// A field that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    field: String,
    reason: Reason,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// It is absent and needed.
    #[error("is missing")]
    Missing,
    /// It is no id.
    #[error(transparent)]
    Id(IdError),
    /// Bytes that are no such message.
    #[error("is no message of its kind: {0}")]
    Encoding(prost::DecodeError),
    /// A number out of its range.
    #[error("is {value}, and must be {wanted}")]
    OutOfRange {
        /// What it is.
        value: u64,
        /// What it must be.
        wanted: &'static str,
    },
    /// A text with too many bytes.
    #[error("has {bytes} bytes, and may have {max}")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// It does not fit to another field.
    #[error("contradicts {0}")]
    Contradicts(&'static str),
    /// A recipient that is no id.
    #[error(transparent)]
    Recipient(IdError),
    /// A counter, which takes no messages.
    #[error("is a counter, and a recipient is a user or a group")]
    CounterAsRecipient,
    /// A recipient of an act, which goes where its message went (R19).
    #[error("is not empty, and an act goes where its message went")]
    ActWithRecipients,
    /// A body of an act that is no edit.
    #[error("has {bytes} bytes, and only an edit has a body")]
    ActWithBody {
        /// How many it has.
        bytes: usize,
    },
    /// An act that nobody knows.
    #[error("is {kind}, which this version does not know")]
    UnknownAct {
        /// Its number.
        kind: i32,
    },
    /// A group beside other recipients (R10).
    #[error("is a group, which stands alone")]
    GroupNotAlone,
    /// Nobody.
    #[error("is empty: a message has 1 to {RECIPIENTS_MAX} recipients")]
    NoRecipient,
    /// Too many.
    #[error("has {count} recipients, and may have {RECIPIENTS_MAX}")]
    TooManyRecipients {
        /// How many.
        count: usize,
    },
    /// A body over the limit.
    #[error("has {bytes} bytes, and may have {BODY_BYTES_MAX}")]
    BodyTooLarge {
        /// How many.
        bytes: usize,
    },
}

impl FieldError {
    /// The error of this field.
    pub fn new(field: impl Into<String>, reason: Reason) -> Self {
        FieldError { field: field.into(), reason }
    }

    /// The same error, seen from the message that holds the field.
    #[must_use]
    pub fn within(self, parent: impl fmt::Display) -> Self {
        FieldError { field: format!("{parent}.{}", self.field), reason: self.reason }
    }

    /// The field, as a path: `send.to[3].name`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The code that stands for it in frames and stored acknowledgements.
    pub fn code(&self) -> ErrorCode {
        match self.reason {
            Reason::Missing
            | Reason::Encoding(_)
            | Reason::Id(_)
            | Reason::OutOfRange { .. }
            | Reason::TooLong { .. }
            | Reason::Contradicts(_) => ErrorCode::Invalid,
            Reason::Recipient(_)
            | Reason::CounterAsRecipient
            | Reason::ActWithRecipients
            | Reason::GroupNotAlone
            | Reason::NoRecipient => ErrorCode::BadRecipient,
            Reason::TooManyRecipients { .. } => ErrorCode::TooManyRecipients,
            Reason::BodyTooLarge { .. } | Reason::ActWithBody { .. } => ErrorCode::BodyTooLarge,
            Reason::UnknownAct { .. } => ErrorCode::NoMessage,
        }
    }
}

/// The id with this name: a user's, a group's, a counter's or a device's.
pub fn name<T: FromStr<Err = IdError>>(field: &str, name: &str) -> Result<T, FieldError> {
    name.parse().map_err(|error| FieldError::new(field, Reason::Id(error)))
}

/// The id with these 16 bytes: a message's, an `Open`'s or a cluster's.
pub fn uuid<'a, T: TryFrom<&'a [u8], Error = IdError>>(
    field: &str,
    bytes: &'a [u8],
) -> Result<T, FieldError> {
    T::try_from(bytes).map_err(|error| FieldError::new(field, Reason::Id(error)))
}

/// The same, where no bytes mean none.
pub fn uuid_or_none<'a, T: TryFrom<&'a [u8], Error = IdError>>(
    field: &str,
    bytes: &'a [u8],
) -> Result<Option<T>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { uuid(field, bytes).map(Some) }
}

/// The session with this number.
pub fn session(field: &str, number: u64) -> Result<SessionId, FieldError> {
    SessionId::new(number).map_err(|error| FieldError::new(field, Reason::Id(error)))
}

/// The number of a session that may be none, as it stands in a frame.
pub fn session_number(session: Option<SessionId>) -> u64 {
    session.map_or(0, SessionId::get)
}

/// A field that must be there.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, Reason::Missing))
}

/// A message that must be there, checked; its error is seen from the message that holds it.
pub fn nested<'a, M, T: TryFrom<&'a M, Error = FieldError>>(
    field: &str,
    message: Option<&'a M>,
) -> Result<T, FieldError> {
    T::try_from(required(field, message)?).map_err(|error| error.within(field))
}

/// The field of an id that an [`IdError`] is about.
fn id_field(error: &IdError) -> &'static str {
    match error {
        IdError::UnknownKind(_) => "kind",
        IdError::Empty { .. }
        | IdError::TooLong { .. }
        | IdError::NotUuid { .. }
        | IdError::NotVersion7 { .. }
        | IdError::Zero { .. } => "name",
    }
}

fn checked_id(id: &v1::Id) -> Result<Id, IdError> {
    // A negative kind is as unknown as any other; its bits serve to name it.
    Id::from_parts(id.kind.cast_unsigned(), &id.name)
}

impl TryFrom<&v1::Id> for Id {
    type Error = FieldError;
    fn try_from(id: &v1::Id) -> Result<Self, FieldError> {
        checked_id(id).map_err(|error| FieldError::new(id_field(&error), Reason::Id(error)))
    }
}

impl TryFrom<&v1::Id> for Recipient {
    type Error = FieldError;
    fn try_from(id: &v1::Id) -> Result<Self, FieldError> {
        match checked_id(id) {
            Ok(Id::User(user)) => Ok(Recipient::User(user)),
            Ok(Id::Group(group)) => Ok(Recipient::Group(group)),
            Ok(Id::Counter(_)) => Err(FieldError::new("kind", Reason::CounterAsRecipient)),
            Err(error) => Err(FieldError::new(id_field(&error), Reason::Recipient(error))),
        }
    }
}

impl From<&Id> for v1::Id {
    fn from(id: &Id) -> Self {
        v1::Id { kind: v1::IdKind::from(id.kind()).into(), name: id.name().to_owned() }
    }
}

impl From<&Recipient> for v1::Id {
    fn from(recipient: &Recipient) -> Self {
        v1::Id::from(&recipient.id())
    }
}

impl From<IdKind> for v1::IdKind {
    fn from(kind: IdKind) -> Self {
        match kind {
            IdKind::User => v1::IdKind::User,
            IdKind::Group => v1::IdKind::Group,
            IdKind::Counter => v1::IdKind::Counter,
        }
    }
}

/// Which send something comes from, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A device's, inside a send session.
    Session {
        /// Whose session.
        sender: UserId,
        /// Which one.
        session: SessionId,
        /// Which send of it, from 1.
        n: u64,
    },
    /// A back end's.
    Backend {
        /// In whose name.
        sender: UserId,
        /// Its key beside the sender.
        id: ClientMsgId,
    },
    /// No send: a change of a group.
    Group {
        /// In whose name it was made.
        sender: UserId,
        /// Which group.
        group: GroupId,
        /// The change's number in the group's log.
        seq: Seq,
    },
}

impl Origin {
    /// In whose name it was sent, or a group was changed.
    pub fn sender(&self) -> &UserId {
        match self {
            Origin::Session { sender, .. }
            | Origin::Backend { sender, .. }
            | Origin::Group { sender, .. } => sender,
        }
    }
}

impl TryFrom<&v1::Origin> for Origin {
    type Error = FieldError;
    fn try_from(origin: &v1::Origin) -> Result<Self, FieldError> {
        let sender = name("sender", &origin.sender)?;
        match required("key", origin.key.as_ref())? {
            v1::origin::Key::SessionSend(send) => Ok(Origin::Session {
                sender,
                session: session("session_send.session", send.session)?,
                n: at_least_1("session_send.n", send.n)?,
            }),
            v1::origin::Key::ClientMsgId(id) => {
                Ok(Origin::Backend { sender, id: uuid("client_msg_id", id)? })
            }
            v1::origin::Key::GroupChange(v1::GroupPlace { group, seq }) => {
                at_least_1("group_change.seq", (*seq).into())?;
                let group = name("group_change.group", group)?;
                Ok(Origin::Group { sender, group, seq: Seq::new(*seq) })
            }
        }
    }
}

impl From<&Origin> for v1::Origin {
    fn from(origin: &Origin) -> Self {
        let key = match origin {
            Origin::Session { session, n, .. } => {
                v1::origin::Key::SessionSend(v1::SessionSend { session: session.get(), n: *n })
            }
            Origin::Backend { id, .. } => v1::origin::Key::ClientMsgId(bytes_of(id.as_bytes())),
            Origin::Group { group, seq, .. } => v1::origin::Key::GroupChange(v1::GroupPlace {
                group: group.to_string(),
                seq: seq.get(),
            }),
        };
        v1::Origin { sender: origin.sender().to_string(), key: Some(key) }
    }
}

/// A number that counts from 1.
pub fn at_least_1(field: &str, value: u64) -> Result<u64, FieldError> {
    match value {
        0 => Err(FieldError::new(field, Reason::OutOfRange { value, wanted: "at least 1" })),
        _ => Ok(value),
    }
}

/// The bytes of an id, as a field holds them.
pub fn bytes_of(id: &[u8; 16]) -> Vec<u8> {
    id.to_vec()
}

/// The code with this number in a frame. One that this build does not know, or none, is taken for
/// [`ErrorCode::Unknown`], which claims nothing (R3).
pub fn error_code(number: i32) -> ErrorCode {
    let known = u16::try_from(number).ok().and_then(|number| ErrorCode::try_from(number).ok());
    known.unwrap_or(ErrorCode::Unknown)
}

macro_rules! codes {
    ($($code:ident)*) => {
        impl From<ErrorCode> for v1::ErrorCode {
            fn from(code: ErrorCode) -> Self {
                match code {
                    $(ErrorCode::$code => v1::ErrorCode::$code,)*
                }
            }
        }
    };
}

codes! {
    Invalid Unauthenticated TokenExpired PermissionDenied FrameTooLarge UnknownFrame WrongCluster
    WrongShard NotLeader Unavailable Overloaded RetryAfter GoingAway Unknown Internal Displaced Stale
    Settled Conflict OutOfOrder WindowFull SessionEnded SessionExpired DedupExpired IdInFuture NoDevice
    LoggedOut TooManyDevices BodyTooLarge TooManyRecipients BadRecipient KindNotAllowed Filtered
    HookRefused NoMessage TooLate Blocked SeqExhausted NoMailbox NotMember GroupGone GroupFull Forbidden Stranger Reset
    NotEmpty
}

#[cfg(test)]
mod tests {
    use tidemark_types::{DeviceId, OpenId};

    use super::*;

    /// Both lists, each seen from the other: a code added to one only fails here or above.
    #[test]
    fn the_two_lists_of_error_codes_are_one() {
        for code in ErrorCode::ALL {
            let wire = v1::ErrorCode::from(*code);
            assert_eq!(i32::from(wire), i32::from(code.number()), "{code}");
            assert_eq!(wire.as_str_name(), format!("ERROR_CODE_{}", code.name()));
            assert_eq!(error_code(wire.into()), *code);
        }
        let on_the_wire =
            (1..=i32::from(u16::MAX)).filter(|number| v1::ErrorCode::try_from(*number).is_ok());
        assert_eq!(on_the_wire.count(), ErrorCode::ALL.len());
    }

    #[test]
    fn an_unknown_code_claims_nothing() {
        for number in [0, 9999, -1, i32::MIN] {
            assert_eq!(error_code(number), ErrorCode::Unknown);
        }
    }

    #[test]
    fn kinds_have_the_same_numbers() {
        for kind in [IdKind::User, IdKind::Group, IdKind::Counter] {
            assert_eq!(i32::from(v1::IdKind::from(kind)), i32::from(kind as u8));
        }
    }

    fn id(kind: i32, name: &str) -> v1::Id {
        v1::Id { kind, name: name.to_owned() }
    }

    #[test]
    fn ids_come_back_as_they_went() {
        for id in [id(1, "a"), id(2, &"é".repeat(32)), id(3, "a")] {
            let checked = Id::try_from(&id).expect("legal");
            assert_eq!(v1::Id::from(&checked), id);
        }
        let group = Recipient::Group(GroupId::new("g").expect("legal"));
        assert_eq!(Recipient::try_from(&v1::Id::from(&group)), Ok(group));
    }

    #[test]
    fn a_bad_id_names_its_field_and_its_code() {
        let refused = |id: v1::Id| {
            let error = Recipient::try_from(&id).expect_err("illegal").within("to[3]");
            (error.code(), error.within("send").to_string())
        };
        let bad = ErrorCode::BadRecipient;
        let (code, text) = refused(id(1, ""));
        assert_eq!(code, bad);
        assert_eq!(text, "send.to[3].name: a user id is empty: it takes 1 to 64 bytes of UTF-8");
        let (code, text) = refused(id(0, "a"));
        assert_eq!(code, bad);
        assert!(text.starts_with("send.to[3].kind: id kind 0 is unknown"), "{text}");
        let (code, text) = refused(id(3, "a"));
        assert_eq!(code, bad);
        assert!(text.starts_with("send.to[3].kind: is a counter"), "{text}");
        assert_eq!(refused(id(-7, "a")).0, bad);
        assert_eq!(refused(id(1, &"x".repeat(65))).0, bad);
        let elsewhere = Id::try_from(&id(1, "")).expect_err("illegal");
        assert_eq!(elsewhere.code(), ErrorCode::Invalid);
    }

    #[test]
    fn ids_of_16_bytes_are_checked() {
        assert!(uuid::<OpenId>("open_id", &[7; 16]).is_ok());
        assert!(uuid::<OpenId>("open_id", &[7; 15]).is_err());
        assert_eq!(uuid_or_none::<OpenId>("open_id", &[]), Ok(None));
        let error = uuid::<ClientMsgId>("client_msg_id", &[7; 16]).expect_err("version 0");
        assert_eq!(error.field(), "client_msg_id");
        assert!(name::<DeviceId>("device", "phone").is_ok());
    }

    #[test]
    fn origins_come_back_as_they_went() {
        let sender: UserId = "alice".parse().expect("legal");
        let session = SessionId::new(3).expect("legal");
        let id = ClientMsgId::new(tidemark_types::UnixMs::new(1), [9; 10]);
        for origin in [
            Origin::Session { sender: sender.clone(), session, n: 8 },
            Origin::Backend { sender: sender.clone(), id },
            Origin::Group { sender, group: "g".parse().expect("legal"), seq: Seq::new(3) },
        ] {
            assert_eq!(Origin::try_from(&v1::Origin::from(&origin)), Ok(origin));
        }
        let nobody = v1::Origin { sender: "alice".to_owned(), key: None };
        let error = Origin::try_from(&nobody).expect_err("no key");
        assert_eq!(error.to_string(), "key: is missing");
    }
}

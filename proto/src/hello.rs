//! Who says `Hello`, and where their device stands.

use std::fmt;

use tidemark_types::limits::LABEL_BYTES_MAX;
use tidemark_types::{ClusterId, DeviceId, Epoch, OpenId, Seq, SessionId, UserId};

use crate::convert::{self, FieldError, Reason};
use crate::v1;

/// Bytes of the name by which a client's software calls itself.
pub const AGENT_BYTES_MAX: usize = 64;

/// A `Hello` whose fields are legal; nothing of its token is checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that the device knows.
    pub cluster: Option<ClusterId>,
    /// The JWT, unchecked.
    pub token: String,
    /// Whose mailbox the cursor counts in.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Where it stands.
    pub cursor: Cursor,
    /// Its software.
    pub agent: String,
    /// What it is called; none leaves it as it is.
    pub label: Option<Label>,
}

/// What a device is called, for its owner's list of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The owner's name for it.
    pub name: String,
    /// What it runs on.
    pub platform: String,
}

impl TryFrom<&v1::Label> for Label {
    type Error = FieldError;
    fn try_from(v1::Label { name, platform }: &v1::Label) -> Result<Self, FieldError> {
        for (field, text) in [("name", name), ("platform", platform)] {
            if text.len() > LABEL_BYTES_MAX {
                let reason = Reason::TooLong { bytes: text.len(), max: LABEL_BYTES_MAX };
                return Err(FieldError::new(field, reason));
            }
        }
        Ok(Label { name: name.clone(), platform: platform.clone() })
    }
}

/// Where a device stands in its user's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Its application took everything up to here.
    At {
        /// The epoch in which `seq` counts.
        epoch: Epoch,
        /// The last seq taken.
        seq: Seq,
    },
    /// Nowhere yet; it says where to start (R12).
    New(Start),
}

/// Where a device starts that has no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After the newest entry.
    Head,
    /// With the oldest entry that is kept.
    Floor,
    /// With the newest ones, this many.
    Last(u32),
}

impl TryFrom<v1::Hello> for Hello {
    type Error = FieldError;
    fn try_from(hello: v1::Hello) -> Result<Self, FieldError> {
        checked_hello(hello).map_err(|error| error.within("hello"))
    }
}

fn checked_hello(hello: v1::Hello) -> Result<Hello, FieldError> {
    let cursor = cursor(&hello)?;
    if hello.agent.len() > AGENT_BYTES_MAX {
        let reason = Reason::TooLong { bytes: hello.agent.len(), max: AGENT_BYTES_MAX };
        return Err(FieldError::new("agent", reason));
    }
    Ok(Hello {
        cluster: convert::uuid_or_none("cluster_id", &hello.cluster_id)?,
        user: convert::name("user", &hello.user)?,
        device: convert::name("device", &hello.device)?,
        cursor,
        token: hello.token,
        agent: hello.agent,
        label: hello
            .label
            .as_ref()
            .map(Label::try_from)
            .transpose()
            .map_err(|error| error.within("label"))?,
    })
}

fn cursor(hello: &v1::Hello) -> Result<Cursor, FieldError> {
    let epoch = Epoch::new(hello.epoch);
    if epoch != Epoch::NONE {
        return Ok(Cursor::At { epoch, seq: Seq::new(hello.seq_cli) });
    }
    if hello.seq_cli != 0 {
        return Err(FieldError::new("seq_cli", Reason::Contradicts("epoch 0: no cursor")));
    }
    convert::nested("start", hello.start.as_ref()).map(Cursor::New)
}

impl TryFrom<&v1::Start> for Start {
    type Error = FieldError;
    fn try_from(start: &v1::Start) -> Result<Self, FieldError> {
        match start.at() {
            v1::StartAt::Unspecified => Err(FieldError::new("at", Reason::Missing)),
            v1::StartAt::Head => Ok(Start::Head),
            v1::StartAt::Floor => Ok(Start::Floor),
            v1::StartAt::Last => Ok(Start::Last(start.last)),
        }
    }
}

impl From<Start> for v1::Start {
    fn from(start: Start) -> Self {
        let (at, last) = match start {
            Start::Head => (v1::StartAt::Head, 0),
            Start::Floor => (v1::StartAt::Floor, 0),
            Start::Last(last) => (v1::StartAt::Last, last),
        };
        v1::Start { at: at.into(), last }
    }
}

/// An `Open` whose fields are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// By which the device finds the session again.
    pub open_id: OpenId,
    /// The session that it replaces.
    pub ends: Option<SessionId>,
}

impl TryFrom<&v1::Open> for Open {
    type Error = FieldError;
    fn try_from(open: &v1::Open) -> Result<Self, FieldError> {
        let open_id = convert::uuid("open.open_id", &open.open_id)?;
        // 0 is the one number that is no session, and here it means none.
        Ok(Open { open_id, ends: SessionId::new(open.ends).ok() })
    }
}

// A token opens a mailbox, so it is in no log: both Debugs leave it out.

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("cluster", &self.cluster)
            .field("user", &self.user)
            .field("device", &self.device)
            .field("cursor", &self.cursor)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("cluster_id", &self.cluster_id)
            .field("user", &self.user)
            .field("device", &self.device)
            .field("epoch", &self.epoch)
            .field("seq_cli", &self.seq_cli)
            .field("start", &self.start)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> v1::Hello {
        v1::Hello {
            token: "secret".to_owned(),
            user: "alice".to_owned(),
            device: "phone".to_owned(),
            epoch: 1,
            seq_cli: 7,
            ..v1::Hello::default()
        }
    }

    fn refused(hello: v1::Hello) -> String {
        Hello::try_from(hello).expect_err("illegal").to_string()
    }

    #[test]
    fn a_cursor_is_a_place_or_a_start() {
        let at = Hello::try_from(hello()).expect("legal").cursor;
        assert_eq!(at, Cursor::At { epoch: Epoch::FIRST, seq: Seq::new(7) });
        for start in [Start::Head, Start::Floor, Start::Last(20)] {
            let new = v1::Hello { epoch: 0, seq_cli: 0, start: Some(start.into()), ..hello() };
            assert_eq!(Hello::try_from(new).expect("legal").cursor, Cursor::New(start));
        }
    }

    #[test]
    fn a_device_without_a_cursor_must_say_where_it_starts() {
        let lost = v1::Hello { epoch: 0, ..hello() };
        assert_eq!(refused(lost), "hello.seq_cli: contradicts epoch 0: no cursor");
        let silent = v1::Hello { epoch: 0, seq_cli: 0, ..hello() };
        assert_eq!(refused(silent.clone()), "hello.start: is missing");
        for at in [0, 9] {
            let start = Some(v1::Start { at, last: 1 });
            assert_eq!(
                refused(v1::Hello { start, ..silent.clone() }),
                "hello.start.at: is missing"
            );
        }
    }

    #[test]
    fn ids_are_checked() {
        assert!(refused(v1::Hello { user: String::new(), ..hello() }).starts_with("hello.user: "));
        let device = "x".repeat(65);
        assert!(refused(v1::Hello { device, ..hello() }).starts_with("hello.device: "));
        let cluster_id = vec![1; 15];
        assert!(refused(v1::Hello { cluster_id, ..hello() }).starts_with("hello.cluster_id: "));
        let label = v1::Label { name: "x".repeat(65), platform: String::new() };
        assert_eq!(
            refused(v1::Hello { label: Some(label), ..hello() }),
            "hello.label.name: has 65 bytes, and may have 64"
        );
        let agent = "x".repeat(65);
        assert_eq!(
            refused(v1::Hello { agent, ..hello() }),
            "hello.agent: has 65 bytes, and may have 64"
        );
    }

    #[test]
    fn an_open_names_the_session_it_ends_or_none() {
        let open = |ends| v1::Open { open_id: vec![5; 16], ends };
        assert_eq!(Open::try_from(&open(0)).expect("legal").ends, None);
        assert_eq!(Open::try_from(&open(4)).expect("legal").ends, SessionId::new(4).ok());
        let error = Open::try_from(&v1::Open::default()).expect_err("no id");
        assert_eq!(error.field(), "open.open_id");
    }

    #[test]
    fn no_log_shows_a_token() {
        let checked = Hello::try_from(hello()).expect("legal");
        let frame = v1::ClientFrame::from(hello());
        for text in [format!("{:?}", hello()), format!("{checked:?}"), format!("{frame:?}")] {
            assert!(text.contains("alice"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}

//! Sends: what a gateway can say of one without asking anybody, and how it is answered.
//!
//! A session send that names its session and number can be answered under that number, so whatever
//! else is wrong with it becomes its verdict (R2): [`Send::judged`] holds it, and the content's
//! hash beside it, by which a retry with other content is noticed. A send that does not name them
//! is INVALID, and nothing can be stored for it.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidemark_types::limits::{BODY_BYTES_MAX, RECIPIENTS_MAX};
use tidemark_types::{ClientMsgId, ContentHash, Epoch, Recipient, Seq, SessionId, UnixMs, UserId};

use crate::convert::{self, FieldError, Reason};
use crate::failure::Failure;
use crate::v1;

/// A session send that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Its session.
    pub session: SessionId,
    /// Its number there, from 1.
    pub n: u64,
    /// The lowest number without an acknowledgement, from 1.
    pub base: u64,
    /// The hash of what the device asked for, legal or not.
    pub content: ContentHash,
    /// The message, or why it is refused for good; the error's code is the verdict.
    pub judged: Result<Draft, FieldError>,
}

/// A back end's send, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSend {
    /// In whose name.
    pub sender: UserId,
    /// The hash of what the back end asked for.
    pub content: ContentHash,
    /// The message; its id is the key beside the sender.
    pub draft: Draft,
}

/// A message that is within all limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// 1 to 256 users, each once, or one group; nobody with `about`.
    pub to: Vec<Recipient>,
    /// The application's kind.
    pub kind: u32,
    /// The application's name for it.
    pub client_msg_id: ClientMsgId,
    /// The application's bytes.
    pub body: Bytes,
    /// An act, instead of a message of its own.
    pub about: Option<About>,
}

/// An act about a message that is there already, checked as far as it can be without a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// What is to be done; a kind that is known.
    pub kind: v1::ActKind,
    /// The epoch in which `seq` counts.
    pub epoch: Epoch,
    /// The message, by its place in the sender's own mailbox.
    pub seq: Seq,
}

impl From<About> for v1::About {
    fn from(About { kind, epoch, seq }: About) -> Self {
        v1::About { kind: kind.into(), epoch: epoch.get(), seq: seq.get() }
    }
}

impl TryFrom<v1::Send> for Send {
    type Error = FieldError;
    fn try_from(send: v1::Send) -> Result<Self, FieldError> {
        checked_send(send).map_err(|error| error.within("send"))
    }
}

fn checked_send(send: v1::Send) -> Result<Send, FieldError> {
    let session = convert::session("session", send.session)?;
    let n = convert::at_least_1("n", send.n)?;
    let base = convert::at_least_1("base", send.base)?;
    let client_msg_id = convert::uuid("client_msg_id", &send.client_msg_id)?;
    let v1::Send { to, kind, body, about, .. } = send;
    let content = content(&to, kind, &body, about.as_ref());
    let judged = draft((to, kind, body, about), client_msg_id);
    let judged = judged.map_err(|error| error.within("send"));
    Ok(Send { session, n, base, content, judged })
}

impl TryFrom<v1::SendRequest> for BackendSend {
    type Error = FieldError;
    fn try_from(send: v1::SendRequest) -> Result<Self, FieldError> {
        Ok(BackendSend {
            sender: convert::name("sender", &send.sender)?,
            content: content(&send.to, send.kind, &send.body, send.about.as_ref()),
            draft: draft(
                (send.to, send.kind, send.body, send.about),
                convert::uuid("client_msg_id", &send.client_msg_id)?,
            )?,
        })
    }
}

/// What was asked for: to whom, of which kind, the body, and an act.
type Asked = (Vec<v1::Id>, u32, Bytes, Option<v1::About>);

fn draft((to, kind, body, about): Asked, client_msg_id: ClientMsgId) -> Result<Draft, FieldError> {
    let (to, about) = match about {
        None => (validate(&to, &body)?, None),
        Some(_) if !to.is_empty() => return Err(FieldError::new("to", Reason::ActWithRecipients)),
        Some(about) => (Vec::new(), Some(validate_act(&about, &body)?)),
    };
    Ok(Draft { to, kind, client_msg_id, body, about })
}

/// Is this an act that can be sent? Whether the message is there only its mailbox knows.
pub fn validate_act(about: &v1::About, body: &[u8]) -> Result<About, FieldError> {
    let unknown = || FieldError::new("about.kind", Reason::UnknownAct { kind: about.kind });
    let kind = match v1::ActKind::try_from(about.kind) {
        Ok(v1::ActKind::Unspecified) | Err(_) => return Err(unknown()),
        Ok(kind) => kind,
    };
    let bytes = body.len();
    if kind != v1::ActKind::Edit && bytes > 0 {
        return Err(FieldError::new("body", Reason::ActWithBody { bytes }));
    }
    if bytes > BODY_BYTES_MAX {
        return Err(FieldError::new("body", Reason::BodyTooLarge { bytes }));
    }
    Ok(About { kind, epoch: Epoch::new(about.epoch), seq: Seq::new(about.seq) })
}

/// Is this a content that can be sent? Gives the recipients, each once.
///
/// An SDK calls it before it numbers a send, so that what can be refused here never takes a number.
/// A content with several faults always gets the same code, the first of: too many recipients, bad
/// recipient, body too large.
pub fn validate(to: &[v1::Id], body: &[u8]) -> Result<Vec<Recipient>, FieldError> {
    let to = recipients(to)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(FieldError::new("body", Reason::BodyTooLarge { bytes: body.len() }));
    }
    Ok(to)
}

fn recipients(to: &[v1::Id]) -> Result<Vec<Recipient>, FieldError> {
    match to.len() {
        0 => return Err(FieldError::new("to", Reason::NoRecipient)),
        1..=RECIPIENTS_MAX => {}
        count => return Err(FieldError::new("to", Reason::TooManyRecipients { count })),
    }
    let mut seen = BTreeSet::new();
    let mut recipients = Vec::with_capacity(to.len());
    for (at, id) in to.iter().enumerate() {
        let field = || format!("to[{at}]");
        let recipient = Recipient::try_from(id).map_err(|error| error.within(field()))?;
        if matches!(recipient, Recipient::Group(_)) && to.len() > 1 {
            return Err(FieldError::new(field(), Reason::GroupNotAlone));
        }
        if seen.insert(recipient.clone()) {
            recipients.push(recipient);
        }
    }
    Ok(recipients)
}

fn content(to: &[v1::Id], kind: u32, body: &[u8], about: Option<&v1::About>) -> ContentHash {
    let parts = to.iter().map(|id| (id.kind, id.name.as_str()));
    let hash = ContentHash::of_parts(parts, kind, body);
    let Some(v1::About { kind, epoch, seq }) = about else { return hash };
    hash.about(&[kind.to_le_bytes(), epoch.to_le_bytes(), seq.to_le_bytes()].concat())
}

impl v1::SendAck {
    /// The acknowledgement of an accepted send.
    pub fn accepted(session: SessionId, n: u64, seq: Seq, time: UnixMs) -> Self {
        let accepted = v1::Accepted { seq: seq.get(), time_ms: time.get() };
        v1::SendAck {
            session: session.get(),
            n,
            result: Some(v1::send_ack::Result::Accepted(accepted)),
        }
    }

    /// The answer to a send that was refused or not taken yet. It carries no message, so that a
    /// stored verdict is the same bytes whichever gateway, of whichever version, tells it (G2).
    pub fn failed(session: SessionId, n: u64, failure: Failure) -> Self {
        let failure = failure.message("");
        v1::SendAck {
            session: session.get(),
            n,
            result: Some(v1::send_ack::Result::Failure(failure.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tidemark_types::ErrorCode;
    use tidemark_types::limits::{FRAME_BYTES_MAX, NAME_BYTES_MAX};

    use super::*;
    use crate::failure::Detail;

    fn user(name: &str) -> v1::Id {
        v1::Id { kind: 1, name: name.to_owned() }
    }

    fn group(name: &str) -> v1::Id {
        v1::Id { kind: 2, name: name.to_owned() }
    }

    fn send(to: Vec<v1::Id>, body: impl Into<Bytes>) -> v1::Send {
        let id = ClientMsgId::new(UnixMs::new(1), [7; 10]);
        v1::Send {
            session: 1,
            n: 1,
            base: 1,
            to,
            kind: 1,
            body: body.into(),
            client_msg_id: convert::bytes_of(id.as_bytes()),
            about: None,
        }
    }

    fn act(kind: i32, to: Vec<v1::Id>, body: &'static str) -> v1::Send {
        let about = Some(v1::About { kind, epoch: 1, seq: 5 });
        v1::Send { about, ..send(to, body) }
    }

    #[test]
    fn an_act_names_a_message_and_nobody() {
        let verdict = |send| {
            let send = Send::try_from(send).expect("it can be answered");
            send.judged.err().map(|error| error.code())
        };
        assert_eq!(verdict(act(1, vec![], "")), None);
        assert_eq!(verdict(act(4, vec![], "new")), None);
        assert_eq!(verdict(act(4, vec![], "")), None, "a body may be empty");
        assert_eq!(verdict(act(2, vec![user("bob")], "")), Some(ErrorCode::BadRecipient));
        assert_eq!(verdict(act(3, vec![], "why")), Some(ErrorCode::BodyTooLarge));
        assert_eq!(verdict(act(0, vec![], "")), Some(ErrorCode::NoMessage));
        assert_eq!(verdict(act(9, vec![], "")), Some(ErrorCode::NoMessage));
    }

    #[test]
    fn every_part_of_an_act_is_content() {
        let hash = |about: Option<v1::About>| {
            let send = v1::Send { about, ..send(vec![], "x") };
            Send::try_from(send).expect("it can be answered").content
        };
        let about = v1::About { kind: 4, epoch: 1, seq: 5 };
        let hashes = [
            hash(None),
            hash(Some(about)),
            hash(Some(v1::About { kind: 3, ..about })),
            hash(Some(v1::About { epoch: 2, ..about })),
            hash(Some(v1::About { seq: 6, ..about })),
        ];
        for (at, one) in hashes.iter().enumerate() {
            assert_eq!(hashes.iter().filter(|other| *other == one).count(), 1, "hash {at}");
        }
    }

    fn verdict(to: Vec<v1::Id>, body: impl Into<Bytes>) -> Option<ErrorCode> {
        let send = Send::try_from(send(to, body)).expect("it can be answered");
        send.judged.err().map(|error| error.code())
    }

    fn users(count: usize) -> Vec<v1::Id> {
        (0..count).map(|at| user(&format!("{at:064}"))).collect()
    }

    #[test]
    fn the_largest_legal_send_fits_into_a_frame() {
        let body = vec![0xff; BODY_BYTES_MAX];
        let numbers =
            v1::Send { session: u64::MAX, n: u64::MAX, base: u64::MAX, ..send(vec![], "") };
        let largest =
            v1::Send { to: users(RECIPIENTS_MAX), kind: u32::MAX, body: body.into(), ..numbers };
        assert_eq!(largest.to[0].name.len(), NAME_BYTES_MAX);
        assert!(Send::try_from(largest.clone()).expect("legal").judged.is_ok());
        assert!(v1::ClientFrame::from(largest).encoded_len() <= FRAME_BYTES_MAX);
    }

    #[test]
    fn limits_give_the_code_that_is_stored() {
        assert_eq!(verdict(vec![user("bob")], ""), None);
        assert_eq!(verdict(vec![group("all")], ""), None);
        assert_eq!(verdict(users(RECIPIENTS_MAX), ""), None);
        let too_many = Some(ErrorCode::TooManyRecipients);
        assert_eq!(verdict(users(RECIPIENTS_MAX + 1), ""), too_many);
        let bad = Some(ErrorCode::BadRecipient);
        assert_eq!(verdict(vec![], ""), bad);
        assert_eq!(verdict(vec![user("")], ""), bad);
        assert_eq!(verdict(vec![user("bob"), group("all")], ""), bad);
        assert_eq!(verdict(vec![group("all"), group("all")], ""), bad);
        assert_eq!(verdict(vec![v1::Id { kind: 3, name: "c".to_owned() }], ""), bad);
        assert_eq!(verdict(vec![user("bob")], vec![0; BODY_BYTES_MAX]), None);
        let large = Some(ErrorCode::BodyTooLarge);
        assert_eq!(verdict(vec![user("bob")], vec![0; BODY_BYTES_MAX + 1]), large);
    }

    #[test]
    fn of_several_faults_it_is_always_the_same_one() {
        let body = vec![0; BODY_BYTES_MAX + 1];
        assert_eq!(verdict(vec![user("")], body.clone()), Some(ErrorCode::BadRecipient));
        let mut many = users(RECIPIENTS_MAX + 1);
        many[0].name.clear();
        assert_eq!(verdict(many, body), Some(ErrorCode::TooManyRecipients));
    }

    #[test]
    fn a_recipient_counts_once() {
        let twice = send(vec![user("bob"), user("eve"), user("bob")], "");
        let once = Send::try_from(send(vec![user("bob"), user("eve")], "")).expect("legal");
        let twice = Send::try_from(twice).expect("legal");
        assert_eq!(
            twice.judged.as_ref().expect("legal").to,
            once.judged.as_ref().expect("legal").to
        );
        assert_ne!(twice.content, once.content, "the hash is of what was asked");
    }

    #[test]
    fn a_refused_send_has_its_own_hash() {
        let hash = |send| Send::try_from(send).expect("it can be answered").content;
        let one = hash(send(vec![user("")], "x"));
        assert_eq!(one, hash(send(vec![user("")], "x")));
        assert_ne!(one, hash(send(vec![user("")], "y")));
        assert_ne!(one, hash(send(vec![group("")], "x")));
        let legal = Send::try_from(send(vec![user("bob")], "x")).expect("legal");
        let draft = legal.judged.expect("legal");
        assert_eq!(legal.content, ContentHash::of(&draft.to, draft.kind, &draft.body));
    }

    #[test]
    fn what_cannot_be_answered_is_invalid() {
        let legal = send(vec![user("bob")], "");
        for (field, spoilt) in [
            ("send.session", v1::Send { session: 0, ..legal.clone() }),
            ("send.n", v1::Send { n: 0, ..legal.clone() }),
            ("send.base", v1::Send { base: 0, ..legal.clone() }),
            ("send.client_msg_id", v1::Send { client_msg_id: Vec::new(), ..legal }),
        ] {
            let error = Send::try_from(spoilt).expect_err("illegal");
            assert_eq!((error.field(), error.code()), (field, ErrorCode::Invalid));
        }
    }

    #[test]
    fn a_back_end_gets_the_same_codes() {
        let request = |sender: &str, to| {
            let send = send(to, "x");
            BackendSend::try_from(v1::SendRequest {
                sender: sender.to_owned(),
                client_msg_id: send.client_msg_id,
                to: send.to,
                kind: send.kind,
                body: send.body,
                about: None,
            })
        };
        assert!(request("alice", vec![user("bob")]).is_ok());
        let code = |refused: Result<_, FieldError>| refused.expect_err("illegal").code();
        assert_eq!(code(request("", vec![user("bob")])), ErrorCode::Invalid);
        assert_eq!(code(request("alice", vec![])), ErrorCode::BadRecipient);
        assert_eq!(code(request("alice", users(257))), ErrorCode::TooManyRecipients);
    }

    /// A stored verdict must be the same bytes for ever, so the bytes themselves stand here.
    #[test]
    fn acknowledgements_keep_their_bytes() {
        let session = SessionId::new(3).expect("legal");
        let accepted = v1::SendAck::accepted(session, 300, Seq::new(5), UnixMs::new(1_000));
        assert_eq!(hex(&accepted.encode_to_vec()), "080310ac021a05080510e807");
        let refused = Failure::new(ErrorCode::BadRecipient).message("send.to[3].name: is empty");
        let refused = v1::SendAck::failed(session, 300, refused);
        assert_eq!(hex(&refused.encode_to_vec()), "080310ac022202083e");
        let early = Failure::new(ErrorCode::OutOfOrder).detail(Detail::Expected(2));
        let early = v1::SendAck::failed(session, 300, early);
        assert_eq!(hex(&early.encode_to_vec()), "080310ac022204082b2802");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

//! What a device may send that is wrong, line by line, over both carriers: each gets its code and
//! words that say what to correct, the connection goes on where that is safe, and the store takes
//! nothing but the refusal of a numbered send (R2).
//!
//! Frames name no shard: that a store node refuses a request for another one is its own test.

use prost::Message as _;
use tidemark_gateway::connect::Carrier;
use tidemark_proto::v1;
use tidemark_proto::v1::failure::Detail;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_proto::{Failure, convert};
use tidemark_types::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, RECIPIENTS_MAX};
use tidemark_types::{ErrorCode, OpenId};

use crate::device::{Device, gateway, hello, hello_at, send};
use crate::socket::{CARRIERS, Served};
use crate::store::Cluster;

/// What a bad frame gets.
enum Gets {
    /// An error that begins with this, and the connection goes on.
    Error(ErrorCode, &'static str),
    /// An error that begins with this, and the end.
    Cut(ErrorCode, &'static str),
    /// The place of its mailbox, and it may say `Hello` again.
    Reset,
}

use Gets::{Cut, Error};

/// A device of alice's that has sent one message, and so has a mailbox with one entry.
struct Rig {
    cluster: std::sync::Arc<Cluster>,
    served: Served,
    device: Device,
    session: u64,
}

/// What the store took before anything was wrong.
const BEFORE: [&str; 4] = ["init", "register alice phone", "open alice", "send 1"];

impl Rig {
    async fn new(carrier: Carrier) -> Self {
        let cluster = Cluster::new();
        let served = Served::new(gateway(&cluster)).await;
        let mut device = served.connect(carrier).await;
        let session = device.open("alice").await;
        device.say(send(session, 1, &["bob"])).await;
        device.ack().await;
        Rig { cluster, served, device, session }
    }

    /// The store took these, after what it took before. Connections that end are no news.
    fn took(&self, line: &str, then: &[&str]) {
        let mut changes = self.cluster.changes();
        changes.retain(|change| !change.starts_with("Depart"));
        assert_eq!(changes, [&BEFORE, then].concat(), "{line}");
    }

    /// Is it served as before?
    async fn goes_on(&mut self, line: &str) {
        self.device.say(v1::Ping { nonce: 77, ..v1::Ping::default() }).await;
        let answer = self.device.answer().await;
        assert!(matches!(answer, Frame::Pong(v1::Pong { nonce: 77, .. })), "{line}: {answer:?}");
    }

    async fn ends(&mut self, line: &str) {
        assert_eq!(self.device.next().await, None, "{line}: the connection ends");
    }
}

/// Checks an answer that is an error: its code, its words, and whether it is the last one.
fn is_error(line: &str, answer: Frame, code: ErrorCode, says: &str, closing: bool) {
    let Frame::Error(error) = answer else { panic!("{line}: {answer:?}") };
    assert_eq!(error.closing, closing, "{line}: {error:?}");
    let failure = Failure::from(error.failure.expect("an error has one"));
    assert_eq!(failure.code, code, "{line}: {failure}");
    assert!(failure.message.starts_with(says), "{line}: {failure}");
}

fn is_reset(line: &str, answer: &Frame, head: u32) {
    let Frame::Reset(reset) = answer else { panic!("{line}: {answer:?}") };
    assert_eq!((reset.epoch, reset.floor, reset.head), (1, 0, head), "{line}");
}

/// A welcomed device says this; nothing is stored.
async fn check(line: &str, frame: impl Fn(&Rig) -> v1::ClientFrame, gets: Gets) {
    for carrier in CARRIERS {
        let line = format!("{line}, {}", carrier.name());
        let mut rig = Rig::new(carrier).await;
        rig.device.say(frame(&rig)).await;
        let answer = rig.device.answer().await;
        match gets {
            Error(code, says) => {
                is_error(&line, answer, code, says, false);
                rig.goes_on(&line).await;
                rig.took(&line, &[]);
            }
            Cut(code, says) => {
                is_error(&line, answer, code, says, true);
                rig.ends(&line).await;
                rig.took(&line, &[]);
            }
            Gets::Reset => {
                is_reset(&line, &answer, 1);
                rig.took(&line, &[]);
                rig.device.greet(hello_at("alice", "phone", 1, 0)).await;
                rig.took(&line, &["register alice phone"]);
            }
        }
    }
}

/// A device that has said nothing yet says this; the store learns of it only where it gets a place.
async fn first(line: &str, frame: impl Into<v1::ClientFrame>, gets: Gets) {
    let frame = frame.into();
    for carrier in CARRIERS {
        let line = format!("{line}, {}", carrier.name());
        let mut rig = Rig::new(carrier).await;
        rig.device = rig.served.connect(carrier).await;
        rig.device.say(frame.clone()).await;
        let answer = rig.device.answer().await;
        match gets {
            Cut(code, says) => {
                is_error(&line, answer, code, says, true);
                rig.ends(&line).await;
                rig.took(&line, &[]);
            }
            Gets::Reset => {
                is_reset(&line, &answer, 1);
                rig.took(&line, &["register alice tablet"]);
                rig.device.greet(hello_at("alice", "tablet", 1, 0)).await;
            }
            Error(..) => unreachable!("nothing goes on before a Hello"),
        }
    }
}

#[tokio::test]
async fn a_frame_that_nobody_knows() {
    let unknown = |_: &Rig| v1::ClientFrame { frame: None };
    let says = "The frame is of a kind that this server does not know";
    check("unknown frame", unknown, Error(ErrorCode::UnknownFrame, says)).await;
    let first_of_all = v1::ClientFrame { frame: None };
    first("unknown first frame", first_of_all, Cut(ErrorCode::UnknownFrame, says)).await;
}

/// gRPC reads it, and goes on; a WebSocket does not, and cannot.
#[tokio::test]
async fn an_oversized_frame() {
    for carrier in CARRIERS {
        let line = carrier.name();
        let mut rig = Rig::new(carrier).await;
        let body = vec![0; FRAME_BYTES_MAX].into();
        let large = v1::ClientFrame::from(v1::Send { body, ..send(rig.session, 2, &["bob"]) });
        let bytes = large.encoded_len();
        rig.device.say(large).await;
        let answer = rig.device.answer().await;
        match carrier {
            Carrier::Grpc => {
                let says = format!("the frame has {bytes} bytes, and may have 262144");
                is_error(line, answer, ErrorCode::FrameTooLarge, &says, false);
                rig.goes_on(line).await;
            }
            Carrier::WebSocket => {
                let says = "a frame may have 262144 bytes";
                is_error(line, answer, ErrorCode::FrameTooLarge, says, true);
                rig.ends(line).await;
            }
        }
        rig.took(line, &[]);
    }
}

#[tokio::test]
async fn a_frame_before_hello() {
    let says = "a connection begins with Hello";
    for (line, frame) in [
        ("send", v1::ClientFrame::from(send(1, 1, &["bob"]))),
        ("open", v1::Open { open_id: vec![3; 16], ends: 0 }.into()),
        ("sync", v1::Sync::default().into()),
        ("ack", v1::Ack::default().into()),
        ("ping", v1::Ping::default().into()),
    ] {
        first(line, frame, Cut(ErrorCode::Unauthenticated, says)).await;
    }
}

#[tokio::test]
async fn a_token_that_is_bad_or_expired_or_anothers() {
    let token = |token: &str| v1::Hello { token: token.to_owned(), ..hello("alice", "tablet") };
    let none = Cut(ErrorCode::Unauthenticated, "No token, or one that does not verify");
    first("no token", token(""), none).await;
    let bad = Cut(ErrorCode::Unauthenticated, "No token, or one that does not verify");
    first("bad token", token("garbage"), bad).await;
    let expired = Cut(ErrorCode::TokenExpired, "The token was good and has expired");
    first("expired token", token("alice:0"), expired).await;
    let other = Cut(ErrorCode::PermissionDenied, "it is another's");
    first("another user's token", token("mallory:1000000"), other).await;
}

#[tokio::test]
async fn another_user_in_a_frame() {
    let other = Cut(ErrorCode::PermissionDenied, "the connection is another user's or device's");
    check("a second Hello, as bob", |_| hello("bob", "phone").into(), other).await;
    let status = |_: &Rig| {
        let key = v1::origin::Key::SessionSend(v1::SessionSend { session: 1, n: 1 });
        let origin = Some(v1::Origin { sender: "bob".to_owned(), key: Some(key) });
        v1::Status { request_id: 5, origin }.into()
    };
    let says = "status.origin.sender: it is another user";
    check("what became of bob's send", status, Error(ErrorCode::PermissionDenied, says)).await;
    // Another device's session is not this one's to use.
    let says = "session: ";
    let foreign = |rig: &Rig| send(rig.session + 1, 1, &["bob"]).into();
    check("a session that is nobody's", foreign, Cut(ErrorCode::Invalid, says)).await;
}

#[tokio::test]
async fn a_cursor_above_the_head_or_of_another_epoch() {
    for (line, epoch, seq) in [("above the head", 1, 2), ("another epoch", 2, 1)] {
        first(line, hello_at("alice", "tablet", epoch, seq), Gets::Reset).await;
        let frames = [
            v1::ClientFrame::from(v1::Sync { request_id: 4, epoch, seq_cli: seq, limit: 0 }),
            v1::Ack { epoch, seq }.into(),
            v1::Ping { nonce: 1, epoch, seq_cli: seq }.into(),
        ];
        for frame in frames {
            check(line, |_| frame.clone(), Gets::Reset).await;
        }
    }
}

#[tokio::test]
async fn a_send_out_of_order() {
    for carrier in CARRIERS {
        let line = carrier.name();
        let mut rig = Rig::new(carrier).await;
        rig.device.say(send(rig.session, 3, &["bob"])).await;
        let ack = rig.device.ack().await;
        let Some(v1::send_ack::Result::Failure(failure)) = ack.result else { panic!("{line}") };
        assert_eq!(failure.code(), v1::ErrorCode::OutOfOrder, "{line}");
        assert_eq!(failure.detail, Some(Detail::Expected(2)), "{line}");
        rig.goes_on(line).await;
        rig.took(line, &[]);
    }
    let at = |n: u64, base: u64| {
        move |rig: &Rig| {
            v1::ClientFrame::from(v1::Send { n, base, ..send(rig.session, n, &["bob"]) })
        }
    };
    check("n is 0", at(0, 1), Cut(ErrorCode::Invalid, "send.n: is 0, and must be")).await;
    check("base is 0", at(2, 0), Cut(ErrorCode::Invalid, "send.base: is 0, and must be")).await;
    check("base is above", at(9, 9), Cut(ErrorCode::Invalid, "base 9 is above the next n 2")).await;
}

/// The longest name there may be, and a byte more.
fn long() -> String {
    "x".repeat(65)
}

#[tokio::test]
async fn empty_and_long_ids_in_a_hello() {
    let good = || hello("alice", "tablet");
    let says = |says| Cut(ErrorCode::Invalid, says);
    for (line, frame, words) in [
        ("no user", v1::Hello { user: String::new(), ..good() }, "hello.user: "),
        ("a long user", v1::Hello { user: long(), ..good() }, "hello.user: "),
        ("no device", v1::Hello { device: String::new(), ..good() }, "hello.device: "),
        ("a long device", v1::Hello { device: long(), ..good() }, "hello.device: "),
        ("half a cluster", v1::Hello { cluster_id: vec![7; 8], ..good() }, "hello.cluster_id: "),
        ("a long agent", v1::Hello { agent: long(), ..good() }, "hello.agent: "),
        ("no start", v1::Hello { start: None, ..good() }, "hello.start: is missing"),
        ("seq without epoch", v1::Hello { seq_cli: 1, ..good() }, "hello.seq_cli: contradicts"),
    ] {
        first(line, frame, says(words)).await;
    }
    let other = v1::Hello { cluster_id: vec![8; 16], ..good() };
    let says = "The request names another cluster";
    first("another cluster", other, Cut(ErrorCode::WrongCluster, says)).await;
}

#[tokio::test]
async fn ids_by_which_nothing_can_be_answered() {
    let open = |_: &Rig| v1::Open { open_id: vec![1; 15], ends: 0 }.into();
    check("a short open_id", open, Cut(ErrorCode::Invalid, "open.open_id: ")).await;
    for bytes in [vec![], vec![1; 15], OpenId::from_bytes([1; 16]).unwrap().as_bytes().to_vec()] {
        let client_msg_id = move |rig: &Rig| {
            let client_msg_id = bytes.clone();
            v1::Send { client_msg_id, ..send(rig.session, 2, &["bob"]) }.into()
        };
        let says = Cut(ErrorCode::Invalid, "send.client_msg_id: ");
        check("a client_msg_id that is no UUIDv7", client_msg_id, says).await;
    }
    let status = |_: &Rig| v1::Status { request_id: 5, origin: None }.into();
    let says = "status.origin: is missing";
    check("a status of nothing", status, Cut(ErrorCode::Invalid, says)).await;
}

/// These have a number, so that their refusal is their verdict: stored, the same when repeated, and
/// the sends after them go on.
#[tokio::test]
async fn a_numbered_send_with_bad_content() {
    let user = |name: &str| v1::Id { kind: 1, name: name.to_owned() };
    let group = v1::Id { kind: 2, name: "team".to_owned() };
    let counter = v1::Id { kind: 3, name: "orders".to_owned() };
    let to = |to: Vec<v1::Id>| v1::Send { to, ..v1::Send::default() };
    let large = vec![0; BODY_BYTES_MAX + 1].into();
    let large = v1::Send { body: large, ..to(vec![user("bob")]) };
    for (line, wrong, code) in [
        ("no recipient", to(vec![]), ErrorCode::BadRecipient),
        ("an empty name", to(vec![user("bob"), user("")]), ErrorCode::BadRecipient),
        ("a long name", to(vec![user(&long())]), ErrorCode::BadRecipient),
        ("an id of no kind", to(vec![v1::Id { kind: 9, ..user("bob") }]), ErrorCode::BadRecipient),
        ("a counter", to(vec![counter]), ErrorCode::BadRecipient),
        ("a group beside others", to(vec![group, user("bob")]), ErrorCode::BadRecipient),
        (
            "too many recipients",
            to(vec![user("bob"); RECIPIENTS_MAX + 1]),
            ErrorCode::TooManyRecipients,
        ),
        ("a large body", large, ErrorCode::BodyTooLarge),
    ] {
        for carrier in CARRIERS {
            refused(&format!("{line}, {}", carrier.name()), carrier, &wrong, code).await;
        }
    }
}

async fn refused(line: &str, carrier: Carrier, wrong: &v1::Send, code: ErrorCode) {
    let mut rig = Rig::new(carrier).await;
    let good = send(rig.session, 2, &[]);
    let bad = v1::Send { to: wrong.to.clone(), body: wrong.body.clone(), ..good };
    let mut told = Vec::new();
    for _ in 0..2 {
        rig.device.say(bad.clone()).await;
        let ack = rig.device.ack().await;
        let Some(v1::send_ack::Result::Failure(failure)) = &ack.result else { panic!("{line}") };
        assert_eq!(convert::error_code(failure.code), code, "{line}");
        told.push(ack.encode_to_vec());
    }
    assert_eq!(told[0], told[1], "{line}");
    rig.device.say(send(rig.session, 3, &["bob"])).await;
    let ack = rig.device.ack().await;
    assert!(matches!(ack.result, Some(v1::send_ack::Result::Accepted(_))), "{line}: {ack:?}");
    let refusal = format!("refuse 2 {code}");
    rig.took(line, &[&refusal, &refusal, "send 3"]);
}

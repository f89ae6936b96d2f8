//! The bytes of every value and command, held still in `tests/testdata/formats.txt`.
//!
//! A difference there means that nodes of two versions, or a node and its own disk, no longer
//! understand each other: raise the version, teach the decoder the old one, and say so in the
//! commit and the changelog. Update with `UPDATE_GOLDENFILES=1`.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use tidemark_store_core::Command;
use tidemark_store_core::act::*;
use tidemark_store_core::command::{
    Arrival, BackendSend, Batch, Confirmation, Draft, Judged, Send, Start,
};
use tidemark_store_core::feed::{Feed, FeedChange, FeedRecord};
use tidemark_store_core::group::*;
use tidemark_store_core::slot::*;
use tidemark_store_core::value::*;
use tidemark_types::*;

#[test]
fn encoded_bytes_are_what_they_were() {
    let mut lines = String::new();
    values(&mut lines);
    feed(&mut lines);
    for command in commands().into_iter().chain(device_commands()).chain(check_commands()) {
        let batch = Batch { time: UnixMs::new(1_000), commands: vec![command] };
        assert_eq!(Batch::decode(&batch.encode()).as_ref(), Ok(&batch));
        assert!(batch.commands[0].cost() >= batch.encode().len(), "{batch:?}");
        let name = format!("{:?}", batch.commands[0]);
        let name = name.split([' ', '(']).next().unwrap();
        line(&mut lines, name, &batch.encode());
    }
    let mut golden = goldenfile::Mint::new("tests/testdata");
    let mut file = golden.new_goldenfile("formats.txt").unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

#[test]
fn many_confirmations_cost_no_less_than_they_take() {
    let name = "x".repeat(limits::NAME_BYTES_MAX);
    let one = Confirmation {
        user: user(&name),
        device: DeviceId::new(&*name).unwrap(),
        epoch: Epoch::new(u32::MAX),
        seq: Seq::new(u32::MAX),
    };
    let many = Command::ConfirmMany { confirmations: vec![one; limits::CONFIRMATIONS_MAX] };
    assert!(many.cost() >= many.encode().len());
}

fn line(lines: &mut String, name: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(lines, "{name} {hex}").unwrap();
}

fn value<V: Value + PartialEq + Debug>(lines: &mut String, value: &V) {
    assert_eq!(V::decode(&value.encode()).as_ref(), Ok(value));
    line(lines, V::NAME, &value.encode());
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("phone").unwrap()
}

fn confirmation(seq: u32) -> Confirmation {
    Confirmation { user: user("alice"), device: device(), epoch: Epoch::FIRST, seq: Seq::new(seq) }
}

fn id() -> ClientMsgId {
    ClientMsgId::new(UnixMs::new(1_000), [7; 10])
}

fn session() -> SessionId {
    SessionId::new(5).unwrap()
}

fn label() -> Label {
    Label { name: "Alice's phone".to_owned(), platform: "Android 17".to_owned() }
}

fn target() -> PushTarget {
    PushTarget { provider: "fcm".to_owned(), target: "token".to_owned() }
}

fn settings() -> Settings {
    Settings { mailbox_entries_max: 300, ..Settings::default() }
}

fn message() -> Message {
    Message {
        device: Some(device()),
        sent: UnixMs::new(900),
        client_msg_id: id(),
        kind: 2,
        body: Bytes::from_static(b"hi"),
        act: None,
    }
}

/// What is done about another message.
fn act(kind: ActKind) -> Message {
    let [_, of] = origins();
    Message { act: Some(Act { kind, of }), ..message() }
}

fn origins() -> [Origin; 2] {
    [
        Origin::Session { sender: user("alice"), session: session(), n: 300 },
        Origin::Backend { sender: user("alice"), id: id() },
    ]
}

fn payloads() -> [Payload; 5] {
    let [one, two] = origins();
    let refusals = vec![(Recipient::User(user("bob")), ErrorCode::Blocked)];
    let group = group_id();
    [
        Payload::Message { origin: one.clone(), message: message(), to: vec![user("bob")] },
        Payload::Refused { origin: two.clone(), refusals },
        Payload::GroupPost { origin: one, message: message(), group },
        Payload::GroupEntry {
            origin: two,
            entry: group_entry(GroupEvent::Message(message())),
            to: vec![user("bob")],
            more: true,
        },
        Payload::MoreMembers {
            group: group_id(),
            seq: Seq::new(300),
            to: vec![user("bob")],
            more: false,
        },
    ]
}

fn group_id() -> GroupId {
    GroupId::new("team").unwrap()
}

fn group_entry(event: GroupEvent) -> GroupEntry {
    GroupEntry { group: group_id(), seq: Seq::new(300), event }
}

fn events() -> [GroupEvent; 7] {
    let users = vec![user("bob"), user("carol")];
    [
        GroupEvent::Message(message()),
        GroupEvent::Created { members: users.clone() },
        GroupEvent::Joined { users: users.clone() },
        GroupEvent::Left { users },
        GroupEvent::RoleSet { user: user("bob"), role: Role::Owner },
        GroupEvent::PolicySet { policy: policy() },
        GroupEvent::Deleted,
    ]
}

fn policy() -> Policy {
    Policy { post: Who::Admins, add: Who::Everybody, open: true }
}

fn a_group(lines: &mut String) {
    let group = Group {
        creation: 300,
        owner: user("alice"),
        members: 2,
        members_max: 500,
        policy: policy(),
        deleted: false,
        fan_out: Some(FanOut::Giving {
            seq: Seq::new(300),
            buckets: 1,
            open: vec![ShardId::new(3)],
        }),
    };
    value(lines, &group);
    value(lines, &Group { deleted: true, fan_out: Some(FanOut::Sweeping), ..group });
    let spans = vec![
        Span { from: Seq::new(2), to: Some(Seq::new(300)) },
        Span { from: Seq::new(301), to: None },
    ];
    let member = Member { user: user("bob"), role: Some(Role::Admin), spans: spans.clone() };
    let left = Member { user: user("carol"), role: None, spans };
    value(lines, &Members { members: vec![member, left] });
    value(lines, &Waiting);
    let reference = Reference { time: UnixMs::new(1_000), group: group_id(), seq: Seq::new(300) };
    value(lines, &reference);
    let content = Content::Group(group_entry(GroupEvent::Message(message())));
    let [origin, _] = origins();
    let entry = Entry { time: UnixMs::new(1_000), origin, content };
    value(lines, &Shared { entry: entry.clone() });
    value(lines, &Holders { references: 300, open: true });
    for slot in [Slot::Own(entry), Slot::Shared(reference)] {
        assert_eq!(Slot::decode(&slot.encode()), Ok(slot));
    }
    for event in events() {
        let origin = Origin::Group { sender: user("alice"), group: group_id(), seq: Seq::new(300) };
        let content = Content::Group(group_entry(event));
        value(lines, &Entry { time: UnixMs::new(1_000), origin, content });
    }
}

fn feed(lines: &mut String) {
    value(lines, &Feed { head: 300, floor: 3 });
    let changes = vec![
        FeedChange::Entry { mailbox: Recipient::User(user("alice")), seq: Seq::new(300) },
        FeedChange::Device {
            user: user("alice"),
            device: device(),
            epoch: Epoch::new(1),
            cursor: Seq::new(299),
            connected: true,
            logged_out: UnixMs::new(1_000),
        },
        FeedChange::Forgotten { user: user("alice"), device: device() },
    ];
    value(lines, &FeedRecord { time: UnixMs::new(1_000), changes });
}

fn map() -> ClusterMap {
    let cluster = ClusterId::from_bytes([9; 16]).unwrap();
    let node = |number| (NodeId::new(number), NodeAddress { grpc: "host:1".to_owned() });
    let shards = ShardCount::new(2).unwrap();
    ClusterMap::new(cluster, shards, [node(1), node(2)].into(), settings())
}

fn values(lines: &mut String) {
    let time = UnixMs::new(1_000);
    let content = ContentHash::new(0x0123_4567_89ab_cdef);
    let accepted = Ack { content, verdict: Verdict::Accepted { seq: Seq::new(300), time } };
    let refused = Ack { content, verdict: Verdict::Refused(ErrorCode::BodyTooLarge) };
    value(
        lines,
        &Shard {
            cluster: ClusterId::from_bytes([9; 16]).unwrap(),
            shard: ShardId::new(3),
            shards: ShardCount::new(8).unwrap(),
            hash_version: 1,
            settings: settings(),
            time,
            expired_to: time,
            dedup_floor: time,
            allocate_floor: time,
            refusals_unwritable: 1,
            blocked_silently: 2,
            dropped: 300,
            group_entries_untaken: 3,
        },
    );
    value(lines, &Chain { hash: 0x0123_4567_89ab_cdef });
    value(
        lines,
        &Mailbox { floor: Seq::new(2), head: Seq::new(300), last_session: 7, ..Mailbox::default() },
    );
    let [one, two] = origins();
    let outgoing = Outgoing {
        to: vec![Recipient::User(user("bob")), Recipient::Group(GroupId::new("team").unwrap())],
        records: vec![(ShardId::new(3), OutSeq::new(300))],
        dropped: true,
    };
    let own = Content::Message { message: message(), outgoing: Some(outgoing) };
    let theirs = Content::Message { message: message(), outgoing: None };
    let refusal =
        Content::Refused { recipient: Recipient::User(user("bob")), code: ErrorCode::NoMailbox };
    value(lines, &Entry { time, origin: one.clone(), content: own });
    value(lines, &Entry { time, origin: two, content: theirs });
    for kind in [ActKind::Delivered, ActKind::Read, ActKind::Recall, ActKind::Edit] {
        let content = Content::Message { message: act(kind), outgoing: None };
        value(lines, &Entry { time, origin: one.clone(), content });
    }
    value(lines, &Marks { delivered: Seq::new(300), read: Seq::new(299) });
    value(lines, &Entry { time, origin: one, content: refusal });
    value(lines, &a_device());
    value(lines, &Devices { names: vec![device()], last_number: 300 });
    value(lines, &Due { since: time });
    let from = AcceptFrom::Contacts;
    value(lines, &Mailbox { accept_from: from, allows: 300, ..Mailbox::default() });
    value(lines, &Block);
    value(lines, &Allow);
    value(lines, &a_session());
    value(lines, &accepted);
    value(lines, &refused);
    value(lines, &Idle);
    let (head, trim) = (OutSeq::new(300), OutSeq::new(200));
    value(lines, &Outbound { head, trim, head_bytes: 70_000, trim_bytes: 60_000, returns: trim });
    for payload in payloads() {
        value(lines, &OutRecord { bytes_upto: 70_000, payload });
    }
    value(lines, &Inbound { in_seq: head });
    value(lines, &Sent { ack: accepted });
    value(lines, &Counter { last: 300 });
    value(lines, &Allocated { first: 300, count: 2 });
    value(lines, &map());
    a_group(lines);
}

fn a_device() -> Device {
    let time = UnixMs::new(1_000);
    Device {
        epoch: Epoch::FIRST,
        cursor: Seq::new(300),
        last_seen: time,
        live: Some(session()),
        ended: vec![SessionId::new(4).unwrap()],
        label: label(),
        connection: 300,
        connected: true,
        logged_out: time,
        push: Some(PushToken { target: target(), version: 299, registered: time }),
        pushed_upto: Seq::new(299),
        pushed_at: time,
    }
}

fn a_session() -> Session {
    Session {
        device: device(),
        open_id: OpenId::from_bytes([8; 16]).unwrap(),
        ended: false,
        base: 300,
        last_n: 301,
        used_day: 20_000,
    }
}

/// What came with devices' connections, hints and retention, in the order of their kinds.
fn device_commands() -> Vec<Command> {
    let (user, device) = (user("alice"), device());
    vec![
        Command::LogOut { user: user.clone(), device: device.clone() },
        Command::Depart { user: user.clone(), device: device.clone(), connection: 300 },
        Command::SetPush { user: user.clone(), device: device.clone(), target: Some(target()) },
        Command::PushSent {
            user: user.clone(),
            device: device.clone(),
            epoch: Epoch::FIRST,
            upto: Seq::new(300),
        },
        Command::DropPush {
            user: user.clone(),
            device,
            version: 300,
            since: Some(UnixMs::new(300)),
        },
        Command::Retain { mailbox: Recipient::User(user) },
    ]
}

/// What came with contacts and verdicts of checks, in the order of their kinds.
fn check_commands() -> Vec<Command> {
    let (user, draft) = (user("alice"), draft());
    let content = ContentHash::of(&draft.to, draft.kind, &draft.body);
    vec![
        Command::AcceptFrom { user: user.clone(), from: AcceptFrom::Contacts },
        Command::Allow { user: user.clone(), sender: self::user("bob"), allowed: true },
        Command::RefuseBackend {
            sender: user.clone(),
            id: id(),
            content,
            code: ErrorCode::Filtered,
        },
        Command::DropBackend(BackendSend { sender: user, content, draft }),
    ]
}

fn draft() -> Draft {
    Draft {
        to: vec![Recipient::User(user("bob"))],
        kind: 2,
        client_msg_id: id(),
        body: Bytes::from_static(b"hi"),
        act: None,
    }
}

fn asked(kind: ActKind) -> Draft {
    let act = Some(Asked { kind, epoch: Epoch::FIRST, seq: Seq::new(300) });
    Draft { to: Vec::new(), act, ..draft() }
}

fn commands() -> Vec<Command> {
    let (user, device, shard) = (user("alice"), device(), ShardId::new(3));
    let draft = draft();
    let content = ContentHash::of(&draft.to, draft.kind, &draft.body);
    let send = |judged| Send {
        user: self::user("alice"),
        device: self::device(),
        session: session(),
        n: 300,
        base: 299,
        content,
        judged,
    };
    let counter = CounterId::new("orders").unwrap();
    let records = payloads().into_iter().zip(300..);
    let records = records.map(|(payload, out_seq)| (OutSeq::new(out_seq), payload)).collect();
    vec![
        Command::Init {
            cluster: ClusterId::from_bytes([9; 16]).unwrap(),
            shard,
            shards: ShardCount::new(8).unwrap(),
            hash_version: 1,
            settings: settings(),
        },
        Command::Configure {
            settings: Settings { session_idle: Duration::from_millis(1_500), ..settings() },
        },
        Command::RegisterDevice {
            user: user.clone(),
            device: device.clone(),
            start: Start::Last(300),
            arrival: Some(Arrival { issued: UnixMs::new(300) }),
            label: Some(label()),
        },
        Command::ForgetDevice { user: user.clone(), device: device.clone() },
        Command::Open {
            user: user.clone(),
            device: device.clone(),
            open_id: OpenId::from_bytes([8; 16]).unwrap(),
            ends: Some(session()),
        },
        Command::Send(send(Judged::Allow(draft.clone()))),
        Command::Send(send(Judged::Refuse(ErrorCode::BadRecipient))),
        Command::Send(send(Judged::Drop(draft.clone()))),
        Command::Send(send(Judged::Allow(asked(ActKind::Read)))),
        Command::Send(send(Judged::Allow(asked(ActKind::Edit)))),
        Command::BackendSend(BackendSend { sender: user.clone(), content, draft: draft.clone() }),
        Command::Confirm { user: user.clone(), device, epoch: Epoch::FIRST, seq: Seq::new(300) },
        Command::RelayIn { source: shard, records },
        Command::TrimOutbox { shard, upto: OutSeq::new(300), returns: OutSeq::new(200) },
        Command::TrimMailbox { user: user.clone(), upto: Seq::new(300) },
        Command::DeleteMailbox { user: user.clone() },
        Command::Adopt { user: user.clone(), seq: Seq::new(300) },
        Command::Block { user: user.clone(), sender: self::user("bob"), blocked: true },
        Command::Silence { user: user.clone(), silent: true },
        Command::Allocate { counter: counter.clone(), count: 300, id: Some(id()) },
        Command::Expire { now: UnixMs::new(300) },
        Command::CreateCluster { map: map() },
        Command::AllocateMany { allocations: vec![(counter.clone(), 1), (counter, 300)] },
        Command::ConfirmMany { confirmations: vec![confirmation(300), confirmation(1)] },
    ]
    .into_iter()
    .chain(group_commands())
    .collect()
}

fn group_commands() -> Vec<Command> {
    let users = vec![user("bob"), user("carol")];
    let new = NewGroup {
        owner: user("alice"),
        members: users.clone(),
        members_max: 500,
        policy: policy(),
    };
    let actions = [
        GroupAction::Create(new),
        GroupAction::Add { users: users.clone() },
        GroupAction::Remove { users },
        GroupAction::SetRole { user: user("bob"), role: Role::Admin },
        GroupAction::SetPolicy { policy: policy() },
        GroupAction::Delete,
    ];
    let by = [Some(user("alice")), None].into_iter().cycle();
    let commands = actions
        .into_iter()
        .zip(by)
        .map(|(action, by)| Command::Group(GroupCommand { group: group_id(), by, action }));
    commands.chain([Command::FanOut { group: group_id() }]).collect()
}

#[test]
fn a_command_of_an_unknown_kind_is_not_a_batch() {
    let batch =
        Batch { time: UnixMs::new(0), commands: vec![Command::Expire { now: UnixMs::new(0) }] };
    let mut bytes = batch.encode().to_vec();
    let kind = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(Batch::decode(&bytes.clone().into()).is_ok());
    bytes[kind] += 1;
    assert!(Batch::decode(&bytes.into()).is_err());
}

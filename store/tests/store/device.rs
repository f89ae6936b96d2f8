//! A device that sends: registers, opens a session, numbers its sends.

use bytes::Bytes;
use tidemark_store::node::Node;
use tidemark_store::shard;
use tidemark_store_core::command::{Command, Draft, Judged, Send, Start};
use tidemark_store_core::{Reply, value::Verdict};
use tidemark_types::{
    ClientMsgId, ContentHash, DeviceId, OpenId, Recipient, SessionId, UnixMs, UserId,
};

const KIND: u32 = 1;

/// The only device of a user, with its live session.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
}

impl Device {
    /// Says hello and opens a session in place of the live one; `open_id` must be a new one.
    pub(crate) async fn open(
        node: &Node,
        user: &UserId,
        open_id: [u8; 16],
    ) -> Result<Device, shard::Error> {
        let user = user.clone();
        let register = Command::RegisterDevice {
            user: user.clone(),
            device: device(),
            start: Start::Floor,
            arrival: None,
            label: None,
        };
        let ends = match node.propose(register).await? {
            Reply::Registered(registered) => registered.live,
            other => panic!("registering {user}: {other:?}"),
        };
        let open_id = OpenId::from_bytes(open_id).unwrap();
        let open = Command::Open { user: user.clone(), device: device(), open_id, ends };
        match node.propose(open).await? {
            Reply::Opened { session } => Ok(Device { user, session }),
            other => panic!("opening a session of {user}: {other:?}"),
        }
    }

    /// Send number `n`; a retry is the same command.
    pub(crate) fn send(&self, n: u64, base: u64, to: Vec<Recipient>, body: Bytes) -> Command {
        let content = ContentHash::of(&to, KIND, &body);
        let draft = Draft { to, kind: KIND, client_msg_id: message_id(n), body, act: None };
        Command::Send(Send {
            user: self.user.clone(),
            device: device(),
            session: self.session,
            n,
            base,
            content,
            judged: Judged::Allow(draft),
        })
    }
}

/// What every user calls its device.
pub(crate) fn device() -> DeviceId {
    DeviceId::new("phone").unwrap()
}

/// The stored verdict that a send was answered with.
pub(crate) fn verdict(reply: Result<Reply, shard::Error>) -> Result<Verdict, String> {
    match reply {
        Ok(Reply::Sent(verdict)) => Ok(verdict),
        other => Err(format!("{other:?}")),
    }
}

fn message_id(n: u64) -> ClientMsgId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    ClientMsgId::new(UnixMs::new(1_700_000_000_000), random)
}

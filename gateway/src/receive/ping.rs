//! Where the mailbox stands, for a device that compares (R15).

use std::sync::Arc;

use tidemark_proto::{Failure, Position, v1};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::Mailbox;
use tidemark_types::{Epoch, Recipient, Seq, UnixMs, UserId};

use super::ask;
use crate::failure;
use crate::store::Store;

/// What a `Ping` gets.
#[derive(Debug)]
pub(crate) enum Pinged {
    /// The answer; the caller sets the time.
    Pong(v1::Pong),
    /// The cursor is of another epoch or above the head (R11).
    Reset(Position),
    /// Nobody could be asked.
    Failed(Failure),
}

/// The answer from a head that the watch keeps fresh, unless the cursor contradicts it: whether a
/// cursor is impossible is for the store to say.
pub(crate) fn cached(ping: &v1::Ping, head: (Epoch, Seq)) -> Option<v1::Pong> {
    let (epoch, head) = head;
    let agrees = ping.epoch == epoch.get() && Seq::new(ping.seq_cli) <= head;
    agrees.then(|| pong(ping.nonce, epoch, head))
}

/// The answer from the mailbox's leader.
pub(crate) async fn ping(store: Arc<dyn Store>, user: UserId, ping: v1::Ping) -> Pinged {
    let query = Query::Mailbox { mailbox: Recipient::User(user) };
    let Mailbox { epoch, floor, head, .. } = match ask(store.as_ref(), query).await {
        Ok(Answer::Mailbox(mailbox)) => mailbox,
        Ok(answer) => return Pinged::Failed(failure::of_answer(answer)),
        Err(failure) => return Pinged::Failed(failure),
    };
    let (named, seq) = (Epoch::new(ping.epoch), Seq::new(ping.seq_cli));
    // Epoch 0: the device has no cursor yet, so it cannot be wrong.
    if named != Epoch::NONE && (named != epoch || seq > head) {
        return Pinged::Reset(Position { epoch, floor, head });
    }
    Pinged::Pong(pong(ping.nonce, epoch, head))
}

fn pong(nonce: u64, epoch: Epoch, head: Seq) -> v1::Pong {
    let server_time_ms = UnixMs::default().get();
    v1::Pong { nonce, epoch: epoch.get(), seq_svr: head.get(), server_time_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_above_the_heard_head_is_for_the_store_to_judge() {
        let head = (Epoch::FIRST, Seq::new(7));
        let ping = |epoch, seq_cli| v1::Ping { nonce: 3, epoch, seq_cli };
        let pong = cached(&ping(1, 7), head).expect("it agrees");
        assert_eq!((pong.nonce, pong.epoch, pong.seq_svr), (3, 1, 7));
        assert!(cached(&ping(1, 2), head).is_some());
        assert!(cached(&ping(1, 8), head).is_none());
        assert!(cached(&ping(2, 7), head).is_none());
        assert!(cached(&ping(0, 0), head).is_none());
    }
}

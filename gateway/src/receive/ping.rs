//! Where the mailbox stands, for a device that compares (R15).

use std::sync::Arc;

use tidemark_proto::{Failure, Position, v1};
use tidemark_store_core::value::Mailbox;
use tidemark_types::{Epoch, Seq, UserId};

use super::mailbox;
use crate::store::Store;

/// The answer from a head that the watch keeps fresh, unless the cursor contradicts it: whether a
/// cursor is impossible is for the store to say.
pub(crate) fn cached(ping: &v1::Ping, head: (Epoch, Seq)) -> Option<v1::Pong> {
    let (epoch, head) = head;
    let agrees = ping.epoch == epoch.get() && Seq::new(ping.seq_cli) <= head;
    agrees.then(|| pong(ping.nonce, epoch, head))
}

/// The answer from the mailbox's leader.
pub(crate) async fn ping(
    store: Arc<dyn Store>,
    user: UserId,
    ping: v1::Ping,
) -> Result<v1::Pong, Failure> {
    let Mailbox { epoch, floor, head, .. } = mailbox(store.as_ref(), user).await?;
    let (named, seq) = (Epoch::new(ping.epoch), Seq::new(ping.seq_cli));
    // Epoch 0: the device has no cursor yet, so it cannot be wrong.
    if named != Epoch::NONE && (named != epoch || seq > head) {
        return Err(Position { epoch, floor, head }.into());
    }
    Ok(pong(ping.nonce, epoch, head))
}

/// A `Pong` of which the connection sets the time.
fn pong(nonce: u64, epoch: Epoch, head: Seq) -> v1::Pong {
    v1::Pong { nonce, epoch: epoch.get(), seq_svr: head.get(), ..v1::Pong::default() }
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

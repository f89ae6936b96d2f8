//! What became of a message, as the shard of its sender knows it.

use std::sync::Arc;

use tidemark_proto::{Failure, Origin, convert, v1};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::status::{MessageStatus, Stage};
use tidemark_store_core::value;
use tidemark_types::{ErrorCode, Recipient, UserId};

use super::ask;
use crate::failure;
use crate::store::Store;

/// Which message a device asks for: one of its user's own.
pub(crate) fn asked(user: &UserId, status: &v1::Status) -> Result<Origin, Failure> {
    let origin: Origin = convert::nested("origin", status.origin.as_ref())
        .map_err(|error| error.within("status"))?;
    match origin.sender() == user {
        true => Ok(origin),
        false => Err(Failure::new(ErrorCode::PermissionDenied)
            .message("status.origin.sender: it is another user")),
    }
}

/// Asks what became of it.
pub(crate) async fn status(
    store: Arc<dyn Store>,
    origin: Origin,
) -> Result<v1::MessageStatus, Failure> {
    let origin = match origin {
        Origin::Session { sender, session, n } => value::Origin::Session { sender, session, n },
        Origin::Backend { sender, id } => value::Origin::Backend { sender, id },
        Origin::Group { sender, group, seq } => value::Origin::Group { sender, group, seq },
    };
    match ask(store.as_ref(), Query::Message { origin }).await? {
        Answer::Message(None) => Ok(v1::MessageStatus::default()),
        Answer::Message(Some(status)) => Ok(known(&status)),
        other => Err(failure::of_answer(other)),
    }
}

fn known(status: &MessageStatus) -> v1::MessageStatus {
    v1::MessageStatus {
        stage: lowest(status).into(),
        seq: status.seq.get(),
        time_ms: status.time.get(),
        recipients: status.recipients.iter().map(|(to, stage)| recipient(to, *stage)).collect(),
    }
}

/// The lowest stage of those who did not refuse.
fn lowest(status: &MessageStatus) -> v1::Stage {
    let mut stages = status.recipients.iter().map(|(_, stage)| wire(*stage));
    match stages.clone().filter(|stage| *stage != v1::Stage::Refused).min() {
        Some(lowest) => lowest,
        // Nobody is left, or nothing is known of them.
        None => stages.next().unwrap_or(v1::Stage::Accepted),
    }
}

fn wire(stage: Stage) -> v1::Stage {
    match stage {
        Stage::Accepted => v1::Stage::Accepted,
        Stage::Delivered => v1::Stage::Delivered,
        Stage::Refused(_) => v1::Stage::Refused,
    }
}

fn recipient(to: &Recipient, stage: Stage) -> v1::RecipientStatus {
    let refused = match stage {
        Stage::Refused(code) => v1::ErrorCode::from(code),
        Stage::Accepted | Stage::Delivered => v1::ErrorCode::Unspecified,
    };
    v1::RecipientStatus {
        recipient: Some(to.into()),
        stage: wire(stage).into(),
        refused: refused.into(),
        ..v1::RecipientStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use tidemark_types::{ErrorCode, Seq, UnixMs, UserId};

    use super::*;

    fn stage(stages: &[Stage]) -> v1::Stage {
        let user = Recipient::User(UserId::new("bob").expect("legal"));
        let recipients = stages.iter().map(|stage| (user.clone(), *stage)).collect();
        let known = MessageStatus { seq: Seq::new(3), time: UnixMs::new(9), recipients };
        let status = super::known(&known);
        assert_eq!((status.seq, status.time_ms), (3, 9));
        status.stage()
    }

    #[test]
    fn a_message_is_where_it_is_for_all_who_did_not_refuse() {
        let refused = Stage::Refused(ErrorCode::Blocked);
        assert_eq!(stage(&[]), v1::Stage::Accepted);
        assert_eq!(stage(&[Stage::Delivered, Stage::Accepted]), v1::Stage::Accepted);
        assert_eq!(stage(&[refused, Stage::Delivered]), v1::Stage::Delivered);
        assert_eq!(stage(&[refused, refused]), v1::Stage::Refused);
    }
}

//! Sizes and kinds that an operator takes, within what the protocol allows.

use tidemark_types::ErrorCode;

use super::{Check, Finding, Message};
use crate::config::Kinds;

/// Refuses what is too large, or of a kind that is not taken.
pub(super) struct Limits {
    pub(super) body_bytes_max: usize,
    pub(super) kinds: Kinds,
}

impl Check for Limits {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn check(&self, message: &Message) -> Finding {
        if message.draft.body.len() > self.body_bytes_max {
            return Finding::Refuse(ErrorCode::BodyTooLarge);
        }
        match self.kinds.contains(message.draft.kind) {
            true => Finding::Pass,
            false => Finding::Refuse(ErrorCode::KindNotAllowed),
        }
    }
}

//! For builds that are broken on purpose and do not wait until they know.

use bytes::Bytes;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::{Reply, Transaction};

use super::Group;
use crate::raft::machine::split;

impl Group {
    /// What applying `payload` would say if nothing came before it.
    pub fn foresee(&self, payload: &Bytes) -> Vec<Reply> {
        let outcomes = self.state.peek(self.id, |view| Transaction::new(view).apply(payload));
        let (replies, effects) = split(outcomes.unwrap_or_default());
        if is(Mutant::PushBeforeCommit) {
            self.effects.applied(self.id, effects);
        }
        replies
    }
}

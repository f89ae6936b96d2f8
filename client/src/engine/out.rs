//! What a step of the engine wants done: first what must be durable, then what may rely on it.

use tidemark_proto::v1;

use super::{Action, Link, Output};
use crate::event::Event;
use crate::outcome::Settled;
use crate::store::{Change, OutboxId};

/// Collects what a step wants.
#[derive(Debug, Default)]
pub(super) struct Out {
    changes: Vec<Change>,
    actions: Vec<Action>,
    /// Outcomes to remove, with the next write.
    forgotten: Vec<OutboxId>,
    /// The meta data changed.
    meta: bool,
    /// The connection that frames go out on.
    link: Option<Link>,
    /// A frame went out since this was last asked.
    sent: bool,
}

impl Out {
    /// Frames go out on this connection from now on, or nowhere.
    pub(super) fn set_link(&mut self, link: Option<Link>) {
        self.link = link;
    }

    /// Sends a frame; without a connection it is lost, as any frame may be.
    pub(super) fn frame(&mut self, frame: impl Into<v1::ClientFrame>) {
        if let Some(link) = self.link {
            self.sent = true;
            self.actions.push(Action::Send { link, frame: frame.into() });
        }
    }

    /// Wants something done.
    pub(super) fn action(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Tells the application.
    pub(super) fn event(&mut self, event: Event) {
        self.actions.push(Action::Event(event));
    }

    /// Stores a new send.
    pub(super) fn put(&mut self, id: OutboxId, send: v1::Send) {
        self.changes.push(Change::Put(id, send));
    }

    /// Stores an outcome, and reports it.
    pub(super) fn settle(&mut self, id: OutboxId, settled: Settled) {
        self.changes.push(Change::Settle(id, settled));
        self.actions.push(Action::Report { id, settled });
    }

    /// Removes an outcome that the application has taken, with the next write: until then a crash
    /// makes it come again.
    pub(super) fn forget(&mut self, id: OutboxId) {
        self.forgotten.push(id);
    }

    /// The next write is due.
    pub(super) fn flush(&mut self) {
        self.changes.extend(self.forgotten.drain(..).map(Change::Forget));
    }

    /// The meta data must be stored with this step.
    pub(super) fn save_meta(&mut self) {
        self.meta = true;
    }

    /// Did a frame go out since this was last asked?
    pub(super) fn take_sent(&mut self) -> bool {
        std::mem::take(&mut self.sent)
    }

    /// What has come together; the meta data if they are to be stored.
    pub(super) fn take(&mut self, meta: impl FnOnce() -> Change) -> Output {
        if std::mem::take(&mut self.meta) {
            self.changes.push(meta());
        }
        if !self.changes.is_empty() {
            self.flush();
        }
        let Out { changes, actions, .. } = self;
        Output { changes: std::mem::take(changes), actions: std::mem::take(actions) }
    }
}

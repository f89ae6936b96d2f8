//! `Mailboxes`: reading them, and what operators do to them.

use tidemark_proto::v1::mailboxes_server::Mailboxes;
use tidemark_proto::v1::{
    AdoptRequest, AdoptResponse, HeadRequest, HeadResponse, SyncRequest, SyncResponse, TrimRequest,
    TrimResponse, UnreadRequest, UnreadResponse,
};
use tidemark_proto::{Failure, Position, convert};
use tidemark_store_core::value::Mailbox;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{Epoch, ErrorCode, Seq, UserId};
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::{failure, receive};

impl Backend {
    async fn sync_page(
        &self,
        caller: Caller,
        request: SyncRequest,
    ) -> Result<SyncResponse, Failure> {
        let user: UserId = convert::name("user", &request.user)?;
        caller.act_for(&user)?;
        let epoch = match Epoch::new(request.epoch) {
            Epoch::NONE => self.mailbox(&user).await?.epoch,
            named => named,
        };
        let (store, seq_cli) = (self.store.clone(), Seq::new(request.seq_cli));
        let page = receive::page(store, user, epoch, seq_cli, request.limit).await?;
        Ok(SyncResponse { page: Some(page) })
    }

    async fn mailbox_head(
        &self,
        caller: Caller,
        request: HeadRequest,
    ) -> Result<HeadResponse, Failure> {
        let user = convert::name("user", &request.user)?;
        caller.act_for(&user)?;
        let Mailbox { epoch, floor, head, .. } = self.mailbox(&user).await?;
        Ok(Position { epoch, floor, head }.into())
    }

    async fn count_unread(
        &self,
        caller: Caller,
        request: UnreadRequest,
    ) -> Result<UnreadResponse, Failure> {
        let user: UserId = convert::name("user", &request.user)?;
        caller.act_for(&user)?;
        let counts = receive::unread(self.store.clone(), user).await?;
        Ok(UnreadResponse { counts: Some(counts) })
    }

    async fn adopt_mailbox(
        &self,
        caller: Caller,
        request: AdoptRequest,
    ) -> Result<AdoptResponse, Failure> {
        caller.administer()?;
        let user = convert::name("user", &request.user)?;
        convert::at_least_1("seq", request.seq.into())?;
        // Asked first: once the mailbox was adopted, no failure may say that nothing happened.
        let Mailbox { epoch, .. } = self.mailbox(&user).await?;
        self.done(Command::Adopt { user, seq: Seq::new(request.seq) }).await?;
        Ok(AdoptResponse { epoch: epoch.get(), head: request.seq })
    }

    async fn trim_mailbox(
        &self,
        caller: Caller,
        request: TrimRequest,
    ) -> Result<TrimResponse, Failure> {
        caller.administer()?;
        let user: UserId = convert::name("user", &request.user)?;
        let head = self.mailbox(&user).await?.head;
        let upto = Seq::new(request.upto).min(head);
        let trim = || self.command(Command::TrimMailbox { user: user.clone(), upto });
        let mut reply = trim().await?;
        loop {
            match reply {
                Reply::MailboxTrimmed { floor, more: false } => {
                    return Ok(TrimResponse { floor: floor.get() });
                }
                // The floor has risen: whatever comes now, something has happened.
                Reply::MailboxTrimmed { more: true, .. } => {
                    reply = trim().await.map_err(|_| Failure::new(ErrorCode::Unknown))?;
                }
                other => return Err(failure::of_reply(other)),
            }
        }
    }
}

#[tonic::async_trait]
impl Mailboxes for Backend {
    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let answer = |caller, request| self.sync_page(caller, request);
        self.call("Mailboxes.Sync", request, answer).await
    }

    async fn head(&self, request: Request<HeadRequest>) -> Result<Response<HeadResponse>, Status> {
        let answer = |caller, request| self.mailbox_head(caller, request);
        self.call("Mailboxes.Head", request, answer).await
    }

    async fn adopt(
        &self,
        request: Request<AdoptRequest>,
    ) -> Result<Response<AdoptResponse>, Status> {
        let answer = |caller, request| self.adopt_mailbox(caller, request);
        self.call("Mailboxes.Adopt", request, answer).await
    }

    async fn trim(&self, request: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
        let answer = |caller, request| self.trim_mailbox(caller, request);
        self.call("Mailboxes.Trim", request, answer).await
    }

    async fn unread(
        &self,
        request: Request<UnreadRequest>,
    ) -> Result<Response<UnreadResponse>, Status> {
        let answer = |caller, request| self.count_unread(caller, request);
        self.call("Mailboxes.Unread", request, answer).await
    }
}

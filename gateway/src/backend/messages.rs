//! `Messages`: sending without a session, and what became of a message.

use std::time::Duration;

use tidemark_proto::send::BackendSend;
use tidemark_proto::v1::messages_server::Messages;
use tidemark_proto::v1::{
    MessagesStatusRequest, MessagesStatusResponse, SendRequest, SendResponse,
};
use tidemark_proto::{Failure, Origin, convert};
use tidemark_store_core::command::Judged;
use tidemark_store_core::value::Verdict;
use tidemark_store_core::{Command, Reply, command};
use tidemark_types::ErrorCode;
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::checks::{Judgement, Message};
use crate::{entry, failure, receive};

impl Backend {
    async fn send_message(
        &self,
        caller: Caller,
        request: SendRequest,
    ) -> Result<SendResponse, Failure> {
        let BackendSend { sender, content, draft } = request.try_into()?;
        caller.act_for(&sender)?;
        let draft = command::Draft {
            to: draft.to,
            kind: draft.kind,
            client_msg_id: draft.client_msg_id,
            body: draft.body,
            act: draft.about.map(entry::asked),
        };
        let send = self.judged(command::BackendSend { sender, content, draft }).await?;
        match self.command(send).await? {
            Reply::Sent(Verdict::Accepted { seq, time }) => {
                Ok(SendResponse { seq: seq.get(), time_ms: time.get() })
            }
            Reply::Sent(Verdict::Refused(code)) => Err(Failure::new(code)),
            other => Err(failure::of_reply(other)),
        }
    }

    /// The command of a send, with what an operator's checks found (R2).
    async fn judged(&self, send: command::BackendSend) -> Result<Command, Failure> {
        let Some(checks) = &self.checks else { return Ok(Command::BackendSend(send)) };
        let later = |after| Failure::new(ErrorCode::RetryAfter).retry_after(after);
        checks.admit(&send.sender, None, &send.draft.to, Duration::ZERO).map_err(later)?;
        let command::BackendSend { sender, content, draft } = send;
        let id = draft.client_msg_id;
        let message = Message { sender: sender.clone(), device: None, draft };
        Ok(match checks.judge(message).done().await {
            Judgement::Later(after) => return Err(later(after)),
            Judgement::Verdict(Judged::Refuse(code)) => {
                Command::RefuseBackend { sender, id, content, code }
            }
            Judgement::Verdict(Judged::Allow(draft)) => {
                Command::BackendSend(command::BackendSend { sender, content, draft })
            }
            Judgement::Verdict(Judged::Drop(draft)) => {
                Command::DropBackend(command::BackendSend { sender, content, draft })
            }
        })
    }

    async fn message_status(
        &self,
        caller: Caller,
        request: MessagesStatusRequest,
    ) -> Result<MessagesStatusResponse, Failure> {
        let origin: Origin = convert::nested("origin", request.origin.as_ref())?;
        caller.act_for(origin.sender())?;
        let status = receive::status(self.store.clone(), origin).await?;
        Ok(MessagesStatusResponse { status: Some(status) })
    }
}

#[tonic::async_trait]
impl Messages for Backend {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let answer = |caller, request| self.send_message(caller, request);
        self.call("Messages.Send", request, answer).await
    }

    async fn status(
        &self,
        request: Request<MessagesStatusRequest>,
    ) -> Result<Response<MessagesStatusResponse>, Status> {
        let answer = |caller, request| self.message_status(caller, request);
        self.call("Messages.Status", request, answer).await
    }
}

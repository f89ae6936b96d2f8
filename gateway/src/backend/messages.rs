//! `Messages`: sending without a session, and what became of a message.

use tidemark_proto::send::BackendSend;
use tidemark_proto::v1::messages_server::Messages;
use tidemark_proto::v1::{
    MessagesStatusRequest, MessagesStatusResponse, SendRequest, SendResponse,
};
use tidemark_proto::{Failure, Origin, convert};
use tidemark_store_core::value::Verdict;
use tidemark_store_core::{Command, Reply, command};
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::{failure, receive};

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
        };
        let send = command::BackendSend { sender, content, draft };
        match self.command(Command::BackendSend(send)).await? {
            Reply::Sent(Verdict::Accepted { seq, time }) => {
                Ok(SendResponse { seq: seq.get(), time_ms: time.get() })
            }
            Reply::Sent(Verdict::Refused(code)) => Err(Failure::new(code)),
            other => Err(failure::of_reply(other)),
        }
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

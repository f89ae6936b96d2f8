//! The connections that other nodes opened to this one.

use std::collections::HashMap;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tidemark_proto::store::v1::PeerBatch;
use tidemark_proto::store::v1::peers_server::{Peers, PeersServer};
use tidemark_proto::{Failure, headers};
use tidemark_types::{ClusterId, ErrorCode, NodeId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::VERSION;
use super::frame::{Answer, Call, Number, Request};
use super::groups::Registry;
use crate::raft::types::TypeConfig;
use crate::storage::GroupId;

/// Answers that wait to be written.
const OUTGOING_FRAMES: usize = 4_096;

/// Frames in one message.
const BATCH_FRAMES: usize = 256;

/// Requests of one append stream that its group has not taken: openraft has fewer under way.
const REQUESTS: usize = 256;

/// The service that answers other nodes.
#[derive(Clone)]
pub struct Acceptor {
    cluster: ClusterId,
    me: NodeId,
    registry: Registry,
}

impl Acceptor {
    pub(super) fn new(cluster: ClusterId, me: NodeId, registry: Registry) -> Self {
        Acceptor { cluster, me, registry }
    }

    /// The service, to be added to a server.
    pub fn service(self) -> PeersServer<Self> {
        PeersServer::new(self)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    fn check(&self, metadata: &tonic::metadata::MetadataMap) -> Result<(), Failure> {
        let said = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let expected = [
            (headers::CLUSTER, self.cluster.to_string(), ErrorCode::WrongCluster),
            (headers::TO, self.me.to_string(), ErrorCode::Invalid),
            (headers::PEERS_VERSION, VERSION.to_string(), ErrorCode::Invalid),
        ];
        for (name, ours, code) in expected {
            if said(name) != Some(&ours) {
                let text = format!("{name} is {:?}, and here {ours}", said(name));
                return Err(Failure::new(code).message(text));
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Peers for Acceptor {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<PeerBatch, Status>> + Send>>;

    async fn connect(
        &self,
        request: tonic::Request<Streaming<PeerBatch>>,
    ) -> Result<tonic::Response<Self::ConnectStream>, Status> {
        self.check(request.metadata())?;
        let (answers, queued) = mpsc::channel(OUTGOING_FRAMES);
        let connection =
            Connection { registry: self.registry.clone(), answers, appends: HashMap::new() };
        tokio::spawn(connection.serve(request.into_inner()));
        let batches = ReceiverStream::new(queued).ready_chunks(BATCH_FRAMES);
        Ok(tonic::Response::new(Box::pin(batches.map(|frames| Ok(PeerBatch { frames })))))
    }
}

/// One connection of another node.
struct Connection {
    registry: Registry,
    answers: mpsc::Sender<Bytes>,
    appends: HashMap<Number, mpsc::Sender<AppendEntriesRequest<TypeConfig>>>,
}

impl Connection {
    /// Takes requests until the connection ends; append streams end with it.
    async fn serve(mut self, mut batches: Streaming<PeerBatch>) {
        while let Ok(Some(batch)) = batches.message().await {
            for frame in batch.frames {
                let Ok(request) = Request::decode(&frame) else {
                    tracing::error!("a frame of another node does not decode: connection closed");
                    return;
                };
                self.take(request).await;
            }
        }
    }

    async fn take(&mut self, request: Request) {
        match request {
            Request::Append { group, stream, request } => {
                self.append(group, stream, request).await;
            }
            Request::EndAppend { stream } => {
                self.appends.remove(&stream);
            }
            Request::Call { group, call, request } => self.call(group, call, request),
        }
    }

    async fn append(
        &mut self,
        group: GroupId,
        stream: Number,
        request: AppendEntriesRequest<TypeConfig>,
    ) {
        if !self.appends.contains_key(&stream) {
            let (requests_tx, requests) = mpsc::channel(REQUESTS);
            tokio::spawn(answer_appends(
                self.registry.clone(),
                group,
                stream,
                requests,
                self.answers.clone(),
            ));
            self.appends.insert(stream, requests_tx);
        }
        let full = self.appends[&stream].try_send(request).is_err();
        if full {
            // The group does not keep up, or has ended the stream. The other groups must not wait
            // for it: its stream ends, and its leader opens another one.
            self.appends.remove(&stream);
        }
    }

    fn call(&self, group: GroupId, call: Number, request: Call) {
        let (registry, answers) = (self.registry.clone(), self.answers.clone());
        tokio::spawn(async move {
            let result = match registry.get(group) {
                Some(group) => group.answer(request).await,
                None => Err(format!("there is no {group} here")),
            };
            // Nobody waits any more if the connection is gone.
            let _ = answers.send(Answer::Call { call, result }.encode()).await;
        });
    }
}

/// Drives one append stream of one group.
async fn answer_appends(
    registry: Registry,
    group: GroupId,
    stream: Number,
    requests: mpsc::Receiver<AppendEntriesRequest<TypeConfig>>,
    answers: mpsc::Sender<Bytes>,
) {
    let failed = match registry.get(group) {
        Some(group) => {
            let mut results = std::pin::pin!(group.append(ReceiverStream::new(requests)));
            let mut failed = None;
            while let Some(result) = results.next().await {
                match result {
                    Ok(result) => {
                        let answer = Answer::Append { stream, result };
                        if answers.send(answer.encode()).await.is_err() {
                            return;
                        }
                    }
                    Err(reason) => failed = Some(reason),
                }
            }
            failed
        }
        None => Some(format!("there is no {group} here")),
    };
    // Nobody waits any more if the connection is gone.
    let _ = answers.send(Answer::EndAppend { stream, failed }.encode()).await;
}

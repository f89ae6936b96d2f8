//! A test double of a gateway: the unary services and a mailbox with answers that never change, and
//! faults on demand. It runs in a runtime of its own, so that it can die like a process.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use futures::stream::BoxStream;
use tidemark_proto::v1::cluster_server::{Cluster, ClusterServer};
use tidemark_proto::v1::devices_server::{Devices, DevicesServer};
use tidemark_proto::v1::gateway_server::{Gateway as Connections, GatewayServer};
use tidemark_proto::v1::groups_server::GroupsServer;
use tidemark_proto::v1::mailboxes_server::{Mailboxes, MailboxesServer};
use tidemark_proto::v1::messages_server::{Messages, MessagesServer};
use tidemark_proto::v1::passing_server::PassingServer;
use tidemark_proto::v1::sequence_server::SequenceServer;
use tidemark_proto::v1::settings_server::{Settings, SettingsServer};
use tidemark_proto::v1::*;
use tidemark_proto::{Failure as Refusal, headers};
use tidemark_types::ErrorCode;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// What a call meets instead of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A refusal or failure with this code.
    Code(ErrorCode),
    /// A status that is not ours, as a proxy gives it.
    Foreign,
    /// The gateway takes the call and dies.
    Die,
}

/// A gateway that runs; it stops when this is dropped.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    shared: Shared,
}

type Shared = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    /// What the status of a message says, in this order; the last one again and again.
    stages: VecDeque<Stage>,
    sends: Vec<SendRequest>,
    /// The headers that decide who calls, of each call.
    callers: Vec<(String, String)>,
    die: Option<mpsc::Sender<()>>,
}

impl Double {
    pub(crate) fn start() -> Double {
        let shared = Shared::default();
        let (die, dies) = mpsc::channel();
        lock(&shared).die = Some(die);
        let runtime = Runtime::new().expect("threads");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let gateway = Gateway(shared.clone());
        let server = tonic::transport::Server::builder()
            .add_service(MessagesServer::new(gateway.clone()))
            .add_service(MailboxesServer::new(gateway.clone()))
            .add_service(SettingsServer::new(gateway.clone()))
            .add_service(DevicesServer::new(gateway.clone()))
            .add_service(ClusterServer::new(gateway.clone()))
            .add_service(GroupsServer::new(gateway.clone()))
            .add_service(PassingServer::new(gateway.clone()))
            .add_service(SequenceServer::new(gateway.clone()))
            .add_service(GatewayServer::new(gateway));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        std::thread::spawn(move || {
            // Told to, or dropped: either way all its connections go with the runtime.
            let _ = dies.recv();
            runtime.shutdown_background();
        });
        Double { address, shared }
    }

    pub(crate) fn fault(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared).faults.extend(faults);
    }

    pub(crate) fn stages(&self, stages: impl IntoIterator<Item = Stage>) {
        lock(&self.shared).stages.extend(stages);
    }

    pub(crate) fn sends(&self) -> Vec<SendRequest> {
        lock(&self.shared).sends.clone()
    }

    pub(crate) fn callers(&self) -> Vec<(String, String)> {
        lock(&self.shared).callers.clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        lock(&self.shared).die = None;
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().expect("nobody panics with it")
}

#[derive(Clone)]
pub(crate) struct Gateway(Shared);

impl Gateway {
    /// Counts the call, and gives what was asked unless it meets a fault.
    pub(crate) async fn meet<T>(&self, request: Request<T>) -> Result<T, Status> {
        let fault = {
            let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
            let header = |name| header(name).unwrap_or_default().to_owned();
            let mut state = lock(&self.0);
            state.callers.push((header(headers::AUTHORIZATION), header(headers::CLUSTER)));
            state.faults.pop_front()
        };
        match fault {
            None => Ok(request.into_inner()),
            Some(Fault::Code(code)) => Err(Refusal::new(code).into()),
            Some(Fault::Foreign) => Err(Status::unavailable("a proxy says no")),
            Some(Fault::Die) => {
                lock(&self.0).die = None;
                std::future::pending().await
            }
        }
    }
}

fn user(name: &str) -> Id {
    Id { kind: IdKind::User.into(), name: name.to_owned() }
}

fn group(name: &str) -> Id {
    Id { kind: IdKind::Group.into(), name: name.to_owned() }
}

#[tonic::async_trait]
impl Messages for Gateway {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        // It is seen even when the answer is lost.
        lock(&self.0).sends.push(request.get_ref().clone());
        self.meet(request).await?;
        Ok(Response::new(SendResponse { seq: 5, time_ms: 1_764_000_000_123 }))
    }

    async fn status(
        &self,
        request: Request<MessagesStatusRequest>,
    ) -> Result<Response<MessagesStatusResponse>, Status> {
        self.meet(request).await?;
        let mut state = lock(&self.0);
        let stage = match state.stages.len() {
            0 | 1 => state.stages.front().copied(),
            _ => state.stages.pop_front(),
        };
        let stage = stage.unwrap_or(Stage::Delivered);
        let refused = match stage {
            Stage::Refused => ErrorCode::Blocked.number().into(),
            _ => 0,
        };
        let recipients = vec![
            RecipientStatus {
                recipient: Some(user("bob")),
                stage: Stage::Confirmed.into(),
                seq: 7,
                refused: 0,
                confirmed_devices: 1,
            },
            RecipientStatus {
                recipient: Some(user("carol")),
                stage: stage.into(),
                seq: 0,
                refused,
                confirmed_devices: 0,
            },
        ];
        let status = MessageStatus { recipients, ..Default::default() };
        Ok(Response::new(MessagesStatusResponse { status: Some(status) }))
    }
}

/// The entries of a mailbox whose first two are gone.
fn entries() -> Vec<Entry> {
    let id = vec![1, 154, 0, 0, 0, 0, 112, 0, 128, 0, 0, 0, 0, 0, 0, 1];
    let origin = |sender: &str, key| Some(Origin { sender: sender.to_owned(), key: Some(key) });
    let backend = || origin::Key::ClientMsgId(id.clone());
    let session = || origin::Key::SessionSend(SessionSend { session: 2, n: 9 });
    let message = |device: &str, body: &[u8]| Message {
        device: device.to_owned(),
        client_msg_id: id.clone(),
        sent_ms: 1_764_000_000_000,
        body: body.to_vec(),
        ..Default::default()
    };
    let own =
        Message { to: vec![user("bob"), user("carol")], ..message("phone", "grüße".as_bytes()) };
    let club = Message {
        conversation: Some(group("club")),
        group_seq: 7,
        kind: 3,
        ..message("", b"\x1b[2Jhi")
    };
    let refused =
        Refused { recipient: Some(user("carol")), code: ErrorCode::Blocked.number().into() };
    let contents = [
        (origin("bob", backend()), Some(entry::Content::Message(message("", b"hello")))),
        (origin("alice", session()), Some(entry::Content::Message(own))),
        (origin("bob", backend()), Some(entry::Content::Message(club))),
        (origin("bob", backend()), Some(entry::Content::Message(message("", b"\xff\x00")))),
        (origin("alice", session()), Some(entry::Content::Refused(refused))),
        (origin("bob", backend()), None),
    ];
    let entry = |(seq, (origin, content))| Entry {
        seq,
        time_ms: 1_764_000_000_000 + u64::from(seq),
        origin,
        content,
    };
    (3..).zip(contents).map(entry).collect()
}

/// The page after a seq: of two entries at most, so that every history takes several.
fn page(seq_cli: u32, limit: u32) -> Page {
    let prev_seq = seq_cli.max(2);
    let count = if limit == 0 { 2 } else { limit.min(2) };
    let entries: Vec<Entry> =
        entries().into_iter().filter(|entry| entry.seq > prev_seq).take(count as usize).collect();
    let more = entries.last().is_some_and(|entry| entry.seq < 8);
    let gap = (seq_cli < 2).then_some(Gap { from: seq_cli + 1, to: 2 });
    Page { epoch: 1, floor: 2, head: 8, gap, prev_seq, entries, more }
}

/// What a device is answered that only listens.
fn answer(frame: client_frame::Frame) -> Vec<ServerFrame> {
    let page = |request_id, seq| SyncPage { request_id, page: Some(page(seq, 0)) }.into();
    match frame {
        client_frame::Frame::Hello(hello) => {
            let start = match hello.start.map(|start| (start.at(), start.last)) {
                None => hello.seq_cli,
                Some((StartAt::Floor, _)) => 2,
                Some((StartAt::Last, n)) => 8 - n,
                Some(_) => 8,
            };
            let welcome = Welcome {
                cluster_id: vec![7; 16],
                epoch: 1,
                seq_svr: 8,
                floor: 2,
                start,
                send_window: 256,
                send_window_bytes: 1 << 20,
                frame_bytes_max: 256 << 10,
                body_bytes_max: 192 << 10,
                heartbeat_min_ms: 1_000,
                heartbeat_max_ms: 60_000,
                server_time_ms: 1_764_000_000_000,
                ..Default::default()
            };
            vec![welcome.into(), page(0, start)]
        }
        client_frame::Frame::Sync(sync) => vec![page(sync.request_id, sync.seq_cli)],
        _ => Vec::new(),
    }
}

#[tonic::async_trait]
impl Connections for Gateway {
    type ConnectStream = BoxStream<'static, Result<ServerFrame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ClientFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let shared = self.0.clone();
        let answers = request.into_inner().flat_map(move |frame| {
            let Ok(ClientFrame { frame: Some(frame) }) = frame else {
                return futures::stream::iter(Vec::new());
            };
            if let client_frame::Frame::Hello(hello) = &frame {
                let caller = (hello.token.clone(), hello.cluster_id.escape_ascii().to_string());
                lock(&shared).callers.push(caller);
            }
            let frames = match lock(&shared).faults.pop_front() {
                Some(Fault::Code(code)) => vec![refusal(code)],
                _ => answer(frame),
            };
            futures::stream::iter(frames.into_iter().map(Ok).collect::<Vec<_>>())
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// The error after which a gateway cuts the connection.
fn refusal(code: ErrorCode) -> ServerFrame {
    let failure = Some(Refusal::new(code).into());
    Error { failure, frame: 1, closing: true, ..Default::default() }.into()
}

#[tonic::async_trait]
impl Mailboxes for Gateway {
    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let SyncRequest { seq_cli, limit, .. } = self.meet(request).await?;
        Ok(Response::new(SyncResponse { page: Some(page(seq_cli, limit)) }))
    }

    async fn head(&self, request: Request<HeadRequest>) -> Result<Response<HeadResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(HeadResponse { epoch: 1, floor: 2, head: 8 }))
    }

    async fn adopt(&self, _: Request<AdoptRequest>) -> Result<Response<AdoptResponse>, Status> {
        Err(Refusal::new(ErrorCode::NotEmpty).into())
    }

    async fn trim(&self, _: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
        Ok(Response::new(TrimResponse { floor: 2 }))
    }

    async fn unread(
        &self,
        request: Request<UnreadRequest>,
    ) -> Result<Response<UnreadResponse>, Status> {
        self.meet(request).await?;
        let conversations = [(user("bob"), 2, 7, 4), (group("club"), 0, 5, 5)].map(
            |(conversation, unread, delivered_seq, read_seq)| UnreadConversation {
                conversation: Some(conversation),
                unread,
                delivered_seq,
                read_seq,
            },
        );
        let conversations = conversations.into();
        let counts = UnreadCounts { epoch: 1, from: 2, head: 8, unread: 2, conversations };
        Ok(Response::new(UnreadResponse { counts: Some(counts) }))
    }
}

#[tonic::async_trait]
impl Settings for Gateway {
    async fn block(
        &self,
        request: Request<BlockRequest>,
    ) -> Result<Response<BlockResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(BlockResponse {}))
    }

    async fn unblock(
        &self,
        request: Request<UnblockRequest>,
    ) -> Result<Response<UnblockResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(UnblockResponse {}))
    }

    async fn set_silent(
        &self,
        _: Request<SetSilentRequest>,
    ) -> Result<Response<SetSilentResponse>, Status> {
        Ok(Response::new(SetSilentResponse {}))
    }

    async fn set_accept_from(
        &self,
        request: Request<SetAcceptFromRequest>,
    ) -> Result<Response<SetAcceptFromResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(SetAcceptFromResponse {}))
    }

    async fn allow(
        &self,
        request: Request<AllowRequest>,
    ) -> Result<Response<AllowResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(AllowResponse {}))
    }

    async fn disallow(
        &self,
        request: Request<DisallowRequest>,
    ) -> Result<Response<DisallowResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(DisallowResponse {}))
    }
}

#[tonic::async_trait]
impl Devices for Gateway {
    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Ok(Response::new(RegisterResponse::default()))
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(ForgetResponse {}))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        self.meet(request).await?;
        let phone = DeviceInfo {
            device: "phone".to_owned(),
            label: Some(Label { name: "Alice's".to_owned(), platform: "iOS 19".to_owned() }),
            epoch: 1,
            cursor: 7,
            last_seen_ms: 1_700_000_000_000,
            connected: true,
            push_provider: "apns".to_owned(),
            pushed_upto: 5,
            live_session: 3,
            ..DeviceInfo::default()
        };
        let tablet = DeviceInfo {
            device: "tablet".to_owned(),
            epoch: 1,
            last_seen_ms: 1_600_000_000_000,
            logged_out_ms: 1_650_000_000_000,
            ..DeviceInfo::default()
        };
        Ok(Response::new(ListResponse { devices: vec![phone, tablet] }))
    }

    async fn log_out(
        &self,
        request: Request<LogOutRequest>,
    ) -> Result<Response<LogOutResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(LogOutResponse {}))
    }

    async fn set_push(
        &self,
        request: Request<SetPushRequest>,
    ) -> Result<Response<SetPushResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(SetPushResponse {}))
    }
}

#[tonic::async_trait]
impl Cluster for Gateway {
    async fn status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        self.meet(request).await?;
        let node = |node, ready, up| NodeStatus {
            node,
            address: format!("127.0.0.1:710{node}"),
            up,
            ready,
            version: if up { "0.1.0".to_owned() } else { String::new() },
            leads: u32::from(ready),
            disk_free_bytes: if up { 12 << 30 } else { 0 },
        };
        let replica = |node, applied, voter| ReplicaStatus {
            node,
            replica: node + 10,
            voter,
            matched: 120,
            applied,
        };
        let shard = |shard, leader| ShardStatus {
            shard,
            leader,
            term: 4,
            committed: 120,
            replicas: vec![replica(1, 120, true), replica(2, 118, true), replica(3, 0, false)],
        };
        Ok(Response::new(ClusterStatusResponse {
            cluster_id: vec![7; 16],
            nodes: vec![node(1, true, true), node(2, false, true), node(3, false, false)],
            shards: vec![shard(0, 1), shard(1, 0)],
        }))
    }

    async fn map(&self, request: Request<MapRequest>) -> Result<Response<MapResponse>, Status> {
        self.meet(request).await?;
        let node = |node| MapNode { node, address: format!("127.0.0.1:710{node}") };
        let shard = |shard, leader_hint| MapShard { shard, nodes: vec![1, 2, 3], leader_hint };
        Ok(Response::new(MapResponse {
            cluster_id: vec![7; 16],
            version: 3,
            hash_version: 1,
            nodes: (1..=3).map(node).collect(),
            shards: vec![shard(0, 1), shard(1, 0)],
            settings: Some(MapSettings {
                session_idle_ms: 90 * 86_400_000,
                dedup_window_ms: 7 * 86_400_000,
                allocate_window_ms: 600_000,
                mailbox_entries_max: 100_000,
                keep_ms: 30 * 86_400_000,
                hard_keep_ms: 365 * 86_400_000,
                eligible_ms: 30 * 86_400_000,
                device_expiry_ms: 180 * 86_400_000,
                devices_max: 32,
                push_after_ms: 10_000,
                push_every_ms: 10_000,
                group_members_max: 10_000,
                feed_records_max: 0,
                recall_within_ms: 120_000,
                edit_within_ms: 900_000,
            }),
        }))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let wanted = self.meet(request).await?;
        Ok(Response::new(TransferResponse { leader: wanted.node }))
    }
}

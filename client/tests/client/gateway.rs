//! A gateway that keeps one user's mailbox in memory, and loses, doubles, delays and cuts.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tidemark_proto::v1;
use tidemark_proto::v1::gateway_server::{Gateway, GatewayServer};
use tidemark_proto::v1::server_frame::Frame;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::server::{Mood, Server};

/// What goes wrong, counted in frames to the device; 0 for never.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lose_every: usize,
    pub(crate) double_every: usize,
    pub(crate) delay: Duration,
    pub(crate) cut_after: usize,
}

/// What the gateways of a test have in common: the store behind them.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) server: Arc<Mutex<Server>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
    /// The server has something to say that nobody asked for.
    said: Arc<Notify>,
    /// The one connection that the server answers: a newer one ends it.
    connection: Arc<Mutex<u64>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Shared {
            server: Arc::new(Mutex::new(Server::new(256, 100))),
            faults: Arc::default(),
            said: Arc::default(),
            connection: Arc::default(),
        }
    }

    /// A gateway in front of it: its address.
    pub(crate) async fn gateway(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let service = GatewayServer::new(self.clone());
        let serve = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        address
    }

    /// Says something that nobody asked for.
    pub(crate) fn say(&self, frame: impl Into<v1::ServerFrame>) {
        self.server.lock().out.push_back(frame.into());
        self.said.notify_one();
    }
}

type Frames = BoxStream<'static, Result<v1::ServerFrame, Status>>;

#[tonic::async_trait]
impl Gateway for Shared {
    type ConnectStream = Frames;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Frames>, Status> {
        let (out, frames) = mpsc::channel(1_024);
        let number = {
            let mut connection = self.connection.lock();
            *connection += 1;
            *connection
        };
        self.server.lock().cut();
        let shared = self.clone();
        tokio::spawn(async move { shared.serve(number, request.into_inner(), out).await });
        Ok(Response::new(ReceiverStream::new(frames).boxed()))
    }
}

impl Shared {
    async fn serve(
        &self,
        number: u64,
        mut frames: Streaming<v1::ClientFrame>,
        out: mpsc::Sender<Result<v1::ServerFrame, Status>>,
    ) {
        let mut sent = 0;
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    Some(Ok(v1::ClientFrame { frame: Some(frame) })) => {
                        if *self.connection.lock() != number {
                            return;
                        }
                        self.server.lock().serve(frame, Mood::Answer);
                    }
                    _ => return,
                },
                () = self.said.notified() => {
                    if *self.connection.lock() != number {
                        // Meant for the one that has taken over.
                        self.said.notify_one();
                        return;
                    }
                }
            }
            let said: Vec<_> = self.server.lock().out.drain(..).collect();
            for frame in said {
                sent += 1;
                let faults = *self.faults.lock();
                if faults.cut_after > 0 && sent > faults.cut_after {
                    let _ = out.send(Err(Status::unavailable("cut"))).await;
                    return;
                }
                if !faults.delay.is_zero() {
                    tokio::time::sleep(faults.delay).await;
                }
                let loose = matches!(frame.frame, Some(Frame::Deliver(_) | Frame::SyncPage(_)));
                let every = |every: usize| loose && every > 0 && sent % every == 0;
                let times = match (every(faults.lose_every), every(faults.double_every)) {
                    (true, _) => 0,
                    (_, true) => 2,
                    _ => 1,
                };
                for _ in 0..times {
                    if out.send(Ok(frame.clone())).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

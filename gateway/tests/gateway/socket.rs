//! Devices that come over real sockets, in real time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tidemark_gateway::connect::grpc::GrpcCarrier;
use tidemark_gateway::connect::{Carrier, websocket};
use tidemark_gateway::devices::Devices;
use tidemark_proto::v1;
use tidemark_proto::v1::gateway_client::GatewayClient;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tonic::transport::{Channel, Endpoint, Server};

use crate::device::{Device, Frames};

/// Each way to come.
pub(crate) const CARRIERS: [Carrier; 2] = [Carrier::Grpc, Carrier::WebSocket];

/// What the gateway may send on a stream that nobody reads: HTTP/2's own default, less than a page.
const STREAM_WINDOW: u32 = 65_535;

/// A bare WebSocket.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A gateway that is served on both carriers.
pub(crate) struct Served {
    pub(crate) devices: Arc<Devices>,
    channel: Channel,
    pub(crate) http: SocketAddr,
}

impl Served {
    pub(crate) async fn new(devices: Arc<Devices>) -> Self {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (grpc, web) = (listen().await, listen().await);
        let (at, http) = (grpc.local_addr().unwrap(), web.local_addr().unwrap());
        let server = Server::builder().add_service(GrpcCarrier::service(devices.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(grpc)));
        let here = devices.clone();
        let route = get(async move |request| websocket::upgrade(here, request));
        let router = Router::new().route(websocket::PATH, route);
        tokio::spawn(axum::serve(web, router).into_future());
        let endpoint = Endpoint::from_shared(format!("http://{at}")).unwrap();
        let channel = endpoint.initial_stream_window_size(STREAM_WINDOW).connect_lazy();
        Served { devices, channel, http }
    }

    /// A device on which nothing was said yet.
    pub(crate) async fn connect(&self, carrier: Carrier) -> Device {
        let (frames, said) = mpsc::channel(4);
        // A test that reads late does not keep the socket from being served.
        let (heard, received) = mpsc::channel(1_000);
        match carrier {
            Carrier::Grpc => {
                let mut client = self.grpc();
                let answer = client.connect(ReceiverStream::new(said)).await.expect("it is served");
                tokio::spawn(grpc(answer.into_inner(), heard));
            }
            Carrier::WebSocket => drop(tokio::spawn(pump(self.websocket().await, said, heard))),
        }
        Device { frames: Frames::Socket(frames), received }
    }

    pub(crate) fn grpc(&self) -> GatewayClient<Channel> {
        GatewayClient::new(self.channel.clone())
    }

    /// A WebSocket on which nothing was said yet.
    pub(crate) async fn websocket(&self) -> Socket {
        let address = format!("ws://{}{}", self.http, websocket::PATH);
        let mut request = address.into_client_request().expect("legal");
        let offered = websocket::SUB_PROTOCOL.parse().expect("legal");
        request.headers_mut().insert("sec-websocket-protocol", offered);
        let (socket, answer) = connect_async(request).await.expect("it is served");
        assert_eq!(answer.headers()["sec-websocket-protocol"], websocket::SUB_PROTOCOL);
        socket
    }

    /// Waits until nobody is connected.
    pub(crate) async fn empty(&self) {
        let gone = async {
            while self.devices.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("all are let go");
    }
}

async fn grpc(
    mut frames: tonic::Streaming<v1::ServerFrame>,
    heard: mpsc::Sender<Box<v1::ServerFrame>>,
) {
    while let Some(frame) = frames.message().await.expect("no status") {
        if heard.send(Box::new(frame)).await.is_err() {
            return;
        }
    }
}

/// Carries frames both ways until one side has enough.
async fn pump(
    mut socket: Socket,
    mut said: mpsc::Receiver<v1::ClientFrame>,
    heard: mpsc::Sender<Box<v1::ServerFrame>>,
) {
    loop {
        tokio::select! {
            frame = said.recv() => match frame {
                Some(frame) => {
                    let message = Message::Binary(frame.encode_to_vec().into());
                    socket.send(message).await.expect("the gateway reads");
                }
                None => return socket.close(None).await.expect("it is open"),
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let frame = v1::ServerFrame::decode(bytes).expect("a frame");
                    if heard.send(Box::new(frame)).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Close(_))) | None => return,
                other => panic!("{other:?}"),
            },
        }
    }
}

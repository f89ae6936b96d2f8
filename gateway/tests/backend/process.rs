//! What surrounds the services: health, reflection, HTTP, keys, draining.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use tidemark_env::{Clock, SeededRng, SystemClock};
use tidemark_gateway::app::App;
use tidemark_gateway::config::GatewayConfig;
use tidemark_gateway::connect::websocket;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_proto::v1::{HeadRequest, HeadResponse, ServerFrame};
use tidemark_token::Keys;
use tidemark_types::{ClusterId, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::gateway::{Gateway, refused};

/// The whole answer to a GET.
async fn get(gateway: &Gateway, path: &str) -> String {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn head(gateway: &Gateway) -> Result<Response<HeadResponse>, Status> {
    let request = HeadRequest { user: "alice".to_owned() };
    MailboxesClient::new(gateway.service()).head(request).await
}

#[tokio::test]
async fn the_health_service_knows_every_service() {
    let gateway = Gateway::start().await;
    let mut health = HealthClient::new(gateway.channel.clone());
    for service in ["", "tidemark.v1.Messages", "tidemark.v1.Cluster"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "tidemark.v1.Nothing".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let gateway = Gateway::start().await;
    let mut reflection = ServerReflectionClient::new(gateway.channel.clone());
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { message_request, ..Default::default() };
    let asked = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = asked.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["tidemark.v1.Gateway", "tidemark.v1.Sequence", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"tidemark.store.v1.Store"), "{names:?}");
}

#[tokio::test]
async fn http_tells_whether_it_lives_and_is_ready() {
    let gateway = Gateway::start().await;
    assert!(get(&gateway, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&gateway, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&gateway, "/metrics").await.starts_with("HTTP/1.1 200"));
    assert!(get(&gateway, "/nothing").await.starts_with("HTTP/1.1 404"));
    gateway.app.leave();
    let answer = get(&gateway, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("it is stopping\n"), "{answer}");
    assert!(get(&gateway, "/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn keys_are_reloaded_and_kept_when_they_cannot_be() {
    let gateway = Gateway::start().await;
    assert!(head(&gateway).await.is_ok());
    let file = gateway.keys.path().join("one.hs256");
    let other = gateway.keys.path().join("two.hs256");
    std::fs::rename(&file, &other).unwrap();
    assert!(head(&gateway).await.is_ok(), "not read yet");
    gateway.app.reload_keys();
    assert_eq!(refused(head(&gateway).await).code, ErrorCode::Unauthenticated);
    std::fs::rename(&other, &file).unwrap();
    gateway.app.reload_keys();
    assert!(head(&gateway).await.is_ok());
    std::fs::remove_file(&file).unwrap();
    gateway.app.reload_keys();
    assert!(head(&gateway).await.is_ok(), "the old ones stay");
}

#[tokio::test]
async fn a_stopped_gateway_tells_so_and_ends() {
    let gateway = Gateway::start().await;
    assert!(head(&gateway).await.is_ok());
    let mut health = HealthClient::new(gateway.channel.clone());
    let watched = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    let mut next = async || watched.message().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::Serving);
    // It holds up nobody.
    let _silent = TcpStream::connect(gateway.grpc).await.unwrap();
    gateway.stop.send(()).unwrap();
    assert_eq!(next().await, ServingStatus::NotServing);
    drop((watched, health));
    let ended = tokio::time::timeout(Duration::from_secs(3), gateway.running).await;
    ended.expect("no call is under way").unwrap().unwrap();
    assert!(TcpStream::connect(gateway.http).await.is_err());
}

#[tokio::test]
async fn another_cluster_than_the_configured_one_is_refused() {
    let gateway = Gateway::start().await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let app = |cluster: ClusterId| {
        let config = GatewayConfig { cluster: Some(cluster), ..GatewayConfig::default() };
        let keys = Keys::read(gateway.keys.path(), clock.clone()).unwrap();
        App::new(&config, keys, gateway.store.clone(), clock.clone(), Arc::new(SeededRng::new(2)))
    };
    assert!(app(gateway.app.cluster()).is_ok());
    let refused = app(ClusterId::from_bytes([1; 16]).unwrap()).err().unwrap().to_string();
    assert!(refused.contains("01010101-0101-0101-0101-010101010101"), "{refused}");
    assert!(refused.contains(&gateway.app.cluster().to_string()), "{refused}");
}

#[tokio::test]
async fn who_asks_for_nothing_is_let_go() {
    let gateway = Gateway::start().await;
    // Half a request, and half of HTTP/2's preface.
    let begun = [(gateway.http, "GET /v1/conn"), (gateway.grpc, "PRI * HTTP/2")];
    let ends = begun.map(async |(at, half)| {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut said));
        end.await.expect("it is closed").unwrap();
    });
    futures::future::join_all(ends).await;
}

#[tokio::test]
async fn a_stopped_gateway_says_its_last_word_on_a_websocket() {
    let gateway = Gateway::start().await;
    let address = format!("ws://{}{}", gateway.http, websocket::PATH);
    let (mut socket, _) = connect_async(address).await.unwrap();
    while gateway.app.devices().connections() == 0 {
        tokio::task::yield_now().await;
    }
    gateway.stop.send(()).unwrap();
    let frame = socket.next().await.unwrap().unwrap().into_data();
    let frame = ServerFrame::decode(frame).unwrap().frame;
    assert!(matches!(frame, Some(Frame::GoAway(_))), "{frame:?}");
    let end = socket.next().await.unwrap().unwrap();
    let Message::Close(Some(CloseFrame { code, reason })) = end else { panic!("{end:?}") };
    assert_eq!((u16::from(code), reason.as_str()), (4024, "GOING_AWAY"));
    assert!(socket.next().await.is_none());
    gateway.running.await.unwrap().unwrap();
}

//! A user's devices, through gateways that refuse, lose answers, and are not there.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemark_client::{AppError, Config, DeviceInfo, Devices, Label, PushTarget, TokenSource};
use tidemark_proto::v1::devices_server::{Devices as Service, DevicesServer};
use tidemark_proto::{Failure, headers, v1};
use tidemark_types::{ClusterId, ErrorCode, Seq, UnixMs};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// A gateway that refuses the next calls with these codes, and writes down what it was asked.
#[derive(Clone, Default)]
struct Gateway {
    refusals: Arc<Mutex<VecDeque<ErrorCode>>>,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Gateway {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let serve = tonic::transport::Server::builder()
            .add_service(DevicesServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        address
    }

    fn refusing(codes: &[ErrorCode]) -> Self {
        let gateway = Gateway::default();
        gateway.refusals.lock().extend(codes);
        gateway
    }

    fn hear<A>(
        &self,
        headers: &MetadataMap,
        what: String,
        answer: A,
    ) -> Result<Response<A>, Status> {
        let value = |name| headers.get(name).map(|it| it.to_str().expect("text").to_owned());
        let token = value(headers::AUTHORIZATION).expect("every call has a token");
        let who = format!("{token} {}", value(headers::CLUSTER).unwrap_or_default());
        self.heard.lock().push((who, what));
        match self.refusals.lock().pop_front() {
            Some(code) => Err(Failure::new(code).into()),
            None => Ok(Response::new(answer)),
        }
    }

    fn heard(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.heard.lock())
    }
}

/// What a call says, of those that this test has.
macro_rules! answer {
    ($self:ident, $request:ident, $answer:expr) => {{
        let what = format!("{:?}", $request.get_ref());
        $self.hear($request.metadata(), what, $answer)
    }};
}

#[tonic::async_trait]
impl Service for Gateway {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        answer!(self, request, v1::RegisterResponse::default())
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        answer!(self, request, v1::ForgetResponse {})
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let phone = v1::DeviceInfo {
            device: "phone".to_owned(),
            label: Some(v1::Label { name: "mine".to_owned(), platform: "Android".to_owned() }),
            epoch: 1,
            cursor: 7,
            last_seen_ms: 1_000,
            connected: true,
            push_provider: "fcm".to_owned(),
            pushed_upto: 5,
            ..v1::DeviceInfo::default()
        };
        let desk = v1::DeviceInfo {
            device: "desk".to_owned(),
            logged_out_ms: 2_000,
            ..v1::DeviceInfo::default()
        };
        answer!(self, request, v1::ListResponse { devices: vec![desk, phone] })
    }

    async fn log_out(
        &self,
        request: Request<v1::LogOutRequest>,
    ) -> Result<Response<v1::LogOutResponse>, Status> {
        answer!(self, request, v1::LogOutResponse {})
    }

    async fn set_push(
        &self,
        request: Request<v1::SetPushRequest>,
    ) -> Result<Response<v1::SetPushResponse>, Status> {
        answer!(self, request, v1::SetPushResponse {})
    }
}

/// Another token whenever the last one was refused.
struct Tokens(Mutex<u32>);

impl TokenSource for Tokens {
    async fn token(&self, refused: bool) -> Result<String, AppError> {
        let mut number = self.0.lock();
        *number += u32::from(refused);
        Ok(format!("jwt{number}"))
    }
}

fn devices(gateways: Vec<String>) -> Devices<Tokens> {
    let (user, device) = ("alice".parse().expect("legal"), "phone".parse().expect("legal"));
    Devices::new(Config::new(user, device, gateways), Tokens(Mutex::new(1))).expect("it can work")
}

fn target(provider: &str, target: &str) -> PushTarget {
    PushTarget { provider: provider.to_owned(), target: target.to_owned() }
}

#[tokio::test]
async fn a_device_says_where_it_is_woken_and_what_it_is_called_in_its_own_name() {
    let gateway = Gateway::default();
    let devices = devices(vec![gateway.start().await]);
    devices.set_push(target("fcm", "one")).await.expect("taken");
    devices.remove_push().await.expect("taken");
    let label = Label { name: "mine".to_owned(), platform: "Android".to_owned() };
    devices.set_label(label).await.expect("taken");
    devices.log_out(&"desk".parse().expect("legal")).await.expect("taken");
    let said: Vec<_> = gateway.heard().into_iter().map(|(_, what)| what).collect();
    let wanted = [
        "SetPushRequest { user: \"alice\", device: \"phone\", target: Some(PushTarget { provider: \
         \"fcm\", target: \"one\" }) }",
        "SetPushRequest { user: \"alice\", device: \"phone\", target: None }",
        "RegisterRequest { user: \"alice\", device: \"phone\", start: Some(Start { at: Floor, last: \
         0 }), label: Some(Label { name: \"mine\", platform: \"Android\" }) }",
        "LogOutRequest { user: \"alice\", device: \"desk\" }",
    ];
    assert_eq!(said, wanted);
}

#[tokio::test]
async fn a_list_says_what_the_owner_may_know() {
    let gateway = Gateway::default();
    let listed = devices(vec![gateway.start().await]).list().await.expect("a list");
    let desk = DeviceInfo {
        device: "desk".parse().expect("legal"),
        label: Label::default(),
        cursor: Seq::NONE,
        last_seen: UnixMs::default(),
        connected: false,
        logged_out: Some(UnixMs::new(2_000)),
        push_provider: None,
        pushed_upto: Seq::NONE,
    };
    let phone = DeviceInfo {
        device: "phone".parse().expect("legal"),
        label: Label { name: "mine".to_owned(), platform: "Android".to_owned() },
        cursor: Seq::new(7),
        last_seen: UnixMs::new(1_000),
        connected: true,
        logged_out: None,
        push_provider: Some("fcm".to_owned()),
        pushed_upto: Seq::new(5),
    };
    assert_eq!(listed, [desk, phone]);
}

#[tokio::test]
async fn another_gateway_is_asked_and_remembered_when_one_is_gone_or_busy() {
    let (busy, other) = (Gateway::refusing(&[ErrorCode::Overloaded]), Gateway::default());
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let devices = devices(vec![gone, busy.start().await, other.start().await]);
    for _ in 0..2 {
        devices.set_push(target("fcm", "one")).await.expect("taken");
    }
    assert_eq!((busy.heard().len(), other.heard().len()), (1, 2));
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let gateway = Gateway::refusing(&[ErrorCode::TokenExpired]);
    let cluster = ClusterId::from_bytes([7; 16]).expect("an id");
    let (user, device) = ("alice".parse().expect("legal"), "phone".parse().expect("legal"));
    let config =
        Config { cluster: Some(cluster), ..Config::new(user, device, vec![gateway.start().await]) };
    let devices = Devices::new(config, Tokens(Mutex::new(1))).expect("it can work");
    devices.remove_push().await.expect("taken");
    let who: Vec<_> = gateway.heard().into_iter().map(|(who, _)| who).collect();
    assert_eq!(who, [format!("Bearer jwt1 {cluster}"), format!("Bearer jwt2 {cluster}")]);
    gateway.refusals.lock().extend([ErrorCode::Unauthenticated; 3]);
    let failure = devices.remove_push().await.expect_err("refused");
    assert_eq!((failure.code, gateway.heard().len()), (ErrorCode::Unauthenticated, 2));
}

#[tokio::test]
async fn what_is_unknown_stays_unknown() {
    for later in [ErrorCode::Overloaded, ErrorCode::PermissionDenied] {
        let (lost, other) = (Gateway::refusing(&[ErrorCode::Unknown]), Gateway::refusing(&[later]));
        let devices = devices(vec![lost.start().await, other.start().await]);
        let failure = devices.remove_push().await.expect_err("nobody knows");
        assert_eq!(failure.code, ErrorCode::Unknown);
        assert_eq!(other.heard().len(), 1);
    }
}

#[tokio::test]
async fn what_every_gateway_would_refuse_is_not_sent() {
    let gateway = Gateway::default();
    let devices = devices(vec![gateway.start().await]);
    let long = Label { name: "x".repeat(65), platform: String::new() };
    let refused = [
        devices.set_push(target("", "one")).await,
        devices.set_push(target("fcm", "")).await,
        devices.set_push(target(&"x".repeat(33), "one")).await,
        devices.set_push(target("fcm", &"x".repeat(4_097))).await,
        devices.set_label(long).await,
    ];
    for refused in refused {
        assert_eq!(refused.expect_err("refused").code, ErrorCode::Invalid);
    }
    assert_eq!(gateway.heard(), []);
}

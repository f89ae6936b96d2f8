//! Hooks as an operator would write them, on loopback: over gRPC, and over HTTP with signatures, also
//! encrypted.
//!
//! A message's body says what the hook thinks of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use sha2::Sha256;
use tidemark_proto::v1::hooks_server::{Hooks, HooksServer};
use tidemark_proto::v1::{BeforeSendRequest, BeforeSendResponse, BeforeSendVerdict};
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What gateways and HTTP hooks share.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A hook, whatever carries it.
#[derive(Default)]
pub(crate) struct Hook {
    reject_all: AtomicBool,
    asked: Mutex<Vec<String>>,
    /// How many it was asked about.
    count: watch::Sender<usize>,
}

/// It thinks about the message `last` until it was asked about so many.
const ALL: usize = 5;

impl Hook {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on it thinks ill of everything.
    pub(crate) fn reject_all(&self) {
        self.reject_all.store(true, Ordering::SeqCst);
    }

    /// What it was asked, in words.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Its verdict, and the body that replaces the message's; an error is its own.
    async fn judge(&self, who: String, body: &str) -> Result<(&'static str, &'static str), ()> {
        self.asked.lock().unwrap().push(format!("{who} {body}"));
        self.count.send_modify(|count| *count += 1);
        match body {
            "last" => drop(self.count.subscribe().wait_for(|count| *count >= ALL).await),
            "hang" => std::future::pending().await,
            _ => {}
        }
        if self.reject_all.load(Ordering::SeqCst) {
            return Ok(("reject", ""));
        }
        match body {
            "reject" => Ok(("reject", "")),
            "replace" => Ok(("replace", "replaced")),
            "replace with more" => Ok(("replace", "more than twenty bytes")),
            "drop" => Ok(("drop", "")),
            "unspecified" => Ok(("", "")),
            "error" => Err(()),
            _ => Ok(("allow", "")),
        }
    }
}

struct Grpc(Arc<Hook>);

#[tonic::async_trait]
impl Hooks for Grpc {
    async fn before_send(
        &self,
        request: Request<BeforeSendRequest>,
    ) -> Result<Response<BeforeSendResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.client_msg_id.len(), 16);
        let to: Vec<_> = request.to.iter().map(|id| id.name.as_str()).collect();
        let who = format!("{}/{} to {}", request.sender, request.device, to.join(","));
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let judged = self.0.judge(who, &body).await;
        let (verdict, body) = judged.map_err(|()| Status::internal("it has a bug"))?;
        let verdict = match verdict {
            "allow" => BeforeSendVerdict::Allow,
            "reject" => BeforeSendVerdict::Reject,
            "replace" => BeforeSendVerdict::Replace,
            "drop" => BeforeSendVerdict::Drop,
            _ => BeforeSendVerdict::Unspecified,
        };
        Ok(Response::new(BeforeSendResponse { verdict: verdict.into(), body: body.into() }))
    }
}

/// Serves it over gRPC, on any port or this one, until the test ends.
pub(crate) async fn serve_grpc(hook: Arc<Hook>, at: Option<SocketAddr>) -> SocketAddr {
    let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(HooksServer::new(Grpc(hook)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// A way to a host, which vanishes whenever it is told so: connections that there are by then hear nothing any
/// more, not even an end. Those that are made afterwards find it again.
pub(crate) async fn way_to(host: SocketAddr) -> (SocketAddr, watch::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let vanished = watch::Sender::new(());
    let watched = vanished.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = TcpStream::connect(host).await.unwrap();
            let mut vanishes = watched.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    // Either end may break off.
                    _ = copy_bidirectional(&mut from, &mut to) => {}
                    _ = vanishes.changed() => std::future::pending().await,
                }
            });
        }
    });
    (address, vanished)
}

/// The same over TLS, as a proxy of the operator's would; what `serve_https` gives.
pub(crate) async fn serve_grpcs(hook: Arc<Hook>) -> (u16, String) {
    let plain = serve_grpc(hook, None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, authority) = own_authority(&[b"h2"]);
    tokio::spawn(async move {
        let mut listener = Encrypted { listener, acceptor };
        loop {
            let (mut from, _) = axum::serve::Listener::accept(&mut listener).await;
            let mut to = TcpStream::connect(plain).await.unwrap();
            // Either end may break off.
            tokio::spawn(async move { drop(copy_bidirectional(&mut from, &mut to).await) });
        }
    });
    (port, authority)
}

/// Serves it over HTTP at `/judge`, for whoever knows the secret.
pub(crate) async fn serve_http(hook: Arc<Hook>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(hook)).await });
    address
}

/// The same over TLS, for `localhost`; its port, and in PEM the authority that vouches for it, which no
/// system knows.
pub(crate) async fn serve_https(hook: Arc<Hook>) -> (u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, authority) = own_authority(&[]);
    let listener = Encrypted { listener, acceptor };
    tokio::spawn(async move { axum::serve(listener, router(hook)).await });
    (port, authority)
}

fn router(hook: Arc<Hook>) -> Router {
    let judge = move |headers: HeaderMap, body: Bytes| answer(hook.clone(), headers, body);
    Router::new().route("/judge", post(judge))
}

/// An authority made for this one server, which speaks these protocols.
fn own_authority(protocols: &[&[u8]]) -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|&protocol| protocol.to_owned()).collect();
    (TlsAcceptor::from(Arc::new(config)), pem)
}

/// Takes connections whose handshake succeeds.
struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn answer(hook: Arc<Hook>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    if !is_signed(&headers, &body) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let question: Value = serde_json::from_slice(&body).unwrap();
    let text = |field: &str| question[field].as_str().unwrap().to_owned();
    let to: Vec<_> = question["to"].as_array().unwrap().iter().collect();
    assert!(to.iter().all(|to| to["kind"] == "user"), "{question}");
    let to: Vec<_> = to.iter().map(|to| to["name"].as_str().unwrap()).collect();
    let who = format!("{}/{} to {}", text("sender"), text("device"), to.join(","));
    let asked = String::from_utf8(STANDARD.decode(text("body")).unwrap()).unwrap();
    match hook.judge(who, &asked).await {
        Ok((verdict, body)) => {
            let answer = json!({ "verdict": verdict, "body": STANDARD.encode(body) });
            (StatusCode::OK, answer.to_string())
        }
        Err(()) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}

/// As the standard says: HMAC-SHA256 over id, time and body, which is not old.
fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers[name].to_str().unwrap();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    assert!(id.starts_with("msg_") && timestamp.parse::<u64>().is_ok(), "{headers:?}");
    mac.verify_slice(&STANDARD.decode(signature).unwrap()).is_ok()
}

/// Takes connections, reads what comes, and never says anything; how often it was connected to.
pub(crate) async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut bytes = [0; 1_024];
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    (address, calls)
}

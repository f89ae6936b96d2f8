//! The hook as a gRPC service, plain or over TLS.

use std::path::Path;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tidemark_proto::v1::hooks_client::HooksClient;
use tidemark_proto::v1::{BeforeSendRequest, BeforeSendVerdict};
use tidemark_push::config::TlsConfig;
use tidemark_push::tls_client;
use tonic::transport::{Channel, Endpoint};

use super::{Error, Failed, Verdict};
use crate::limits::{HOOK_PING_EVERY, HOOK_PONG_WITHIN};

/// How long a connection may take to be made. Whoever takes it and says nothing would hold up all calls
/// for ever: they share it.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Calls it over one connection, which is made when it is needed and again when it breaks.
pub(super) struct Caller(HooksClient<Channel>);

impl Caller {
    /// At `grpc://HOST:PORT`, or over TLS at `grpcs://HOST:PORT`, trusting also the authorities in this
    /// file.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(url.replacen("grpc", "http", 1));
        let endpoint = endpoint.map_err(|error| Error::Url(error.to_string()))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(HOOK_PING_EVERY)
            .keep_alive_timeout(HOOK_PONG_WITHIN)
            .keep_alive_while_idle(true);
        let channel = match url.starts_with("grpcs://") {
            false => endpoint.connect_lazy(),
            true => {
                let tls = tls_client(&TlsConfig { ca: ca_file.map(Path::to_owned) })?;
                let tls = HttpsConnectorBuilder::new().with_tls_config(tls);
                let mut tcp = HttpConnector::new();
                // Else it would refuse the scheme, which is the other one's to look at.
                tcp.enforce_http(false);
                tcp.set_nodelay(true);
                let tls = tls.https_only().enable_http2().wrap_connector(tcp);
                endpoint.connect_with_connector_lazy(tls)
            }
        };
        Ok(Caller(HooksClient::new(channel)))
    }

    pub(super) async fn ask(&self, request: BeforeSendRequest) -> Result<Verdict, Failed> {
        let answer = self.0.clone().before_send(request).await;
        let answer = answer.map_err(|status| status.to_string())?.into_inner();
        match answer.verdict() {
            BeforeSendVerdict::Allow => Ok(Verdict::Allow),
            BeforeSendVerdict::Reject => Ok(Verdict::Reject),
            BeforeSendVerdict::Replace => Ok(Verdict::Replace(answer.body)),
            BeforeSendVerdict::Drop => Ok(Verdict::Drop),
            BeforeSendVerdict::Unspecified => Err("its answer has no verdict".to_owned()),
        }
    }
}

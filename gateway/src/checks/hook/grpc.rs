//! The hook as a gRPC service.

use tidemark_proto::v1::hooks_client::HooksClient;
use tidemark_proto::v1::{BeforeSendRequest, BeforeSendVerdict};
use tonic::transport::{Channel, Endpoint};

use super::{Error, Failed, Verdict};

/// Calls it over one connection, which is made when it is needed and again when it breaks.
pub(super) struct Caller(HooksClient<Channel>);

impl Caller {
    /// At `grpc://HOST:PORT`.
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let url = url.replacen("grpc://", "http://", 1);
        let endpoint = Endpoint::from_shared(url).map_err(|error| Error::Url(error.to_string()))?;
        Ok(Caller(HooksClient::new(endpoint.connect_lazy())))
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

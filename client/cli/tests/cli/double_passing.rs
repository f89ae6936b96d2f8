//! What passes by the double: bob is there.

use tidemark_proto::v1::passing_server::Passing;
use tidemark_proto::v1::{
    PresenceRequest, PresenceResponse, PresenceStatus, TypeRequest, TypeResponse,
};
use tonic::{Request, Response, Status};

use crate::double::Gateway;

#[tonic::async_trait]
impl Passing for Gateway {
    async fn r#type(
        &self,
        request: Request<TypeRequest>,
    ) -> Result<Response<TypeResponse>, Status> {
        let asked = self.meet(request).await?;
        assert_eq!((asked.sender.as_str(), asked.user.as_str()), ("alice", "bob"));
        Ok(Response::new(TypeResponse {}))
    }

    async fn presence(
        &self,
        request: Request<PresenceRequest>,
    ) -> Result<Response<PresenceResponse>, Status> {
        let asked = self.meet(request).await?;
        let online = asked.user == "bob";
        let status = Some(PresenceStatus { online, last_seen_ms: 1_764_000_000_000 });
        Ok(Response::new(PresenceResponse { status }))
    }
}

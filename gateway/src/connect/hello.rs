//! May this device speak here?

use tidemark_proto::hello::Hello;
use tidemark_proto::{Failure, v1};
use tidemark_types::{ClusterId, ErrorCode, UnixMs};

use super::Authenticator;

/// The `Hello`, if it is legal, for this cluster, and its token is for the user and device that it
/// names; and when the token expires.
pub(crate) fn check(
    hello: v1::Hello,
    cluster: ClusterId,
    authenticator: &dyn Authenticator,
) -> Result<(Hello, UnixMs), Failure> {
    let hello = Hello::try_from(hello)?;
    if hello.cluster.is_some_and(|known| known != cluster) {
        return Err(Failure::new(ErrorCode::WrongCluster));
    }
    let expires = authenticator.check(&hello.token, &hello.user, &hello.device)?;
    Ok((hello, expires))
}

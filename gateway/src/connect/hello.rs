//! May this device speak here?

use tidemark_proto::hello::Hello;
use tidemark_proto::{Failure, v1};
use tidemark_types::{ClusterId, ErrorCode};

use super::{Authenticator, Validity};

/// The `Hello`, if it is legal, for this cluster, and its token is for the user and device that it
/// names; and the time for which the token is good.
pub(crate) fn check(
    hello: v1::Hello,
    cluster: ClusterId,
    authenticator: &dyn Authenticator,
) -> Result<(Hello, Validity), Failure> {
    let hello = Hello::try_from(hello)?;
    if hello.cluster.is_some_and(|known| known != cluster) {
        return Err(Failure::new(ErrorCode::WrongCluster));
    }
    let validity = authenticator.check(&hello.token, &hello.user, &hello.device)?;
    Ok((hello, validity))
}

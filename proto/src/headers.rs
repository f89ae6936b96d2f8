//! The names of the headers and trailers that Tidemark adds to gRPC.

/// The JWT of a unary call, after [`BEARER`].
pub const AUTHORIZATION: &str = "authorization";
/// What stands before the token in [`AUTHORIZATION`].
pub const BEARER: &str = "Bearer ";
/// The cluster that the caller means, as a UUID in text; another one refuses the call (R8).
pub const CLUSTER: &str = "tidemark-cluster";

/// The `ErrorCode` by its name.
pub const ERROR_CODE: &str = "tidemark-error-code";
/// Milliseconds until the call may be tried again.
pub const RETRY_AFTER_MS: &str = "tidemark-retry-after-ms";
/// The leader's address, host:port.
pub const LEADER: &str = "tidemark-leader";
/// With `OUT_OF_ORDER`: the n that the session takes next.
pub const EXPECTED: &str = "tidemark-expected";
/// With `STALE`: the live session, 0 for none.
pub const LIVE: &str = "tidemark-live-session";
/// With `SESSION_ENDED`: the last n that the session took.
pub const LAST_N: &str = "tidemark-last-n";
/// With `RESET`: epoch, floor and head, with a comma between them.
pub const POSITION: &str = "tidemark-position";

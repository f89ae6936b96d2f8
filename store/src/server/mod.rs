//! The edges of a store node: gRPC for gateways and tools, HTTP for operators.
//!
//! It translates and bounds; what a request does is decided below.

mod gateways;
pub mod http;
mod presence;
pub mod store;
mod watch;

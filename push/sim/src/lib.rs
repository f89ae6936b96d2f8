//! The push services of the platforms, simulated: for tests, for demonstrations, for trying out a
//! configuration. It enforces the vendors' rules, and knows nothing of ours: what it takes, the real
//! service would take as far as its documents say.
//!
//! ```text
//!  APNs       HTTP/2 over TLS only             a port of its own
//!  the rest   HTTP/1.1, plain on loopback      one port, by path
//!  /sim/...   what arrived, what is to fail    the same port
//! ```
//!
//! It refuses to listen anywhere but on loopback: it has no secrets, and takes orders from anybody.

mod admin;
mod apns_server;
mod credentials;
mod http;
mod http_server;
mod jwt;
mod services;
mod sim;
mod state;

pub use credentials::Credentials;
pub use services::Counted;
pub use sim::{Sim, SimConfig};
pub use state::{Fault, Received, Service, Subscription};

//! The gateway: stateless, any number of them, between devices and the store.
//!
//! It holds connections and bounded buffers, nothing worth saving: killing one loses nothing, its
//! devices reconnect anywhere. Whatever decides a message's fate is in the store.

pub mod app;
pub mod backend;
pub mod config;
mod entry;
mod failure;
pub mod http;
mod message;
pub mod metrics;
pub mod serve;
pub mod store;

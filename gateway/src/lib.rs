//! The gateway: stateless, any number of them, between devices and the store.
//!
//! It holds connections and bounded buffers, nothing worth saving: killing one loses nothing, its
//! devices reconnect anywhere. Whatever decides a message's fate is in the store.
//!
//! ```text
//!                    ┌───────── devices: a task per connection ─────────┐
//!   carrier ◄──────► │ connect   who is it, may it speak                │
//!  (gRPC, WebSocket) │ send      its sends, in order, until answered    │ ──► store
//!                    │ receive   pages, cursors, heads                  │ ──► store
//!                    │ push      new entries ◄── session: one mailbox   │ ◄── store's watch
//!                    └──────────────────────── per user ────────────────┘
//!   unary calls ───► backend    who asks, what the fields are ────────────► store
//! ```
//!
//! `hints` wakes devices that are away, through the platforms' push services.
//!
//! `checks` is what an operator has configured to be asked of each send, of devices and back ends.
//!
//! `connect` knows frames and carriers, never what a message means; `send`, `receive` and `push`
//! know messages, never sockets; they meet in `devices`. What is pushed comes from the store's
//! watch alone, never from a send: the sender's gateway is rarely the recipient's.

pub mod app;
mod backend;
pub mod checks;
pub mod config;
pub mod connect;
pub mod devices;
mod entry;
mod failure;
mod groups;
mod hints;
mod http;
mod kept;
pub mod limits;
mod live;
pub mod metrics;
mod push;
mod receive;
mod send;
pub mod serve;
mod session;
mod sockets;
pub mod store;

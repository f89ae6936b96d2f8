//! The device SDK: a durable outbox, a gap-free inbox, and a connection that heals.
//!
//! A [`Device`] is one device of one user. It keeps its cursor, its send session and its outbox in
//! a [`Store`] of its own, connects to any gateway of a list, and keeps the rules of
//! `docs/protocol.md`:
//!
//! * [`Device::send`] returns when the message is durable in the outbox. From then on it is sent
//!   as often as it takes, through crashes, failovers and replaced sessions, and its [`Outcome`]
//!   is reported: accepted, refused for good, or unknown for good. Unknown is never called failed,
//!   and never sent again by itself.
//! * The [`Handler`] gets every entry of the mailbox, in order, one at a time, each until it has
//!   taken it. Only then the cursor moves. What retention removed is named, never passed over.
//!
//! ```text
//!   application                         tidemark-client                        gateway
//!   ───────────                ┌───────────────────────────────┐
//!   Device::send ────────────► │ task ──► engine (no I/O)      │ ◄── frames ──► Wire
//!   Sending::outcome ◄──────── │  │         │ changes, actions │                (Connector)
//!   Handler::entry ◄────────── │  └─► Store, then actions      │
//!   Events::next ◄──────────── └───────────────────────────────┘
//! ```
//!
//! The rules are in [`engine`], a state machine without I/O; the runtime around it makes what it
//! wants stored durable before it does what relies on it. All inputs that are ready share one
//! commit, so many sends share one fsync.
//!
//! Refuses: to skip an entry, to guess an outcome, to open another device's store, to let a queue
//! grow without a bound. A device that stops for good says why ([`Event::Stopped`]).
//!
//! Beside its connection a device has [`Devices`]: which devices its user has, what it is called
//! itself and where hints for it go, and logging another one out. For back ends there is one thing
//! more: [`Numbers`], numbers of counters over a stream.
//!
//! Limits: after a crash, the entries of the last second and the outcomes that were just taken may
//! come again. After a `Reset` (a restored mailbox) entries come again that the application took
//! before the last [`ORIGINS_MAX`] ones, or in an earlier run of the process. An application that
//! cannot bear it remembers origins.
//!
//! ```no_run
//! use tidemark_client::{Config, Device, DiskStore, Entry, FixedToken, Handler, Parts};
//!
//! struct Print;
//! impl Handler for Print {
//!     async fn entry(&self, entry: &Entry) -> Result<(), tidemark_client::AppError> {
//!         println!("{}: {:?}", entry.seq, entry.content);
//!         Ok(())
//!     }
//! }
//!
//! # async fn run(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let gateways = vec!["localhost:7400".to_owned()];
//! let config = Config::new("alice".parse()?, "phone".parse()?, gateways);
//! let parts = Parts::new(DiskStore::open("alice-phone.redb")?, Print, FixedToken(token));
//! let (device, _events) = Device::open(config, parts).await?;
//! let bob = tidemark_types::Recipient::User("bob".parse()?);
//! let mut sending = device.send(&[bob], 1, "hello").await?;
//! println!("{:?}", sending.outcome().await?);
//! device.close().await;
//! # Ok(())
//! # }
//! ```

mod act;
mod carrier;
mod config;
mod device;
mod devices;
pub mod engine;
mod entry;
mod event;
mod grpc;
mod handler;
mod numbers;
mod outcome;
mod shared;
pub mod store;
mod task;

pub use act::{Act, ActKind, AskError, Place};
pub use carrier::{Connector, OUTGOING_FRAMES, Wire};
pub use config::{Config, ConfigError, Label};
pub use device::{Closed, Device, Events, OpenError, Parts, SendError, Sending};
pub use devices::{DeviceInfo, Devices, PushTarget};
pub use engine::{ConnectionState, ORIGINS_MAX, Status};
pub use entry::{Content, Entry, GroupChange, Item, Message};
pub use event::{Event, Fatal};
pub use grpc::GrpcConnector;
pub use handler::{AppError, FixedToken, Handler, TokenSource};
pub use numbers::Numbers;
pub use outcome::{Accepted, Outcome, Settled, Unknown};
pub use store::{DiskStore, MemoryStore, Store, StoreError};

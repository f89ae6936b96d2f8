//! Platform push: wakes devices that are not connected (R18).
//!
//! What is pushed is a hint, "you have something up to this seq", never a message: services keep one
//! notification per device, merge and reorder them. The device connects and syncs, as after any
//! silence. So a push that is sent twice does no harm, and one that is lost is sent again.
//!
//! ```text
//!  store ──Hints──► Dispatcher ──► PushProvider ──► APNs, FCM, WNS, Web Push, a webhook …
//!  (what is due,    one lane per   one attempt,
//!   by lease)       provider       one outcome
//! ```
//!
//! A provider speaks one vendor's protocol: one attempt per call, and what the answer means for the
//! token. When to try again, how often, how many at once, whether at all: that is decided in the
//! [`Dispatcher`], once for all of them. It knows nothing of the store; whoever has the hints
//! implements [`Hints`].

mod build;
pub mod config;
mod dispatcher;
mod hint;
mod observer;
mod provider;
mod providers;
mod signed;
mod wire;

pub use build::{BuildError, Providers};
pub use config::PushConfig;
pub use dispatcher::{Dispatcher, Hints, HintsError, LEASE};
pub use hint::Hint;
pub use observer::{Event, Observer};
pub use provider::{Outcome, PushProvider, Sending, TARGET_BYTES_MAX, TargetError};
pub use signed::SignedEndpoint;
pub use wire::tls_client;

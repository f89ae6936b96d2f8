//! Real clusters under faults: start them, kill their parts, and account for every message.
//!
//! ```text
//!   Cluster ── processes of tidemark-store on loopback, killed by the ids we started
//!   Senders ── users who send through the store's client and write down what was acknowledged
//!   Phone   ── a device of the SDK, through the gateways
//!   Air     ── what gets lost between devices and gateways
//!   Wire    ── a back end's calls to a gateway
//!   Talker  ── a device that marks, recalls and edits, and what the mailboxes hold of it in the end
//!   Groups  ── members who join, leave and send, and what they hold of it in the end
//!   Counters ─ the numbers that back ends were given
//!   Watcher ── somebody who watches mailboxes as a gateway does
//!   Ledger  ── what was acknowledged against what every replica holds on disk
//! ```
//!
//! The ledger trusts nothing but the replicas' own files, read while the nodes are down.

pub mod acts;
pub mod air;
pub mod build;
pub mod cluster;
pub mod counters;
pub mod groups;
pub mod ledger;
pub mod login;
pub mod notes;
pub mod phone;
pub mod run;
pub mod senders;
pub mod stores;
pub mod watcher;
pub mod wire;
pub mod words;

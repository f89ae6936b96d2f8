//! Every provider against the simulator that keeps its vendor's rules, through the dispatcher too, and
//! Web Push against an independent receiver that decrypts.

mod bench;
mod dispatch;
mod providers;
mod receiver;

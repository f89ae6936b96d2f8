//! The simulator's rules, each by a request that breaks it and nothing else; and an independent
//! sender that it must take for the real one.

mod admin;
mod apns;
mod raw;
mod rules;
mod sender;

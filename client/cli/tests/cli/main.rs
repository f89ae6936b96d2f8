//! The real binary against a gateway made for these tests: what it sends, prints and exits with.

mod double;
mod double_groups;
mod double_passing;
mod double_sequence;
mod golden;
mod listens;
mod rig;
mod sends;

//! The real binary against a gateway made for these tests: what it sends, prints and exits with.

mod double;
mod golden;
mod listens;
mod rig;
mod sends;

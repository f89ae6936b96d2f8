//! The engine without a runtime (scripts of frames, those that every SDK must pass, and a model with
//! everything that goes wrong),
//! and the whole device over real gRPC on loopback, against a gateway that misbehaves.

mod conformance;
mod device;
mod devices;
mod gateway;
mod golden;
mod model;
mod server;
mod stored;

//! The engine without a runtime (scripts of frames, and a model with everything that goes wrong),
//! and the whole device over real gRPC on loopback, against a gateway that misbehaves.

mod device;
mod devices;
mod gateway;
mod golden;
mod model;
mod server;

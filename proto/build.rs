//! Compiles the `.proto` files under `tidemark/` without `protoc`, and keeps the descriptors for reflection.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message as _;

/// The device protocol, and what store nodes offer to gateways.
const PACKAGES: [&str; 2] = ["tidemark/v1", "tidemark/store/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for package in PACKAGES {
        println!("cargo::rerun-if-changed={package}");
        for file in fs::read_dir(package)? {
            files.push(file?.path());
        }
    }
    // The order in which a directory is listed must not reach the generated code.
    files.sort();

    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    // Bodies that are sent are shared, not copied. An id is 16 bytes, and a body that is told is encoded by another
    // thread than the one that read it: these cost less to copy than to share. Clients get their channel from the
    // caller, who owns deadlines and keepalive: a generated `connect` would be a second way, and would collide with
    // `Gateway.Connect`.
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".tidemark.v1.Deliver", "crate::deliver::Deliver")
        .codec_path("crate::codec::Codec")
        .bytes(".tidemark.store")
        .bytes(".tidemark.v1.BeforeSendRequest.body")
        .bytes(".tidemark.v1.BeforeSendResponse.body")
        .bytes(".tidemark.v1.Send.body")
        .bytes(".tidemark.v1.SendRequest.body")
        .skip_debug([".tidemark.v1.Hello"])
        // By far the largest of its kind.
        .boxed(".tidemark.v1.FeedChange.what.entry")
        .compile_fds(descriptors)?;
    Ok(())
}

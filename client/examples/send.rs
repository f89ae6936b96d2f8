//! Sends one message to one user, and prints what became of it.
//!
//! `cargo run --release -p tidemark-client --example send -- GATEWAY USER DEVICE TOKEN FILE TO TEXT`

use tidemark_client::{AppError, Config, Device, DiskStore, Entry, FixedToken, Handler, Parts};
use tidemark_proto::hello::Start;
use tidemark_types::Recipient;

/// A device of its own that only sends: it starts at the head, and passes entries over.
struct Ignore;

impl Handler for Ignore {
    async fn entry(&self, _: &Entry) -> Result<(), AppError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [gateway, user, device, token, file, to, text] = arguments.as_slice() else {
        return Err("send GATEWAY USER DEVICE TOKEN FILE TO TEXT".into());
    };
    let config = Config {
        start: Start::Head,
        ..Config::new(user.parse()?, device.parse()?, vec![gateway.clone()])
    };
    let parts = Parts::new(DiskStore::open(file)?, Ignore, FixedToken(token.clone()));
    let (device, _events) = Device::open(config, parts).await?;
    let to = Recipient::User(to.parse()?);
    let mut sending = device.send(&[to], 1, text.clone()).await?;
    println!("{}: {:?}", sending.client_msg_id(), sending.outcome().await?);
    device.close().await;
    Ok(())
}

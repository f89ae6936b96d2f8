//! Prints a user's mailbox, from its oldest entry on, and everything that comes.
//!
//! `cargo run --release -p tidemark-client --example listen -- GATEWAY USER DEVICE TOKEN FILE`

use tidemark_client::{
    AppError, Config, Content, Device, DiskStore, Entry, FixedToken, Handler, Parts,
};

struct Print;

impl Handler for Print {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        match &entry.content {
            Content::Message(message) => {
                let sender = entry.origin.as_ref().map(|origin| origin.sender().to_string());
                let body = String::from_utf8_lossy(&message.body);
                println!("{}: {}: {body}", entry.seq, sender.unwrap_or_default());
            }
            other => println!("{}: {other:?}", entry.seq),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [gateway, user, device, token, file] = arguments.as_slice() else {
        return Err("listen GATEWAY USER DEVICE TOKEN FILE".into());
    };
    let config = Config::new(user.parse()?, device.parse()?, vec![gateway.clone()]);
    let parts = Parts::new(DiskStore::open(file)?, Print, FixedToken(token.clone()));
    let (device, mut events) = Device::open(config, parts).await?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => eprintln!("{event:?}"),
                None => return Ok(()),
            },
            _ = tokio::signal::ctrl_c() => device.close().await,
        }
    }
}

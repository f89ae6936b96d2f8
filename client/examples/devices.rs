//! Says where this device is woken (`--none`: nowhere), and prints all of the user's devices.
//!
//! `cargo run --release -p tidemark-client --example devices -- GATEWAY USER DEVICE TOKEN [PROVIDER TARGET | --none]`

use tidemark_client::{AppError, Config, Devices, FixedToken, PushTarget};

#[tokio::main]
async fn main() -> Result<(), AppError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [gateway, user, device, token, push @ ..] = arguments.as_slice() else {
        return Err("devices GATEWAY USER DEVICE TOKEN [PROVIDER TARGET | --none]".into());
    };
    let config = Config::new(user.parse()?, device.parse()?, vec![gateway.clone()]);
    let devices = Devices::new(config, FixedToken(token.clone()))?;
    match push {
        [] => {}
        [none] if none == "--none" => devices.remove_push().await?,
        [provider, target] => {
            let (provider, target) = (provider.clone(), target.clone());
            devices.set_push(PushTarget { provider, target }).await?;
        }
        _ => return Err("PROVIDER TARGET, or --none".into()),
    }
    for device in devices.list().await? {
        let provider = device.push_provider.unwrap_or_else(|| "nobody".to_owned());
        let state = if device.connected { "connected" } else { "away" };
        println!("{} {:?}: {state}, woken by {provider}", device.device, device.label.name);
    }
    Ok(())
}

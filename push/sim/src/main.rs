//! Runs the simulator until it is interrupted.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use tidemark_push_sim::{Sim, SimConfig};

/// The push services of the platforms, simulated on this machine.
#[derive(Parser)]
struct Args {
    /// A folder for the credentials, and a configuration that uses them (push.toml).
    #[arg(long)]
    dir: PathBuf,
    /// Where APNs listens; loopback only.
    #[arg(long, default_value = "127.0.0.1:7501")]
    apns: SocketAddr,
    /// Where all others listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:7502")]
    http: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let sim =
        Sim::start(SimConfig { apns: args.apns, http: args.http, ..SimConfig::default() }).await?;
    sim.write(&std::path::absolute(&args.dir)?)?;
    println!("APNs on https://{}, all others on http://{}", sim.apns(), sim.http());
    println!("credentials and push.toml are in {}", args.dir.display());
    tokio::signal::ctrl_c().await?;
    Ok(())
}

//! The two-phones page: a page in which two people's devices talk over real WebSockets, and what it
//! asks of the machine that it runs on.
//!
//! ```text
//!   browser ── SDK ──── WebSockets ────► gateways ──► stores       (scripts/cluster)
//!      │                                    └─ push ─► simulator ─┐
//!      └── files, tokens, leaders, kills, metrics, pushes ─► here ◄┘
//! ```
//!
//! It holds no message and measures nothing of its own: what the page shows of a message's way is
//! timed in the page, or comes from the servers' metrics. Invariants: it listens on loopback only;
//! it answers nobody but its own page; it gives out tokens for the page's three devices only.

mod cluster;
mod http;
mod measured;
mod phones;
mod pushes;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tidemark_version::VERSION;
use tokio::signal::unix::{SignalKind, signal};

use cluster::Cluster;
use phones::Phones;
use pushes::Pushes;
use web::Web;

/// Two phones in one page, on the local cluster.
#[derive(Parser)]
#[command(version = VERSION)]
struct Arguments {
    /// Where the page is; loopback only.
    #[arg(long, default_value = "127.0.0.1:7490")]
    http: SocketAddr,
    /// The checkout whose `scripts/cluster` runs the cluster.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// The cluster's folder; the checkout's `.tidemark` by default.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { http, root, home } = Arguments::parse();
    ensure!(
        http.ip().is_loopback(),
        "--http {http} is not loopback, and who opens the page kills nodes"
    );
    let home = home.unwrap_or_else(|| root.join(".tidemark"));
    let cluster = Cluster::find(&root, &home)?;
    let phones = Phones::new(&cluster)?;
    let pushes = Arc::new(Pushes::start(cluster.home()).await?);
    let socket = tokio::net::TcpListener::bind(http).await;
    let socket = socket.with_context(|| format!("listening on {http}"))?;
    let at = socket.local_addr()?;
    let router = web::router(Web::new(at, &root, cluster, phones, pushes)?);
    println!("http://{at}/");
    axum::serve(socket, router).with_graceful_shutdown(ended()).await?;
    Ok(())
}

/// SIGTERM or SIGINT.
async fn ended() {
    let mut term = signal(SignalKind::terminate()).expect("the process may have signal handlers");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

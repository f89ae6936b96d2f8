//! `tidemark-gateway`: the gateway's binary. It parses, starts telemetry and hears signals; the
//! work is in the library.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use futures::future::join_all;
use tidemark_allocator::{Allocator, take_small_pages};
use tidemark_env::{Clock, Rng, SystemClock, SystemRng};
use tidemark_gateway::app::App;
use tidemark_gateway::config::{GatewayConfig, StoreConfig};
use tidemark_gateway::metrics;
use tidemark_gateway::serve::{self, Listeners};
use tidemark_process::LogFormat;
use tidemark_store_client::{Client, Error};
use tidemark_token::Keys;
use tidemark_types::ClusterId;
use tidemark_version::VERSION;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// Frames and bodies are many small things: see docs/performance.md.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Store nodes forget a gateway that is silent for three times as long.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);

/// A gateway of Tidemark, the lossless messaging core.
#[derive(Parser)]
#[command(version = VERSION, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a gateway. SIGTERM and SIGINT stop it, SIGHUP reloads the keys.
    Run(RunArguments),
}

#[derive(clap::Args)]
struct RunArguments {
    /// A configuration file in TOML; flags win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where devices, back ends and operators reach it.
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<SocketAddr>,
    /// Where /metrics, /healthz and /readyz are.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<SocketAddr>,
    /// Store nodes; any of them tells where all are.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    store: Option<Vec<String>>,
    /// The keys by which tokens are verified: a file, or a folder of several.
    #[arg(long, value_name = "PATH")]
    keys: Option<PathBuf>,
    /// The cluster that it serves; it ends when the store is another one.
    #[arg(long, value_name = "UUID")]
    cluster: Option<ClusterId>,
    /// Listen on other addresses than loopback, though nothing is encrypted yet: for a network that
    /// nobody else is on.
    #[arg(long)]
    insecure: bool,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the configuration as it would be used, and exit.
    #[arg(long)]
    print_config: bool,
    /// How to write the log, on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

pub(crate) fn main() -> ExitCode {
    let Command::Run(arguments) = Arguments::parse().command;
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemark-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &RunArguments) -> Result<()> {
    let config = config(arguments)?;
    if arguments.print_config {
        print!("{}", toml::to_string(&config)?);
    }
    if arguments.print_config || arguments.check_config {
        return Ok(());
    }
    tidemark_process::logs(arguments.log_format, "info");
    if let Err(error) = tidemark_process::work_in_batches() {
        tracing::warn!(%error, "threads interrupt each other: under load all takes longer");
    }
    // Also since a quiet connection uses the first page of each of its buffers, and a huge page has all
    // of them.
    if let Err(error) = take_small_pages() {
        tracing::warn!(%error, "memory comes in huge pages: quiet devices take more of it");
    }
    let runtime = tidemark_process::runtime().build().context("no threads can be started")?;
    runtime.block_on(until_stopped(config))
}

/// The file, with what the flags say instead.
fn config(arguments: &RunArguments) -> Result<GatewayConfig> {
    let mut config = match &arguments.config {
        Some(path) => tidemark_process::load(path)?,
        None => GatewayConfig::default(),
    };
    config.grpc = arguments.grpc.unwrap_or(config.grpc);
    config.http = arguments.http.unwrap_or(config.http);
    config.keys = arguments.keys.clone().unwrap_or(config.keys);
    config.cluster = arguments.cluster.or(config.cluster);
    config.store.endpoints = arguments.store.clone().unwrap_or(config.store.endpoints);
    config.insecure |= arguments.insecure;
    config.validate()?;
    Ok(config)
}

async fn until_stopped(config: GatewayConfig) -> Result<()> {
    let recorder = tidemark_process::recorder(metrics::BUCKETS)?;
    metrics::describe();
    tidemark_process::usage::describe();
    let stop = stop_signal()?;
    let hangups = signal(SignalKind::hangup())?;
    let listeners = Listeners {
        grpc: listen(config.grpc).await?,
        http: listen(config.http).await?,
        connections_max: config.limits.connections_max,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let keys = Keys::read(&config.keys, clock.clone())?;
    let start = start(&config, keys, clock, hangups);
    serve::until_stopped(start, listeners, recorder, config.limits.drain(), stop).await?;
    tracing::info!("stopped");
    Ok(())
}

async fn start(
    config: &GatewayConfig,
    keys: Keys,
    clock: Arc<dyn Clock>,
    hangups: Signal,
) -> Result<Arc<App>> {
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    let store = reach(&config.store, clock.clone(), rng.clone()).await?;
    let app = Arc::new(App::new(config, keys, Arc::new(store.clone()), clock, rng)?);
    tracing::info!(
        grpc = %config.grpc,
        http = %config.http,
        version = VERSION,
        cluster = %app.cluster(),
        "started",
    );
    tokio::spawn(reload_keys(app.clone(), hangups));
    if let Some(http) = config.announced() {
        tokio::spawn(announce(store, http));
    }
    Ok(app)
}

/// The store, when it is there: it may start later than its gateways, or be away for a while.
async fn reach(
    config: &StoreConfig,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
) -> Result<Client, Error> {
    let mut told = false;
    loop {
        match Client::connect(config.into(), clock.clone(), rng.clone()).await {
            Err(Error::Unavailable(reason)) if !told => {
                tracing::warn!(%reason, "no store node answers: waiting until one does");
                told = true;
            }
            Err(Error::Unavailable(_)) => {}
            reached => return reached,
        }
    }
}

/// Tells all store nodes where its HTTP port is, for the live pages of other gateways.
async fn announce(store: Client, http: String) {
    let mut ticks = tokio::time::interval(ANNOUNCE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let told = store.map().nodes.keys().map(|node| store.announce(*node, &http));
        for refused in join_all(told).await.into_iter().filter_map(Result::err) {
            tracing::debug!(%refused, "a store node does not know of this gateway");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn reload_keys(app: Arc<App>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        app.reload_keys();
    }
}

/// Is ready once the process shall stop; listens from now on.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping: what is under way ends first");
    })
}

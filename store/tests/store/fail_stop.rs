//! A node whose disk fails stops at once and says why: it never acknowledges what it cannot keep.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidemark_env::{SystemClock, SystemRng};
use tidemark_lab::disk::{Cut, LoopFs};
use tidemark_store_client::{Client, ClientConfig, Error};
use tidemark_store_core::command::Start;
use tidemark_store_core::{Command, Reply};
use tidemark_types::DeviceId;

use crate::node::user;
use crate::rig;

const IMAGE_BYTES: u64 = 512 << 20;
/// Shorter than the test: the node does not come back.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(60);

/// Registers a device: the least that must be written.
async fn register(client: &Client, number: u32) -> Result<Reply, Error> {
    let (user, device) = (user(&format!("user-{number}")), DeviceId::new("phone").unwrap());
    client
        .command(&Command::RegisterDevice {
            user,
            device,
            start: Start::Head,
            arrival: None,
            label: None,
        })
        .await
}

/// Connects once the node takes calls.
pub(crate) async fn connect(grpc: &str) -> Result<Client> {
    let started = Instant::now();
    loop {
        let config = ClientConfig { endpoints: vec![grpc.to_owned()], deadline: CALL_DEADLINE };
        let connected =
            Client::connect(config, Arc::new(SystemClock::new()), Arc::new(SystemRng)).await;
        match connected {
            Ok(client) => return Ok(client),
            Err(error) => ensure!(started.elapsed() < WITHIN, "it does not start: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_stops_and_says_why() -> Result<()> {
    let _lock = tidemark_lab::alone()?;
    let (seed, rng) = rig::random()?;
    let mut disk = LoopFs::create(IMAGE_BYTES)?;
    let log = disk.safe().join("node.log");
    let (mut node, grpc) = rig::node(&disk.data(), log.clone())?;
    let client = connect(&grpc).await?;
    let reply = register(&client, 1).await?;
    ensure!(!matches!(reply, Reply::Rejected(_)), "{reply:?}");
    disk.cut(Cut::Plain, &rng)?;
    let asked = client.clone();
    let refused = tokio::spawn(async move { register(&asked, 2).await });
    let status = tokio::task::block_in_place(|| node.exited(WITHIN))?;
    // Unknown or unavailable, whichever it is: nobody was told that it is done.
    let refused = refused.await?.expect_err("it was acknowledged, and cannot be kept");
    eprintln!("seed {seed}: {refused}");
    let said = fs::read_to_string(log)?;
    ensure!(!status.success(), "seed {seed}: it ended as if nothing was wrong: {said}");
    ensure!(said.contains("the node cannot go on"), "seed {seed}: it does not say why: {said}");
    Ok(())
}

//! What three idle nodes cost. Measured by hand:
//! `cargo test --release --workspace --lib idle -- --ignored --nocapture --test-threads 1`.

use std::time::Duration;

use super::Cluster;

const MEASURED: Duration = Duration::from_secs(10);

/// CPU time of this process so far, user and system.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the command's name, which may contain anything: fields 14 and 15, in ticks of 10 ms.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn measure(groups: u16) {
    let cluster = Cluster::start(groups).await;
    for group in 0..groups {
        cluster.leader(group).await;
    }
    let terms = |cluster: &Cluster| -> u64 {
        (0..groups).map(|group| cluster.group(0, group).status().term).sum()
    };
    let before = (cpu(), terms(&cluster));
    tokio::time::sleep(MEASURED).await;
    let used = cpu() - before.0;
    println!(
        "{groups} idle groups on three nodes: {:.1} % of a core, {} elections meanwhile",
        100.0 * used.as_secs_f64() / MEASURED.as_secs_f64(),
        terms(&cluster) - before.1,
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn idle_cost_of_8_groups() {
    measure(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn idle_cost_of_64_groups() {
    measure(64).await;
}

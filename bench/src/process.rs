//! What the servers' processes use, seen from outside: `/proc` and `/metrics`. Linux only.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One tick of the times in `/proc`, in milliseconds: `USER_HZ`, which Linux has at 100 for programs.
const TICK_MS: u64 = 10;

/// How long a process may take to tell its metrics.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Durable commits of the log, by name in the store's `/metrics`.
const FSYNCS: &str = "store_log_fsync_seconds_count";

/// How the names of gateways' processes begin.
const GATEWAY: &str = "gateway-";

/// A process on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    name: String,
    pid: u32,
    /// Where it tells its metrics.
    http: Option<String>,
}

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    cpu: Duration,
    pub(crate) rss_bytes: u64,
    /// Handed to storage; none when the system does not tell.
    written_bytes: Option<u64>,
    fsyncs: Option<u64>,
}

/// What a process used in the measured time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Which process.
    pub(crate) process: String,
    /// Processor time per message; this and what else is per message is none where there was none.
    pub(crate) cpu_us_per_message: Option<f64>,
    /// Of how many processors it used all.
    pub(crate) cpus: f64,
    /// Its memory in the end.
    pub(crate) rss_bytes: u64,
    /// Bytes handed to storage per message.
    pub(crate) written_bytes_per_message: Option<f64>,
    /// Durable commits of the log per message.
    pub(crate) fsyncs_per_message: Option<f64>,
}

impl Cost {
    /// Is it a gateway's?
    pub(crate) fn is_of_gateway(&self) -> bool {
        self.process.starts_with(GATEWAY)
    }
}

impl Process {
    /// The process whose id lies in `NAME.pid` in this folder, if it runs.
    pub(crate) fn find(folder: &Path, name: String, http: String) -> Option<Self> {
        let pid = fs::read_to_string(folder.join(format!("{name}.pid"))).ok()?;
        let pid = pid.trim().parse().ok()?;
        // A number that was given to another process since is none of ours.
        let own = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        own.starts_with("tidemark").then_some(Process { name, pid, http: Some(http) })
    }

    /// A process that this one started.
    pub(crate) fn started(name: String, pid: u32) -> Self {
        Process { name, pid, http: None }
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Process { name: "load".to_owned(), pid: std::process::id(), http: None }
    }

    /// Is it a gateway?
    pub(crate) fn is_gateway(&self) -> bool {
        self.name.starts_with(GATEWAY)
    }

    /// Is it this one?
    pub(crate) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// How many files and sockets it may have open; none when the system does not tell.
    pub(crate) fn open_files_max(&self) -> Option<u64> {
        open_files_max(&fs::read_to_string(format!("/proc/{}/limits", self.pid)).ok()?)
    }

    /// What it has used; none when it is gone, or does not tell its metrics.
    pub(crate) async fn usage(&self) -> Option<Usage> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.pid)).ok();
        let cpu = cpu(&read("stat")?)?;
        let rss = field(&read("status")?, "VmRSS:")?;
        let written_bytes = read("io").and_then(|io| field(&io, "write_bytes:"));
        let fsyncs = match &self.http {
            Some(http) => field(&scrape(http).await?, FSYNCS),
            None => None,
        };
        Some(Usage { cpu, rss_bytes: rss * 1_024, written_bytes, fsyncs })
    }

    /// What it used between two looks at it, in `elapsed`, while `messages` were taken.
    pub(crate) fn cost(&self, from: &Usage, to: &Usage, elapsed: Duration, messages: u64) -> Cost {
        let shared = |cost: f64| (messages > 0).then(|| cost / messages as f64);
        let per_message = |count: u64| shared(count as f64);
        let grown = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        let cpu = to.cpu.saturating_sub(from.cpu);
        Cost {
            process: self.name.clone(),
            cpu_us_per_message: shared(cpu.as_secs_f64() * 1e6),
            cpus: cpu.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            rss_bytes: to.rss_bytes,
            written_bytes_per_message: grown(from.written_bytes, to.written_bytes)
                .and_then(per_message),
            fsyncs_per_message: grown(from.fsyncs, to.fsyncs).and_then(per_message),
        }
    }
}

/// Processor time that everything on this machine has used.
pub(crate) fn machine() -> Option<Duration> {
    busy(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, and what other
/// machines took (steal). Idle and waiting are not used.
fn busy(stat: &str) -> Option<Duration> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let times: Vec<u64> = times.take(8).map(|time| time.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, system, _, _, irq, softirq, steal] = times.try_into().ok()?;
    let ticks = user + nice + system + irq + softirq + steal;
    Some(Duration::from_millis(TICK_MS * ticks))
}

/// User and system time: fields 14 and 15 of `/proc/PID/stat`, counted after the name, which may
/// have spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let (user, system) = (fields.next()??, fields.next()??);
    Some(Duration::from_millis(TICK_MS * (user + system)))
}

/// The limit that holds, the soft one, of `/proc/PID/limits`.
fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The text of a process's `/metrics`; none when it does not come in time.
async fn scrape(http: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    timeout(SCRAPE_TIMEOUT, exchange).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("42 (a) S 1"), None);
    }

    #[test]
    fn a_machine_that_is_idle_or_waits_is_not_busy() {
        let stat = "cpu  100 1 50 9999 8888 2 3 4 5 6\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(busy(stat), Some(Duration::from_millis(1_600)));
        assert_eq!(busy("cpu  100 1"), None);
        assert!(machine().is_some_and(|busy| busy > Duration::ZERO), "Linux");
    }

    #[test]
    fn a_field_is_a_whole_name() {
        let text = "rchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 7\nVmRSS:\t  12 kB\n";
        assert_eq!(field(text, "write_bytes:"), Some(4_096));
        assert_eq!(field(text, "VmRSS:"), Some(12));
        assert_eq!(field(text, "none:"), None);
    }

    #[test]
    fn the_limit_that_holds_is_the_soft_one() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
            Max processes    7    8    processes\nMax open files    1024    524288    files\n";
        assert_eq!(open_files_max(limits), Some(1_024));
        assert_eq!(open_files_max(&limits.replace("1024", "unlimited")), Some(u64::MAX));
        assert_eq!(open_files_max("Max processes 7 8\n"), None);
        assert!(Process::own().open_files_max().is_some_and(|max| max > 0), "Linux");
    }

    #[tokio::test]
    async fn this_process_is_seen() {
        let usage = Process::own().usage().await.expect("Linux");
        assert!(usage.rss_bytes > 0);
        assert_eq!(usage.fsyncs, None);
    }

    #[test]
    fn costs_are_per_message() {
        let process = Process { name: "x".to_owned(), pid: 1, http: None };
        let from = Usage { written_bytes: Some(1_000), ..Usage::default() };
        let cpu = Duration::from_millis(500);
        let to = Usage { cpu, rss_bytes: 7, written_bytes: Some(3_000), fsyncs: Some(4) };
        let cost = process.cost(&from, &to, Duration::from_secs(2), 1_000);
        assert_eq!((cost.cpu_us_per_message, cost.cpus, cost.rss_bytes), (Some(500.0), 0.25, 7));
        assert_eq!(cost.written_bytes_per_message, Some(2.0));
        assert_eq!(cost.fsyncs_per_message, None, "it is not known where it began");
        let idle = process.cost(&from, &to, Duration::from_secs(2), 0);
        assert_eq!((idle.cpu_us_per_message, idle.cpus), (None, 0.25));
        assert_eq!(idle.written_bytes_per_message, None);
    }
}

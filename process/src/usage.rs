//! What a process uses of its machine, as Prometheus's own clients name it; read from `/proc` when
//! somebody scrapes, and at no other time.
#![expect(clippy::disallowed_macros, reason = "the metrics that all servers share")]

use std::fs;
use std::io;

use metrics::{Unit, describe_gauge, gauge};

const CPU_SECONDS_TOTAL: &str = "process_cpu_seconds_total";
const RESIDENT_BYTES: &str = "process_resident_memory_bytes";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const THREADS: &str = "process_threads";
const START_SECONDS: &str = "process_start_time_seconds";

/// Tells the exporter what each of them means.
pub fn describe() {
    // A counter of this crate has no fractions.
    describe_gauge!(
        CPU_SECONDS_TOTAL,
        Unit::Seconds,
        "Processor time of the process, its own and the system's for it; it only grows."
    );
    describe_gauge!(RESIDENT_BYTES, Unit::Bytes, "Memory of the process that is in RAM.");
    describe_gauge!(OPEN_FDS, Unit::Count, "Open files and sockets.");
    describe_gauge!(MAX_FDS, Unit::Count, "Files and sockets that may be open.");
    describe_gauge!(THREADS, Unit::Count, "Threads of the process.");
    describe_gauge!(
        START_SECONDS,
        Unit::Seconds,
        "When the process started, in seconds since the Unix epoch."
    );
}

/// Reads them anew. Where there is no `/proc` they stay away.
pub fn observe() {
    let Ok(usage) = Usage::read() else { return };
    gauge!(CPU_SECONDS_TOTAL).set(usage.cpu_ticks as f64 / TICKS_PER_SECOND as f64);
    gauge!(RESIDENT_BYTES).set(usage.resident_bytes as f64);
    gauge!(OPEN_FDS).set(usage.open_fds as f64);
    gauge!(THREADS).set(usage.threads as f64);
    gauge!(START_SECONDS).set(usage.start_seconds as f64);
    if let Some(max) = usage.max_fds {
        gauge!(MAX_FDS).set(max as f64);
    }
}

/// Linux tells user space processor times in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: u64 = 100;

struct Usage {
    cpu_ticks: u64,
    resident_bytes: u64,
    threads: u64,
    start_seconds: u64,
    open_fds: usize,
    max_fds: Option<u64>,
}

impl Usage {
    fn read() -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{file}"));
        let (stat, status) = (read("self/stat")?, read("self/status")?);
        let (limits, system) = (read("self/limits")?, read("stat")?);
        // The command's name may have anything in it, so that fields are counted behind it: the third
        // field of proc(5) is the first here.
        let (_, fields) = stat.rsplit_once(')').ok_or_else(missing)?;
        let field = |number: usize| number_at(fields, number - 3);
        let boot = labelled(&system, "btime")?;
        Ok(Usage {
            cpu_ticks: field(14)? + field(15)?,
            resident_bytes: labelled(&status, "VmRSS:")? * 1024,
            threads: labelled(&status, "Threads:")?,
            start_seconds: boot + field(22)? / TICKS_PER_SECOND,
            open_fds: fs::read_dir("/proc/self/fd")?.count(),
            // Unlimited is no number.
            max_fds: labelled(&limits, "Max open files").ok(),
        })
    }
}

fn missing() -> io::Error {
    io::Error::other("a field of /proc is missing")
}

fn number_at(fields: &str, place: usize) -> io::Result<u64> {
    fields.split_whitespace().nth(place).and_then(|field| field.parse().ok()).ok_or_else(missing)
}

/// The number behind a label at the beginning of a line.
fn labelled(text: &str, label: &str) -> io::Result<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label)).ok_or_else(missing)?;
    number_at(rest, 0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_manual_lists_what_is_measured() {
        crate::hold_metrics_table("every server", describe);
    }

    #[test]
    fn usage_is_that_of_this_process() {
        let file = fs::File::open("/proc/self/stat").expect("it is there");
        let with = Usage::read().expect("Linux");
        drop(file);
        let megabyte = 1 << 20;
        assert!((megabyte..megabyte << 14).contains(&with.resident_bytes));
        assert!(with.threads >= 1);
        assert!(with.open_fds >= 4, "three, and the file");
        assert!(with.max_fds.is_none_or(|max| max >= with.open_fds as u64));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
        let age = now.saturating_sub(Duration::from_secs(with.start_seconds));
        assert!(age < Duration::from_secs(3_600), "{age:?}");
        // Whoever does nothing but look uses its processor.
        while Usage::read().expect("Linux").cpu_ticks < with.cpu_ticks + 2 {}
    }
}

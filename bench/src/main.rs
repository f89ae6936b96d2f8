//! `tidemark-bench`: load through the real device protocol, and whether all of it was right.
//!
//! ```text
//!   run ──┬► messages ────┬► cast ─► crew ─┬► pace ─► sender ─┐
//!         ├► catch_up ────┘                │        inbox ────┴─ device ─┬► wire ──────┬► gateway
//!         └► numbers ──────────────────────┼─────────────────────────────┘  websocket ─┘
//!                  │                       ├► disturbance                      │
//!                  └► stage ─┬► meter: phase, counts, histograms               │
//!                            ├► process: /proc, /metrics ◄─────────────────────┴─ stores
//!                            └► books, ledger ─► report
//!   peers ─► run, and the same over other systems
//! ```
//!
//! Invariants: one process and one clock see both ends of every message. Nothing is measured that
//! is not checked: a message that is lost, doubled or out of order, or an answer that the protocol
//! forbids, voids the run.

mod body;
mod books;
mod cast;
mod catch_up;
mod crew;
mod device;
mod disturbance;
mod gathering;
mod inbox;
mod ledger;
mod lookout;
mod messages;
mod meter;
mod names;
mod numbers;
mod outbox;
mod pace;
mod peers;
mod process;
mod report;
mod run;
mod sender;
mod settings;
mod stage;
mod target;
mod websocket;
mod wire;
mod workload;

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tidemark_allocator::Allocator;
use tidemark_version::VERSION;
use tokio::runtime::Runtime;

use crate::report::Report;
use crate::settings::Arguments;
use crate::target::Target;

/// A load is many small things too, whosever servers it is for.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// What a void run ends with.
const VOID: u8 = 2;

/// What is measured here.
const SYSTEM: &str = "tidemark";

fn main() -> Result<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|first| first == peers::COMMAND) {
        return peers::main(runtime);
    }
    let arguments = Arguments::parse();
    if let Err(reason) = arguments.validate() {
        Arguments::command().error(ErrorKind::ValueValidation, reason).exit();
    }
    let report = match arguments.table.as_slice() {
        [] => runtime(arguments.settings.threads)?.block_on(measure(&arguments))?,
        files => Report::read(files)?,
    };
    print!("{}", report.markdown());
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(VOID) })
}

/// What the load runs on. It stands for devices, which have processors of their own: it waits for its turn instead
/// of interrupting the servers that it measures, whosever they are. The calling thread, which starts those of others,
/// stays as it was, and so do they.
fn runtime(threads: u32) -> io::Result<Runtime> {
    let in_batches = || {
        if let Err(error) = tidemark_process::work_in_batches() {
            eprintln!("the load interrupts the servers: {error}");
        }
    };
    tidemark_process::runtime().worker_threads(threads as usize).on_thread_start(in_batches).build()
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let target = Target::find(&arguments.cluster).await?;
    let mut workloads = Vec::new();
    for workload in arguments.workloads() {
        let measured = run::run(&target, workload, &arguments.settings).await;
        workloads.push(measured.with_context(|| workload.name)?);
    }
    Ok(Report { version: VERSION.to_owned(), system: SYSTEM.to_owned(), workloads })
}

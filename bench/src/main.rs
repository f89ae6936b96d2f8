//! `tidemark-bench`: load through the real device protocol, and whether all of it was right.
//!
//! ```text
//!   workload ─► run ─┬► pace ─► sender ─┐
//!                    │        inbox ────┴─ device ─► wire ─► gateway
//!                    ├► meter: phase, counts, histograms       │
//!                    ├► process: /proc, /metrics ◄─────────────┴─ stores
//!                    └► books, ledger ─► report
//! ```
//!
//! Invariants: one process and one clock see both ends of every message. Nothing is measured that
//! is not checked: a message that is lost, doubled or out of order, or an answer that the protocol
//! forbids, voids the run.

mod body;
mod books;
mod device;
mod inbox;
mod ledger;
mod meter;
mod names;
mod outbox;
mod pace;
mod process;
mod report;
mod run;
mod sender;
mod settings;
mod target;
mod wire;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tidemark_version::VERSION;

use crate::report::Report;
use crate::settings::Arguments;
use crate::target::Target;

/// What a void run ends with.
const VOID: u8 = 2;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Err(reason) = arguments.settings.validate() {
        Arguments::command().error(ErrorKind::ValueValidation, reason).exit();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.settings.threads as usize)
        .enable_all()
        .build()?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { workload, cluster, json, settings } = arguments;
    let target = Target::find(&cluster).await?;
    let mut workloads = Vec::new();
    for workload in workload.workloads() {
        let measured = run::run(&target, workload, &settings).await;
        workloads.push(measured.with_context(|| workload.name)?);
    }
    let shards = target.shards.get();
    let report = Report { version: VERSION, system: "tidemark", shards, settings, workloads };
    print!("{}", report.markdown());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(VOID) })
}

//! `tidemark`: the command line. It sends and reads messages and looks after a cluster, by the
//! unary calls of its gateways; only `listen`, a device of the SDK, holds a connection and a state.
//!
//! ```text
//!   arguments ─► target: flags, environment, .tidemark/cluster.json
//!                   └─► command ─► gateways: attempts, one after the other ─► outcome (R3)
//!                          ├─► output: text or JSON, on standard output
//!                          └─► error: what to do, on standard error, and the exit code
//! ```
//!
//! Invariant: what may have been taken is never reported as refused or unavailable. Whoever repeats
//! a command after exit code 4 repeats it with the same id.

mod arguments;
mod change;
mod cluster_file;
mod command;
mod device_file;
mod error;
mod gateways;
mod line;
mod outcome;
mod output;
mod target;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::output::Output;

fn main() -> ExitCode {
    // What is quoted back to the user; only paths can be other than UTF-8.
    let given: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return error::usage(&error, Output::wanted_in(&given)),
    };
    let output = arguments.output;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system has a poller and timers");
    let result = runtime.block_on(command::run(arguments));
    // A thread that waits for somebody to read our output must not keep us from ending.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(&given, output),
    }
}

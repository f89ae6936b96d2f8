//! Real processes, real faults. One cluster at a time on a machine.

mod acts;
mod demo;
mod devices;
mod leader_kill;
mod mutants;
mod numbers;
mod presence;
mod relay;
mod replicas;
mod runs;

use std::time::Duration;

/// Shorter than an outage, so that the client's own retries end and the sender's begin.
const CALL_DEADLINE: Duration = Duration::from_secs(1);

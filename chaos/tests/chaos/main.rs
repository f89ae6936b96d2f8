//! Real processes, real faults. One cluster at a time on a machine.

mod leader_kill;
mod relay;

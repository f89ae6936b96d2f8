//! Real processes, real faults. One cluster at a time on a machine.

mod devices;
mod leader_kill;
mod relay;
mod replicas;

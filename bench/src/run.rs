//! One workload over one cluster, whatever it measures.

use anyhow::Result;

use crate::report::Measured;
use crate::settings::Settings;
use crate::stage::Stage;
use crate::target::Target;
use crate::workload::{Kind, Workload};
use crate::{catch_up, messages, numbers};

/// Runs a workload.
pub(crate) async fn run(
    target: &Target,
    workload: &Workload,
    settings: &Settings,
) -> Result<Measured> {
    let stage = Stage::new(target, workload, settings);
    match &workload.kind {
        Kind::Messages(messages) => messages::run(&stage, messages).await,
        Kind::CatchUp => catch_up::run(&stage).await,
        Kind::Numbers => numbers::run(&stage).await,
    }
}

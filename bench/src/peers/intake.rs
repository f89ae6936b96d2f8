//! The reading half of a load: what came, for whom, and whether all of it was right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemark_env::{Rng, SystemRng};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::body::Stamp;
use crate::ledger::{Arrived, Received};
use crate::meter::Pulse;
use crate::peers::load::{Desk, Fault};

/// How far a durable position may lag, as that of a device of ours.
pub(crate) const POSITION_EVERY: Duration = Duration::from_secs(1);

/// What one reader got so far.
pub(crate) struct Intake {
    desk: Arc<Desk>,
    by_recipient: BTreeMap<u32, Received>,
    pulse: Pulse,
}

/// What a reader leaves behind.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) by_recipient: BTreeMap<u32, Received>,
    /// The position that it reported last, for each recipient, where positions are numbers.
    pub(crate) positions: BTreeMap<u32, u64>,
    pub(crate) fault: Option<Fault>,
}

impl Intake {
    /// Reads for these recipients.
    pub(crate) fn new(desk: Arc<Desk>, recipients: impl IntoIterator<Item = u32>) -> Self {
        let by_recipient = recipients.into_iter().map(|to| (to, Received::default())).collect();
        Intake { desk, by_recipient, pulse: Pulse::default() }
    }

    /// A message came to `to`, as its address has it.
    pub(crate) fn take(&mut self, to: Option<u32>, body: &[u8]) -> Result<(), Fault> {
        let stamp = self.desk.bodies.read(body)?;
        self.enter(to, &stamp)
    }

    /// A message came where each sender writes to a recipient of its own number.
    pub(crate) fn take_shared(&mut self, body: &[u8]) -> Result<(), Fault> {
        let stamp = self.desk.bodies.read(body)?;
        self.enter(Some(stamp.sender), &stamp)
    }

    fn enter(&mut self, to: Option<u32>, stamp: &Stamp) -> Result<(), Fault> {
        let received = to.and_then(|to| self.by_recipient.get_mut(&to));
        let received = received.ok_or(Fault::Astray { sender: stamp.sender, to })?;
        if received.arrived(stamp.sender, stamp.k) != Arrived::Again {
            self.desk.meter.arrived(stamp.due, &mut self.pulse);
        }
        Ok(())
    }

    /// It is over.
    pub(crate) fn leave(self, ended: Result<(), Fault>) -> Read {
        let fault = ended.err();
        if fault.is_some() {
            self.desk.meter.fault();
        }
        Read { by_recipient: self.by_recipient, fault, ..Read::default() }
    }
}

/// Ticks every `period`; those of many readers are not at the same time.
pub(crate) fn ticks(period: Duration) -> Interval {
    let phase = period.mul_f64(SystemRng.unit());
    let mut ticks = interval_at(Instant::now() + phase, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Bodies;
    use crate::meter::Meter;

    #[test]
    fn what_came_is_counted_once_and_what_went_astray_is_a_fault() {
        let desk = Arc::new(Desk { meter: Arc::new(Meter::new()), bodies: Bodies::new(64) });
        let mut intake = Intake::new(desk.clone(), [3, 4]);
        let stamp = |k| Stamp { sender: 1, n: k, k, due: Duration::ZERO };
        for k in [1, 2, 2] {
            intake.take(Some(3), &desk.bodies.write(&stamp(k))).expect("for 3");
        }
        let body = desk.bodies.write(&stamp(1));
        for to in [None, Some(5)] {
            assert!(matches!(intake.take(to, &body), Err(Fault::Astray { sender: 1, .. })));
        }
        assert!(matches!(intake.take(Some(3), &body[1..]), Err(Fault::Body(_))));
        assert_eq!(desk.meter.counts().delivered, 2);
        assert!(!desk.meter.is_faulty());
        let read = intake.leave(Err(Fault::read("cut")));
        assert_eq!((read.by_recipient[&3].duplicated, read.by_recipient[&3].lost(1, 3)), (1, 1));
        assert!(desk.meter.is_faulty());
    }
}

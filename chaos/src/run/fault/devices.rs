//! What goes between devices and gateways: frames, connections, and how fast devices read.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use tidemark_types::limits::SEND_WINDOW;

use super::Effects;
use crate::air::Lost;
use crate::cluster::Member;
use crate::run::stage::Stage;

/// From one cut of a gateway's connections to the next: devices are back, and have begun anew.
const BETWEEN_CUTS: Duration = Duration::from_millis(1_500);

/// From one look at what slow devices cost a gateway to the next.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long a slow application takes for an entry.
const SLOW_ENTRY: Duration = Duration::from_millis(250);

/// A gateway of such a small cluster that needs more keeps what slow devices do not read.
const GATEWAY_BYTES_MAX: u64 = 128 << 20;

/// Frames that may wait at a gateway for each device that does not read: nothing is read of one for
/// which 64 wait, and of what was read before a whole window may still be acknowledged.
const WAITING_EACH_MAX: u64 = 64 + SEND_WINDOW;

/// Devices that are not slow get their entries within this time, in milliseconds.
const LATE_MS_MAX: u64 = 10_000;

impl Stage {
    pub(super) async fn lose_frames(
        &mut self,
        of_thousand: u32,
        each: Duration,
    ) -> Result<Effects> {
        let before = self.air.lost();
        self.air.lose(of_thousand);
        tokio::time::sleep(each).await;
        self.air.lose(0);
        Ok(self.frames_lost(before))
    }

    /// What was lost since.
    pub(in crate::run) fn frames_lost(&self, before: Lost) -> Effects {
        let Lost { send_acks, delivers, acks } = self.air.lost();
        vec![
            ("SendAck frames dropped", send_acks - before.send_acks),
            ("Deliver frames dropped", delivers - before.delivers),
            ("Ack frames dropped", acks - before.acks),
        ]
    }

    pub(super) async fn storm(&mut self, gateway: usize, rounds: u32) -> Result<Effects> {
        let (cut, made) = self.air.connections();
        for round in 0..rounds as usize {
            // Whoever is cut off goes to the next gateway: there are all of them the next time.
            let gateway = (gateway + round) % self.gateways;
            self.air.cut(&self.cluster.gateway(gateway)?);
            tokio::time::sleep(BETWEEN_CUTS).await;
        }
        let (cut_now, made_now) = self.air.connections();
        Ok(vec![("connections cut", cut_now - cut), ("connections made anew", made_now - made)])
    }

    pub(super) async fn slow_devices(&mut self, each: Duration) -> Result<Effects> {
        self.counts.late_ms.store(0, Ordering::Relaxed);
        self.air.deafen(true);
        self.air.slow_down(SLOW_ENTRY);
        let slow = self.people.iter().filter(|person| person.is_slow()).count() as u64;
        // Each has one device that does not read.
        let frames_max = slow * WAITING_EACH_MAX;
        // A device that hears nothing for long enough comes again, and nothing waits for it then.
        let (mut memory_max, mut waiting_max, until) = (0, 0, Instant::now() + each);
        while Instant::now() < until {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            for gateway in (0..self.gateways).map(Member::Gateway) {
                let memory = self.cluster.usage(gateway)?.memory;
                let waiting = self.cluster.metric(gateway, "gateway_frames_waiting").await? as u64;
                memory_max = memory_max.max(memory);
                waiting_max = waiting_max.max(waiting);
                self.amount(&gateway, "bytes of memory, slow devices", memory, GATEWAY_BYTES_MAX);
                self.amount(&gateway, "frames waiting, slow devices", waiting, frames_max);
            }
        }
        let mut behind = 0;
        for person in self.people.iter().filter(|person| person.is_slow()) {
            behind += person.behind(&self.client).await?;
        }
        self.air.deafen(false);
        self.air.slow_down(Duration::ZERO);
        let late = self.counts.late_ms.load(Ordering::Relaxed);
        self.amount(&"devices", "milliseconds late beside slow ones", late, LATE_MS_MAX);
        Ok(vec![
            ("entries not read meanwhile", behind),
            ("milliseconds late, others", late),
            ("MiB of a gateway", memory_max >> 20),
            ("frames waiting there", waiting_max),
        ])
    }
}

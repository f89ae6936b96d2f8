//! What devices confirm, collected until it is worth a command (R12).
//!
//! ```text
//!   Ack ──► Cursor ──► a queue for each shard ──due──► its task ──► store
//!              ▲                  ▲──────not answered──────┘ │
//!              └─────────────── refused for good ────────────┘
//! ```
//!
//! A connection says how far its device has come, and hears of it again only when that is refused for good: so
//! what a gateway does for a device that reads now and then is done without waking its connection. Each shard has
//! a queue and a task of its own: one that nobody leads holds up no other's.
//!
//! Invariants: the newest cursor is the only one that counts; a device stands in its queue once, and one
//! command of it is under way at a time while it is connected; none goes out for what is confirmed already.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tidemark_env::Clock;
use tidemark_proto::{Detail, Failure};
use tidemark_store_core::command::Confirmation;
use tidemark_types::limits::CONFIRMATIONS_MAX;
use tidemark_types::{DeviceId, Epoch, ErrorCode, Seq, UserId};
use tokio::sync::{Notify, oneshot};

use super::confirm_many;
use crate::limits::{CONFIRM_EVERY, CONFIRM_TOGETHER, CONFIRMS_MAX};
use crate::store::Store;

/// The cursors of a gateway's devices that their shard does not know yet.
pub(crate) struct Cursors {
    clock: Arc<dyn Clock>,
    /// Whose command is due, and when: all wait for the same time, so those who came first are the first. Of
    /// each place that a device has, or had until its turn comes, there is one.
    queue: Mutex<VecDeque<(Duration, Arc<Device>)>>,
    /// There is somebody in the queue again.
    filled: Notify,
}

/// A device's cursor, on its way to the store; once it is dropped no command is made of it.
pub(crate) struct Cursor {
    cursors: Arc<Cursors>,
    device: Arc<Device>,
}

struct Device {
    user: UserId,
    device: DeviceId,
    cursor: Mutex<Told>,
}

/// What is known of a cursor.
struct Told {
    /// What the store has.
    confirmed: (Epoch, Seq),
    /// What it lacks; the device stands in the queue.
    newer: Option<(Epoch, Seq)>,
    /// What a command that is under way tells it.
    taken: Option<(Epoch, Seq)>,
    /// Told why it is refused for good, once; gone with the connection.
    refused: Option<oneshot::Sender<Failure>>,
}

impl Cursors {
    /// Nobody has said anything.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Cursors { clock, queue: Mutex::default(), filled: Notify::new() })
    }

    /// A device of which the store has this cursor; and what comes when it is refused for good, if it is.
    pub(crate) fn at(
        self: &Arc<Self>,
        user: UserId,
        device: DeviceId,
        epoch: Epoch,
        seq: Seq,
    ) -> (Cursor, oneshot::Receiver<Failure>) {
        let (refuses, refused) = oneshot::channel();
        let confirmed = (epoch, seq);
        let told = Told { confirmed, newer: None, taken: None, refused: Some(refuses) };
        let device = Arc::new(Device { user, device, cursor: Mutex::new(told) });
        (Cursor { cursors: self.clone(), device }, refused)
    }

    /// Tells the store what is due, for ever.
    pub(crate) async fn tell(self: Arc<Self>, store: Arc<dyn Store>) {
        let mut commands = FuturesUnordered::new();
        let mut look = pin!(self.something_due());
        loop {
            tokio::select! {
                () = &mut look, if commands.len() < CONFIRMS_MAX => {
                    let (devices, confirmations): (Vec<_>, _) =
                        std::iter::from_fn(|| self.due()).take(CONFIRMATIONS_MAX).unzip();
                    // Where the first one's last command is still under way there is none.
                    if !devices.is_empty() {
                        let confirmed = confirm_many(store.clone(), confirmations);
                        commands.push(confirmed.map(|outcomes| (devices, outcomes)));
                    }
                    look.set(self.something_due());
                }
                Some((devices, outcomes)) = commands.next() => {
                    for (device, outcome) in devices.into_iter().zip(outcomes) {
                        self.done(device, outcome);
                    }
                }
            }
        }
    }

    /// What became of a device's cursor.
    fn done(&self, device: Arc<Device>, outcome: Result<(Epoch, Seq), Failure>) {
        let again = device.cursor.lock().done(outcome);
        if again {
            self.stand(device);
        }
    }

    /// The device has something new.
    fn stand(&self, device: Arc<Device>) {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            self.filled.notify_one();
        }
        queue.push_back((self.clock.monotonic() + CONFIRM_EVERY, device));
    }

    /// Ends when it is worth a look who is due: some are, at least.
    async fn something_due(&self) {
        loop {
            let first = self.queue.lock().front().map(|(due, _)| *due);
            match first.map(|due| (due + CONFIRM_TOGETHER).saturating_sub(self.clock.monotonic())) {
                Some(wait) => return tokio::time::sleep(wait).await,
                None => self.filled.notified().await,
            }
        }
    }

    /// The next one that is due, with what a command says of it that goes out now.
    fn due(&self) -> Option<(Arc<Device>, Confirmation)> {
        loop {
            let now = self.clock.monotonic();
            let (_, device) = self.queue.lock().pop_front_if(|(due, _)| *due <= now)?;
            let mut cursor = device.cursor.lock();
            match cursor.take() {
                Some((epoch, seq)) => {
                    drop(cursor);
                    let (user, name) = (device.user.clone(), device.device.clone());
                    return Some((device, Confirmation { user, device: name, epoch, seq }));
                }
                // A command of it is still under way.
                None if cursor.newer.is_some() => {
                    drop(cursor);
                    self.stand(device);
                }
                // It has gone.
                None => {}
            }
        }
    }
}

impl Cursor {
    /// The device says that it stands there.
    pub(crate) fn heard(&self, epoch: Epoch, seq: Seq) {
        if self.device.cursor.lock().heard(epoch, seq) {
            self.cursors.stand(self.device.clone());
        }
    }

    /// What the store may lack, when the connection ends.
    pub(crate) fn rest(self) -> Option<(Epoch, Seq)> {
        let cursor = self.device.cursor.lock();
        cursor.newer.or(cursor.taken)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let mut cursor = self.device.cursor.lock();
        cursor.newer = None;
        cursor.refused = None;
    }
}

impl Told {
    /// The device says that it stands there; has it to stand in the queue now?
    fn heard(&mut self, epoch: Epoch, seq: Seq) -> bool {
        let newest = self.newer.or(self.taken).unwrap_or(self.confirmed);
        if epoch == newest.0 && seq <= newest.1 {
            return false;
        }
        self.newer.replace((epoch, seq)).is_none()
    }

    /// The cursor for a command that goes out now; its outcome is to be told.
    fn take(&mut self) -> Option<(Epoch, Seq)> {
        if self.taken.is_none() {
            self.taken = self.newer.take();
            return self.taken;
        }
        None
    }

    /// The command has ended; has the device to stand in the queue again?
    fn done(&mut self, confirmed: Result<(Epoch, Seq), Failure>) -> bool {
        let taken = self.taken.take();
        match confirmed {
            Ok(confirmed) => self.confirmed = confirmed,
            Err(failure) if is_for_good(&failure) => {
                if let Some(refused) = self.refused.take() {
                    // Its connection ends at the same time if nobody hears it.
                    let _ = refused.send(failure);
                }
            }
            // It goes out again, unless there is a newer one, or nobody there.
            Err(_) if self.newer.is_none() && self.refused.is_some() => {
                self.newer = taken;
                return true;
            }
            Err(_) => {}
        }
        false
    }
}

/// The device was forgotten or logged out, or its place means nothing: no repetition helps.
fn is_for_good(failure: &Failure) -> bool {
    let is_of_device = matches!(failure.code, ErrorCode::NoDevice | ErrorCode::LoggedOut);
    is_of_device || matches!(failure.detail, Some(Detail::Position(_)))
}

#[cfg(test)]
mod tests {
    use tidemark_env::ManualClock;
    use tidemark_types::UnixMs;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    struct Gateway {
        clock: Arc<ManualClock>,
        cursors: Arc<Cursors>,
    }

    impl Gateway {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(UnixMs::new(5_000)));
            let cursors = Cursors::new(clock.clone());
            Gateway { clock, cursors }
        }

        fn device(&self, name: &str, seq: u32) -> (Cursor, oneshot::Receiver<Failure>) {
            let (epoch, seq) = at(seq);
            self.cursors.at("alice".parse().unwrap(), name.parse().unwrap(), epoch, seq)
        }

        fn waits(&self, time: Duration) {
            self.clock.advance(time);
        }

        /// Whose cursors go out now.
        fn due(&self) -> Vec<(Arc<Device>, Confirmation)> {
            std::iter::from_fn(|| self.cursors.due()).collect()
        }

        /// The one command that goes out now, of the only device that has one.
        fn one_due(&self, seq: u32) -> Arc<Device> {
            let due = self.due();
            let [(device, told)] = &due[..] else { panic!("{} devices", due.len()) };
            assert_eq!((told.epoch, told.seq), at(seq));
            device.clone()
        }

        fn done(&self, device: Arc<Device>, confirmed: Result<u32, ErrorCode>) {
            self.cursors.done(device, confirmed.map(at).map_err(Failure::new));
        }
    }

    fn at(seq: u32) -> (Epoch, Seq) {
        (Epoch::FIRST, Seq::new(seq))
    }

    fn heard(cursor: &Cursor, seq: u32) {
        cursor.heard(Epoch::FIRST, Seq::new(seq));
    }

    #[test]
    fn one_command_carries_the_newest() {
        let gateway = Gateway::new();
        let (cursor, _refused) = gateway.device("phone", 3);
        heard(&cursor, 3);
        heard(&cursor, 2);
        gateway.waits(CONFIRM_EVERY);
        assert!(gateway.due().is_empty(), "the store has them");
        heard(&cursor, 5);
        gateway.waits(CONFIRM_EVERY / 2);
        heard(&cursor, 4);
        heard(&cursor, 9);
        assert!(gateway.due().is_empty());
        gateway.waits(CONFIRM_EVERY / 2);
        gateway.one_due(9);
        assert!(gateway.due().is_empty());
        assert_eq!(cursor.rest(), Some(at(9)), "its answer may never come");
    }

    #[test]
    fn what_comes_meanwhile_waits_for_the_answer() {
        let gateway = Gateway::new();
        let (cursor, _refused) = gateway.device("phone", 0);
        heard(&cursor, 5);
        gateway.waits(CONFIRM_EVERY);
        let device = gateway.one_due(5);
        heard(&cursor, 5);
        heard(&cursor, 6);
        gateway.waits(CONFIRM_EVERY);
        assert!(gateway.due().is_empty());
        gateway.done(device, Ok(5));
        gateway.waits(CONFIRM_EVERY);
        let device = gateway.one_due(6);
        gateway.done(device, Err(ErrorCode::Unavailable));
        assert!(gateway.due().is_empty());
        gateway.waits(CONFIRM_EVERY);
        let device = gateway.one_due(6);
        heard(&cursor, 7);
        gateway.done(device, Err(ErrorCode::Unknown));
        gateway.waits(CONFIRM_EVERY);
        gateway.one_due(7);
        assert_eq!(cursor.rest(), Some(at(7)));
    }

    #[test]
    fn devices_have_their_turns_in_the_order_in_which_they_spoke() {
        let gateway = Gateway::new();
        let devices = ["phone", "watch", "tablet"].map(|name| gateway.device(name, 0));
        for (cursor, _) in &devices {
            heard(cursor, 1);
            gateway.waits(CONFIRM_EVERY / 4);
        }
        gateway.waits(CONFIRM_EVERY / 2);
        let names = |due: &[(Arc<Device>, _)]| {
            due.iter().map(|(device, _)| device.device.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&gateway.due()), ["phone", "watch"]);
        gateway.waits(CONFIRM_EVERY / 4);
        assert_eq!(names(&gateway.due()), ["tablet"]);
    }

    #[test]
    fn of_a_device_that_has_gone_nothing_goes_out() {
        let gateway = Gateway::new();
        let (cursor, mut refused) = gateway.device("phone", 0);
        heard(&cursor, 1);
        drop(cursor);
        gateway.waits(CONFIRM_EVERY);
        assert!(gateway.due().is_empty());
        assert_eq!(refused.try_recv().expect_err("there is none"), TryRecvError::Closed);
        let (cursor, _refused) = gateway.device("phone", 0);
        heard(&cursor, 1);
        gateway.waits(CONFIRM_EVERY);
        let device = gateway.one_due(1);
        drop(cursor);
        gateway.done(device, Err(ErrorCode::Unavailable));
        gateway.waits(CONFIRM_EVERY);
        assert!(gateway.due().is_empty());
    }

    #[test]
    fn what_is_refused_for_good_is_told_and_not_repeated() {
        let gateway = Gateway::new();
        let (cursor, mut refused) = gateway.device("phone", 0);
        heard(&cursor, 1);
        gateway.waits(CONFIRM_EVERY);
        gateway.done(gateway.one_due(1), Err(ErrorCode::NoDevice));
        assert_eq!(refused.try_recv().expect("it is told").code, ErrorCode::NoDevice);
        gateway.waits(CONFIRM_EVERY);
        assert!(gateway.due().is_empty());
    }

    #[test]
    fn another_epoch_is_for_the_store_to_judge() {
        let gateway = Gateway::new();
        let (cursor, _refused) = gateway.cursors.at(
            "alice".parse().unwrap(),
            "phone".parse().unwrap(),
            Epoch::new(2),
            Seq::new(9),
        );
        heard(&cursor, 4);
        gateway.waits(CONFIRM_EVERY);
        gateway.one_due(4);
    }
}

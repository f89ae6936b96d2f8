//! Tells one connection's task that there is something new for it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::task::AtomicWaker;

/// Something that is given again and again, and taken by one task: as often as it is given before it is taken, it
/// is taken once.
#[derive(Default)]
pub(crate) struct Signal {
    is_given: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    /// What was done before is seen by whoever takes it.
    pub(super) fn give(&self) {
        // One that was not taken yet has woken its task already.
        if !self.is_given.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Takes it, once it is given. Dropping the future loses nothing.
    pub(crate) async fn given(&self) {
        let take =
            || self.is_given.load(Ordering::Relaxed) && self.is_given.swap(false, Ordering::AcqRel);
        poll_fn(|context| {
            if take() {
                return Poll::Ready(());
            }
            self.waker.register(context.waker());
            // It may have been given before it was known whom to wake.
            if take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn it_is_taken_once_however_often_it_was_given() {
        let signal = Signal::default();
        assert!(signal.given().now_or_never().is_none());
        signal.give();
        signal.give();
        assert!(signal.given().now_or_never().is_some());
        assert!(signal.given().now_or_never().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waits_sees_what_was_done_before() {
        const MANY: usize = 10_000;
        let told = Arc::new((Signal::default(), parking_lot::Mutex::new(0)));
        let teller = tokio::spawn({
            let told = told.clone();
            async move {
                for number in 1..=MANY {
                    *told.1.lock() = number;
                    told.0.give();
                    tokio::task::yield_now().await;
                }
            }
        });
        let all = async {
            while *told.1.lock() < MANY {
                told.0.given().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("none is lost");
        teller.await.expect("it does not panic");
    }
}

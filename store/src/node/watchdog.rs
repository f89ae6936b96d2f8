//! Notices a group that runs but does no work: its core no longer answers, or what is committed is
//! not applied. It would keep its leadership and let every caller wait.

use std::time::Duration;

use tokio::sync::watch;

use crate::raft::group::Group;

/// Between two looks at a group.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Longer than a disk's worst pause that heals by itself.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Looks after `group` until it has stopped; `fatal` gets the reason once it is stuck.
pub(super) async fn run(group: Group, fatal: watch::Sender<Option<String>>) {
    if stuck(|| group.advance()).await {
        let (id, seconds) = (group.id(), STUCK_AFTER.as_secs());
        let reason = format!("{id} has done nothing for {seconds} s: {:?}", group.status());
        tracing::error!(reason, "the node cannot go on");
        fatal.send_replace(Some(reason));
    }
}

/// Has `work` once taken too long? Ends otherwise with the first that fails: the group has stopped,
/// which somebody else notices.
async fn stuck<F, E>(work: impl Fn() -> F) -> bool
where
    F: Future<Output = Result<(), E>>,
{
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match tokio::time::timeout(STUCK_AFTER, work()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    /// Looks at work that takes so long, one after the other; and how long the looks took.
    async fn look(takes: &[Option<Duration>]) -> (bool, Duration) {
        let (started, at) = (Instant::now(), Cell::new(0));
        let found = stuck(|| {
            let takes = takes.get(at.replace(at.get() + 1)).copied();
            async move {
                match takes {
                    Some(Some(takes)) => tokio::time::sleep(takes).await,
                    Some(None) => std::future::pending().await,
                    None => return Err("it has stopped"),
                }
                Ok(())
            }
        });
        (found.await, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_is_not_stuck_and_endless_work_is() {
        let slow = Some(STUCK_AFTER - Duration::from_secs(1));
        let (found, took) = look(&[Some(Duration::ZERO), slow, slow]).await;
        assert!(!found && took >= 2 * (STUCK_AFTER - Duration::from_secs(1)), "{took:?}");
        let (found, took) = look(&[slow, None]).await;
        assert!(found && took < 3 * STUCK_AFTER, "{took:?}");
    }
}

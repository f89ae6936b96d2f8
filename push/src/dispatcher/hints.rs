//! The seam to whoever knows what is due.

use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tidemark_types::UnixMs;

use crate::hint::Hint;

/// How long a lease is. Long enough for some attempts and a shaky network, short enough that a device
/// whose gateway died is woken by another one.
pub const LEASE: Duration = Duration::from_secs(30);

/// What is due, and what became of it.
///
/// Push is state, not a queue (R18): the owner keeps per device how far it was pushed
/// (`pushed_upto`), and a hint is due while `max(cursor, pushed_upto) < head` and the device is
/// neither connected nor about to confirm. So nothing here has to be exactly once. Whatever is lost
/// between the two (a lease's answer, a report, the whole dispatcher) costs at most one lease's time
/// or a second push, never a silent device.
///
/// The implementation makes its calls idempotent, retries as it sees fit and logs what it gives up;
/// a report is abandoned after ten seconds. Reports of different devices come concurrently and in any
/// order; those of one device come in order only if they are awaited, which the dispatcher does not
/// do: so `sent` must max-merge, and `dead` must compare the version.
pub trait Hints: Send + Sync + 'static {
    /// Takes a lease of [`LEASE`] on up to `max` hints (at least 1): nobody else is given them
    /// meanwhile, and afterwards they are due as before. One hint per device, the newest.
    ///
    /// It may wait until something is due; an empty list means "ask again in a while". The call is
    /// dropped when the dispatcher stops: what it leased unseen comes back when the lease ends.
    /// The lease is counted from the moment of the call, so that the dispatcher's end of it is never
    /// the later one.
    fn lease(&self, max: usize) -> impl Future<Output = Result<Vec<Hint>, HintsError>> + Send;

    /// The service took it: `pushed_upto` is at least `hint.head` now, if the epoch is still
    /// `hint.epoch`; the lease is over.
    fn sent(&self, hint: &Hint) -> impl Future<Output = ()> + Send;

    /// The target is dead, since then if the service says when. The registration is to be removed if
    /// its version is still `hint.version`; the lease is over. That it was registered later than
    /// `since` has been ruled out.
    fn dead(&self, hint: &Hint, since: Option<UnixMs>) -> impl Future<Output = ()> + Send;

    /// Not now: the lease is over, and the hint is not to be leased again before `after` has passed.
    /// Zero gives it to whoever asks next. To forget the pause is safe.
    fn postpone(&self, hint: &Hint, after: Duration) -> impl Future<Output = ()> + Send;
}

/// Why nothing could be leased, for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct HintsError(pub String);

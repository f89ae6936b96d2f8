//! What the application brings: what it does with entries, and where its tokens come from.

use std::error::Error;
use std::future::Future;

use tidemark_types::SeqRange;

use crate::entry::Entry;

/// Why the application could not do something; for logs and events.
pub type AppError = Box<dyn Error + Send + Sync>;

/// What an application does with its mailbox.
///
/// It is given one entry at a time, in the order of seqs, each until it returns success: only then
/// the cursor moves. After a crash the entries of the last second may come again. It runs in the
/// device's own task, so it may wait as long as it likes, but must not block the thread; a panic
/// ends the device.
pub trait Handler: Send + Sync + 'static {
    /// Takes an entry. After an error the same entry comes again, later.
    fn entry(&self, entry: &Entry) -> impl Future<Output = Result<(), AppError>> + Send;

    /// Notes that these entries can no longer be had.
    fn gap(&self, gap: SeqRange) -> impl Future<Output = Result<(), AppError>> + Send {
        let _ = gap;
        async { Ok(()) }
    }
}

/// Where a device's tokens come from.
pub trait TokenSource: Send + Sync + 'static {
    /// A token for this device. With `refused` the server did not accept the last one, so the same
    /// again will not do. After an error it is asked again, later.
    fn token(&self, refused: bool) -> impl Future<Output = Result<String, AppError>> + Send;
}

/// A token that never changes.
#[derive(Clone)]
pub struct FixedToken(pub String);

impl TokenSource for FixedToken {
    async fn token(&self, _: bool) -> Result<String, AppError> {
        Ok(self.0.clone())
    }
}

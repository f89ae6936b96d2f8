//! `listen`: a device that prints its user's entries as they come, and goes on where it stopped.
//!
//! ```text
//!   Device ──► Printer: a line, written and flushed ──► only then the cursor moves
//!     │           └── the limit, or nobody reads ──┐
//!     ├── events ──► notes, or a fatal one ────────┼──► close ──► exit
//!     │                           Ctrl-C, SIGTERM ─┘
//! ```
//!
//! Invariant: an entry is confirmed only after its line was written, so none is missing in the
//! output of all runs together; the last ones come again when a run was killed. It sends nothing.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Serialize;
use tidemark_client::{
    AppError, Config, Device, DiskStore, Entry, Event, Events, Fatal, Handler, Parts, Store,
    TokenSource,
};
use tidemark_env::SystemClock;
use tidemark_proto::Failure;
use tidemark_proto::hello::Start;
use tidemark_token::Role;
use tidemark_types::{Epoch, ErrorCode, SeqRange};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::passing::Presence;
use crate::arguments::Listen;
use crate::device_file;
use crate::error::Error;
use crate::gateways;
use crate::line::Line;
use crate::output::{Output, plain};
use crate::target::{Credentials, Target};

/// How long a token that is made here is good; the device gets another one before.
const TOKEN_VALID: Duration = Duration::from_secs(60 * 60);

/// A device that cannot close in this time waits for somebody to read our output. What it has in
/// its hands comes again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reasons to end that wait to be read: the first one counts.
const ENDS: usize = 1;

/// Listens until it is told to stop, has printed enough, or is refused.
pub(crate) async fn run(listen: Listen, target: Target, output: Output) -> Result<(), Error> {
    target.gateways.iter().try_for_each(|address| gateways::endpoint(address).map(drop))?;
    let path = device_file::path(&target, &listen.user, &listen.device)?;
    let store = opened(&path, &listen).await?;
    let Listen { user, device, from, limit, watched } = listen;
    let Target { gateways, cluster, credentials, .. } = target;
    let (end, mut ended) = mpsc::channel(ENDS);
    let left = AtomicU32::new(limit.unwrap_or(u32::MAX));
    let printer = Printer { output, left, end: end.clone() };
    let role = Role::Device { user: user.clone(), device: Some(device.clone()) };
    let tokens = Tokens { credentials, role, clock: SystemClock::new(), end };
    let config = Config {
        cluster,
        start: from.unwrap_or(Start::Head),
        agent: concat!("tidemark/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Config::new(user, device, gateways)
    };
    let (device, events) = Device::open(config, Parts::new(store, printer, tokens))
        .await
        .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
    if !watched.is_empty() {
        device.watch_presence(&watched).await;
    }
    let result = tokio::select! {
        Some(end) = ended.recv() => end,
        error = follow(events, output) => Err(error),
        stop = stopped() => stop.map_err(Error::from),
    };
    // Whether it closed in time or not, what was confirmed is stored.
    let _ = timeout(CLOSE_TIMEOUT, device.close()).await;
    result
}

/// The device's store, if what was asked for fits what is in it.
async fn opened(path: &Path, listen: &Listen) -> Result<DiskStore, Error> {
    fs::create_dir_all(path.with_file_name(""))?;
    let mut store = DiskStore::open(path).map_err(|error| {
        let other = "If another process is this device already, give --device another name.";
        Error::Usage(format!("{error}. {other}"))
    })?;
    let saved = store.load().await.map_err(io::Error::other)?;
    let meta = saved.meta.filter(|meta| meta.epoch != Epoch::NONE);
    match (listen.from, meta) {
        (Some(_), Some(meta)) => Err(Error::Usage(format!(
            "device {} of {} has taken everything up to seq {} and goes on there: leave --from \
             away, or give --device another name",
            plain(&listen.device.to_string()),
            plain(&listen.user.to_string()),
            meta.cursor,
        ))),
        _ => Ok(store),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stopped() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// Tells what happens to the connection, until the device stops for good.
async fn follow(mut events: Events, output: Output) -> Error {
    while let Some(event) = events.next().await {
        let note = match event {
            Event::Connected { gateway } => Note::Connected { gateway },
            Event::Disconnected { reason, retry_in } => {
                let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
                Note::Disconnected { reason, retry_in_ms }
            }
            Event::Reset { epoch, floor } => Note::Reset { epoch: epoch.get(), floor: floor.get() },
            Event::Presence { user, online, last_seen } => {
                let (user, last_seen_ms) = (user.to_string(), last_seen.get());
                Note::Presence(Presence { user, online, last_seen_ms })
            }
            Event::PresenceRefused { message } => {
                return Error::Refused(Failure::new(ErrorCode::Invalid).message(message));
            }
            Event::Stopped(fatal) => return fatal_error(fatal),
            // A gap is a line, a handler that fails is a reason to end, and nothing is sent.
            Event::Gap(_)
            | Event::HandlerFailed { .. }
            | Event::Outcome(_)
            | Event::SessionReplaced
            | Event::SendingStopped { .. }
            | Event::Typing { .. }
            | Event::Missed(_) => continue,
        };
        // In a thread that may wait, or a reader that does not read would keep us from stopping.
        let _ = spawn_blocking(move || output.note(&note)).await;
    }
    Error::Io(io::Error::other("the device has stopped"))
}

fn fatal_error(fatal: Fatal) -> Error {
    let code = match &fatal {
        Fatal::WrongCluster(_) => ErrorCode::WrongCluster,
        Fatal::Unauthenticated(_) => ErrorCode::Unauthenticated,
        Fatal::PermissionDenied(_) => ErrorCode::PermissionDenied,
        Fatal::LoggedOut(_) => ErrorCode::LoggedOut,
        Fatal::Refused(_) => ErrorCode::Invalid,
        Fatal::Store(_) => return Error::Io(io::Error::other(fatal)),
    };
    Error::Refused(Failure::new(code).message(fatal.to_string()))
}

/// Takes entries by printing them.
struct Printer {
    output: Output,
    /// How many entries more.
    left: AtomicU32,
    end: mpsc::Sender<Result<(), Error>>,
}

impl Printer {
    /// Prints a line that stands for so many entries.
    async fn print(&self, line: Line, entries: u32) -> Result<(), AppError> {
        // The device hands over one at a time, so that nobody else counts.
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err("enough was printed".into());
        }
        let output = self.output;
        // In a thread that may wait, since whoever reads our output may be slow.
        if let Err(error) = spawn_blocking(move || output.print(&line)).await? {
            let reason = error.to_string();
            // When it is full, there is a reason to end already.
            let _ = self.end.try_send(Err(Error::Io(error)));
            return Err(reason.into());
        }
        self.left.store(left - entries, Ordering::Relaxed);
        if left == entries {
            let _ = self.end.try_send(Ok(()));
        }
        Ok(())
    }
}

impl Handler for Printer {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        self.print(Line::from(entry), 1).await
    }

    async fn gap(&self, gap: SeqRange) -> Result<(), AppError> {
        self.print(Line::from(gap), 0).await
    }
}

/// Where the device's tokens come from.
struct Tokens {
    credentials: Credentials,
    role: Role,
    clock: SystemClock,
    end: mpsc::Sender<Result<(), Error>>,
}

impl TokenSource for Tokens {
    async fn token(&self, refused: bool) -> Result<String, AppError> {
        if let (Credentials::Token(_), true) = (&self.credentials, refused) {
            let reason = "the server does not accept the token that was given";
            let failure = Failure::new(ErrorCode::Unauthenticated).message(reason);
            // When it is full, there is a reason to end already.
            let _ = self.end.try_send(Err(Error::Refused(failure)));
            return Err(reason.into());
        }
        Ok(self.credentials.token(self.role.clone(), TOKEN_VALID, &self.clock))
    }
}

/// What is told of the connection, on standard error.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Note {
    /// A gateway has welcomed the device.
    Connected { gateway: String },
    /// There is no connection; the device tries again.
    Disconnected { reason: String, retry_in_ms: u64 },
    /// The mailbox was restored: what it keeps comes once more.
    Reset { epoch: u32, floor: u32 },
    /// A user of --presence is there, or is not.
    Presence(Presence),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Connected { gateway } => write!(f, "connected to {}", plain(gateway)),
            Note::Disconnected { reason, retry_in_ms } => {
                let retry_in = Duration::from_millis(*retry_in_ms);
                write!(f, "disconnected: {}; retry in {retry_in:.1?}", plain(reason))
            }
            Note::Reset { epoch, floor } => {
                write!(f, "the mailbox was restored (epoch {epoch}): again from seq {floor} on")
            }
            Note::Presence(presence) => presence.fmt(f),
        }
    }
}

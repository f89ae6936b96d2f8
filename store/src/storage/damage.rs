//! A state database that was found damaged: written down, so that the next start rebuilds it.
//!
//! The state holds nothing that the log and the other replicas do not. A node that reads a block
//! whose checksum does not match stops, leaves a mark beside the database, and at its next start
//! sets the database aside and begins with an empty one. An operator who wants a state rebuilt
//! makes the mark (an empty file) by hand.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The mark of one state database.
pub(super) struct Damage {
    state: PathBuf,
    found: OnceLock<String>,
}

impl Damage {
    /// Nothing was found yet.
    pub(super) fn of(state: &Path) -> Self {
        Damage { state: state.to_owned(), found: OnceLock::new() }
    }

    /// Writes down what is damaged; the first finding counts.
    pub(super) fn note(&self, reason: &str) {
        self.found.get_or_init(|| {
            tracing::error!(state = %self.state.display(), reason, "the state is damaged");
            if let Err(error) = mark(&self.state, reason) {
                tracing::error!(%error, "the damage cannot be written down: it must be repaired by hand");
            }
            reason.to_owned()
        });
    }

    /// What was found since the database was opened.
    pub(super) fn found(&self) -> Option<&str> {
        self.found.get().map(String::as_str)
    }
}

/// What an earlier run found damaged in the database at `state`.
pub(super) fn marked(state: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(mark_path(state)) {
        Ok(reason) => Ok(Some(reason)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves the database at `state` out of the way, beside those that were moved before: it may be
/// the only copy there is, so none is ever removed here.
pub(super) fn set_aside(state: &Path) -> io::Result<()> {
    if state.exists() {
        let numbered = (2_u32..).map(|number| beside(state, &format!("set-aside-{number}")));
        let mut names = std::iter::once(beside(state, "set-aside")).chain(numbered);
        let free = names.find(|name| !name.exists()).expect("numbers do not end");
        fs::rename(state, free)?;
    }
    sync_folder(state)
}

/// The database at `state` is whole, or a new one.
pub(super) fn unmark(state: &Path) -> io::Result<()> {
    fs::remove_file(mark_path(state))?;
    sync_folder(state)
}

fn mark(state: &Path, reason: &str) -> io::Result<()> {
    let mut file = File::create(mark_path(state))?;
    file.write_all(reason.as_bytes())?;
    file.sync_all()?;
    sync_folder(state)
}

fn mark_path(state: &Path) -> PathBuf {
    beside(state, "damaged")
}

fn beside(state: &Path, extension: &str) -> PathBuf {
    state.with_extension(extension)
}

fn sync_folder(state: &Path) -> io::Result<()> {
    let folder = state.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

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

use super::sync_parent;

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

    /// A read failed, and nobody knows why: the node must stop, and at its next start it tries again.
    pub(super) fn unreadable(&self, reason: &str) {
        self.found.get_or_init(|| {
            tracing::error!(state = %self.state.display(), reason, "the state cannot be read");
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
        let numbered = (2_u32..).map(|number| format!("set-aside-{number}"));
        let extensions = std::iter::once("set-aside".to_owned()).chain(numbered);
        let mut names = extensions.map(|extension| state.with_extension(extension));
        let free = names.find(|name| !name.exists()).expect("numbers do not end");
        fs::rename(state, free)?;
    }
    sync_parent(state)
}

/// The database at `state` is whole, or a new one.
pub(super) fn unmark(state: &Path) -> io::Result<()> {
    fs::remove_file(mark_path(state))?;
    sync_parent(state)
}

fn mark(state: &Path, reason: &str) -> io::Result<()> {
    let mut file = File::create(mark_path(state))?;
    file.write_all(reason.as_bytes())?;
    file.sync_all()?;
    sync_parent(state)
}

fn mark_path(state: &Path) -> PathBuf {
    state.with_extension("damaged")
}

//! The word list as a check, read anew when its file changes. Whoever looks for words meanwhile
//! goes on with the list that there was; a file that cannot be used changes nothing.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::words::{Broken, Error, Words};
use super::{Check, Finding, Message};
use crate::config::{FilterConfig, Kinds};
use crate::limits::WORD_LIST_BYTES_MAX;
use crate::metrics;

/// Looks for words; a cheap handle.
#[derive(Clone)]
pub(super) struct Filter(Arc<Inner>);

struct Inner {
    path: PathBuf,
    reload: Duration,
    kinds: Kinds,
    words: RwLock<Arc<Words>>,
    /// What the file was like when it was read first.
    first: Option<Version>,
}

/// By what a file is known to have changed: another one in its place, or other bytes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Version {
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Filter {
    /// The list as it is now, which must be there.
    pub(super) fn read(config: &FilterConfig) -> Result<Self, Error> {
        let FilterConfig { file, reload_ms, kinds } = config.clone();
        let first = version(&file);
        let words = read(&file)?;
        metrics::words(words.len());
        Ok(Filter(Arc::new(Inner {
            path: file,
            reload: Duration::from_millis(reload_ms),
            kinds,
            words: RwLock::new(Arc::new(words)),
            first,
        })))
    }

    /// Looks after the file, for ever.
    pub(super) async fn keep(self) {
        let mut known = self.0.first;
        loop {
            tokio::time::sleep(self.0.reload).await;
            let filter = self.clone();
            let looked = tokio::task::spawn_blocking(move || filter.look(known)).await;
            known = looked.expect("it does not panic");
        }
    }

    /// Reads the list if its file has changed since it was like this; what it is like now.
    fn look(&self, known: Option<Version>) -> Option<Version> {
        let path = &self.0.path;
        // Before the file is read: what changes meanwhile is seen the next time.
        let now = version(path);
        if now == known {
            return known;
        }
        let read = read(path);
        metrics::words_reloaded(read.is_ok());
        match read {
            Ok(words) => {
                tracing::info!(words = words.len(), path = %path.display(), "word list reloaded");
                metrics::words(words.len());
                *self.0.words.write() = Arc::new(words);
            }
            Err(error) => tracing::error!(%error, "the old word list stays in use"),
        }
        now
    }
}

impl Check for Filter {
    fn name(&self) -> &'static str {
        "filter"
    }

    fn check(&self, message: &Message) -> Finding {
        if !self.0.kinds.contains(message.draft.kind) {
            return Finding::Pass;
        }
        let words = self.0.words.read().clone();
        words.find(&message.draft.body)
    }
}

/// What the file is like; none, if it is not there.
fn version(path: &Path) -> Option<Version> {
    path.metadata().ok().map(|metadata| Version::of(&metadata))
}

fn read(path: &Path) -> Result<Words, Error> {
    let path_of = || path.to_owned();
    let bytes = bytes(path).map_err(|source| Error::Read { path: path_of(), source })?;
    let words = match bytes.len() as u64 > WORD_LIST_BYTES_MAX {
        true => Err(Broken::TooLarge),
        false => Words::parse(&bytes),
    };
    words.map_err(|reason| Error::Broken { path: path_of(), reason })
}

/// What is in the file, up to a byte more than may be.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(WORD_LIST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! What happened, byte for byte: a hash of all of it, and its lines where somebody wants to read.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

/// The trace of a run; a cheap handle.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Xxh3,
    file: Option<BufWriter<File>>,
    /// Why the file is not whole.
    failed: Option<std::io::Error>,
}

impl Trace {
    /// An empty one; its lines go to `file`.
    pub fn new(file: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| path.display().to_string());
        let file = file.map(create).transpose()?.map(BufWriter::new);
        Ok(Trace(Arc::new(Mutex::new(Inner { hash: Xxh3::new(), file, failed: None }))))
    }

    /// Something happened.
    pub fn line(&self, nanos: u64, what: &dyn Display) {
        let text = format!("{}.{:06} {what}\n", nanos / 1_000_000_000, nanos / 1_000 % 1_000_000);
        let mut inner = self.0.lock();
        inner.hash.update(text.as_bytes());
        inner.write(&text);
    }

    /// These bytes were written to a connection.
    pub fn bytes(&self, nanos: u64, from: &str, to: &str, bytes: &[u8]) {
        let mut inner = self.0.lock();
        inner.hash.update(&nanos.to_le_bytes());
        inner.hash.update(from.as_bytes());
        inner.hash.update(to.as_bytes());
        inner.hash.update(bytes);
        if inner.file.is_some() {
            let (ms, hash) = (nanos / 1_000_000, inner.hash.digest());
            let text =
                format!("{ms} ms {from} > {to} {} bytes, all so far {hash:016x}\n", bytes.len());
            inner.write(&text);
        }
    }

    /// Puts what there is of it on its way to the disk; for a process that ends here.
    pub fn save(&self) {
        if let Some(file) = self.0.try_lock().as_mut().and_then(|inner| inner.file.as_mut()) {
            // There is nobody left to tell.
            let _ = file.flush();
        }
    }

    /// The hash of all of it. The file is on its way to the disk then.
    pub fn finish(&self) -> Result<u128> {
        let mut inner = self.0.lock();
        if let Some(file) = &mut inner.file {
            file.flush()?;
        }
        match inner.failed.take() {
            Some(error) => Err(error).context("the trace"),
            None => Ok(inner.hash.digest128()),
        }
    }
}

impl Inner {
    fn write(&mut self, text: &str) {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

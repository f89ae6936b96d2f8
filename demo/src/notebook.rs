//! What a device's application took, written down before it says so.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use tidemark_client::{AppError, Content, Entry, Handler};
use tidemark_types::{ClientMsgId, Seq};

/// The application of one device: it writes each entry down, one line each.
pub(crate) struct Notebook {
    file: Mutex<File>,
}

/// One line: an entry that the application took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) seq: Seq,
    pub(crate) id: ClientMsgId,
    pub(crate) body: String,
}

impl Notebook {
    /// A new one.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        Ok(Notebook { file: Mutex::new(file) })
    }

    /// What stands in it.
    pub(crate) fn read(path: &Path) -> Result<Vec<Note>> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let note = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (Some(seq), Some(id), Some(body)) = (words.next(), words.next(), words.next())
            else {
                bail!("{}: {line}", path.display());
            };
            Ok(Note { seq: Seq::new(seq.parse()?), id: id.parse()?, body: body.to_owned() })
        };
        text.lines().map(note).collect()
    }
}

impl Handler for Notebook {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        let Content::Message(message) = &entry.content else {
            return Err(format!("nobody refuses here: {entry:?}").into());
        };
        let body = std::str::from_utf8(&message.body)?;
        let line = format!("{} {} {body}\n", entry.seq, message.client_msg_id);
        let mut file = self.file.lock().map_err(|_| "another write failed")?;
        file.write_all(line.as_bytes())?;
        Ok(())
    }
}

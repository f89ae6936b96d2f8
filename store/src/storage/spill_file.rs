//! The file that layers are written out as: one sorted run of keys, which RocksDB takes in as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{Options, SstFileWriter};
use smallvec::SmallVec;

use super::layer::Layer;
use super::pace::PIECE_BYTES;
use super::pending::changes;
use super::state_key::Prefix;
use super::touch::touch;

/// Changes whose values are fetched from memory together.
const TOGETHER: usize = 16;

/// What the names of these files begin with, beside the database's own.
const NAME: &str = "spill-";

/// Where the file with this number is, of those since the database was opened.
pub(super) fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{NAME}{number}"))
}

/// Writes what layers make of generations, which are in the order of their prefixes; on the disk when
/// it returns. Between pieces it calls `rest`.
pub(super) fn write<'a>(
    path: &Path,
    options: &Options,
    parts: impl Iterator<Item = (Prefix, &'a [Arc<Layer>])>,
    mut rest: impl FnMut(),
) -> Result<(), rocksdb::Error> {
    let mut file = SstFileWriter::create(options);
    file.open(path)?;
    let mut written = 0;
    for (prefix, layers) in parts {
        let mut place = prefix.to_vec();
        let mut changes = changes(layers, &[], &[u8::MAX]);
        loop {
            let next: SmallVec<[_; TOGETHER]> = changes.by_ref().take(TOGETHER).collect();
            if next.is_empty() {
                break;
            }
            for value in next.iter().filter_map(|(_, value)| *value) {
                touch(value);
            }
            for (key, value) in next {
                place.truncate(prefix.len());
                place.extend_from_slice(&key);
                match value {
                    Some(value) => file.put(&place, value)?,
                    None => file.delete(&place)?,
                }
                written += place.len() + value.map_or(0, |value| value.len());
                if written >= PIECE_BYTES {
                    written = 0;
                    rest();
                }
            }
        }
    }
    file.finish()
}

/// Removes what an interrupted spill left: a file that was not taken in, or a second name of one that was.
pub(super) fn remove_left(folder: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with(NAME) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

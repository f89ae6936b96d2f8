//! The file that layers are written out as: one sorted run of keys, which RocksDB takes in as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{Options, SstFileWriter};

use super::layer::Layer;
use super::pending::changes;
use super::state_key::Prefix;

/// What the names of these files begin with, beside the database's own.
const NAME: &str = "spill-";

/// Where the file with this number is, of those since the database was opened.
pub(super) fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{NAME}{number}"))
}

/// Writes what layers make of generations, which are in the order of their prefixes; on the disk when
/// it returns.
pub(super) fn write<'a>(
    path: &Path,
    options: &Options,
    parts: impl Iterator<Item = (Prefix, &'a [Arc<Layer>])>,
) -> Result<(), rocksdb::Error> {
    let mut file = SstFileWriter::create(options);
    file.open(path)?;
    for (prefix, layers) in parts {
        add(&mut file, prefix, layers)?;
    }
    file.finish()
}

/// Adds what layers make of a generation.
fn add(
    file: &mut SstFileWriter<'_>,
    prefix: Prefix,
    layers: &[Arc<Layer>],
) -> Result<(), rocksdb::Error> {
    let mut place = prefix.to_vec();
    for (key, value) in changes(layers, &[], &[u8::MAX]) {
        place.truncate(prefix.len());
        place.extend_from_slice(&key);
        match value {
            Some(value) => file.put(&place, value)?,
            None => file.delete(&place)?,
        }
    }
    Ok(())
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

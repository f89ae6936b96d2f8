//! A store in one file (redb): one transaction and one fsync per commit.
//!
//! The file is locked while it is open, so that two processes cannot be the same device at once.
//! redb blocks, so its work goes to the threads that may wait.

use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemark_proto::v1;

use super::{Change, OutboxId, Saved, Store, StoreError};

/// The format of the file; another one is refused, never guessed at.
const FORMAT: u32 = 1;

/// One row each: [`FORMAT_ROW`] and [`META_ROW`].
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT_ROW: &str = "format";
const META_ROW: &str = "meta";

/// Sends by outbox id, as encoded `tidemark.v1.Send`.
const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");

/// Outcomes by outbox id.
const OUTCOMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outcomes");

/// A store in one file.
#[derive(Clone)]
pub struct DiskStore(Arc<Database>);

impl DiskStore {
    /// Opens the file, or makes a new one. It blocks.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let named = |error: StoreError| match error {
            StoreError::Io(reason) => StoreError::Io(format!("{}: {reason}", path.display())),
            StoreError::Corrupt(reason) => {
                StoreError::Corrupt(format!("{}: {reason}", path.display()))
            }
        };
        let database = Database::create(path).map_err(|error| named(io(error)))?;
        prepare(&database).map_err(named)?;
        Ok(DiskStore(Arc::new(database)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.0.clone();
        tokio::task::spawn_blocking(move || work(&database)).await.map_err(io)?
    }
}

impl Store for DiskStore {
    async fn load(&mut self) -> Result<Saved, StoreError> {
        self.blocking(load).await
    }

    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.blocking(move |database| commit(database, changes)).await
    }
}

/// Makes the tables of a new file, and checks the format of an old one.
fn prepare(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(io)?;
    {
        let mut meta = transaction.open_table(META).map_err(io)?;
        let format = meta.get(FORMAT_ROW).map_err(io)?.map(|row| decode::<u32>(row.value()));
        match format.transpose()? {
            None => drop(meta.insert(FORMAT_ROW, encode(&FORMAT).as_slice()).map_err(io)?),
            Some(FORMAT) => {}
            Some(other) => {
                let reason = format!("its format is {other}, and this version reads {FORMAT}");
                return Err(corrupt(reason));
            }
        }
        transaction.open_table(OUTBOX).map_err(io)?;
        transaction.open_table(OUTCOMES).map_err(io)?;
    }
    transaction.commit().map_err(io)
}

fn load(database: &Database) -> Result<Saved, StoreError> {
    let transaction = database.begin_read().map_err(io)?;
    let meta = transaction.open_table(META).map_err(io)?;
    let meta = meta.get(META_ROW).map_err(io)?.map(|row| decode(row.value())).transpose()?;
    let mut saved = Saved { meta, ..Saved::default() };
    for row in transaction.open_table(OUTBOX).map_err(io)?.iter().map_err(io)? {
        let (id, send) = row.map_err(io)?;
        let send = v1::Send::decode(send.value()).map_err(corrupt)?;
        saved.outbox.insert(OutboxId::new(id.value()), send);
    }
    for row in transaction.open_table(OUTCOMES).map_err(io)?.iter().map_err(io)? {
        let (id, settled) = row.map_err(io)?;
        saved.outcomes.insert(OutboxId::new(id.value()), decode(settled.value())?);
    }
    Ok(saved)
}

fn commit(database: &Database, changes: Vec<Change>) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(io)?;
    {
        let mut meta_rows = transaction.open_table(META).map_err(io)?;
        let mut outbox = transaction.open_table(OUTBOX).map_err(io)?;
        let mut outcomes = transaction.open_table(OUTCOMES).map_err(io)?;
        for change in changes {
            match change {
                Change::Meta(meta) => {
                    meta_rows.insert(META_ROW, encode(&meta).as_slice()).map_err(io)?;
                }
                Change::Put(id, send) => {
                    outbox.insert(id.get(), send.encode_to_vec().as_slice()).map_err(io)?;
                }
                Change::Settle(id, settled) => {
                    outbox.remove(id.get()).map_err(io)?;
                    outcomes.insert(id.get(), encode(&settled).as_slice()).map_err(io)?;
                }
                Change::Forget(id) => drop(outcomes.remove(id.get()).map_err(io)?),
            }
        }
    }
    transaction.commit().map_err(io)
}

fn io(error: impl std::fmt::Display) -> StoreError {
    StoreError::Io(error.to_string())
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("a vector grows, and the types have no maps of unknown size")
}

/// What the bytes say, all of them.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(corrupt)?;
    match rest.len() {
        0 => Ok(value),
        bytes => Err(corrupt(format!("a row has {bytes} bytes too many"))),
    }
}

#[cfg(test)]
mod tests {
    use tidemark_types::{ClientMsgId, ErrorCode, UnixMs};

    use super::super::{MemoryStore, Meta};
    use super::*;
    use crate::outcome::{Outcome, Settled};

    fn changes() -> Vec<Change> {
        let user = "alice".parse().expect("legal");
        let mut meta = Meta::new(user, "phone".parse().expect("legal"));
        meta.numbered = OutboxId::new(3);
        let settled = Settled {
            client_msg_id: ClientMsgId::new(UnixMs::new(1), [7; 10]),
            outcome: Outcome::Refused(ErrorCode::Blocked),
        };
        let put = |id| Change::Put(OutboxId::new(id), v1::Send { kind: 9, ..Default::default() });
        vec![
            put(0),
            put(1),
            put(2),
            Change::Settle(OutboxId::new(1), settled),
            Change::Settle(OutboxId::new(0), settled),
            Change::Forget(OutboxId::new(0)),
            Change::Meta(Box::new(meta)),
        ]
    }

    #[tokio::test]
    async fn both_stores_hold_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("device.redb");
        let mut disk = DiskStore::open(&path).expect("a new file");
        assert_eq!(disk.load().await, Ok(Saved::default()));
        disk.commit(changes()).await.expect("a disk");
        let mut memory = MemoryStore::default();
        memory.commit(changes()).await.expect("memory");
        let held = memory.load().await.expect("memory");
        assert_eq!((held.outbox.len(), held.outcomes.len()), (1, 1));
        drop(disk);
        let mut again = DiskStore::open(&path).expect("the same file");
        assert_eq!(again.load().await, Ok(held));
    }

    #[tokio::test]
    async fn a_file_belongs_to_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("device.redb");
        let _open = DiskStore::open(&path).expect("a new file");
        assert!(matches!(DiskStore::open(&path), Err(StoreError::Io(_))));
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("device.redb");
        let store = DiskStore::open(&path).expect("a new file");
        let transaction = store.0.begin_write().expect("a disk");
        let mut meta = transaction.open_table(META).expect("there");
        meta.insert(FORMAT_ROW, encode(&2_u32).as_slice()).expect("a disk");
        drop(meta);
        transaction.commit().expect("a disk");
        drop(store);
        assert!(matches!(DiskStore::open(&path), Err(StoreError::Corrupt(_))));
    }
}

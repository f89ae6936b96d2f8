//! A device of the SDK whose application writes down what it takes.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use tidemark_client::store::MemoryStore;
use tidemark_client::{AppError, Config, Content, Device, Entry, Handler, Parts};
use tidemark_types::{ClientMsgId, DeviceId, Seq, UserId};

use crate::cluster::{Cluster, PATIENCE};
use crate::login::Login;

/// A device of the SDK.
pub struct Phone {
    /// The device itself.
    pub device: Device,
    /// What it keeps.
    store: MemoryStore,
    notes: Arc<Mutex<Vec<Note>>>,
}

/// A message as the application took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its seq.
    pub seq: Seq,
    /// Its name.
    pub id: ClientMsgId,
    /// What it says.
    pub body: Bytes,
}

impl Phone {
    /// A new device that starts with the oldest entry there is; `gateways` are tried in any order.
    pub async fn open(
        cluster: &Cluster,
        user: &UserId,
        device: &str,
        gateways: &[usize],
    ) -> Result<Self> {
        let device = DeviceId::new(device)?;
        let gateways = gateways.iter().map(|number| cluster.gateway(*number));
        let gateways = gateways.collect::<Result<Vec<_>>>()?;
        let login = Login::new(&cluster.key(), user, &device)?;
        let config = Config::new(user.clone(), device, gateways);
        let store = MemoryStore::default();
        let notes = Arc::<Mutex<Vec<Note>>>::default();
        let parts = Parts::new(store.clone(), Notebook(notes.clone()), login);
        let (device, mut events) = Device::open(config, parts).await?;
        tokio::spawn(async move { while events.next().await.is_some() {} });
        Ok(Phone { device, store, notes })
    }

    /// What its application took, in this order.
    pub fn notes(&self) -> Vec<Note> {
        self.notes.lock().clone()
    }

    /// Waits until its application has taken everything up to `seq`; they must be 1, 2, 3 and so
    /// on.
    pub async fn has_all_to(&self, seq: u32) -> Result<()> {
        let mut status = self.device.watch();
        let all = status.wait_for(|status| status.cursor >= Seq::new(seq));
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(waited) => drop(waited.context("the device stopped")?),
            Err(_) => bail!("it lacks entries up to {seq}: {:?}", self.device.status()),
        }
        let seqs = self.notes().into_iter().map(|note| note.seq.get());
        ensure!(seqs.eq(1..=seq), "it took something else than 1 to {seq}, in order");
        Ok(())
    }

    /// Everything that it sent has an outcome, and nothing is left to do.
    pub fn is_settled(&self) -> bool {
        self.store.saved().outbox.is_empty()
    }
}

struct Notebook(Arc<Mutex<Vec<Note>>>);

impl Handler for Notebook {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        let Content::Message(message) = &entry.content else {
            return Err(format!("nobody refuses here: {entry:?}").into());
        };
        let (seq, id, body) = (entry.seq, message.client_msg_id, message.body.clone());
        self.0.lock().push(Note { seq, id, body });
        Ok(())
    }
}

//! Somebody who watches mailboxes as a gateway does, and writes down how far each is known to go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use parking_lot::Mutex;
use tidemark_store_client::{Client, Watch, WatchEvent};
use tidemark_store_core::read::{Answer, Query};
use tidemark_types::{Recipient, Seq, UserId};

use crate::cluster::{LOOK, PATIENCE};

/// Somebody who watches mailboxes.
pub struct Watcher {
    client: Client,
    watch: Watch,
    heads: Arc<Mutex<BTreeMap<UserId, Seq>>>,
    users: Vec<UserId>,
}

impl Watcher {
    /// Watches the users' mailboxes from now on.
    pub fn start(client: &Client, users: &[UserId]) -> Self {
        let (watch, mut events) = client.watch();
        for user in users {
            watch.register(user.clone());
        }
        let heads = Arc::<Mutex<BTreeMap<UserId, Seq>>>::default();
        let heard = heads.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let (user, head) = match event {
                    WatchEvent::Registered { user, head, .. } | WatchEvent::Head { user, head } => {
                        (user, head)
                    }
                    WatchEvent::Appended { user, seq, .. } => (user, seq),
                    WatchEvent::Seats { .. }
                    | WatchEvent::Unseated { .. }
                    | WatchEvent::Typing { .. }
                    | WatchEvent::Presence { .. } => continue,
                };
                let mut heads = heard.lock();
                let known = heads.entry(user).or_default();
                *known = head.max(*known);
            }
        });
        Watcher { client: client.clone(), watch, heads, users: users.to_vec() }
    }

    /// Waits until it knows of every mailbox as far as it goes, under live beats; nobody appends
    /// meanwhile.
    pub async fn knows_all(&self) -> Result<()> {
        let from = Instant::now();
        for user in &self.users {
            let query = Query::Mailbox { mailbox: Recipient::User(user.clone()) };
            let Answer::Mailbox(mailbox) = self.client.query(&query).await? else {
                bail!("another answer than asked for");
            };
            loop {
                let known = self.heads.lock().get(user).copied().unwrap_or_default();
                if known == mailbox.head && self.watch.is_live(user) {
                    break;
                }
                if known > mailbox.head || from.elapsed() > PATIENCE {
                    let live = self.watch.is_live(user);
                    bail!("{user}: knows {known}, goes to {}, live: {live}", mailbox.head);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

//! Asks every node how its groups stand, and every process what it uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_checker::Event;
use tidemark_checker::history::{Group, Node, RaftFacts};
use tidemark_store_client::Client;
use tidemark_types::NodeId;
use tokio::task::JoinSet;

use crate::notes::Notes;

/// Between two questions to a node.
const EVERY: Duration = Duration::from_millis(200);

/// How often each node was started again.
pub(super) type Lives = Arc<Mutex<BTreeMap<NodeId, u32>>>;

/// Who led each group when last heard of, and how often that changed.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    leading: BTreeMap<u32, (u64, NodeId)>,
    /// Changes of a leader that was known.
    pub changes: u64,
}

impl Leaders {
    fn hear(&mut self, group: u32, term: u64, node: NodeId) {
        match self.leading.insert(group, (term, node)) {
            Some(before) if before > (term, node) && before.0 > term => {
                self.leading.insert(group, before);
            }
            Some(before) if before != (term, node) => self.changes += 1,
            _ => {}
        }
    }

    /// The groups that a node led when last heard of.
    pub(super) fn led_by(&self, node: NodeId) -> Vec<u32> {
        let led = self.leading.iter().filter(|(_, (_, leader))| *leader == node);
        led.map(|(group, _)| *group).collect()
    }
}

/// Asks until it is dropped.
pub(super) struct Facts {
    /// Who leads what.
    pub leaders: Arc<Mutex<Leaders>>,
    _tasks: JoinSet<()>,
}

impl Facts {
    /// Asks every node of the cluster.
    pub(super) fn start(client: &Client, lives: &Lives, notes: &Notes) -> Self {
        let leaders = Arc::<Mutex<Leaders>>::default();
        let mut tasks = JoinSet::new();
        for node in client.map().nodes.keys().copied() {
            let (client, lives, notes) = (client.clone(), lives.clone(), notes.clone());
            let leaders = leaders.clone();
            tasks.spawn(async move {
                let mut ticks = tokio::time::interval(EVERY);
                loop {
                    ticks.tick().await;
                    let life = || lives.lock().get(&node).copied().unwrap_or_default();
                    let before = life();
                    let Ok(status) = client.status(node).await else { continue };
                    // Of which life the answer is, nobody knows if another one began meanwhile.
                    if life() != before {
                        continue;
                    }
                    for group in status.groups {
                        let leads = group.leader == node.get();
                        if leads {
                            leaders.lock().hear(group.group, group.term, node);
                        }
                        notes.note(|at| {
                            Event::Raft(RaftFacts {
                                at,
                                node: Node(node.get()),
                                life: before,
                                group: Group(group.group),
                                term: group.term,
                                leads,
                                last: group.last_log,
                                committed: None,
                                applied: group.applied,
                                snapshot: group.snapshot,
                                purged: group.purged,
                            })
                        });
                    }
                }
            });
        }
        Facts { leaders, _tasks: tasks }
    }
}

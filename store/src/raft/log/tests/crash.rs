//! Random operations, then a power cut at a random point.

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use proptest::prelude::*;

use super::*;
use crate::raft::types::LogId;

#[derive(Clone, Debug)]
enum Act {
    /// Append this many entries, in a new term if so.
    Append { count: u64, new_term: bool },
    /// Vote in a new term.
    Vote,
    /// Take back this many uncommitted entries.
    Truncate { count: u64 },
    /// Commit this many more entries.
    Commit { count: u64 },
    /// Purge this many committed entries.
    Purge { count: u64 },
    /// Let the writer commit one batch.
    Step,
}

fn acts() -> impl Strategy<Value = Vec<(u32, Act)>> {
    let act = prop_oneof![
        4 => (1..5u64, any::<bool>()).prop_map(|(count, new_term)| Act::Append { count, new_term }),
        1 => Just(Act::Vote),
        1 => (1..4u64).prop_map(|count| Act::Truncate { count }),
        2 => (1..4u64).prop_map(|count| Act::Commit { count }),
        1 => (1..4u64).prop_map(|count| Act::Purge { count }),
        4 => Just(Act::Step),
    ];
    prop::collection::vec((0..3u32, act), 1..80)
}

/// What one group did, as its own memory says, and what the log promised about it.
struct Model {
    log: GroupLog,
    term: u64,
    ids: Vec<LogId>,
    /// Everything below is committed; never truncated.
    committed: u64,
    purged: u64,
    appends: Vec<(Vec<LogId>, Flushed)>,
    votes: Vec<(Vote, tokio::task::JoinHandle<io::Result<()>>)>,
    /// Appended ids that were acknowledged and not truncated since.
    promised: Vec<LogId>,
    promised_vote: Option<Vote>,
}

impl Model {
    fn new(log: GroupLog) -> Self {
        Self {
            log,
            term: 0,
            ids: Vec::new(),
            committed: 0,
            purged: 0,
            appends: Vec::new(),
            votes: Vec::new(),
            promised: Vec::new(),
            promised_vote: None,
        }
    }

    async fn act(&mut self, act: &Act) {
        match *act {
            Act::Append { count, new_term } => self.append(count, new_term).await,
            Act::Vote => self.vote().await,
            Act::Truncate { count } => {
                let len = self.ids.len() as u64;
                let keep = len.saturating_sub(count).max(self.committed);
                if keep > 0 && keep > self.purged {
                    self.truncate(keep).await;
                }
            }
            Act::Commit { count } => {
                self.committed = (self.committed + count).min(self.ids.len() as u64);
                if self.committed > 0 {
                    let id = self.ids[self.committed as usize - 1];
                    self.log.save_committed(Some(id)).await.expect("queued");
                }
            }
            Act::Purge { count } => {
                self.purged = (self.purged + count).min(self.committed);
                if self.purged > 0 {
                    let id = self.ids[self.purged as usize - 1];
                    self.log.purge(id).await.expect("queued");
                }
            }
            Act::Step => {}
        }
    }

    async fn vote(&mut self) {
        self.term += 1;
        let vote = vote(self.term, 1);
        let mut log = self.log.clone();
        let saving = tokio::spawn(async move { log.save_vote(&vote).await });
        // It has to be queued before what comes next.
        tokio::task::yield_now().await;
        self.votes.push((vote, saving));
    }

    /// As Raft does: a term's vote is on its way before its first entry.
    async fn append(&mut self, count: u64, new_term: bool) {
        if new_term {
            self.vote().await;
        }
        let next = self.ids.len() as u64;
        let entries: Vec<Entry> =
            (next..next + count).map(|index| entry(self.term, index, 20)).collect();
        let ids: Vec<LogId> = entries.iter().map(|entry| entry.log_id).collect();
        self.ids.extend(&ids);
        self.appends.push((ids, append(&mut self.log, entries)));
    }

    async fn truncate(&mut self, keep: u64) {
        let last = self.ids[keep as usize - 1];
        self.log.truncate_after(Some(last)).await.expect("queued");
        self.ids.truncate(keep as usize);
        self.promised.retain(|id| id.index < keep);
        for (ids, _) in &mut self.appends {
            ids.retain(|id| id.index < keep);
        }
    }

    /// Notes what the log has acknowledged by now.
    async fn listen(&mut self) {
        tokio::task::yield_now().await;
        for (ids, flushed) in &mut self.appends {
            if said(flushed) == Some(Ok(())) {
                self.promised.append(ids);
            }
        }
        for (vote, saving) in std::mem::take(&mut self.votes) {
            if saving.is_finished() {
                saving.await.expect("no panic").expect("a good disk");
                self.promised_vote = Some(vote);
            } else {
                self.votes.push((vote, saving));
            }
        }
    }

    /// Compares a log recovered after a power cut with what was promised.
    async fn check(&self, mut recovered: GroupLog) -> Result<(), TestCaseError> {
        let state = recovered.get_log_state().await.expect("known");
        let purged = state.last_purged_log_id.map_or(0, |id| id.index + 1);
        let entries = recovered.try_get_log_entries(..).await.expect("readable");
        for (at, entry) in entries.iter().enumerate() {
            prop_assert_eq!(entry.log_id.index, purged + at as u64, "no holes");
        }
        prop_assert!(purged <= self.purged);
        for id in self.promised.iter().filter(|id| id.index >= purged) {
            let at = (id.index - purged) as usize;
            prop_assert_eq!(entries.get(at).map(|entry| entry.log_id), Some(*id));
        }
        let vote = recovered.read_vote().await.expect("known");
        prop_assert!(vote >= self.promised_vote, "{vote:?} after {:?}", self.promised_vote);
        Ok(())
    }
}

async fn run(acts: Vec<(u32, Act)>, cut: usize, keep: usize) -> Result<(), TestCaseError> {
    let disk = Disk::default();
    let options = LogOptions { batch_bytes_max: 600, tail_bytes_max: 300, ..LogOptions::default() };
    let (store, mut writer) = open(&disk, options);
    let mut models: Vec<Model> =
        (0..3).map(|number| Model::new(store.group(group(number)))).collect();
    for (number, act) in acts.iter().take(cut) {
        models[*number as usize].act(act).await;
        if matches!(act, Act::Step) {
            writer.step().expect("a good disk");
        }
        for model in &mut models {
            model.listen().await;
            let ids: Vec<LogId> = model
                .log
                .try_get_log_entries(..)
                .await
                .expect("readable")
                .iter()
                .map(|entry| entry.log_id)
                .collect();
            prop_assert_eq!(&ids[..], &model.ids[model.purged as usize..]);
        }
    }
    let disk = disk.after_power_cut(keep);
    let (recovered, _writer) = open(&disk, options);
    for (model, number) in models.iter().zip(0..) {
        model.check(recovered.group(group(number))).await?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_power_cut_loses_nothing_that_was_promised(
        acts in acts(),
        cut in 0..80usize,
        keep in 0..4usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(acts, cut, keep))?;
    }
}

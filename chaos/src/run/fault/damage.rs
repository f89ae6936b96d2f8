//! Files of a node are damaged while it is down.
//!
//! A damaged log must be refused: the others serve meanwhile. Replacing a replica comes with
//! membership changes; so the pristine file is put back, as from a copy of the disk, and the node
//! goes on. A damaged state is the node's own to rebuild, from its log or from the others. Received
//! states are no files: they go into the state as they come, checksummed, so damage to the state is
//! damage to a snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_store::node::{log_dir, state_dir};
use tidemark_store::storage::SegmentLog;
use tidemark_types::NodeId;

use super::Effects;
use crate::cluster::{Member, PATIENCE, READY_WITHIN};
use crate::run::stage::Stage;

/// What is damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) struct Damage {
    /// Which file.
    pub target: Target,
    /// It ends half-way; else bits are flipped.
    pub cut_short: bool,
}

/// A file of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Target {
    /// The segment that the log was written to last.
    LogTail,
    /// An older segment of the log.
    LogSegment,
    /// Which segments the log has.
    LogManifest,
    /// A part of the state.
    StateTable,
    /// Which parts the state has.
    StateManifest,
}

impl Target {
    fn is_log(self) -> bool {
        matches!(self, Target::LogTail | Target::LogSegment | Target::LogManifest)
    }

    fn folder(self, data: &Path) -> PathBuf {
        if self.is_log() { log_dir(data) } else { state_dir(data) }
    }

    /// Is a file of this name one of this kind?
    pub(super) fn fits(self, name: &str) -> bool {
        match self {
            Target::LogTail | Target::LogSegment => name.ends_with(".log"),
            Target::LogManifest => name == "MANIFEST",
            Target::StateTable => name.ends_with(".sst"),
            Target::StateManifest => name.starts_with("MANIFEST-"),
        }
    }

    /// The newest file of this kind that is not too small to be worth it; of the log's older segments, the
    /// last one.
    pub(super) fn newest(self, data: &Path) -> Result<Option<PathBuf>> {
        let bytes_min = if self == Target::StateTable { 4 << 10 } else { 0 };
        if self == Target::LogTail || self == Target::LogSegment {
            // Beside the log's own files there may be what an interrupted change of segments left.
            let mut segments = SegmentLog::segments(&self.folder(data))?;
            let tail = segments.pop();
            return Ok(if self == Target::LogTail { tail } else { segments.pop() });
        }
        let mut found = Vec::new();
        for file in fs::read_dir(self.folder(data))? {
            let file = file?;
            let fits = self.fits(&file.file_name().to_string_lossy());
            if fits && file.metadata()?.len() > bytes_min {
                found.push(file.path());
            }
        }
        // Numbers in names have leading zeros.
        found.sort();
        Ok(found.pop())
    }
}

/// Bytes between two flipped bits: a block is as large.
const BLOCK: usize = 4 << 10;

/// What is not found in this time is not looked at.
const FOUND_WITHIN: Duration = Duration::from_secs(15);

/// What a node's log says when it puts a damaged state away.
const SET_ASIDE: &str = "the damaged state is set aside";

/// How a start with a damaged file ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Refused,
    Ready,
}

/// The next power cut must find it as it is.
pub(super) fn sync(path: &Path) -> Result<()> {
    fs::File::open(path)?.sync_all()?;
    Ok(fs::File::open(path.parent().context("it is in a folder")?)?.sync_all()?)
}

impl Stage {
    pub(super) async fn damage(&mut self, node: NodeId, damage: Damage) -> Result<Effects> {
        let data = self.cluster.data_dir(node);
        self.cluster.kill(node)?;
        let Some(path) = damage.target.newest(&data)? else {
            // Nothing was written that far yet.
            self.revive(&[node.into()]).await?;
            return Ok(Vec::new());
        };
        let pristine = fs::read(&path).with_context(|| path.display().to_string())?;
        let length = match damage.target {
            Target::LogTail | Target::LogSegment => SegmentLog::written(&path)?,
            _ => pristine.len(),
        };
        fs::write(&path, self.damaged(&pristine, length, damage))?;
        if damage.target.is_log() {
            self.start_on_damaged_log(node, &path, &pristine).await
        } else {
            self.start_on_damaged_state(node, &path, &pristine).await
        }
    }

    /// What is made of a file of which so many bytes count.
    fn damaged(
        &self,
        pristine: &[u8],
        length: usize,
        Damage { target, cut_short }: Damage,
    ) -> Vec<u8> {
        let mut bytes = pristine.to_vec();
        if cut_short {
            bytes.truncate(length / 2);
        } else if target == Target::LogTail {
            // One bit, and not in the last records: those may be torn by a crash.
            bytes[self.below(length as u64 / 2) as usize] ^= 1 << self.below(8);
        } else {
            // Whichever block is read first, it must be noticed.
            for at in (self.below(BLOCK as u64) as usize % length..length).step_by(BLOCK) {
                bytes[at] ^= 1 << self.below(8);
            }
        }
        bytes
    }

    async fn start_on_damaged_log(
        &mut self,
        node: NodeId,
        path: &Path,
        pristine: &[u8],
    ) -> Result<Effects> {
        let member = Member::Node(node);
        // All of a log is read at the start.
        let found = self.start(member).await? == Start::Refused;
        if !found {
            self.amount(&member, "serves from a damaged log", 1, 0);
            self.cluster.kill(member)?;
        }
        let shards = self.shards();
        let served = tokio::time::timeout(PATIENCE, self.probes.served(&shards)).await;
        fs::write(path, pristine)?;
        sync(path)?;
        self.revive(&[member]).await?;
        let served = if served.is_ok() { shards.len() as u64 } else { 0 };
        Ok(vec![("damage found", u64::from(found)), ("shards served meanwhile", served)])
    }

    async fn start_on_damaged_state(
        &mut self,
        node: NodeId,
        path: &Path,
        pristine: &[u8],
    ) -> Result<Effects> {
        let member = Member::Node(node);
        let before = self.said(node, SET_ASIDE)?;
        // It stops where it finds it, and rebuilds it at the next start.
        let stopped = match self.start(member).await? {
            Start::Refused => true,
            Start::Ready if self.said(node, SET_ASIDE)? > before => false,
            Start::Ready => self.cluster.ends_within(member, FOUND_WITHIN).await?.is_some(),
        };
        if stopped {
            self.revive(&[member]).await?;
        }
        let found = self.said(node, SET_ASIDE)?.saturating_sub(before);
        if found == 0 {
            // Nobody has looked at it. If the file is still in use, it is whole again.
            self.cluster.kill(member)?;
            if path.exists() {
                fs::write(path, pristine)?;
                sync(path)?;
            }
            self.revive(&[member]).await?;
        }
        Ok(vec![("damage found", found as u64)])
    }

    /// Starts a process that may refuse.
    async fn start(&mut self, member: Member) -> Result<Start> {
        self.begin_life(member);
        self.cluster.start_member(member)?;
        let from = tokio::time::Instant::now();
        loop {
            if self.cluster.ends_within(member, Duration::from_millis(100)).await?.is_some() {
                return Ok(Start::Refused);
            }
            let said = self.cluster.get(member, "/readyz").await;
            if said.is_ok_and(|said| said.starts_with("HTTP/1.1 200")) {
                return Ok(Start::Ready);
            }
            if from.elapsed() > READY_WITHIN {
                return Err(self.cluster.not_ready(member, "nor does it refuse"));
            }
        }
    }
}

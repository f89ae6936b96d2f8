//! Who this data directory belongs to: one small file, written once and fsynced.
//!
//! Invariant: a node never starts as somebody on a directory that is not that somebody's. A log
//! and vote that were lost may not come back empty under the old identity: what this replica had
//! acknowledged would be forgotten.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_store_core::value::{ClusterMap, NodeAddress};
use tidemark_types::{ClusterId, NodeId, ShardCount};

const FILE: &str = "identity.json";
const FORMAT: u32 = 1;

/// Who a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The version of this file.
    format: u32,
    /// The node.
    pub node: NodeId,
    /// The cluster as it was created: who its groups began with. Every node was given the same.
    pub created: ClusterMap,
}

/// Why a data directory is not what it should be.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("the data directory {path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no identity: empty, or another program's.
    #[error(
        "the data directory {0} has no identity: create the node first, or, if its disk was lost, \
         let it join as a new node"
    )]
    Missing(PathBuf),
    /// Something lies where a new node should be created.
    #[error("the data directory {0} is not empty: a new node needs an empty one")]
    NotEmpty(PathBuf),
    /// A cluster is created with a list of its nodes, and this one is not in it.
    #[error("node {0} is not in the list of the cluster's nodes")]
    NotInCluster(NodeId),
    /// The file does not parse, or is of another version.
    #[error("the identity in {path} is damaged: {reason}")]
    Damaged {
        /// Which directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Identity {
    /// The identity of one of a new cluster's nodes.
    pub fn new(node: NodeId, created: ClusterMap) -> Result<Self, IdentityError> {
        if !created.nodes.contains_key(&node) {
            return Err(IdentityError::NotInCluster(node));
        }
        Ok(Identity { format: FORMAT, node, created })
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.created.cluster
    }

    /// How many shards it has.
    pub fn shards(&self) -> ShardCount {
        self.created.shard_count().expect("checked when it was read")
    }

    /// The cluster's other nodes.
    pub fn others(&self) -> impl Iterator<Item = (NodeId, &NodeAddress)> {
        let others = self.created.nodes.iter().filter(|(node, _)| **node != self.node);
        others.map(|(node, address)| (*node, address))
    }

    /// Makes an empty directory this node's own.
    ///
    /// To be called last: a directory without the file is one whose creation was cut off.
    pub fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        let text = serde_json::to_string_pretty(self).expect("plain fields");
        let write = || {
            let temporary = dir.join("identity.json.new");
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(FILE))?;
            File::open(dir)?.sync_all()
        };
        write().map_err(io_error(dir))
    }

    /// The identity of a directory.
    pub fn read(dir: &Path) -> Result<Self, IdentityError> {
        let text = match fs::read_to_string(dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing(dir.to_owned()));
            }
            Err(error) => return Err(io_error(dir)(error)),
        };
        let damaged = |reason| IdentityError::Damaged { path: dir.to_owned(), reason };
        let identity: Identity =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let hash = identity.created.hash_version;
        if (identity.format, hash) != (FORMAT, tidemark_types::routing::HASH_VERSION) {
            let format = identity.format;
            return Err(damaged(format!("format {format} with hash version {hash} is unknown")));
        }
        match identity.created.shard_count() {
            Some(_) => Ok(identity),
            None => Err(damaged("its map has no legal number of shards".to_owned())),
        }
    }

    /// Creates `dir` if need be, and refuses it unless it is empty.
    pub fn claim(dir: &Path) -> Result<(), IdentityError> {
        let claim = || {
            fs::create_dir_all(dir)?;
            // A new filesystem's own folder is nobody's data.
            let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
            names.try_fold(true, |empty, name: io::Result<_>| Ok(empty && name? == "lost+found"))
        };
        match claim().map_err(io_error(dir))? {
            true => Ok(()),
            false => Err(IdentityError::NotEmpty(dir.to_owned())),
        }
    }
}

fn io_error(dir: &Path) -> impl FnOnce(io::Error) -> IdentityError + '_ {
    move |source| IdentityError::Io { path: dir.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use tidemark_store_core::value::{NodeAddress, Settings};

    use super::*;

    fn identity() -> Identity {
        let cluster = ClusterId::from_bytes([7; 16]).expect("any bytes");
        let address = NodeAddress { grpc: "127.0.0.1:7101".to_owned() };
        let shards = ShardCount::new(8).expect("legal");
        let nodes = [(NodeId::new(1), address)].into();
        let map = ClusterMap::new(cluster, shards, nodes, Settings::default());
        Identity::new(NodeId::new(1), map).expect("it is in the list")
    }

    #[test]
    fn a_node_outside_the_list_has_no_identity() {
        let refused = Identity::new(NodeId::new(9), identity().created).expect_err("not in it");
        assert!(matches!(refused, IdentityError::NotInCluster(_)));
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        Identity::claim(dir.path()).expect("empty");
        assert!(matches!(Identity::read(dir.path()), Err(IdentityError::Missing(_))));
        identity().write(dir.path()).expect("written");
        assert_eq!(Identity::read(dir.path()).expect("there"), identity());
        assert!(matches!(Identity::claim(dir.path()), Err(IdentityError::NotEmpty(_))));
    }

    #[test]
    fn another_version_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        Identity { format: 2, ..identity() }.write(dir.path()).expect("written");
        let refused = Identity::read(dir.path()).expect_err("unknown").to_string();
        assert!(refused.ends_with("format 2 with hash version 1 is unknown"), "{refused}");
    }
}

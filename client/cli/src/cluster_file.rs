//! `.tidemark/cluster.json`: where a local cluster is. Whoever starts one writes it; the command
//! line finds it in the current folder or one above.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use tidemark_types::ClusterId;

use crate::error::Error;

/// Where it lies, below the folder in which the cluster was started.
const PLACE: &str = ".tidemark/cluster.json";

/// A local cluster. Fields that this version does not know are passed over.
///
/// ```json
/// {"cluster": "0192f0c1-7b1e-4d6a-9c53-0f5b1f6f7a10",
///  "gateways": [{"grpc": "127.0.0.1:7301", "http": "127.0.0.1:7401"}],
///  "stores": [{"node": 1, "grpc": "127.0.0.1:7101", "http": "127.0.0.1:7201"}],
///  "key": "keys/local.hs256"}
/// ```
#[derive(Debug, Deserialize)]
pub(crate) struct ClusterFile {
    /// The cluster's id. Calls name it, so that another cluster on the same ports refuses them.
    #[serde(deserialize_with = "uuid")]
    pub(crate) cluster: ClusterId,
    /// Its gateways.
    pub(crate) gateways: Vec<Gateway>,
    /// Its store nodes.
    #[serde(default)]
    pub(crate) stores: Vec<Store>,
    /// A signing key, relative to the file: with it tokens for local use are made when needed.
    pub(crate) key: Option<PathBuf>,
    /// The folder in which the file lies.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// A gateway.
#[derive(Debug, Deserialize)]
pub(crate) struct Gateway {
    /// Where it takes calls, as host:port.
    pub(crate) grpc: String,
    /// Where it says whether it is ready.
    pub(crate) http: String,
}

/// A store node.
#[derive(Debug, Deserialize)]
pub(crate) struct Store {
    /// Its number.
    pub(crate) node: u64,
    /// Where it says whether it is ready, as host:port.
    pub(crate) http: String,
}

impl ClusterFile {
    /// The file of `start` or the nearest folder above that has one, with `key` made absolute.
    pub(crate) fn find(start: &Path) -> Result<Option<Self>, Error> {
        let mut paths = start.ancestors().map(|folder| folder.join(PLACE));
        let Some(path) = paths.find(|path| path.is_file()) else { return Ok(None) };
        let bad =
            |error: &dyn std::fmt::Display| Error::Usage(format!("{}: {error}", path.display()));
        let text = fs::read(&path).map_err(|error| bad(&error))?;
        let mut file: Self = serde_json::from_slice(&text).map_err(|error| bad(&error))?;
        file.folder = path.with_file_name("");
        file.key = file.key.map(|key| file.folder.join(key));
        Ok(Some(file))
    }
}

fn uuid<'de, D: Deserializer<'de>>(from: D) -> Result<ClusterId, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"cluster": "0192f0c1-7b1e-4d6a-9c53-0f5b1f6f7a10",
        "gateways": [{"grpc": "127.0.0.1:7301", "http": "127.0.0.1:7401"}],
        "stores": [{"node": 1, "grpc": "127.0.0.1:7101", "http": "127.0.0.1:7201"}],
        "key": "keys/local.hs256", "later": true}"#;

    fn home(text: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(home.path().join(".tidemark")).expect("a folder");
        fs::create_dir_all(home.path().join("a/b")).expect("a folder");
        fs::write(home.path().join(PLACE), text).expect("written");
        home
    }

    #[test]
    fn it_is_found_from_below() {
        let home = home(FILE);
        for start in ["", "a", "a/b"] {
            let found = ClusterFile::find(&home.path().join(start)).expect("read");
            let found = found.expect("found");
            assert_eq!(found.gateways[0].grpc, "127.0.0.1:7301");
            assert_eq!(found.stores[0].node, 1);
            let key = home.path().join(".tidemark/keys/local.hs256");
            assert_eq!(found.key, Some(key));
        }
    }

    #[test]
    fn a_spoilt_one_is_named() {
        for text in ["", "{}", r#"{"cluster": "1", "gateways": []}"#] {
            let home = home(text);
            let error = ClusterFile::find(home.path()).expect_err("spoilt").to_string();
            assert!(error.contains(PLACE), "{error}");
        }
    }
}

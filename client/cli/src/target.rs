//! Whom to call, and by which right: from flags, the environment and a local cluster's file.
//!
//! The file's key signs for the file's gateways only. With `--endpoint` elsewhere the file is left
//! alone, so that no token of the local cluster goes to a stranger.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemark_env::Clock;
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::ClusterId;

use crate::arguments::{Connection, Token};
use crate::cluster_file::ClusterFile;
use crate::error::Error;

/// Whom to call.
#[derive(Debug)]
pub(crate) struct Target {
    /// Gateways' gRPC addresses; at least one.
    pub(crate) gateways: Vec<String>,
    /// The cluster that is meant, if it is known.
    pub(crate) cluster: Option<ClusterId>,
    /// By which right.
    pub(crate) credentials: Credentials,
    /// The folder of the local cluster's file, if it is the one that is called.
    pub(crate) folder: Option<PathBuf>,
}

/// By which right calls are made.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// A token that was given: visible ASCII, which a header can hold.
    Token(Token),
    /// A key that makes one whenever it is needed.
    Key(SigningKey),
}

impl Target {
    /// The target of a command that was given in the folder `start`.
    pub(crate) fn find(connection: &Connection, start: &Path) -> Result<Self, Error> {
        let file = ClusterFile::find(start)?.filter(|file| {
            let of_file = |endpoint: &String| file.gateways.iter().any(|it| it.grpc == *endpoint);
            connection.endpoints.iter().all(of_file)
        });
        let of_file = file.iter().flat_map(|file| file.gateways.iter().map(|it| it.grpc.clone()));
        let gateways = match connection.endpoints.is_empty() {
            true => of_file.collect(),
            false => connection.endpoints.clone(),
        };
        if gateways.is_empty() {
            return Err(Error::Usage(
                "no gateway is known: give --endpoint or TIDEMARK_ENDPOINT, or call it below a \
                 folder with .tidemark/cluster.json"
                    .to_owned(),
            ));
        }
        let credentials = credentials(connection, file.as_ref())?;
        let (cluster, folder) = file.map(|file| (file.cluster, file.folder)).unzip();
        Ok(Target { gateways, cluster, credentials, folder })
    }
}

impl Credentials {
    /// A token of this role. One that is made here is good for the time `valid`.
    pub(crate) fn token(&self, role: Role, valid: Duration, clock: &dyn Clock) -> String {
        match self {
            Credentials::Token(token) => token.0.clone(),
            Credentials::Key(key) => key.sign(&Claims::new(role, clock.wall(), valid)),
        }
    }
}

fn credentials(connection: &Connection, file: Option<&ClusterFile>) -> Result<Credentials, Error> {
    if let Some(token) = &connection.token {
        let visible = !token.0.is_empty() && token.0.bytes().all(|byte| byte.is_ascii_graphic());
        let token = visible.then(|| Credentials::Token(token.clone()));
        return token.ok_or_else(|| Error::Usage("the token is no JWT".to_owned()));
    }
    signing_key(connection, file).map(Credentials::Key)
}

/// The key to sign with: the one that was given, else the local cluster's.
pub(crate) fn signing_key(
    connection: &Connection,
    file: Option<&ClusterFile>,
) -> Result<SigningKey, Error> {
    let of_file = || file.and_then(|file| file.key.as_ref());
    let path = connection.key.as_ref().or_else(of_file).ok_or_else(|| {
        Error::Usage(
            "there is no token and no key: give --token, TIDEMARK_TOKEN, --key or TIDEMARK_KEY"
                .to_owned(),
        )
    })?;
    SigningKey::read(path).map_err(|error| Error::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn connection(endpoints: &[&str], token: Option<&str>) -> Connection {
        Connection {
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            token: token.map(|token| Token(token.to_owned())),
            key: None,
            deadline: Duration::from_secs(1),
        }
    }

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join(".tidemark");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("k.hs256"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").expect("");
        let file = r#"{"cluster": "0192f0c1-7b1e-4d6a-9c53-0f5b1f6f7a10", "key": "k.hs256",
            "gateways": [{"grpc": "a:1", "http": "a:2"}, {"grpc": "b:1", "http": "b:2"}]}"#;
        fs::write(folder.join("cluster.json"), file).expect("written");
        home
    }

    #[test]
    fn the_file_serves_its_own_gateways() {
        let home = home();
        let target = Target::find(&connection(&[], None), home.path()).expect("all there");
        assert_eq!(target.gateways, ["a:1", "b:1"]);
        assert!(target.cluster.is_some());
        let target = Target::find(&connection(&["b:1"], None), home.path()).expect("all there");
        assert_eq!(target.gateways, ["b:1"]);
        assert!(matches!(target.credentials, Credentials::Key(_)));
    }

    #[test]
    fn a_stranger_gets_no_token_of_the_file() {
        let home = home();
        let refused = Target::find(&connection(&["c:1", "b:1"], None), home.path());
        assert!(refused.expect_err("no token").to_string().contains("no token and no key"));
        let target = Target::find(&connection(&["c:1"], Some("x")), home.path()).expect("a token");
        assert_eq!(target.cluster, None);
    }

    #[test]
    fn a_token_is_used_before_a_key_and_never_shown() {
        let home = home();
        let given = connection(&[], Some("secret"));
        let target = Target::find(&given, home.path()).expect("all there");
        assert!(matches!(&target.credentials, Credentials::Token(token) if token.0 == "secret"));
        assert!(!format!("{target:?}").contains("secret"));
        assert!(Target::find(&connection(&[], Some("a b")), home.path()).is_err());
        assert!(Target::find(&connection(&[], Some("")), home.path()).is_err());
    }

    #[test]
    fn nothing_known_is_said() {
        let empty = tempfile::tempdir().expect("a folder");
        let refused = Target::find(&connection(&[], Some("x")), empty.path());
        assert!(refused.expect_err("no gateway").to_string().contains("no gateway is known"));
    }
}

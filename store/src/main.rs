//! `tidemark-store`: the store node's binary. It parses and prints; the work is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use tidemark_store::inspect::{Inspector, Report};
use tidemark_store_core::value::{Content, Entry};
use tidemark_types::{Recipient, Seq, UserId};

/// A store node of Tidemark, the lossless messaging core.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Looks at the data of a node that is down: replays its log over its state, in memory, and
    /// checks every mailbox. Exits with 1 if one is not exactly floor+1 to head.
    Inspect {
        /// The node's data directory.
        #[arg(long)]
        data_dir: PathBuf,
        /// Replay up to this index, instead of the recorded commit mark.
        #[arg(long, value_name = "INDEX")]
        to: Option<u64>,
        /// Print the entries of this user's mailbox.
        #[arg(long, value_name = "USER")]
        mailbox: Option<UserId>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Inspect { data_dir, to, mailbox, output } => Inspector::open(&data_dir)
            .map_err(anyhow::Error::from)
            .and_then(|inspector| match mailbox {
                Some(user) => print_entries(&inspector, user, to, output),
                None => print_report(&inspector.report(to)?, output),
            }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tidemark-store: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_report(report: &Report, output: Output) -> Result<ExitCode> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("node {}", report.node);
        for group in &report.groups {
            println!(
                "{}: term={} purged={} stored={} at={} last={} tail={} mailboxes={} state_hash={}",
                group.group,
                group.term,
                index(group.purged),
                index(group.stored),
                index(group.at),
                index(group.last),
                group.tail,
                group.mailboxes.len(),
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
        Content::Refused { recipient, code } => format!("refused by {recipient}: {code}"),
    };
    format!("{seq} time={time} from={} {content}", origin.sender())
}

fn index(index: Option<u64>) -> String {
    index.map_or_else(|| "none".to_owned(), |index| index.to_string())
}

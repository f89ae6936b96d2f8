//! The commands, one file per subject. Each asks, prints its result, and judges nothing: what an
//! attempt's failure means is the outcome's business.

mod act;
mod cluster;
mod device;
mod feed;
mod group;
mod head;
mod health;
mod history;
mod listen;
mod passing;
mod send;
mod sequence;
mod settings;
mod shard;
mod token;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use tidemark_env::{SystemClock, SystemRng};

use crate::arguments::{Arguments, Command};
use crate::error::Error;
use crate::gateways::Gateways;
use crate::target::Target;

/// Carries out what the command line says.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { connection, output, command } = arguments;
    let target = || Target::find(&connection, &here()?);
    let gateways = || {
        let target = target()?;
        let clock = Arc::new(SystemClock::new());
        Gateways::new(target, connection.deadline, clock, Arc::new(SystemRng))
    };
    match command {
        Command::Send(send) => send::run(send, &mut gateways()?, output).await,
        Command::History { user, after, limit } => {
            history::run(&user, after, limit, &mut gateways()?, output).await
        }
        Command::Listen(listen) => listen::run(listen, target()?, output).await,
        Command::Mark(mark) => act::mark(mark, &mut gateways()?, output).await,
        Command::Recall(message) => act::recall(message, &mut gateways()?, output).await,
        Command::Edit(edit) => act::edit(edit, &mut gateways()?, output).await,
        Command::Unread { user } => act::unread(&user, &mut gateways()?, output).await,
        Command::Typing { sender, user, stop } => {
            passing::typing(&sender, &user, !stop, &mut gateways()?, output).await
        }
        Command::Presence { user, by } => {
            passing::presence(&user, by.as_ref(), &mut gateways()?, output).await
        }
        Command::Head { user } => head::run(&user, &mut gateways()?, output).await,
        Command::Block(pair) => settings::block(&pair, &mut gateways()?, output).await,
        Command::Unblock(pair) => settings::unblock(&pair, &mut gateways()?, output).await,
        Command::Device(command) => device::run(command, &mut gateways()?, output).await,
        Command::Allow(pair) => settings::allow(&pair, &mut gateways()?, output).await,
        Command::Disallow(pair) => settings::disallow(&pair, &mut gateways()?, output).await,
        Command::Accept { user, from } => {
            settings::accept(&user, from, &mut gateways()?, output).await
        }
        Command::Group(command) => group::run(command, &mut gateways()?, output).await,
        Command::Feed { shard, after, limit, follow } => {
            feed::run(shard, after, limit, follow, &mut gateways()?, output).await
        }
        Command::Sequence(command) => sequence::run(command, &mut gateways()?, output).await,
        Command::Cluster(command) => cluster::run(&command, &mut gateways()?, output).await,
        Command::Shard(command) => shard::run(&command, &mut gateways()?, output).await,
        Command::Token(command) => token::run(command, &connection, output),
        Command::Health { servers } => health::run(servers, output).await,
        Command::Completions { shell } => completions(shell),
    }
}

/// The folder in which the command was given.
fn here() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(Error::from)
}

fn completions(shell: Shell) -> Result<(), Error> {
    // By way of memory, since the library panics when it cannot write.
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "tidemark", &mut script);
    io::stdout().write_all(&script).map_err(Error::from)
}

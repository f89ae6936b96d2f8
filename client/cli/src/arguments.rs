//! What can be said on the command line.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;
use tidemark_proto::hello::Start;
use tidemark_types::limits::ALLOCATE_MAX;
use tidemark_types::{ClientMsgId, CounterId, DeviceId, GroupId, UserId};
use tidemark_version::VERSION;

use crate::output::Output;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 unavailable and certainly \
                          not taken, 4 unknown: repeat it with the same id.";

/// The command line of Tidemark, the lossless messaging core.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version = VERSION, about, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print, results and errors.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How gateways are reached, and by whom.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// A gateway's gRPC address; give several, and the next one is tried when one is not there.
    /// Without it: the gateways of .tidemark/cluster.json, here or in a folder above.
    #[arg(
        long = "endpoint",
        global = true,
        env = "TIDEMARK_ENDPOINT",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Vec<String>,
    /// The token to call with. Better in the environment, where other users do not see it.
    #[arg(long, global = true, env = "TIDEMARK_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Token>,
    /// A signing key to make short-lived tokens with, when no token is given.
    #[arg(long, global = true, env = "TIDEMARK_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How long one call may take, with all its attempts.
    #[arg(long, global = true, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
}

/// A token, which is as good as a password: never formatted.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) String);

impl From<String> for Token {
    fn from(token: String) -> Self {
        Token(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends a message. Prints its id before it is sent: with --id it can be repeated.
    Send(Send),
    /// Says that a user has, or has read, a conversation up to a message. Prints an id first, as
    /// `send` does.
    Mark(Mark),
    /// Takes back a message that a user sent, for as long as the cluster allows.
    Recall(Named),
    /// Gives a message that a user sent another body, for as long as the cluster allows.
    Edit(Edit),
    /// Prints what a user has not read, and how far the user has come in each conversation.
    Unread {
        /// Whose mailbox.
        user: UserId,
    },
    /// Tells a user that another one types. Nothing of it is kept: it reaches who is connected now.
    Typing {
        /// Who types.
        sender: UserId,
        /// To whom.
        user: UserId,
        /// Has stopped.
        #[arg(long)]
        stop: bool,
    },
    /// Prints whether a user is there, and when the user was last seen.
    Presence {
        /// Of whom.
        user: UserId,
        /// Who asks: one whom the user blocks sees nothing. Nobody's name needs role `service`.
        #[arg(long, value_name = "USER")]
        by: Option<UserId>,
    },
    /// Prints the entries of a user's mailbox, oldest first.
    History {
        /// Whose mailbox.
        user: UserId,
        /// Only what comes after this seq.
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u32,
        /// No more entries than this.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Prints a user's entries as they come, until Ctrl-C. It is a device of the user, and goes on
    /// where it stopped; --deadline means nothing to it.
    Listen(Listen),
    /// Prints where a user's mailbox stands.
    Head {
        /// Whose mailbox.
        user: UserId,
    },
    /// Refuses a sender's messages to a user from now on.
    Block(Pair),
    /// Takes a sender's messages to a user again.
    Unblock(Pair),
    /// A user's devices.
    #[command(subcommand)]
    Device(Device),
    /// Makes a sender a user's contact.
    Allow(Pair),
    /// Makes a sender a stranger to a user again.
    Disallow(Pair),
    /// Chooses whose messages a user takes from now on; senders whom it blocks stay blocked.
    Accept {
        /// Whose setting.
        user: UserId,
        /// Whose messages.
        #[arg(value_enum)]
        from: Whose,
    },
    /// Groups: conversations of many. What is so already is done, so a command may be repeated.
    #[command(subcommand)]
    Group(Group),
    /// Prints what happened in a shard, in its order, where the cluster keeps a feed.
    Feed {
        /// Which shard.
        shard: u32,
        /// Only what comes after this record.
        #[arg(long, value_name = "RECORD", default_value_t = 0)]
        after: u64,
        /// No more records than this.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Goes on as records come, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },
    /// Numbers of named counters: unique and increasing, and nothing to do with mailboxes.
    #[command(subcommand)]
    Sequence(Sequence),
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(Cluster),
    /// One shard.
    #[command(subcommand)]
    Shard(Shard),
    /// Tokens, made here without asking anybody.
    #[command(subcommand)]
    Token(Tokens),
    /// Asks servers whether they are ready: those of .tidemark/cluster.json, if none are named.
    Health {
        /// A server's HTTP address.
        #[arg(value_name = "HOST:PORT")]
        servers: Vec<String>,
    },
    /// Prints a script that completes this command line in a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sequence {
    /// Takes the next numbers of a counter, which begins at 1. Prints an id first, as `send` does: with
    /// --id the command can be repeated for 10 minutes, and gets the same numbers.
    Take {
        /// Which counter.
        counter: CounterId,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(ALLOCATE_MAX)))]
        count: u32,
        /// The id, to repeat the command.
        #[arg(long, value_name = "UUID")]
        id: Option<ClientMsgId>,
    },
    /// Prints the last number of a counter that was taken.
    Current {
        /// Which counter.
        counter: CounterId,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("recipients").required(true).args(["to", "group"]))]
pub(crate) struct Send {
    /// In whose name.
    #[arg(long, value_name = "USER")]
    pub(crate) from: UserId,
    /// To whom; up to 256 times.
    #[arg(long, value_name = "USER")]
    pub(crate) to: Vec<UserId>,
    /// To the members of a group, and nobody else.
    #[arg(long)]
    pub(crate) group: Option<GroupId>,
    /// The application's kind of message.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) kind: u32,
    /// The message's id, to repeat a send. It may have been taken before, so it is never reported
    /// as unavailable; a new send needs none.
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<ClientMsgId>,
    /// What to wait for. With `delivered`, for up to another deadline.
    #[arg(long, value_enum, default_value_t = Wait::Accepted)]
    pub(crate) wait: Wait,
    /// The body; without it, standard input.
    pub(crate) text: Option<String>,
}

/// A message, by its place in a user's own mailbox.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Whose mailbox.
    pub(crate) user: UserId,
    /// The message's seq there.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seq: u32,
    /// The id, to repeat the command, as of a send.
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<ClientMsgId>,
}

#[derive(Debug, Args)]
pub(crate) struct Mark {
    #[command(flatten)]
    pub(crate) message: Named,
    /// What it says.
    #[arg(long = "as", value_enum, default_value_t = MarkKind::Read)]
    pub(crate) kind: MarkKind,
}

/// What a mark says of a conversation up to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MarkKind {
    /// The user has it.
    Delivered,
    /// The user has read it.
    Read,
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    #[command(flatten)]
    pub(crate) message: Named,
    /// The kind that the message has.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) kind: u32,
    /// The new body; without it, standard input.
    pub(crate) text: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Whose mailbox.
    pub(crate) user: UserId,
    /// The user's name for this device. Each name has a place of its own in the mailbox, and one
    /// process at a time.
    #[arg(long, value_name = "NAME", default_value = "cli")]
    pub(crate) device: DeviceId,
    /// Where a new device starts: head, what comes from now on, which is the default; floor, the
    /// oldest entry that is kept; or last=N, the newest N.
    #[arg(long, value_name = "WHERE", value_parser = start)]
    pub(crate) from: Option<Start>,
    /// End after so many entries.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Tell on standard error whether this user is there, and each time the user comes or goes. Can be
    /// given more than once.
    #[arg(long = "presence", value_name = "USER")]
    pub(crate) watched: Vec<UserId>,
}

fn start(text: &str) -> Result<Start, &'static str> {
    match (text, text.strip_prefix("last=").map(str::parse::<NonZeroU32>)) {
        ("head", _) => Ok(Start::Head),
        ("floor", _) => Ok(Start::Floor),
        (_, Some(Ok(n))) => Ok(Start::Last(n.get())),
        _ => Err("it is head, floor or last=N"),
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// It is durable, and each recipient will have one outcome.
    Accepted,
    /// It is in each recipient's mailbox, or was refused there.
    Delivered,
}

/// Whose messages a user takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Whose {
    /// Everybody's.
    Everybody,
    /// Of senders whom the user has allowed.
    Contacts,
}

#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// Whose setting.
    pub(crate) user: UserId,
    /// Whose messages.
    pub(crate) sender: UserId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Prints all of them.
    List {
        /// Whose.
        user: UserId,
    },
    /// Forgets one, with its place in the mailbox and its send sessions; its connections are cut.
    Forget(OneDevice),
    /// Logs one out: its connections are cut, its tokens that were made up to now are refused.
    Logout(OneDevice),
    /// Sets where hints go when the device is not connected.
    #[command(group = ArgGroup::new("where").required(true).args(["provider", "none"]))]
    Push {
        #[command(flatten)]
        of: OneDevice,
        /// The push provider, one of those that the gateways are configured for.
        #[arg(long, requires = "target")]
        provider: Option<String>,
        /// No hints from now on.
        #[arg(long, conflicts_with = "target")]
        none: bool,
        /// What the provider knows the device by.
        target: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneDevice {
    /// Its owner.
    pub(crate) user: UserId,
    /// The owner's name for it.
    pub(crate) device: DeviceId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Makes a group.
    Create {
        /// Its id, never used before.
        group: GroupId,
        /// Its owner.
        #[arg(long, value_name = "USER")]
        owner: UserId,
        /// A first member; up to 256 times.
        #[arg(long = "member", value_name = "USER")]
        members: Vec<UserId>,
        /// How many members it may have; 500 without it.
        #[arg(long, value_name = "N")]
        max: Option<NonZeroU32>,
        #[command(flatten)]
        allowed: Allowed,
    },
    /// Joins an open group.
    Join {
        /// Which one.
        group: GroupId,
        /// Who joins.
        user: UserId,
    },
    /// Leaves a group. Its owner hands it over first.
    Leave {
        /// Which one.
        group: GroupId,
        /// Who leaves.
        user: UserId,
    },
    /// Adds members.
    Add {
        #[command(flatten)]
        asked: Asked,
        /// Whom; up to 256.
        #[arg(required = true)]
        users: Vec<UserId>,
    },
    /// Removes members.
    Kick {
        #[command(flatten)]
        asked: Asked,
        /// Whom; up to 256.
        #[arg(required = true)]
        users: Vec<UserId>,
    },
    /// Gives a member a role; `owner` hands the group over.
    Role {
        #[command(flatten)]
        asked: Asked,
        /// The member.
        user: UserId,
        /// The role.
        #[arg(value_enum)]
        role: MemberRole,
    },
    /// Changes what members and strangers may do: all of it.
    Policy {
        #[command(flatten)]
        asked: Asked,
        #[command(flatten)]
        allowed: Allowed,
    },
    /// Prints how a group stands.
    Info {
        #[command(flatten)]
        asked: Asked,
    },
    /// Prints the members of a group, in no order.
    Members {
        #[command(flatten)]
        asked: Asked,
    },
    /// Deletes a group, for good.
    Delete {
        #[command(flatten)]
        asked: Asked,
    },
}

/// A group, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// Which group.
    pub(crate) group: GroupId,
    /// Who asks, and is judged by their role. Without it: a back end, with the owner's rights.
    #[arg(long, value_name = "USER")]
    pub(crate) by: Option<UserId>,
}

/// What a group lets its members do, and strangers.
#[derive(Debug, Args)]
pub(crate) struct Allowed {
    /// Who may send to it.
    #[arg(long, value_enum, default_value_t = Who::Everybody)]
    pub(crate) post: Who,
    /// Who may add others.
    #[arg(long, value_enum, default_value_t = Who::Everybody)]
    pub(crate) add: Who,
    /// Anybody may join.
    #[arg(long)]
    pub(crate) open: bool,
}

/// Some of a group's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Who {
    /// All of them.
    Everybody,
    /// Its admins and its owner.
    Admins,
}

/// What a member is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemberRole {
    /// One of its members.
    Member,
    /// May remove members and change the policy.
    Admin,
    /// May do everything.
    Owner,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Who is up, who leads, how far each replica is.
    Status,
    /// The desired placement: nodes, shards, settings.
    Map,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Shard {
    /// Prints which node leads a shard.
    Leader {
        /// Its number, from 0.
        shard: u32,
    },
    /// Moves a shard's leadership.
    Transfer {
        /// Its number, from 0.
        shard: u32,
        /// The node that shall lead it, one that hosts it.
        #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        to: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Makes a token with the signing key of --key, TIDEMARK_KEY or .tidemark/cluster.json.
    Make {
        /// What it allows.
        #[arg(long, value_enum)]
        role: RoleName,
        /// With role device: for which user.
        #[arg(long, required_if_eq("role", "device"))]
        user: Option<UserId>,
        /// With role device: for which of the user's devices; for all, if none is named.
        #[arg(long, requires = "user")]
        device: Option<DeviceId>,
        /// How long it is good.
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        valid: Duration,
    },
    /// Makes a new secret to sign with.
    Key {
        /// The file, which must not exist; its name ends with .hs256.
        file: PathBuf,
    },
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// A user's devices.
    Device,
    /// Any user, by unary calls.
    Service,
    /// The cluster itself.
    Admin,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["tidemark"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_send_names_users_or_one_group() {
        let parsed = parse("send --from alice --to bob --to carol hello").expect("legal");
        let Command::Send(send) = parsed.command else { panic!("a send") };
        assert_eq!(send.to.len(), 2);
        assert_eq!((send.text.as_deref(), send.kind), (Some("hello"), 0));
        assert!(parse("send --from alice --group all hello").is_ok());
        assert!(parse("send --from alice hello").is_err());
        assert!(parse("send --from alice --group all --group b hello").is_err());
        assert!(parse("send --from alice --to bob --group all hello").is_err());
        assert!(parse("send --from alice --to bob --id 67e55044 hello").is_err());
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in [
            "-o json --endpoint a:1,b:2 head alice",
            "head alice --endpoint a:1 --endpoint b:2 --output json",
        ] {
            let parsed = parse(line).expect("legal");
            assert_eq!(parsed.output, Output::Json, "{line}");
            assert_eq!(parsed.connection.endpoints, ["a:1", "b:2"], "{line}");
            assert_eq!(parsed.connection.deadline, Duration::from_secs(10), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "head",
            "head alice --deadline soon",
            "history alice --limit 0",
            "history alice --after -1",
            "listen alice --limit 0",
            "listen alice --from last=0",
            "listen alice --from start",
            "device push alice phone",
            "device push alice phone --provider fcm",
            "device push alice phone --none token",
            "shard transfer 1",
            "shard transfer 1 --to 0",
            "token make --role device",
            "token make --role device --device phone",
            "token make --role root",
            "completions tcl",
            "accept alice",
            "accept alice nobody",
            "allow alice",
            "group create team",
            "group add team",
            "group role team bob king",
            "group create team --owner a --max 0",
            "mark alice",
            "mark alice 0",
            "mark alice 3 --as seen",
            "recall alice",
            "edit alice --kind 1 text",
            "unread",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("token make --role device --user alice --valid 7d").is_ok());
        assert!(parse("device push alice phone --provider fcm token").is_ok());
        assert!(parse("device push alice phone --none").is_ok());
        assert!(parse("listen alice --from last=7 --limit 1").is_ok());
        assert!(parse("mark alice 3 --as delivered").is_ok());
        assert!(parse("edit alice 3 --kind 1 text").is_ok());
    }
}

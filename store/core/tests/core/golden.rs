//! Golden scripts: readable text in, readable text out. `tests/scripts/` holds one per rule.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --release -p tidemark-store-core` writes the outputs anew;
//! read the difference before you commit it.
//!
//! A command goes to the shard where its id lives. `begin … commit` applies the commands between
//! them as one batch. Users are `NAME`, devices `NAME/DEVICE`; message ids are `TIME.NUMBER`.

use std::error::Error;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Context, Runner};
use tidemark_store_core::act::{ActKind, Asked};
use tidemark_store_core::command::{
    Arrival, BackendSend, Command, Confirmation, Draft, Judged, Send, Start,
};
use tidemark_store_core::feed::{self, FeedChange, FeedRecord};
use tidemark_store_core::group::{GroupAction, GroupCommand, NewGroup, Policy, Role, Who};
use tidemark_store_core::group_read::{MembersPage, members};
use tidemark_store_core::key::{AckKey, DeviceKey, Key as _, Kind, ShardKey};
use tidemark_store_core::read::{
    Answer, PageAnswer, PageLimits, Query, cluster_map, mailbox, page,
};
use tidemark_store_core::reply::Reply;
use tidemark_store_core::value::{
    AcceptFrom, ClusterMap, Label, Message, NodeAddress, Origin, OutSeq, Payload, PushTarget,
    Settings,
};
use tidemark_store_core::{Read as _, hints};
use tidemark_types::{
    ClientMsgId, ClusterId, ContentHash, CounterId, DeviceId, Epoch, ErrorCode, GroupId, Id,
    IdError, NodeId, OpenId, Recipient, Seq, SessionId, ShardCount, ShardId, UnixMs, UserId,
};

use crate::cluster::Cluster;
use crate::show::{NAMES_SHOWN, show, show_entry};

type Failure = Box<dyn Error>;

#[test]
fn scripts_give_what_they_gave() {
    let mut paths: Vec<_> = std::fs::read_dir("tests/scripts")
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "one script per rule");
    for path in paths {
        println!("{}", path.display());
        let mut script = Script { cluster: Cluster::new(2, Settings::default()), batch: None };
        goldenscript::run(&mut script, &path).expect("it runs");
    }
}

/// What a script's commands work on.
struct Script {
    cluster: Cluster,
    /// Commands between `begin` and `commit`.
    batch: Option<Vec<Command>>,
}

impl Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &Context) -> Result<String, Failure> {
        let mut args = Args(command.consume_args());
        let output = match command.name.as_str() {
            "cluster" => {
                self.cluster = Cluster::new(args.parse("shards", 2)?, settings(&mut args)?);
                String::new()
            }
            "time" => {
                self.cluster.time = args.next()?;
                String::new()
            }
            "control" => self.control()?,
            "where" => self.whereabouts(&args.recipient()?),
            "begin" => {
                self.batch = Some(Vec::new());
                String::new()
            }
            "commit" => self.commit()?,
            "fill" => self.fill(&mut args)?,
            "relay" => self.relay(&mut args)?,
            "forge" => self.forge(&mut args)?,
            "outbox" => self.outbox(&mut args)?,
            "mailbox" => self.mailbox(&Recipient::User(args.next()?))?,
            "log" => self.mailbox(&Recipient::Group(args.next()?))?,
            "group" => {
                let by = args.0.take_key("by").map(UserId::new).transpose()?;
                self.query(&Query::Group { group: args.next()?, by })?
            }
            "members" => self.members(&mut args)?,
            "page" => self.page(&mut args)?,
            "counter" => {
                let counter = args.next()?;
                self.query(&Query::Counter { counter })?
            }
            "status" => {
                let origin = origin(&args.next::<String>()?)?;
                self.query(&Query::Message { origin })?
            }
            "shard" => format!("{:?}", {
                let shard = ShardId::new(args.next()?);
                self.cluster.get(shard, &ShardKey {})
            }),
            "device" => {
                let (user, device) = args.device()?;
                let shard = self.cluster.shard_of(&user);
                format!("{:?}", self.cluster.get(shard, &DeviceKey { user, device }))
            }
            "feed" => self.feed(&mut args)?,
            "hints" => self.hints(&args.next()?)?,
            "acks" => self.acks(&args.next()?)?,
            "unread" => self.unread(args.next()?)?,
            _ => self.command(&command.name, &mut args)?,
        };
        args.0.reject_next()?;
        Ok(output)
    }
}

impl Script {
    /// Applies a command, or adds it to the open batch.
    fn command(&mut self, name: &str, args: &mut Args<'_>) -> Result<String, Failure> {
        let to_shard = args.0.take_key("at").map(str::parse).transpose()?.map(ShardId::new);
        let command = parse(name, args)?;
        if let Some(batch) = &mut self.batch {
            batch.push(command);
            return Ok(String::new());
        }
        Ok(show(&match to_shard {
            Some(shard) => self.cluster.apply(shard, vec![command]).remove(0),
            None => self.cluster.route(command),
        }))
    }

    fn control(&self) -> Result<String, Failure> {
        let map = cluster_map(self.cluster.state(ShardId::new(2)))?.ok_or("there is no map")?;
        let mut output = format!(
            "version={} control={:?} next_replica={}\n",
            map.version, map.control, map.next_replica
        );
        for placement in map.shards {
            writeln!(output, "{:?} preferred={}", placement.replicas, placement.preferred)?;
        }
        Ok(output)
    }

    /// Which acknowledgements of a user's sessions are kept.
    fn acks(&self, user: &UserId) -> Result<String, Failure> {
        let (from, to) = Kind::Ack.range();
        let mut keys = Vec::new();
        self.cluster.state(self.cluster.shard_of(user)).scan(&from, &to, &mut |key, _| {
            keys.push(AckKey::decode(key));
            ControlFlow::Continue(())
        })?;
        let keys: Vec<AckKey> = keys.into_iter().collect::<Result<_, _>>()?;
        let kept = keys.iter().filter(|key| key.user == *user);
        Ok(kept.map(|key| format!("{}.{} ", key.session, key.n)).collect())
    }

    fn commit(&mut self) -> Result<String, Failure> {
        let batch = self.batch.take().ok_or("no batch is open")?;
        let id = batch.iter().find_map(Command::routed_by).ok_or("no command has an id")?;
        let shard = self.cluster.count.shard_of(&id);
        Ok(self.cluster.apply(shard, batch).iter().map(show).collect())
    }

    /// `fill USER/DEVICE N`: sends n = 1 ..= N of session 1 to the user itself.
    fn fill(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let (user, device) = args.device()?;
        for n in 1..=args.next()? {
            let to = vec![Recipient::User(user.clone())];
            let draft = Draft {
                to,
                kind: 1,
                client_msg_id: message_id("0.0")?,
                body: Bytes::from_static(b"x"),
                act: None,
            };
            let applied = self.cluster.route(Command::Send(Send {
                user: user.clone(),
                device: device.clone(),
                session: SessionId::new(1)?,
                n,
                base: 1,
                content: ContentHash::of(&draft.to, draft.kind, &draft.body),
                judged: Judged::Allow(draft),
            }));
            if !matches!(applied.reply, Reply::Sent(_)) {
                return Ok(show(&applied));
            }
        }
        Ok(String::new())
    }

    fn whereabouts(&self, id: &Recipient) -> String {
        let id = id.id();
        format!("{} lives on shard {}", id.name(), self.cluster.count.shard_of(&id))
    }

    /// `relay FROM TO [first=N] [last=N] [trim=no]`: ships records, as a relay that may be late,
    /// early or repeat itself.
    fn relay(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let (from, to) = (ShardId::new(args.next()?), ShardId::new(args.next()?));
        let (first, last) = (args.parse("first", 0)?, args.parse("last", u64::MAX)?);
        let mut records = self.cluster.records(from, to);
        records.retain(|(out_seq, _)| (first..=last).contains(&out_seq.get()));
        let command = Command::RelayIn { source: from, records };
        let mut output = show(&self.cluster.apply(to, vec![command]).remove(0));
        if args.parse("trim", "yes".to_owned())? == "yes" {
            let upto = self.cluster.inbound(to, from).in_seq;
            let returns = self.cluster.outbound(to, from).head;
            let command = Command::TrimOutbox { shard: to, upto, returns };
            output += &show(&self.cluster.apply(from, vec![command]).remove(0));
        }
        Ok(output)
    }

    /// `forge FROM AT SENDER RECIPIENT`: a record that no honest relay would ship.
    fn forge(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let (from, at) = (ShardId::new(args.next()?), ShardId::new(args.next()?));
        let sender: UserId = args.next()?;
        let id = message_id("0.0")?;
        let message = Message {
            device: None,
            sent: UnixMs::new(0),
            client_msg_id: id,
            kind: 1,
            body: Bytes::from_static(b"forged"),
            act: None,
        };
        let origin = Origin::Backend { sender, id };
        let payload = Payload::Message { origin, message, to: vec![args.next()?] };
        let records = vec![(self.cluster.inbound(at, from).in_seq.next(), payload)];
        let command = Command::RelayIn { source: from, records };
        Ok(show(&self.cluster.apply(at, vec![command]).remove(0)))
    }

    fn outbox(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let (from, to) = (ShardId::new(args.next()?), ShardId::new(args.next()?));
        let mut output = format!("{:?}\n", self.cluster.outbound(from, to));
        for (out_seq, payload) in self.cluster.records(from, to) {
            writeln!(output, "{}: {payload:?}", out_seq.get())?;
        }
        Ok(output)
    }

    /// `members GROUP [by=USER]`: all pages.
    fn members(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let by = args.0.take_key("by").map(UserId::new).transpose()?;
        let group: GroupId = args.next()?;
        let state = self.cluster.state(self.cluster.count.shard_of(&Id::Group(group.clone())));
        let mut found = Vec::new();
        for page in 0.. {
            match members(state, &group, by.as_ref(), page)? {
                Ok(MembersPage { members, pages }) => {
                    found.extend(members);
                    if page + 1 == pages {
                        break;
                    }
                }
                Err(code) => return Ok(code.to_string()),
            }
        }
        found.sort();
        if found.len() > NAMES_SHOWN {
            return Ok(format!("{} members", found.len()));
        }
        let show = |(user, role): (UserId, Role)| format!("{user}={role:?}");
        Ok(found.into_iter().map(show).collect::<Vec<_>>().join(" "))
    }

    fn mailbox(&mut self, id: &Recipient) -> Result<String, Failure> {
        let state = self.cluster.state(self.cluster.count.shard_of(&id.id()));
        let value = mailbox(state, id)?;
        let mut output = format!(
            "epoch={} floor={} head={} swept={}{}\n",
            value.epoch,
            value.floor,
            value.head,
            value.swept,
            if value.deleted { " deleted" } else { "" },
        );
        let limits = PageLimits { entries: usize::MAX, bytes: usize::MAX };
        let answer = page(state, id, value.epoch, value.floor, limits)?;
        let PageAnswer::Page(page) = answer else {
            return Err("a reset".into());
        };
        for (seq, entry) in page.entries {
            writeln!(output, "{seq}: {}", show_entry(&entry))?;
        }
        Ok(output)
    }

    /// Whom a leader would wake now.
    fn hints(&mut self, user: &UserId) -> Result<String, Failure> {
        let now = UnixMs::new(self.cluster.time);
        let state = self.cluster.state(self.cluster.shard_of(user));
        let mut output = format!("due={}\n", mailbox(state, &Recipient::User(user.clone()))?.due);
        let users = hints::due(state, None, now, 10)?;
        if users.iter().any(|key| key.user == *user) {
            for hint in hints::hints(state, user, now)? {
                writeln!(
                    output,
                    "{} head={} version={}",
                    hint.device, hint.head, hint.token.version
                )?;
            }
        }
        Ok(output)
    }

    /// `feed SHARD [after=N] [records=N] [bytes=N]`
    fn feed(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let shard = ShardId::new(args.next()?);
        let limits = PageLimits {
            entries: args.parse("records", usize::MAX)?,
            bytes: args.parse("bytes", usize::MAX)?,
        };
        let page = feed::page(self.cluster.state(shard), args.parse("after", 0)?, limits)?;
        let mut output = format!("head={} floor={}\n", page.feed.head, page.feed.floor);
        let mut entries = page.entries.into_iter();
        for (number, FeedRecord { time, changes }) in page.records {
            writeln!(output, "{number} at {time}")?;
            for change in changes {
                let FeedChange::Entry { mailbox, seq } = change else {
                    writeln!(output, "  {change:?}")?;
                    continue;
                };
                match entries.next().flatten() {
                    Some(entry) => writeln!(output, "  {mailbox} {seq}: {}", show_entry(&entry))?,
                    None => writeln!(output, "  {mailbox} {seq}")?,
                }
            }
        }
        Ok(output)
    }

    /// Asks it as a gateway does: encoded, where its id lives.
    fn query(&mut self, query: &Query) -> Result<String, Failure> {
        let state = self.cluster.state(query.shard(self.cluster.count));
        let answer = Query::decode(&query.encode())?.answer(state)?;
        Ok(match Answer::decode(&answer.encode())? {
            Answer::Message(Some(status)) => {
                let mut output = format!("seq={} time={}", status.seq, status.time);
                for (to, stage) in status.recipients {
                    write!(output, " {}={stage:?}", to.id().name())?;
                }
                output
            }
            answer => format!("{answer:?}"),
        })
    }

    /// What a user has not read: each conversation with its marks.
    fn unread(&self, user: UserId) -> Result<String, Failure> {
        let state = self.cluster.state(self.cluster.shard_of(&user));
        let query = Query::Unread { user };
        let Answer::Unread(unread) = Query::decode(&query.encode())?.answer(state)? else {
            return Err("another answer".into());
        };
        let mut output = format!("from={} head={}", unread.from, unread.head);
        for it in unread.conversations {
            let (name, marks) = (it.with.id(), it.marks);
            let (read, delivered) = (marks.read, marks.delivered);
            let name = name.name();
            write!(output, " {name}={} (read {read}, delivered {delivered})", it.unread)?;
        }
        Ok(output)
    }

    /// `page USER from=SEQ [epoch=N] [entries=N] [bytes=N]`
    fn page(&mut self, args: &mut Args<'_>) -> Result<String, Failure> {
        let user: UserId = args.next()?;
        let limits = PageLimits {
            entries: args.parse("entries", usize::MAX)?,
            bytes: args.parse("bytes", usize::MAX)?,
        };
        let (epoch, from) = (args.parse("epoch", 1)?, args.parse("from", 0)?);
        let state = self.cluster.state(self.cluster.shard_of(&user));
        let id = Recipient::User(user);
        match page(state, &id, Epoch::new(epoch), Seq::new(from), limits)? {
            PageAnswer::Page(page) => {
                let gap = page.gap.map_or("none".to_owned(), |gap| gap.to_string());
                let seqs: Vec<u32> = page.entries.iter().map(|(seq, _)| seq.get()).collect();
                Ok(format!("floor={} head={} gap={gap} seqs={seqs:?}", page.floor, page.head))
            }
            reset @ PageAnswer::Reset { .. } => Ok(format!("{reset:?}")),
        }
    }
}

fn settings(args: &mut Args<'_>) -> Result<Settings, Failure> {
    let default = Settings::default();
    Ok(Settings {
        devices_max: args.parse("devices_max", default.devices_max)?,
        mailbox_entries_max: args.parse("mailbox_entries_max", default.mailbox_entries_max)?,
        group_members_max: args.parse("group_members_max", default.group_members_max)?,
        feed_records_max: args.parse("feed_records_max", default.feed_records_max)?,
        recall_within: millis(args, "recall_ms", default.recall_within)?,
        edit_within: millis(args, "edit_ms", default.edit_within)?,
        ..default
    })
}

fn millis(args: &mut Args<'_>, key: &str, default: Duration) -> Result<Duration, Failure> {
    let given: Option<u64> = args.0.take_key(key).map(str::parse).transpose()?;
    Ok(given.map_or(default, Duration::from_millis))
}

fn parse(name: &str, args: &mut Args<'_>) -> Result<Command, Failure> {
    Ok(match name {
        "open" => {
            let (user, device) = args.device()?;
            let open_id = OpenId::from_bytes([args.parse("id", 1)?; 16])?;
            let ends = SessionId::new(args.parse("ends", 0)?).ok();
            Command::Open { user, device, open_id, ends }
        }
        "send" => Command::Send(send(args)?),
        "backend" => backend(args)?,
        "confirm" => {
            let (user, device) = args.device()?;
            let epoch = Epoch::new(args.parse("epoch", 1)?);
            let seq = Seq::new(args.next()?);
            Command::Confirm { user, device, epoch, seq }
        }
        "confirm_many" => Command::ConfirmMany { confirmations: confirmations(args)? },
        "trim_outbox" => Command::TrimOutbox {
            shard: ShardId::new(args.next()?),
            upto: OutSeq::new(args.next()?),
            returns: OutSeq::new(args.parse("returns", 0)?),
        },
        "trim" => Command::TrimMailbox { user: args.next()?, upto: Seq::new(args.next()?) },
        "delete" => Command::DeleteMailbox { user: args.next()? },
        "adopt" => Command::Adopt { user: args.next()?, seq: Seq::new(args.next()?) },
        "block" => Command::Block { user: args.next()?, sender: args.next()?, blocked: true },
        "unblock" => Command::Block { user: args.next()?, sender: args.next()?, blocked: false },
        "silence" => Command::Silence { user: args.next()?, silent: args.next()? },
        "accept_from" => Command::AcceptFrom { user: args.next()?, from: accept_from(args)? },
        "allow" => Command::Allow { user: args.next()?, sender: args.next()?, allowed: true },
        "disallow" => Command::Allow { user: args.next()?, sender: args.next()?, allowed: false },
        "allocate" => {
            let id = args.0.take_key("id").map(message_id).transpose()?;
            Command::Allocate { counter: args.next()?, count: args.parse("count", 1)?, id }
        }
        "allocate_many" => Command::AllocateMany { allocations: allocations(args)? },
        "create" => {
            let node = |number: &str| {
                Ok((NodeId::new(number.parse()?), NodeAddress { grpc: format!("host-{number}:1") }))
            };
            let nodes: String = args.parse("nodes", "1,2,3".to_owned())?;
            let nodes = nodes.split(',').map(node).collect::<Result<_, Failure>>()?;
            let cluster = ClusterId::from_bytes([args.parse("cluster", 7)?; 16])?;
            let shards = ShardCount::new(args.parse("shards", 4)?)?;
            Command::CreateCluster {
                map: ClusterMap::new(cluster, shards, nodes, Settings::default()),
            }
        }
        "expire" => Command::Expire { now: UnixMs::new(args.next()?) },
        _ => return about_device(name, args),
    })
}

/// What is about one device, and what a leader does unasked.
fn about_device(name: &str, args: &mut Args<'_>) -> Result<Command, Failure> {
    Ok(match name {
        "register" => {
            let (user, device) = args.device()?;
            let start = match args.parse("start", "floor".to_owned())?.as_str() {
                "head" => Start::Head,
                "floor" => Start::Floor,
                last => Start::Last(last.parse()?),
            };
            let issued = args.0.take_key("issued").map(str::parse).transpose()?;
            let arrival = issued.map(|issued| Arrival { issued: UnixMs::new(issued) });
            let label = args
                .0
                .take_key("name")
                .map(|name| Label { name: name.to_owned(), platform: "test".to_owned() });
            Command::RegisterDevice { user, device, start, arrival, label }
        }
        "forget" => {
            let (user, device) = args.device()?;
            Command::ForgetDevice { user, device }
        }
        "log_out" => {
            let (user, device) = args.device()?;
            Command::LogOut { user, device }
        }
        "depart" => {
            let (user, device) = args.device()?;
            Command::Depart { user, device, connection: args.next()? }
        }
        "set_push" => {
            let (user, device) = args.device()?;
            let target = args
                .0
                .next_pos()
                .map(|target| PushTarget { provider: "log".to_owned(), target: target.to_owned() });
            Command::SetPush { user, device, target }
        }
        "push_sent" => {
            let (user, device) = args.device()?;
            let epoch = Epoch::new(args.parse("epoch", 1)?);
            Command::PushSent { user, device, epoch, upto: Seq::new(args.next()?) }
        }
        "drop_push" => {
            let (user, device) = args.device()?;
            let since = args.0.take_key("since").map(str::parse).transpose()?.map(UnixMs::new);
            Command::DropPush { user, device, version: args.next()?, since }
        }
        "retain" => Command::Retain { mailbox: Recipient::User(args.next()?) },
        _ => return about_group(name, args),
    })
}

/// What is about a group.
fn about_group(name: &str, args: &mut Args<'_>) -> Result<Command, Failure> {
    Ok(match name {
        "fan_out" => Command::FanOut { group: args.next()? },
        "found" | "add" | "remove" | "role" | "policy" | "disband" => {
            let by = args.0.take_key("by").map(UserId::new).transpose()?;
            let group = args.next()?;
            Command::Group(GroupCommand { group, by, action: action(name, args)? })
        }
        other => return Err(format!("unknown command {other}").into()),
    })
}

fn backend(args: &mut Args<'_>) -> Result<Command, Failure> {
    let sender = args.next()?;
    let (content, (judged, id)) = judged(args)?;
    Ok(match judged {
        Judged::Allow(draft) => Command::BackendSend(BackendSend { sender, content, draft }),
        Judged::Drop(draft) => Command::DropBackend(BackendSend { sender, content, draft }),
        Judged::Refuse(code) => Command::RefuseBackend { sender, id, content, code },
    })
}

fn accept_from(args: &mut Args<'_>) -> Result<AcceptFrom, Failure> {
    match args.next::<String>()?.as_str() {
        "everybody" => Ok(AcceptFrom::Everybody),
        "contacts" => Ok(AcceptFrom::Contacts),
        other => Err(format!("nobody takes messages of {other}").into()),
    }
}

/// `found GROUP OWNER MEMBERS [max=N] …`, `add GROUP USERS`, `remove GROUP USERS`,
/// `role GROUP USER ROLE`, `policy GROUP …`, `disband GROUP`; who asks is `by=USER`.
fn action(name: &str, args: &mut Args<'_>) -> Result<GroupAction, Failure> {
    Ok(match name {
        "found" => GroupAction::Create(NewGroup {
            owner: args.next()?,
            members: args.users()?,
            members_max: args.parse("max", 500)?,
            policy: policy(args)?,
        }),
        "add" => GroupAction::Add { users: args.users()? },
        "remove" => GroupAction::Remove { users: args.users()? },
        "role" => {
            let user = args.next()?;
            let role = match args.next::<String>()?.as_str() {
                "owner" => Role::Owner,
                "admin" => Role::Admin,
                _ => Role::Member,
            };
            GroupAction::SetRole { user, role }
        }
        "policy" => GroupAction::SetPolicy { policy: policy(args)? },
        _ => GroupAction::Delete,
    })
}

/// `[post=admins] [add=admins] [open=true]`
fn policy(args: &mut Args<'_>) -> Result<Policy, Failure> {
    let mut who = |key| {
        let admins = args.0.take_key(key) == Some("admins");
        if admins { Who::Admins } else { Who::Everybody }
    };
    let (post, add) = (who("post"), who("add"));
    Ok(Policy { post, add, open: args.parse("open", false)? })
}

/// `USER/DEVICE=SEQ …`, all of one epoch.
fn confirmations(args: &mut Args<'_>) -> Result<Vec<Confirmation>, Failure> {
    let epoch = Epoch::new(args.parse("epoch", 1)?);
    let confirmation = |(name, seq): (&str, &str)| {
        let (user, device) = names(name)?;
        Ok(Confirmation { user, device, epoch, seq: Seq::new(seq.parse()?) })
    };
    std::iter::from_fn(|| args.0.next_key()).map(confirmation).collect()
}

/// `COUNTER=COUNT …`
fn allocations(args: &mut Args<'_>) -> Result<Vec<(CounterId, u32)>, Failure> {
    let allocation = |(counter, count): (&str, &str)| Ok((counter.parse()?, count.parse()?));
    std::iter::from_fn(|| args.0.next_key()).map(allocation).collect()
}

fn send(args: &mut Args<'_>) -> Result<Send, Failure> {
    let (user, device) = args.device()?;
    let (session, n) = (args.parse("session", 1)?, args.parse("n", 1)?);
    let base = args.parse("base", 1)?;
    let (content, (judged, _)) = judged(args)?;
    Ok(Send { user, device, session: SessionId::new(session)?, n, base, content, judged })
}

/// `refused=CODE`, `dropped=yes` or `replaced=BODY` is a gateway's judgement; the hash is of what
/// was asked for. Gives the message's id beside it, which a refusal does not hold.
fn judged(args: &mut Args<'_>) -> Result<(ContentHash, (Judged, ClientMsgId)), Failure> {
    let refused = args.0.take_key("refused").map(|name| {
        let found = ErrorCode::ALL.iter().find(|code| code.name() == name);
        found.copied().ok_or_else(|| format!("no code {name}"))
    });
    let dropped = args.parse("dropped", "no".to_owned())? == "yes";
    let replaced = args.0.take_key("replaced").map(|body| Bytes::from(body.to_owned()));
    let mut draft = draft(args)?;
    let mut content = ContentHash::of(&draft.to, draft.kind, &draft.body);
    if let Some(Asked { kind, epoch, seq }) = draft.act {
        content = content.about(format!("{kind:?} {epoch} {seq}").as_bytes());
    }
    let id = draft.client_msg_id;
    draft.body = replaced.unwrap_or(draft.body);
    let judged = match refused.transpose()? {
        Some(code) => Judged::Refuse(code),
        None if dropped => Judged::Drop(draft),
        None => Judged::Allow(draft),
    };
    Ok((content, (judged, id)))
}

fn draft(args: &mut Args<'_>) -> Result<Draft, Failure> {
    let to = args.parse("to", String::new())?;
    let to = to.split(',').filter(|name| !name.is_empty()).map(recipient);
    let fill = args.parse("fill", 0)?;
    let body = args.parse("body", "x".repeat(fill))?;
    let act = asked(args)?;
    let kind = match act {
        None | Some(Asked { kind: ActKind::Edit, .. }) => 1,
        Some(_) => 0,
    };
    Ok(Draft {
        to: to.collect::<Result<_, _>>()?,
        kind: args.parse("kind", kind)?,
        client_msg_id: message_id(&args.parse("id", "0.0".to_owned())?)?,
        body: Bytes::from(body),
        act,
    })
}

/// `delivered=SEQ`, `read=SEQ`, `recall=SEQ` or `edit=SEQ`, and `epoch=N`.
fn asked(args: &mut Args<'_>) -> Result<Option<Asked>, Failure> {
    let kinds = [
        ("delivered", ActKind::Delivered),
        ("read", ActKind::Read),
        ("recall", ActKind::Recall),
        ("edit", ActKind::Edit),
    ];
    let epoch = Epoch::new(args.parse("epoch", 1)?);
    for (key, kind) in kinds {
        if let Some(seq) = args.0.take_key(key) {
            return Ok(Some(Asked { kind, epoch, seq: Seq::new(seq.parse()?) }));
        }
    }
    Ok(None)
}

/// `USER`, or `group:GROUP`.
fn recipient(name: &str) -> Result<Recipient, IdError> {
    match name.split_once(':') {
        Some(("group", group)) => GroupId::new(group).map(Recipient::Group),
        _ => UserId::new(name).map(Recipient::User),
    }
}

/// `TIME.NUMBER` as a message id.
fn message_id(text: &str) -> Result<ClientMsgId, Failure> {
    let (time, number) = text.split_once('.').ok_or("an id is TIME.NUMBER")?;
    Ok(ClientMsgId::new(UnixMs::new(time.parse()?), [number.parse()?; 10]))
}

/// `USER#SESSION.N` or `USER@TIME.NUMBER`, as entries are shown.
fn origin(text: &str) -> Result<Origin, Failure> {
    if let Some((sender, id)) = text.split_once('@') {
        return Ok(Origin::Backend { sender: sender.parse()?, id: message_id(id)? });
    }
    let (sender, send) = text.split_once('#').ok_or("an origin has # or @")?;
    let (session, n) = send.split_once('.').ok_or("a send is SESSION.N")?;
    let (session, n) = (SessionId::new(session.parse()?)?, n.parse()?);
    Ok(Origin::Session { sender: sender.parse()?, session, n })
}

/// Arguments of a script's command.
struct Args<'a>(ArgumentConsumer<'a>);

impl Args<'_> {
    fn next<T: FromStr<Err: Error + 'static>>(&mut self) -> Result<T, Failure> {
        Ok(self.0.next_pos().ok_or("an argument is missing")?.parse()?)
    }

    fn parse<T: FromStr<Err: Error + 'static>>(
        &mut self,
        key: &str,
        default: T,
    ) -> Result<T, Failure> {
        Ok(self.0.take_key(key).map(str::parse).transpose()?.unwrap_or(default))
    }

    fn recipient(&mut self) -> Result<Recipient, Failure> {
        Ok(recipient(&self.next::<String>()?)?)
    }

    /// `USER,USER…`, and `PREFIXFIRST..LAST` for a user of each number; nobody where it is missing.
    fn users(&mut self) -> Result<Vec<UserId>, Failure> {
        let list = self.0.next_pos().unwrap_or_default().to_owned();
        let mut users = Vec::new();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            match name.split_once("..") {
                None => users.push(UserId::new(name)?),
                Some((first, last)) => {
                    let prefix = first.trim_end_matches(|it: char| it.is_ascii_digit());
                    let first: u32 = first[prefix.len()..].parse()?;
                    for number in first..=last.parse()? {
                        users.push(UserId::new(format!("{prefix}{number:04}"))?);
                    }
                }
            }
        }
        Ok(users)
    }

    fn device(&mut self) -> Result<(UserId, DeviceId), Failure> {
        names(&self.next::<String>()?)
    }
}

fn names(device: &str) -> Result<(UserId, DeviceId), Failure> {
    let (user, device) = device.split_once('/').ok_or("a device is USER/DEVICE")?;
    Ok((UserId::new(user)?, DeviceId::new(device)?))
}

//! Golden scripts: what happens to a device in, what it wants out. `tests/scripts/` holds one per
//! rule of `docs/protocol.md`.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --release -p tidemark-client` writes the outputs anew; read the
//! difference before you commit it. A line that begins with `store` is durable before the lines
//! below it happen.

use std::error::Error;
use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Context, Runner};
use tidemark_client::engine::{Action, Engine, Input, Link, Output};
use tidemark_client::store::{Change, OutboxId};
use tidemark_client::{Config, Event, Item, MemoryStore, Outcome};
use tidemark_env::SeededRng;
use tidemark_proto::hello::Start;
use tidemark_proto::{Detail, Failure, v1};
use tidemark_types::{ClientMsgId, ErrorCode, Seq, SessionId, UnixMs};

type Broken = Box<dyn Error>;

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
        goldenscript::run(&mut Script::new(Start::Floor), &path).expect("it runs");
    }
}

/// What a script's commands work on.
struct Script {
    config: Arc<Config>,
    store: MemoryStore,
    engine: Engine,
    now: Duration,
    /// The last connection that was asked for.
    link: Option<Link>,
    links: Vec<Link>,
    sends: u8,
    crashes: u64,
}

impl Script {
    /// The application sends a message, or an act about one, or asks; false where it cannot ask.
    fn say(&mut self, what: &str, args: &mut Args<'_>) -> Result<bool, Broken> {
        if what == "unread" {
            let question = v1::Unread { request_id: args.next()? };
            return Ok(self.engine.ask(self.now, question));
        }
        self.sends += 1;
        let client_msg_id = message_id(self.sends).as_bytes().to_vec();
        let send = v1::Send { client_msg_id, ..v1::Send::default() };
        let send = match what {
            "send" => v1::Send {
                to: vec![v1::Id { kind: 1, name: "bob".to_owned() }],
                body: args.next::<String>()?.into(),
                ..send
            },
            _ => {
                let kind = match args.next::<String>()?.as_str() {
                    "read" => v1::ActKind::Read,
                    "recall" => v1::ActKind::Recall,
                    _ => v1::ActKind::Edit,
                };
                let about = v1::About { kind: kind.into(), epoch: 1, seq: args.next()? };
                v1::Send { about: Some(about), ..send }
            }
        };
        self.engine.send(self.now, send);
        Ok(true)
    }

    fn new(start: Start) -> Self {
        let gateways = vec!["one:1".to_owned(), "two:1".to_owned()];
        let config =
            Config::new("alice".parse().expect("legal"), "phone".parse().expect("legal"), gateways);
        let config = Arc::new(Config { start, ..config });
        let store = MemoryStore::default();
        let engine = Engine::new(config.clone(), store.saved(), Arc::new(SeededRng::new(1)));
        Script {
            config,
            store,
            engine,
            now: Duration::ZERO,
            link: None,
            links: Vec::new(),
            sends: 0,
            crashes: 0,
        }
    }
}

impl Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &Context) -> Result<String, Broken> {
        let mut args = Args(command.consume_args());
        let input = match command.name.as_str() {
            "device" => {
                *self = Script::new(match args.parse("start", "floor".to_owned())?.as_str() {
                    "head" => Start::Head,
                    "floor" => Start::Floor,
                    last => Start::Last(last.parse()?),
                });
                Some(Input::Tick)
            }
            "crash" => {
                self.crashes += 1;
                let rng = Arc::new(SeededRng::new(1 + self.crashes));
                self.engine = Engine::new(self.config.clone(), self.store.saved(), rng);
                Some(Input::Tick)
            }
            "tick" => {
                self.now += Duration::from_millis(args.next()?);
                Some(Input::Tick)
            }
            "due" => {
                let due = self.engine.deadline().ok_or("nothing is due")?;
                self.now = self.now.max(due);
                Some(Input::Tick)
            }
            "connected" => Some(Input::Connected(self.link()?)),
            "lost" => {
                Some(Input::Lost { link: self.link()?, reason: "the cable is cut".to_owned() })
            }
            "token" => Some(Input::Token(Ok(args.next()?))),
            "no_token" => Some(Input::Token(Err("nobody is logged in".to_owned()))),
            "handled" => Some(Input::Handled(Ok(()))),
            "failed" => Some(Input::Handled(Err("the disk is full".to_owned()))),
            "taken" => Some(Input::Taken(OutboxId::new(args.next()?))),
            "close" => Some(Input::Close),
            "online" => return self.online(&mut args),
            "send" | "act" | "unread" => {
                if !self.say(&command.name, &mut args)? {
                    return Ok("not connected".to_owned());
                }
                None
            }
            "status" => {
                args.0.reject_next()?;
                return Ok(format!("{:?}", self.engine.status()));
            }
            name => {
                let frame = frame(name, &mut args, &self.store)?;
                let link = match args.0.take_key("link") {
                    Some(link) => self.links[link.parse::<usize>()? - 1],
                    None => self.link()?,
                };
                Some(Input::Frame { link, frame: Box::new(frame) })
            }
        };
        args.0.reject_next()?;
        if let Some(input) = input {
            self.engine.input(self.now, input);
        }
        let output = self.engine.output();
        Ok(self.show(output))
    }
}

impl Script {
    fn link(&self) -> Result<Link, Broken> {
        Ok(self.link.ok_or("the device has not connected yet")?)
    }

    /// `online [FIELDS OF welcome]`: connects, all at once.
    fn online(&mut self, args: &mut Args<'_>) -> Result<String, Broken> {
        self.engine.input(self.now, Input::Tick);
        let before = self.engine.output();
        self.show(before);
        let link = self.link()?;
        self.engine.input(self.now, Input::Connected(link));
        self.engine.input(self.now, Input::Token(Ok("jwt".to_owned())));
        let frame = Box::new(frame("welcome", args, &self.store)?);
        self.engine.input(self.now, Input::Frame { link, frame });
        args.0.reject_next()?;
        let output = self.engine.output();
        Ok(self.show(output))
    }

    /// Does what the engine wants, as far as a script sees it.
    fn show(&mut self, Output { changes, actions }: Output) -> String {
        let mut text = String::new();
        for change in &changes {
            writeln!(text, "store {}", show_change(change)).expect("a string grows");
        }
        self.store.apply(changes);
        for action in &actions {
            if let Action::Connect { link, .. } = action {
                self.link = Some(*link);
                self.links.push(*link);
            }
            writeln!(text, "{}", show_action(action)).expect("a string grows");
        }
        text
    }
}

fn show_change(change: &Change) -> String {
    match change {
        Change::Meta(meta) => {
            let session = meta.session.map_or("none".to_owned(), |session| {
                format!("{} from {}", session.id, session.first.get())
            });
            let open = if meta.open_id.is_some() { " open_id" } else { "" };
            let (epoch, cursor, numbered) = (meta.epoch, meta.cursor, meta.numbered.get());
            format!("cursor={epoch}/{cursor} session={session} numbered={numbered}{open}")
        }
        Change::Put(id, send) => {
            format!("send {} {:?}", id.get(), String::from_utf8_lossy(&send.body))
        }
        Change::Settle(id, settled) => format!("outcome {} {:?}", id.get(), settled.outcome),
        Change::Forget(id) => format!("nothing of {}", id.get()),
    }
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Connect { link, gateway } => format!("connect {link:?} to gateway {gateway}"),
        Action::Close(link) => format!("close {link:?}"),
        Action::Send { frame, .. } => format!("> {}", show_frame(frame)),
        Action::FetchToken { refused } => format!("fetch a token, refused={refused}"),
        Action::Hand(Item::Entry(entry)) => format!("hand {}", entry.seq),
        Action::Hand(Item::Gap(gap)) => format!("hand the gap {gap}"),
        Action::Report { id, settled } => match settled.outcome {
            Outcome::Accepted(accepted) => format!("report {} {accepted:?}", id.get()),
            other => format!("report {} {other:?}", id.get()),
        },
        Action::Event(Event::Stopped(fatal)) => format!("STOPPED: {fatal}"),
        Action::Answer(frame) => format!("answer {:?}", frame.frame.as_ref().map(|it| it.name())),
        Action::Unanswered { request_id, failure } => format!("no answer #{request_id} {failure}"),
        Action::Event(event) => format!("event {event:?}"),
        Action::Stop => "stop".to_owned(),
    }
}

fn show_frame(frame: &v1::ClientFrame) -> String {
    use v1::client_frame::Frame;
    match frame.frame.as_ref().expect("a frame is known") {
        Frame::Hello(hello) => {
            let start = hello.start.map_or(String::new(), |start| {
                format!(" start={} {}", start.at().as_str_name(), start.last)
            });
            let known = if hello.cluster_id.is_empty() { "unknown" } else { "known" };
            format!("Hello cluster {known} {}/{}{start}", hello.epoch, hello.seq_cli)
        }
        Frame::Open(open) => format!("Open ends={}", open.ends),
        Frame::Send(send) => {
            let body = String::from_utf8_lossy(&send.body);
            let about = send.about.map_or(String::new(), |about| {
                format!(" {} of {}/{}", about.kind().as_str_name(), about.epoch, about.seq)
            });
            format!("Send {}.{} base={} {body:?}{about}", send.session, send.n, send.base)
        }
        Frame::Ack(ack) => format!("Ack {}/{}", ack.epoch, ack.seq),
        Frame::Sync(sync) => {
            format!(
                "Sync #{} {}/{} limit={}",
                sync.request_id, sync.epoch, sync.seq_cli, sync.limit
            )
        }
        Frame::Status(_) => "Status".to_owned(),
        Frame::Ping(ping) => format!("Ping {}/{}", ping.epoch, ping.seq_cli),
        Frame::Unread(unread) => format!("Unread #{}", unread.request_id),
        Frame::Typing(typing) => format!("Typing {} {}", typing.user, typing.typing),
        Frame::Presence(asked) => format!("Presence #{} {}", asked.request_id, asked.user),
        Frame::WatchPresence(watch) => format!("WatchPresence {}", watch.users.join(" ")),
    }
}

fn message_id(number: u8) -> ClientMsgId {
    ClientMsgId::new(UnixMs::new(0), [number; 10])
}

fn frame(name: &str, args: &mut Args<'_>, store: &MemoryStore) -> Result<v1::ServerFrame, Broken> {
    let epoch = args.parse("epoch", 1)?;
    Ok(match name {
        "welcome" => v1::Welcome {
            cluster_id: vec![args.parse("cluster", 7)?; 16],
            epoch,
            seq_svr: args.parse("head", 0)?,
            floor: args.parse("floor", 0)?,
            start: args.parse("start", 0)?,
            send_window: args.parse("window", 256)?,
            send_window_bytes: args.parse("bytes", 1 << 20)?,
            heartbeat_min_ms: args.parse("heartbeat_min", 1_000)?,
            heartbeat_max_ms: args.parse("heartbeat_max", 90_000)?,
            live_session: args.parse("live", 0)?,
            server_time_ms: 1_000_000,
            token_expires_ms: args.parse("expires", 0)?,
            ..v1::Welcome::default()
        }
        .into(),
        "deliver" => {
            let (prev_seq, last) = (args.parse("prev", 0)?, args.parse("last", 0)?);
            let entries = entries(prev_seq, last, args)?;
            v1::Deliver::new(epoch, prev_seq, &entries).into()
        }
        "page" => {
            let (prev_seq, last) = (args.parse("prev", 0)?, args.parse("last", 0)?);
            let entries = entries(prev_seq, last, args)?;
            let from = args.parse("gap", 0)?;
            let page = v1::Page {
                epoch,
                floor: args.parse("floor", 0)?,
                head: args.parse("head", last)?,
                gap: (from > 0).then_some(v1::Gap { from, to: prev_seq }),
                prev_seq,
                entries,
                more: args.parse("more", false)?,
            };
            v1::SyncPage { request_id: args.parse("id", 0)?, page: Some(page) }.into()
        }
        "notice" => v1::Notice { epoch, head: args.next()? }.into(),
        "pong" => {
            v1::Pong { nonce: 1, epoch, seq_svr: args.next()?, server_time_ms: 1_000_000 }.into()
        }
        "reset" => {
            v1::Reset { epoch, floor: args.parse("floor", 0)?, head: args.parse("head", 0)? }.into()
        }
        "counted" => {
            let counts = Some(v1::UnreadCounts::default());
            v1::UnreadReply { request_id: args.next()?, counts }.into()
        }
        "goaway" => v1::GoAway {
            reconnect_after_ms: args.parse("after", 100)?,
            close_after_ms: args.parse("close", 5_000)?,
            message: String::new(),
        }
        .into(),
        "error" => v1::Error {
            frame: args.parse("frame", 0)?,
            request_id: args.parse("id", 0)?,
            closing: args.parse("closing", false)?,
            failure: Some(failure(args)?.into()),
        }
        .into(),
        _ => answer(name, args, store)?,
    })
}

/// Answers to `Open` and `Send`.
fn answer(name: &str, args: &mut Args<'_>, store: &MemoryStore) -> Result<v1::ServerFrame, Broken> {
    Ok(match name {
        "opened" => {
            let result = Some(v1::opened::Result::Session(args.next()?));
            v1::Opened { open_id: open_id(store), result }.into()
        }
        "not_opened" => {
            let result = Some(v1::opened::Result::Failure(failure(args)?.into()));
            v1::Opened { open_id: open_id(store), result }.into()
        }
        "accepted" => {
            let (session, n) = (session(args)?, args.parse("n", 1)?);
            v1::SendAck::accepted(session, n, Seq::new(args.next()?), UnixMs::new(9)).into()
        }
        "refused" => {
            let (session, n) = (session(args)?, args.parse("n", 1)?);
            v1::SendAck::failed(session, n, failure(args)?).into()
        }
        other => return Err(format!("unknown command {other}").into()),
    })
}

fn open_id(store: &MemoryStore) -> Vec<u8> {
    let open_id = store.saved().meta.and_then(|meta| meta.open_id);
    open_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default()
}

fn session(args: &mut Args<'_>) -> Result<SessionId, Broken> {
    Ok(SessionId::new(args.parse("session", 1)?)?)
}

/// Entries of bob's, or with `own=SESSION.N msg=NUMBER` a copy of this device's own.
fn entries(prev: u32, last: u32, args: &mut Args<'_>) -> Result<Vec<v1::Entry>, Broken> {
    let own = args.parse("own", String::new())?;
    let number = args.parse("msg", 1)?;
    // Entries of bob's count on in a session of their own, `from` that n.
    let from: u32 = args.parse("from", 0)?;
    let entry = |(at, seq): (u32, u32)| {
        let (sender, session, n) = match own.split_once('.') {
            Some((session, n)) => ("alice", session.parse()?, n.parse()?),
            None if from > 0 => ("bob", 9, u64::from(from + at)),
            None => ("bob", 9, u64::from(seq)),
        };
        let key = v1::origin::Key::SessionSend(v1::SessionSend { session, n });
        Ok(v1::Entry {
            seq,
            time_ms: 9,
            origin: Some(v1::Origin { sender: sender.to_owned(), key: Some(key) }),
            content: Some(v1::entry::Content::Message(v1::Message {
                client_msg_id: message_id(number).as_bytes().to_vec(),
                sent_ms: 9,
                ..v1::Message::default()
            })),
        })
    };
    (0..).zip(prev + 1..=last).map(entry).collect()
}

fn failure(args: &mut Args<'_>) -> Result<Failure, Broken> {
    let name: String = args.next()?;
    let code = ErrorCode::ALL.iter().find(|code| code.name() == name);
    let mut failure = Failure::new(*code.ok_or_else(|| format!("no code {name}"))?);
    failure.message = "because".to_owned();
    let retry = args.parse("retry", 0)?;
    failure.retry_after = (retry > 0).then(|| Duration::from_millis(retry));
    if let Some(expected) = args.0.take_key("expected") {
        failure.detail = Some(Detail::Expected(expected.parse()?));
    } else if let Some(live) = args.0.take_key("live") {
        failure.detail = Some(Detail::Live(SessionId::new(live.parse()?).ok()));
    } else if let Some(last_n) = args.0.take_key("last_n") {
        failure.detail = Some(Detail::LastN(last_n.parse()?));
    }
    Ok(failure)
}

/// Arguments of a script's command.
struct Args<'a>(ArgumentConsumer<'a>);

impl Args<'_> {
    fn next<T: FromStr<Err: Error + 'static>>(&mut self) -> Result<T, Broken> {
        Ok(self.0.next_pos().ok_or("an argument is missing")?.parse()?)
    }

    fn parse<T: FromStr<Err: Error + 'static>>(
        &mut self,
        key: &str,
        default: T,
    ) -> Result<T, Broken> {
        Ok(self.0.take_key(key).map(str::parse).transpose()?.unwrap_or(default))
    }
}

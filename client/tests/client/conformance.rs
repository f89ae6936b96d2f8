//! The conformance kit in `client/conformance/`: scripts that a device SDK in any language must
//! pass. What they mean is in the README beside them.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --release -p tidemark-client` writes what this engine does into
//! the scripts; read the difference before you commit it, and run the other engines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Map, Value, json};
use tidemark_client::engine::{Action, Engine, Input, Link, Output};
use tidemark_client::store::OutboxId;
use tidemark_client::{Config, Event, Fatal, Item, MemoryStore, Outcome, Unknown};
use tidemark_env::Rng;
use tidemark_proto::hello::Start;
use tidemark_proto::{FILE_DESCRIPTOR_SET, v1};
use tidemark_types::{ClientMsgId, UnixMs};

use crate::stored;

/// A device that does nothing for so many of its own deadlines waits for ever.
const DEADLINES_MAX: usize = 100;

#[test]
fn the_engine_passes_the_kit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let paths =
        fs::read_dir(folder).expect("the kit is there").map(|e| e.expect("readable").path());
    let mut paths: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    paths.sort();
    assert!(paths.len() > 10, "one script per rule");
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let mut script: Value = serde_json::from_str(&text).expect("JSON");
        let steps = script["steps"].as_array_mut().expect("steps");
        let mut world = World::new(&json!("floor"));
        for (at, step) in steps.iter_mut().enumerate() {
            let done = world.step(&step["in"]);
            if update {
                step["out"] = Value::Array(done);
                continue;
            }
            let place = format!("{}, step {} {}", path.display(), at + 1, step["in"]);
            let wanted = step["out"].as_array().expect("what is wanted");
            let fits = wanted.len() == done.len()
                && wanted.iter().zip(&done).all(|(wanted, done)| fits(wanted, done));
            assert!(fits, "{place}\nwanted {:#}\ndone {:#}", step["out"], Value::Array(done));
        }
        if update {
            fs::write(&path, show(&script)).expect("writable");
        }
    }
}

#[test]
fn a_script_can_fail() {
    let done = json!({"send": {"ack": {"epoch": 1, "seq": 7}}});
    assert!(fits(&json!({"send": {"ack": {"seq": 7}}}), &done));
    assert!(!fits(&json!({"send": {"ack": {"seq": 8}}}), &done));
    assert!(!fits(&json!({"send": {"ping": {}}}), &done));
    assert!(!fits(&json!({"send": {"ack": {"cursor": 7}}}), &done));
    assert!(!fits(&json!([1]), &json!([1, 2])));
}

/// Does what was done have everything that is wanted of it?
fn fits(wanted: &Value, done: &Value) -> bool {
    match (wanted, done) {
        (Value::Object(wanted), Value::Object(done)) => {
            let has =
                |(key, value): (&String, &Value)| done.get(key).is_some_and(|d| fits(value, d));
            wanted.iter().all(has)
        }
        (Value::Array(wanted), Value::Array(done)) => {
            wanted.len() == done.len() && wanted.iter().zip(done).all(|(w, d)| fits(w, d))
        }
        (wanted, done) => wanted == done,
    }
}

/// The script, one input and one effect a line.
fn show(script: &Value) -> String {
    let mut text = format!("{{\n  \"about\": {},\n  \"steps\": [\n", script["about"]);
    let steps = script["steps"].as_array().expect("steps");
    for (at, step) in steps.iter().enumerate() {
        text.push_str("    {");
        if let Some(note) = step.get("note") {
            write!(text, "\"note\": {note},\n     ").expect("a string grows");
        }
        let out = step["out"].as_array().expect("an array");
        let lines: Vec<_> = out.iter().map(|effect| format!("\n       {effect}")).collect();
        let end = if at + 1 < steps.len() { "," } else { "" };
        writeln!(text, "\"in\": {},\n     \"out\": [{}]}}{end}", step["in"], lines.join(","))
            .expect("a string grows");
    }
    text.push_str("  ]\n}\n");
    text
}

/// The kit's randomness: there is none. Bytes count up, so that ids differ.
#[derive(Default)]
struct Counting(AtomicU8);

impl Rng for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }

    fn number(&self) -> u64 {
        0
    }

    fn unit(&self) -> f64 {
        0.0
    }
}

/// What a script works on.
struct World {
    config: Arc<Config>,
    rng: Arc<Counting>,
    store: MemoryStore,
    engine: Engine,
    now: Duration,
    /// The connections that the device asked for, in order.
    links: Vec<Link>,
    gateway: Option<usize>,
    /// Which of the application's sends each one in the outbox is, counted from 1.
    sends: BTreeMap<OutboxId, u8>,
    open_id: Vec<u8>,
    sync: u64,
}

impl World {
    fn new(start: &Value) -> Self {
        let start = match start {
            Value::String(end) if end == "head" => Start::Head,
            Value::String(end) if end == "floor" => Start::Floor,
            other => Start::Last(other["last"].as_u64().expect("a number") as u32),
        };
        let gateways = vec!["one:1".to_owned(), "two:1".to_owned()];
        let (user, device) = ("alice".parse().expect("legal"), "phone".parse().expect("legal"));
        let config = Arc::new(Config { start, ..Config::new(user, device, gateways) });
        let (store, rng) = (MemoryStore::default(), Arc::<Counting>::default());
        let engine = Engine::new(config.clone(), store.saved(), rng.clone());
        World {
            config,
            rng,
            store,
            engine,
            now: Duration::ZERO,
            links: Vec::new(),
            gateway: None,
            sends: BTreeMap::new(),
            open_id: Vec::new(),
            sync: 0,
        }
    }

    /// Does what a step says, and tells what the device does then.
    fn step(&mut self, step: &Value) -> Vec<Value> {
        let step = step.as_object().expect("an object");
        let (name, value) = step.iter().find(|(name, _)| *name != "link").expect("an input");
        let link = step.get("link").map(|link| link.as_u64().expect("a number"));
        match name.as_str() {
            "open" => {
                *self = World::new(value);
                self.input(Input::Tick);
            }
            "crash" => {
                self.engine =
                    Engine::new(self.config.clone(), self.store.saved(), self.rng.clone());
                self.input(Input::Tick);
            }
            "pass" => {
                self.now += Duration::from_millis(value.as_u64().expect("milliseconds"));
                self.input(Input::Tick);
            }
            "wait" => return self.wait(value),
            "send" => {
                let to = vec![v1::Id { kind: 1, name: "bob".to_owned() }];
                self.send(v1::Send { to, ..v1::Send::default() }, value);
            }
            "act" => {
                let about = DynamicMessage::deserialize(v1_descriptor("About"), &value["about"]);
                let about = about.expect("an About").transcode_to().expect("the same message");
                self.send(v1::Send { about: Some(about), ..v1::Send::default() }, &value["body"]);
            }
            "say" => {
                let frame = DynamicMessage::deserialize(v1_descriptor("ClientFrame"), value);
                let frame: v1::ClientFrame =
                    frame.expect("a frame").transcode_to().expect("the same message");
                if !self.engine.ask(self.now, frame) {
                    return vec![json!({"unsaid": {}})];
                }
            }
            _ => {
                let input = self.plain(name, value, link);
                self.input(input);
            }
        }
        self.done()
    }

    fn plain(&mut self, name: &str, value: &Value, link: Option<u64>) -> Input {
        let link = match link {
            Some(link) => self.links[usize::try_from(link).expect("small") - 1],
            None => *self.links.last().expect("the device has asked for a connection"),
        };
        match name {
            "connected" => Input::Connected(link),
            "lost" => Input::Lost { link, reason: "the cable is cut".to_owned() },
            "token" => Input::Token(Ok(value.as_str().expect("a token").to_owned())),
            "noToken" => Input::Token(Err("nobody is logged in".to_owned())),
            "handled" => Input::Handled(Ok(())),
            "failed" => Input::Handled(Err("the disk is full".to_owned())),
            "taken" => {
                let send = value.as_u64().expect("a number");
                let id = self.sends.iter().find(|(_, at)| u64::from(**at) == send);
                Input::Taken(*id.expect("a send").0)
            }
            "close" => Input::Close,
            "frame" => Input::Frame { link, frame: Box::new(self.frame(value)) },
            other => panic!("no input is called {other}"),
        }
    }

    fn input(&mut self, input: Input) {
        self.engine.input(self.now, input);
    }

    /// Time passes until the device does something of its own accord.
    fn wait(&mut self, bounds: &Value) -> Vec<Value> {
        let from = self.now;
        for _ in 0..DEADLINES_MAX {
            self.now = self.now.max(self.engine.deadline().expect("something is due"));
            self.input(Input::Tick);
            let done = self.done();
            if !done.is_empty() {
                let passed = (self.now - from).as_millis();
                let bound =
                    |name: &str| bounds.get(name).map(|ms| u128::from(ms.as_u64().expect("ms")));
                assert!(passed >= bound("atLeastMs").unwrap_or(0), "after {passed} ms");
                assert!(passed <= bound("atMostMs").unwrap_or(u128::MAX), "after {passed} ms");
                return done;
            }
        }
        panic!("it does nothing any more");
    }

    fn send(&mut self, send: v1::Send, body: &Value) {
        let number = u8::try_from(self.sends.len() + 1).expect("few");
        let body = body.as_str().unwrap_or_default().to_owned().into();
        let client_msg_id = message_id(number).as_bytes().to_vec();
        let id = self.engine.send(self.now, v1::Send { body, client_msg_id, ..send });
        self.sends.insert(id, number);
    }

    /// A frame of the server, as JSON with placeholders.
    fn frame(&self, json: &Value) -> v1::ServerFrame {
        let mut json = json.clone();
        self.fill_in(&mut json);
        let descriptor = v1_descriptor("ServerFrame");
        let frame = DynamicMessage::deserialize(descriptor, json).expect("a frame");
        frame.transcode_to().expect("the same message")
    }

    fn fill_in(&self, json: &mut Value) {
        match json {
            Value::Object(fields) => fields.values_mut().for_each(|value| self.fill_in(value)),
            Value::Array(values) => values.iter_mut().for_each(|value| self.fill_in(value)),
            Value::String(text) => match text.strip_prefix('$').map(|name| name.split_once(':')) {
                Some(None) if text == "$openId" => *json = base64(&self.open_id),
                Some(None) if text == "$sync" => *json = json!(self.sync.to_string()),
                Some(Some(("message", number))) => {
                    *json = base64(message_id(number.parse().expect("a number")).as_bytes());
                }
                Some(_) => panic!("no placeholder is called {text}"),
                None => {}
            },
            _ => {}
        }
    }

    /// What the device does; its changes are stored before.
    fn done(&mut self) -> Vec<Value> {
        let Output { changes, actions } = self.engine.output();
        self.store.apply(changes);
        actions.iter().map(|action| self.effect(action)).collect()
    }

    fn effect(&mut self, action: &Action) -> Value {
        match action {
            Action::Connect { link, gateway } => {
                let elsewhere = self.gateway.replace(*gateway) != Some(*gateway);
                self.links.push(*link);
                json!({"connect": {"elsewhere": elsewhere}})
            }
            Action::Close(link) => {
                let place = self.links.iter().position(|known| known == link);
                json!({"close": place.expect("it was asked for") + 1})
            }
            Action::Send { frame, .. } => self.sent(frame),
            Action::FetchToken { refused } => json!({"fetchToken": {"refused": refused}}),
            Action::Hand(Item::Entry(entry)) => json!({"hand": {"seq": entry.seq.get()}}),
            Action::Hand(Item::Gap(gap)) => {
                json!({"hand": {"gap": [gap.first().get(), gap.last().get()]}})
            }
            Action::Report { id, settled } => {
                let what = match settled.outcome {
                    Outcome::Accepted(accepted) => {
                        json!({"accepted": {"seq": accepted.seq.map(|seq| seq.get())}})
                    }
                    Outcome::Refused(code) => json!({"refused": code.name()}),
                    Outcome::Unknown(Unknown::Expired) => json!({"unknown": "expired"}),
                    Outcome::Unknown(Unknown::Conflict) => json!({"unknown": "conflict"}),
                    Outcome::Unknown(Unknown::Settled) => json!({"unknown": "settled"}),
                };
                json!({"report": {"send": self.sends[id], "outcome": what}})
            }
            Action::Event(event) => json!({"tell": told(event)}),
            Action::Answer(frame) => json!({"answer": json_of("ServerFrame", frame.as_ref())}),
            Action::Unanswered { request_id, failure } => {
                json!({"unanswered": {"requestId": request_id.to_string(), "code": failure.code.name()}})
            }
            Action::Stop => json!({"stop": {}}),
        }
    }

    /// A frame of the device, as far as a script looks at it.
    fn sent(&mut self, frame: &v1::ClientFrame) -> Value {
        use v1::client_frame::Frame;
        let frame = frame.frame.as_ref().expect("a frame is known");
        stored::before(frame, &self.store.saved());
        match frame {
            Frame::Open(open) => self.open_id = open.open_id.to_vec(),
            Frame::Sync(sync) => self.sync = sync.request_id,
            _ => {}
        }
        let fields: &[&str] = match frame {
            Frame::Hello(_) => &["clusterId", "epoch", "seqCli", "start", "token"],
            Frame::Open(_) => &["ends"],
            Frame::Send(_) => &["session", "n", "base", "body", "to", "about"],
            Frame::Ack(_) => &["epoch", "seq"],
            Frame::Sync(_) | Frame::Ping(_) => &["epoch", "seqCli"],
            Frame::Unread(_) => &["requestId"],
            Frame::Typing(_) => &["user", "typing"],
            Frame::Presence(_) => &["requestId", "user"],
            Frame::Status(_) | Frame::WatchPresence(_) => &[],
        };
        let whole = v1::ClientFrame { frame: Some(frame.clone()) };
        let json = json_of("ClientFrame", &whole);
        let (kind, content) =
            json.as_object().expect("an object").iter().next().expect("one frame");
        let looked_at = |(name, value): (&String, &Value)| {
            fields.contains(&name.as_str()).then(|| (name.clone(), value.clone()))
        };
        let content: Map<_, _> =
            content.as_object().expect("an object").iter().filter_map(looked_at).collect();
        json!({"send": {kind: content}})
    }
}

fn told(event: &Event) -> Value {
    match event {
        Event::Connected { .. } => json!("connected"),
        Event::Disconnected { .. } => json!("disconnected"),
        Event::Gap(gap) => json!({"gap": [gap.first().get(), gap.last().get()]}),
        Event::Reset { epoch, floor } => {
            json!({"reset": {"epoch": epoch.get(), "floor": floor.get()}})
        }
        Event::HandlerFailed { seq, .. } => json!({"handlerFailed": seq.get()}),
        Event::SessionReplaced => json!("sessionReplaced"),
        Event::SendingStopped { code, .. } => json!({"sendingStopped": code.name()}),
        Event::Stopped(fatal) => json!({"stopped": match fatal {
            Fatal::WrongCluster(_) => "wrongCluster",
            Fatal::Unauthenticated(_) => "unauthenticated",
            Fatal::PermissionDenied(_) => "permissionDenied",
            Fatal::LoggedOut(_) => "loggedOut",
            Fatal::Refused(_) => "refused",
            Fatal::Store(_) => "store",
        }}),
        Event::Typing { by, typing } => {
            json!({"typing": {"by": by.to_string(), "typing": typing}})
        }
        Event::Presence { .. } | Event::PresenceRefused { .. } => {
            panic!("nobody is watched in a script")
        }
        Event::Outcome(_) | Event::Missed(_) => panic!("an engine does not say {event:?}"),
    }
}

fn message_id(number: u8) -> ClientMsgId {
    ClientMsgId::new(UnixMs::new(0), [number; 10])
}

/// A message as protobuf's JSON, with what has its default value.
fn json_of(name: &str, message: &impl prost::Message) -> Value {
    let mut dynamic = DynamicMessage::new(v1_descriptor(name));
    dynamic.transcode_from(message).expect("the same message");
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).expect("JSON")
}

fn v1_descriptor(name: &str) -> prost_reflect::MessageDescriptor {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("compiled by us");
    pool.get_message_by_name(&format!("tidemark.v1.{name}")).expect("it is in the protocol")
}

/// Bytes as JSON has them.
fn base64(bytes: &[u8]) -> Value {
    json!(STANDARD.encode(bytes))
}

//! An operator's checks of sends under faults (R2): gateways with rates, a word list that changes, and a
//! hook over HTTP that is served here.
//!
//! ```text
//!   send ──► gateway 0, whose hook is a help:   unjudged it goes
//!        └─► gateway 1, whose hook must judge:  unjudged it waits
//!                 └── signed HTTP ──► hook: anything, each time anew; late, failing, away ──► history: Judged
//! ```
//!
//! Whatever may become of a message is written down before it can: by the list when it is sent, by the hook
//! before it answers. What became of it must be one of these, the same for every attempt and recipient (C18).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use tempfile::TempDir;
use tidemark_checker::Event;
use tidemark_checker::history::{Judgement, User};
use tidemark_env::{Rng, SeededRng};
use tidemark_types::{ErrorCode, UserId};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::load::{Pace, Shape};
use crate::notes::Notes;
use crate::words;

/// The kinds of messages that the word list and the hook are for.
const LISTED: u32 = 2;
const HOOKED: u32 = 3;

/// Of so many sends one is for the list, and one for the hook.
const CHECKED_EVERY: u64 = 8;

/// The gateway whose hook must judge.
const STRICT_GATEWAY: usize = 1;

/// Of so many users one has devices that know no other gateway: nothing of theirs goes unjudged.
const STRICT_USERS: u32 = 4;

/// A user may send so many times as fast as the load has one send, each time within a second.
const RATE_TIMES: u32 = 2;

/// Words of the list, and one of which the list says something else each time that it is read.
const REJECTED: &[u8] = b"forbidden";
const DROPPED: &[u8] = b"unheard-of";
const STARRED: &[u8] = b"unspeakable";
const CHANGING: &[u8] = b"changeable";

/// How long the list stays the same, and how often gateways look.
const LIST_STAYS: Duration = Duration::from_secs(1);
const RELOAD_MS: u64 = 250;

/// How long gateways wait for the hook, and how long it takes when it is late.
const DEADLINE_MS: u64 = 200;
const LATE: Duration = Duration::from_millis(400);

/// Of so many calls one is late, and one fails; and so often it is away for a while.
const TROUBLE_EVERY: u64 = 16;
const AWAY_EVERY: Duration = Duration::from_secs(8);
const AWAY_FOR: Duration = Duration::from_secs(1);

/// What gateways and the hook share.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Is this a user whose devices know only the gateway that lets nothing go unjudged?
fn is_strict(user: User) -> bool {
    user.0 % STRICT_USERS == STRICT_USERS - 1
}

/// The gateways that a user's devices know.
pub(super) fn gateways_of(user: User, all: &[String]) -> Vec<String> {
    match is_strict(user) {
        true => vec![all[STRICT_GATEWAY].clone()],
        false => all.to_vec(),
    }
}

/// A message's kind and body.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) kind: u32,
    pub(super) body: Bytes,
    /// What may become of it before the hook says more; empty if nobody judges it.
    may: Vec<Option<Judgement>>,
}

impl Text {
    /// One that nobody judges.
    fn plain(id: u128, bytes: usize) -> Self {
        Text { kind: words::KIND, body: words::body(id, bytes), may: Vec::new() }
    }

    /// Any, where gateways check sends; from a user's device, or from a back end, which knows all gateways.
    pub(super) fn drawn(
        checked: bool,
        id: u128,
        bytes: usize,
        rng: &SeededRng,
        device_of: Option<User>,
    ) -> Self {
        if !checked {
            return Text::plain(id, bytes);
        }
        match rng.number() % CHECKED_EVERY {
            0 => Text::listed(id, rng),
            1 => {
                let waits = device_of.is_some_and(is_strict);
                let may = vec![(!waits).then_some(Judgement::Allow)];
                Text { kind: HOOKED, body: words::body(id, bytes), may }
            }
            _ => Text::plain(id, bytes),
        }
    }

    fn listed(id: u128, rng: &SeededRng) -> Self {
        let body = |word: &[u8]| Bytes::from([&words::body(id, 0), word].concat());
        let reject = Judgement::Refuse { code: ErrorCode::Filtered };
        let star = |word: &[u8]| Judgement::Replace {
            content: words::content(LISTED, &body(&vec![b'*'; word.len()])),
        };
        let (word, may) = match rng.number() % 5 {
            0 => (REJECTED, vec![reject]),
            1 => (DROPPED, vec![Judgement::Drop]),
            2 => (STARRED, vec![star(STARRED)]),
            3 => (CHANGING, vec![reject, Judgement::Drop, star(CHANGING)]),
            _ => (&b"mentionable"[..], vec![Judgement::Allow]),
        };
        Text { kind: LISTED, body: body(word), may: may.into_iter().map(Some).collect() }
    }

    /// What it says, in one number.
    pub(super) fn content(&self) -> u64 {
        words::content(self.kind, &self.body)
    }

    /// Writes down what may become of it, once it is written down that it is sent.
    pub(super) fn note(&self, sender: User, id: u128, notes: &Notes) {
        for judgement in self.may.iter().copied() {
            notes.note(|at| Event::Judged { at, sender, id, judgement });
        }
    }
}

/// The operator of a run.
pub(super) struct Operator {
    hook: Arc<Hook>,
    address: SocketAddr,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

/// Judges whatever it is asked about, each time anew.
struct Hook {
    rng: SeededRng,
    began: Instant,
    notes: Notes,
    judged: AtomicU64,
    failed: AtomicU64,
}

impl Operator {
    /// Begins to judge.
    pub(super) async fn start(seed: u64, notes: &Notes) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("hook.secrets"), format!("whsec_{SECRET}\n"))?;
        let hook = Arc::new(Hook {
            rng: SeededRng::new(seed.rotate_left(53)),
            began: Instant::now(),
            notes: notes.clone(),
            judged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let answering = hook.clone();
        let judge = move |headers: HeaderMap, body: Bytes| {
            let hook = answering.clone();
            async move { hook.answer(&headers, &body).await }
        };
        let router = Router::new().route("/judge", post(judge));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(axum::serve(listener, router).await) });
        let list = folder.path().join("words.txt");
        write_list(&list, "reject")?;
        tasks.spawn(async move {
            for action in ["drop", "replace", "reject"].iter().cycle() {
                tokio::time::sleep(LIST_STAYS).await;
                if let Err(why) = write_list(&list, action) {
                    eprintln!("the word list stays as it is: {why:#}");
                }
            }
        });
        Ok(Operator { hook, address, folder, _tasks: tasks })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A gateway's configuration.
    pub(super) fn gateway(&self, number: usize, shape: Shape) -> String {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let on_failure = if number == STRICT_GATEWAY { "hold" } else { "allow" };
        let rates = match shape.pace {
            Pace::Open(rate) => {
                let sends = (rate / shape.users).max(1) * RATE_TIMES;
                format!("[checks.rates]\nuser = {{ sends = {sends}, within_ms = 1000 }}\n")
            }
            Pace::Closed(_) => String::new(),
        };
        format!(
            "{rates}[checks.filter]\nfile = {:?}\nreload_ms = {RELOAD_MS}\nkinds = [\"{LISTED}\"]\n\
             [checks.hook]\nurl = \"http://{}/judge\"\nsecret_file = {:?}\n\
             deadline_ms = {DEADLINE_MS}\non_failure = \"{on_failure}\"\nkinds = [\"{HOOKED}\"]\n",
            file("words.txt"),
            self.address,
            file("hook.secrets"),
        )
    }

    /// Says what it did; too little shows nothing.
    pub(super) fn finish(self) {
        let Hook { notes, judged, failed, .. } = &*self.hook;
        let (judged, failed) = (judged.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        println!("hook: {judged} judgements, and {failed} calls that failed or came late");
        let few = u64::from(judged == 0) + u64::from(failed == 0);
        notes.amount(&"hook", "kinds of answers too few to show anything", few, 0);
    }
}

/// Whoever reads it reads all of it.
fn write_list(path: &Path, changing: &str) -> Result<()> {
    let next = path.with_extension("new");
    let word = |action: &str, word: &[u8]| format!("{action} {}\n", String::from_utf8_lossy(word));
    let list = [
        word("reject", REJECTED),
        word("drop", DROPPED),
        word("replace", STARRED),
        word(changing, CHANGING),
    ];
    std::fs::write(&next, list.concat())?;
    std::fs::rename(&next, path).context("the word list is replaced")
}

/// What the hook is asked about, as far as it looks at it.
#[derive(Deserialize)]
struct Question {
    sender: String,
    body: String,
}

impl Hook {
    async fn answer(&self, headers: &HeaderMap, body: &[u8]) -> (StatusCode, String) {
        let question = match read(headers, body) {
            Ok(question) => question,
            Err(why) => {
                self.notes.amount(&"hook", &format!("calls that are wrong: {why:#}"), 1, 0);
                return (StatusCode::UNAUTHORIZED, String::new());
            }
        };
        let trouble = self.rng.number() % TROUBLE_EVERY;
        let since = self.began.elapsed().as_nanos() % AWAY_EVERY.as_nanos();
        if trouble == 0 || since > (AWAY_EVERY - AWAY_FOR).as_nanos() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return (StatusCode::SERVICE_UNAVAILABLE, String::new());
        }
        let answer = self.judge(question);
        if trouble == 1 {
            self.failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LATE).await;
        } else {
            self.judged.fetch_add(1, Ordering::Relaxed);
        }
        (StatusCode::OK, answer)
    }

    /// Anything, and another one the next time.
    fn judge(&self, (sender, id): (User, u128)) -> String {
        let (judgement, answer) = match self.rng.number() % 8 {
            0 => {
                let code = ErrorCode::HookRefused;
                (Judgement::Refuse { code }, json!({ "verdict": "reject" }))
            }
            1 => (Judgement::Drop, json!({ "verdict": "drop" })),
            2 => {
                let other = self.rng.number().to_be_bytes();
                let body = [&words::body(id, 0)[..], &other].concat();
                let content = words::content(HOOKED, &body);
                let answer = json!({ "verdict": "replace", "body": STANDARD.encode(&body) });
                (Judgement::Replace { content }, answer)
            }
            _ => (Judgement::Allow, json!({ "verdict": "allow" })),
        };
        let judgement = Some(judgement);
        self.notes.note(|at| Event::Judged { at, sender, id, judgement });
        answer.to_string()
    }
}

/// Who sent which message, if the call is signed as Standard Webhooks says.
fn read(headers: &HeaderMap, body: &[u8]) -> Result<(User, u128)> {
    let header = |name: &str| {
        let value = headers.get(name).with_context(|| format!("there is no {name}"))?;
        value.to_str().context("a header is no text")
    };
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let signature = header("webhook-signature")?.strip_prefix("v1,").context("another version")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(SECRET)?)?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    mac.verify_slice(&STANDARD.decode(signature)?).context("the signature")?;
    let Question { sender, body } = serde_json::from_slice(body)?;
    let sender = words::user(&UserId::new(sender)?)?;
    Ok((sender, words::id(&STANDARD.decode(body)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_list_makes_of_a_message_is_what_is_written_down() {
        let rng = SeededRng::new(1);
        for id in 0..100 {
            let text = Text::listed(id, &rng);
            let starred: Vec<u8> = text.body[16..].iter().map(|_| b'*').collect();
            let starred = [&text.body[..16], &starred].concat();
            let content = words::content(LISTED, &starred);
            for judgement in text.may.iter().flatten() {
                if let Judgement::Replace { content: said } = judgement {
                    assert_eq!(*said, content);
                }
            }
            assert!(!text.may.is_empty());
        }
    }

    #[test]
    fn who_does_not_sign_is_not_answered() {
        let body =
            serde_json::to_vec(&json!({ "sender": "user-3", "body": STANDARD.encode([0; 16]) }));
        let body = body.expect("it is JSON");
        let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(SECRET).expect("base64"));
        let mac = mac.as_mut().expect("of any length");
        mac.update(b"a.1.");
        mac.update(&body);
        let signature = format!("v1,{}", STANDARD.encode(mac.clone().finalize().into_bytes()));
        let mut headers = HeaderMap::new();
        for (name, value) in [("webhook-id", "a"), ("webhook-timestamp", "1")] {
            headers.insert(name, value.parse().expect("visible"));
        }
        assert!(read(&headers, &body).is_err());
        headers.insert("webhook-signature", signature.parse().expect("visible"));
        assert_eq!(read(&headers, &body).expect("signed"), (User(3), 0));
        assert!(read(&headers, &[body, b" ".to_vec()].concat()).is_err());
    }
}

//! The chain, with checks that say what a test tells them to.

use parking_lot::Mutex;
use tidemark_env::{ManualClock, SeededRng};
use tidemark_types::{ClientMsgId, UnixMs};

use super::*;

/// Says one thing of every message, and remembers the bodies it saw.
struct Says {
    finding: fn() -> Finding,
    seen: Arc<Mutex<Vec<Bytes>>>,
}

impl Check for Says {
    fn name(&self) -> &'static str {
        "says"
    }

    fn check(&self, message: &Message) -> Finding {
        self.seen.lock().push(message.draft.body.clone());
        (self.finding)()
    }
}

fn message(body: &'static str) -> Message {
    let draft = Draft {
        to: vec![Recipient::User("bob".parse().expect("legal"))],
        kind: 1,
        client_msg_id: ClientMsgId::new(UnixMs::new(1), [7; 10]),
        body: Bytes::from_static(body.as_bytes()),
        act: None,
    };
    Message { sender: "alice".parse().expect("legal"), device: None, draft }
}

/// What a chain of these says of a message with the body `asked`, and what each of them saw.
async fn judge(findings: &[fn() -> Finding]) -> (String, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let check = |finding: &fn() -> Finding| -> Box<dyn Check> {
        Box::new(Says { finding: *finding, seen: seen.clone() })
    };
    let checks = Arc::new(Checks {
        clock: Arc::new(ManualClock::at(UnixMs::new(0))),
        rates: None,
        chain: findings.iter().map(check).collect(),
        body_bytes_max: BODY_BYTES_MAX,
        reloading: None,
    });
    let said = match checks.judge(message("asked")).done().await {
        Judgement::Later(after) => format!("later {after:?}"),
        Judgement::Verdict(Judged::Refuse(code)) => code.to_string(),
        Judgement::Verdict(Judged::Allow(draft)) => format!("allow {:?}", draft.body),
        Judgement::Verdict(Judged::Drop(draft)) => format!("drop {:?}", draft.body),
    };
    let seen = seen.lock().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
    (said, seen)
}

fn pass() -> Finding {
    Finding::Pass
}

fn replace() -> Finding {
    Finding::Replace(Bytes::from_static(b"replaced"))
}

fn refuse() -> Finding {
    Finding::Refuse(ErrorCode::Filtered)
}

fn later() -> Finding {
    Finding::Later(Duration::from_secs(1))
}

fn ask(finding: fn() -> Finding) -> Finding {
    Finding::Ask(async move { finding() }.boxed())
}

#[tokio::test]
async fn the_first_that_does_not_let_it_pass_decides() {
    let (asked, replaced) = ("asked", "replaced");
    for (chain, said, seen) in [
        (vec![], "allow b\"asked\"", vec![]),
        (vec![pass as fn() -> Finding, pass], "allow b\"asked\"", vec![asked, asked]),
        (vec![pass, refuse, pass], "FILTERED", vec![asked, asked]),
        (vec![replace, pass], "allow b\"replaced\"", vec![asked, replaced]),
        (vec![replace, || Finding::Drop, refuse], "drop b\"replaced\"", vec![asked, replaced]),
        (vec![later, refuse], "later 1s", vec![asked]),
        (vec![|| ask(pass), || ask(refuse), pass], "FILTERED", vec![asked, asked]),
        (
            vec![|| ask(replace), pass, || ask(pass)],
            "allow b\"replaced\"",
            vec![asked, replaced, replaced],
        ),
        (vec![pass, || ask(later), refuse], "later 1s", vec![asked, asked]),
    ] {
        let (found, saw) = judge(&chain).await;
        assert_eq!((found, saw), (said.to_owned(), seen.into_iter().map(String::from).collect()));
    }
}

#[tokio::test]
async fn with_nothing_configured_there_are_no_checks() {
    let clock = || Arc::new(ManualClock::at(UnixMs::new(0)));
    let checks = |config: &ChecksConfig| Checks::new(config, clock(), &SeededRng::new(1));
    assert!(checks(&ChecksConfig::default()).expect("they can be made").is_none());
    let smaller = ChecksConfig { body_bytes_max: 3, ..ChecksConfig::default() };
    let some = checks(&smaller).expect("they can be made").expect("there are some");
    let Judging::Done(judgement) = some.judge(message("long")) else { panic!("nobody is asked") };
    let refused = Judgement::Verdict(Judged::Refuse(ErrorCode::BodyTooLarge));
    assert_eq!(format!("{judgement:?}"), format!("{refused:?}"));
    assert_eq!(some.body_bytes_max(), 3);
}

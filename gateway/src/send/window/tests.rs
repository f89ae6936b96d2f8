//! The window against scripts of outcomes, and against a store that loses what it likes.

use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;
use tidemark_proto::Detail;
use tidemark_proto::convert::error_code;
use tidemark_proto::v1::send_ack;
use tidemark_store_core::command::Draft;
use tidemark_types::{ClientMsgId, ContentHash, Seq, UnixMs};

use super::*;

fn send(n: u64) -> Send {
    Send {
        user: "alice".parse().expect("legal"),
        device: "phone".parse().expect("legal"),
        session: SessionId::new(3).expect("legal"),
        n,
        base: 1,
        content: ContentHash::new(n.into()),
        judged: Judged::Refuse(ErrorCode::BadRecipient),
    }
}

fn sent(n: u64) -> Result<Reply, Attempt> {
    let seq = Seq::new(u32::try_from(n).expect("small"));
    Ok(Reply::Sent(Verdict::Accepted { seq, time: UnixMs::new(1) }))
}

fn out_of_order(expected: u64) -> Result<Reply, Attempt> {
    Ok(Reply::Rejected(Reject::OutOfOrder { expected }))
}

fn lost() -> Result<Reply, Attempt> {
    Err(Attempt::Lost("the node died".to_owned()))
}

fn refused(code: ErrorCode) -> Result<Reply, Attempt> {
    Err(Attempt::Failed(Failure::new(code)))
}

/// An acknowledgement in short: `3 ok`, or `3 UNKNOWN`.
fn short(ack: &v1::SendAck) -> String {
    let result = match ack.result.as_ref().expect("it has one") {
        send_ack::Result::Accepted(_) => "ok".to_owned(),
        send_ack::Result::Failure(failure) => error_code(failure.code).to_string(),
    };
    format!("{} {result}", ack.n)
}

#[derive(Default)]
struct Script {
    window: Window,
    now: Duration,
}

impl Script {
    fn with(ns: std::ops::RangeInclusive<u64>) -> Self {
        let mut script = Script::default();
        for n in ns {
            script.window.push(send(n), script.now).expect("there is room");
        }
        script
    }

    /// What is attempted now, and told to the device.
    fn steps(&mut self) -> Vec<String> {
        let mut steps = Vec::new();
        loop {
            match self.window.step(self.now) {
                Step::Attempt(send) => steps.push(send.n.to_string()),
                Step::Answer(ack) => steps.push(short(&ack)),
                Step::Wait(_) | Step::Idle => return steps,
            }
        }
    }

    /// The attempt at `n` ends so; the answer in short.
    fn outcome(&mut self, n: u64, outcome: Result<Reply, Attempt>) -> String {
        match self.window.outcome(n, outcome, self.now, 1.0) {
            None => String::new(),
            Some(Ok(ack)) => short(&ack),
            Some(Err(failure)) => failure.code.to_string(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn sends_are_pipelined_in_order_and_answered_as_they_come() {
    let mut script = Script::with(5..=7);
    assert_eq!(script.steps(), ["5", "6", "7"]);
    assert_eq!(script.outcome(6, sent(6)), "6 ok");
    assert_eq!(script.outcome(5, sent(5)), "5 ok");
    assert_eq!(script.outcome(7, sent(7)), "7 ok");
    assert!(script.steps().is_empty());
    assert_eq!((script.window.bytes, script.window.under_way), (0, 0));
}

#[test]
fn a_lost_attempt_sends_all_back_once_none_is_under_way() {
    let mut script = Script::with(1..=3);
    assert_eq!(script.steps(), ["1", "2", "3"]);
    assert_eq!(script.outcome(1, lost()), "");
    script.pass(PAUSE_LONGEST);
    assert!(script.steps().is_empty(), "2 and 3 are under way");
    assert_eq!(script.outcome(2, out_of_order(1)), "");
    // A send that arrives now waits for its turn.
    script.window.push(send(4), script.now).expect("there is room");
    assert!(script.steps().is_empty());
    assert_eq!(script.outcome(3, out_of_order(1)), "");
    assert!(script.steps().is_empty(), "the pause");
    script.pass(PAUSE_LONGEST);
    assert_eq!(script.steps(), ["1", "2", "3", "4"]);
    // It was taken the first time: its stored answer comes.
    assert_eq!(script.outcome(1, sent(1)), "1 ok");
}

#[test]
fn every_refusal_for_now_is_repeated() {
    for code in ErrorCode::ALL.iter().filter(|code| code.is_retryable()) {
        let mut script = Script::with(1..=1);
        assert_eq!(script.steps(), ["1"]);
        assert_eq!(script.outcome(1, refused(*code)), "", "{code}");
        script.pass(PAUSE_LONGEST);
        assert_eq!(script.steps(), ["1"], "{code}");
    }
    let mut script = Script::with(1..=1);
    script.steps();
    assert_eq!(script.outcome(1, Err(Attempt::NotSent("down".to_owned()))), "");
    script.pass(PAUSE_LONGEST);
    assert_eq!(script.steps(), ["1"]);
}

#[test]
fn what_is_out_of_order_for_the_device_is_told_to_it() {
    let mut script = Script::with(5..=6);
    script.steps();
    assert_eq!(script.outcome(5, out_of_order(4)), "5 OUT_OF_ORDER");
    let full = Failure::new(ErrorCode::OutOfOrder).detail(Detail::Expected(4));
    assert_eq!(script.outcome(6, Err(Attempt::Failed(full))), "6 OUT_OF_ORDER");
    // It sends again from there, at once.
    for n in 4..=6 {
        script.window.push(send(n), script.now).expect("there is room");
    }
    assert_eq!(script.steps(), ["4", "5", "6"]);
}

#[test]
fn old_news_of_a_send_that_was_answered_is_cured() {
    let mut script = Script::with(5..=6);
    script.steps();
    assert_eq!(script.outcome(5, sent(5)), "5 ok");
    assert_eq!(script.outcome(6, out_of_order(5)), "");
    script.pass(PAUSE_LONGEST);
    assert_eq!(script.steps(), ["6"]);
}

#[test]
fn a_lower_send_waits_for_those_under_way() {
    let mut script = Script::with(5..=5);
    assert_eq!(script.steps(), ["5"]);
    script.window.push(send(4), script.now).expect("there is room");
    assert!(script.steps().is_empty());
    assert_eq!(script.outcome(5, out_of_order(4)), "");
    script.pass(PAUSE_LONGEST);
    assert_eq!(script.steps(), ["4", "5"]);
}

#[test]
fn the_highest_n_there_is_is_a_number_like_any_other() {
    let mut script = Script::with(u64::MAX..=u64::MAX);
    let n = u64::MAX.to_string();
    assert_eq!(script.steps(), std::slice::from_ref(&n));
    assert_eq!(script.outcome(u64::MAX, lost()), "");
    script.pass(PAUSE_LONGEST);
    assert_eq!(script.steps(), std::slice::from_ref(&n));
    assert_eq!(script.outcome(u64::MAX, out_of_order(1)), format!("{n} OUT_OF_ORDER"));
}

#[test]
fn when_the_time_is_up_doubt_decides_what_the_device_is_told() {
    let told = |outcomes: Vec<Result<Reply, Attempt>>| {
        let mut script = Script::with(1..=1);
        for outcome in outcomes {
            assert_eq!(script.steps(), ["1"]);
            assert_eq!(script.outcome(1, outcome), "");
            script.pass(PAUSE_LONGEST);
        }
        script.pass(SEND_DEADLINE);
        script.steps().remove(0)
    };
    let busy = || refused(ErrorCode::Overloaded);
    assert_eq!(told(vec![refused(ErrorCode::NotLeader)]), "1 UNAVAILABLE");
    assert_eq!(told(vec![busy()]), "1 OVERLOADED");
    assert_eq!(told(vec![refused(ErrorCode::Unknown), busy()]), "1 UNKNOWN");
    assert_eq!(told(vec![busy(), lost(), refused(ErrorCode::NotLeader)]), "1 UNKNOWN");
}

#[test]
fn a_refusal_after_doubt_is_unknown_unless_it_is_final() {
    let after_loss = |outcome| {
        let mut script = Script::with(1..=1);
        script.steps();
        script.outcome(1, lost());
        script.pass(PAUSE_LONGEST);
        script.steps();
        script.outcome(1, outcome)
    };
    let ended = Ok(Reply::Rejected(Reject::SessionEnded { last_n: 0 }));
    assert_eq!(after_loss(ended), "1 SESSION_ENDED");
    assert_eq!(after_loss(sent(1)), "1 ok");
    assert_eq!(after_loss(refused(ErrorCode::WrongShard)), "1 UNKNOWN");
    let mut script = Script::with(1..=1);
    script.steps();
    assert_eq!(script.outcome(1, refused(ErrorCode::WrongShard)), "1 WRONG_SHARD");
}

#[test]
fn what_the_store_decides_is_passed_on() {
    for (reject, answer) in [
        (Reject::Settled, "1 SETTLED"),
        (Reject::Conflict, "1 CONFLICT"),
        (Reject::WindowFull, "1 WINDOW_FULL"),
        (Reject::SessionExpired, "1 SESSION_EXPIRED"),
        (Reject::NoDevice, "1 NO_DEVICE"),
        (Reject::Invalid("session: it is another device's".to_owned()), "INVALID"),
    ] {
        let mut script = Script::with(1..=1);
        script.steps();
        assert_eq!(script.outcome(1, Ok(Reply::Rejected(reject))), answer);
    }
}

#[test]
fn the_window_is_bounded_and_keeps_to_one_session() {
    let mut script = Script::with(1..=SEND_WINDOW);
    let code = |refused: Result<(), Failure>| refused.expect_err("it is full").code;
    let window = &mut script.window;
    assert_eq!(code(window.push(send(SEND_WINDOW + 1), Duration::ZERO)), ErrorCode::WindowFull);
    assert_eq!(window.push(send(1), Duration::ZERO), Ok(()), "it is there already");
    let other = Send { content: ContentHash::new(0), ..send(1) };
    assert_eq!(code(window.push(other, Duration::ZERO)), ErrorCode::Conflict);
    let session = SessionId::new(4).expect("legal");
    let next = Send { session, ..send(1) };
    assert_eq!(code(window.push(next.clone(), Duration::ZERO)), ErrorCode::Overloaded);
    script.steps();
    for n in 1..=SEND_WINDOW {
        script.outcome(n, sent(n));
    }
    assert_eq!(script.window.push(next, script.now), Ok(()));
    assert_eq!(script.steps(), ["1"]);
}

#[test]
fn a_send_that_is_not_judged_holds_up_those_behind_it() {
    let mut script = Script::with(1..=1);
    let now = Duration::ZERO;
    script.window.push_unjudged(send(2), now).expect("there is room");
    script.window.push(send(3), now).expect("there is room");
    script.window.push_unjudged(send(4), now).expect("there is room");
    assert_eq!(script.steps(), ["1"]);
    script.window.judged(4, Judged::Refuse(ErrorCode::Filtered));
    assert!(script.steps().is_empty(), "2 comes first");
    assert!(script.window.knows(SessionId::new(3).expect("legal"), 2));
    script.window.judged(2, Judged::Refuse(ErrorCode::HookRefused));
    let Step::Attempt(second) = script.window.step(now) else { panic!("2 is judged") };
    assert_eq!((second.n, second.judged), (2, Judged::Refuse(ErrorCode::HookRefused)));
    assert_eq!(script.steps(), ["3", "4"]);
    for n in 1..=4 {
        assert_eq!(script.outcome(n, sent(n)), format!("{n} ok"));
    }
}

#[test]
fn a_send_that_cannot_be_judged_goes_and_leaves_no_trace() {
    let mut script = Script::default();
    let now = Duration::ZERO;
    let draft = Draft {
        to: vec![],
        kind: 1,
        client_msg_id: ClientMsgId::new(UnixMs::new(1), [7; 10]),
        body: vec![0; 100].into(),
        act: None,
    };
    let large = Send { judged: Judged::Allow(draft), ..send(1) };
    script.window.push_unjudged(large, now).expect("there is room");
    script.window.push(send(2), now).expect("there is room");
    assert_eq!(script.window.bytes, 100);
    let ack = script.window.withdraw(1, Failure::new(ErrorCode::RetryAfter));
    assert_eq!((short(&ack).as_str(), script.window.bytes), ("1 RETRY_AFTER", 0));
    // What is behind it is out of order, and the device is told what it waits for.
    assert_eq!(script.steps(), ["2"]);
    assert_eq!(script.outcome(2, out_of_order(1)), "2 OUT_OF_ORDER");
    for n in 1..=2 {
        script.window.push(send(n), now).expect("there is room");
    }
    assert_eq!(script.steps(), ["1", "2"]);
}

#[test]
fn what_is_given_back_is_counted_by_what_it_waited_for() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let mut script = Script::with(1..=2);
    script.window.push_unjudged(send(3), Duration::ZERO).expect("there is room");
    ::metrics::with_local_recorder(&recorder, || {
        assert_eq!(script.steps(), ["1", "2"]);
        for n in 1..=2 {
            assert_eq!(script.outcome(n, lost()), "");
        }
        script.pass(SEND_DEADLINE);
        assert_eq!(script.steps(), ["1 UNKNOWN", "2 UNKNOWN"]);
        script.window.withdraw(3, Failure::new(ErrorCode::RetryAfter));
    });
    let told = recorder.handle().render();
    for (waited_for, times) in [("store", 2), ("checks", 1)] {
        let line = format!("gateway_sends_given_back_total{{waited_for=\"{waited_for}\"}} {times}");
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
}

#[test]
fn a_replaced_body_costs_what_the_devices_own_did() {
    let mut script = Script::default();
    script.window.push_unjudged(send(1), Duration::ZERO).expect("there is room");
    let draft = Draft {
        to: vec![],
        kind: 1,
        client_msg_id: ClientMsgId::new(UnixMs::new(1), [7; 10]),
        body: vec![0; 100].into(),
        act: None,
    };
    script.window.judged(1, Judged::Allow(draft));
    assert_eq!(script.steps(), ["1"]);
    assert_eq!(script.outcome(1, sent(1)), "1 ok");
    assert_eq!(script.window.bytes, 0);
}

/// When sends are repeated meanwhile, one that is not judged is not given back either.
#[test]
fn a_send_that_is_not_judged_is_not_overdue() {
    let mut script = Script::with(1..=1);
    script.window.push_unjudged(send(2), Duration::ZERO).expect("there is room");
    assert_eq!(script.steps(), ["1"]);
    assert_eq!(script.outcome(1, lost()), "");
    script.pass(SEND_DEADLINE);
    assert_eq!(script.steps(), ["1 UNKNOWN"]);
    script.window.judged(2, Judged::Refuse(ErrorCode::Filtered));
    assert_eq!(script.steps(), ["2"]);
}

/// A session in the store, which may lose what comes and what it answers.
#[derive(Default)]
struct Session {
    last_n: u64,
    /// What was taken, in the order in which it was.
    taken: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    LostBefore,
    LostAfter,
    Refused,
}

impl Session {
    fn attempt(&mut self, n: u64, fault: Fault) -> Result<Reply, Attempt> {
        match fault {
            Fault::LostBefore => return lost(),
            Fault::Refused => return refused(ErrorCode::NotLeader),
            Fault::LostAfter | Fault::None => {}
        }
        let reply = match n {
            n if n <= self.last_n => sent(n),
            n if n == self.last_n + 1 => {
                self.last_n = n;
                self.taken.push(n);
                sent(n)
            }
            _ => out_of_order(self.last_n + 1),
        };
        if fault == Fault::LostAfter { lost() } else { reply }
    }
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::LostBefore),
        1 => Just(Fault::LostAfter),
        1 => Just(Fault::Refused),
    ]
}

proptest! {
    /// Whatever is lost, and in whatever order the outcomes come: all is taken once, in order, and
    /// answered once.
    #[test]
    fn each_send_is_taken_once_and_in_order(
        count in 1u64..40,
        faults in proptest::collection::vec(faults(), 0..80),
        picks in proptest::collection::vec(any::<usize>(), 1..40),
        early in 1u64..40,
    ) {
        let mut faults = faults.into_iter();
        let mut picks = picks.into_iter().cycle();
        let mut script = Script::with(1..=count.min(early));
        let mut pushed = count.min(early);
        let mut store = Session::default();
        let mut open: Vec<(u64, Result<Reply, Attempt>)> = Vec::new();
        let mut answered = Vec::new();
        for _ in 0..2_000 {
            if pushed < count {
                pushed += 1;
                script.window.push(send(pushed), script.now).expect("there is room");
            }
            while let Step::Attempt(send) = script.window.step(script.now) {
                prop_assert!(open.iter().all(|(n, _)| *n < send.n), "never behind a higher one");
                let fault = faults.next().unwrap_or(Fault::None);
                open.push((send.n, store.attempt(send.n, fault)));
            }
            // It passes while attempts are under way as well: pauses end, and change nothing.
            script.pass(Duration::from_millis(20));
            if !open.is_empty() {
                let (n, outcome) = open.swap_remove(picks.next().expect("endless") % open.len());
                let answer = script.outcome(n, outcome);
                if !answer.is_empty() {
                    prop_assert_eq!(answer, format!("{n} ok"));
                    answered.push(n);
                }
            }
            if answered.len() as u64 == count {
                break;
            }
        }
        prop_assert_eq!(store.taken, (1..=count).collect::<Vec<_>>());
        answered.sort_unstable();
        prop_assert_eq!(answered, (1..=count).collect::<Vec<_>>());
    }
}

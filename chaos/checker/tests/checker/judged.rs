//! What is right is found right.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_checker::history::{Event, Op, Outcome, User, Way};
use tidemark_checker::{Code, Demands, History, Report, Story, Verdict, check};
use tidemark_types::ErrorCode;

use crate::model;

/// Small histories accept few sends, and faults may spoil half of them.
pub(crate) fn demands() -> Demands {
    let effects = BTreeMap::from([("kill".to_owned(), vec!["leaders changed".to_owned()])]);
    Demands { accepted_share_min: 0.2, effects, ..Demands::default() }
}

pub(crate) fn judge(events: &Vec<Event>) -> Report {
    check(events, &demands()).expect("a vector can be read")
}

#[test]
fn five_hundred_valid_histories_hold() {
    let mut seen = tidemark_checker::report::Counts::default();
    for seed in 0..500 {
        let steps = 100 + (seed as usize % 10) * 100;
        let report = judge(&model::history(seed, steps));
        assert_eq!(report.verdict, Verdict::Holds, "seed {seed}: {report}");
        seen.accepted += report.counts.accepted;
        seen.refused += report.counts.refused;
        seen.happened += report.counts.happened;
        seen.delivered += report.counts.delivered;
        seen.turned_away += report.counts.turned_away;
        seen.dropped += report.counts.dropped;
        seen.silenced += report.counts.silenced;
        seen.removed += report.counts.removed;
        assert_eq!((report.counts.lost, report.counts.duplicated), (0, 0));
    }
    // The model reaches everything that it is there for.
    let reached = [
        seen.accepted,
        seen.refused,
        seen.happened,
        seen.delivered,
        seen.turned_away,
        seen.dropped,
        seen.silenced,
        seen.removed,
    ];
    assert!(reached.iter().all(|count| *count > 100), "{seen:?}");
}

/// A device has repeated its send unseen, so what says nothing of earlier attempts says nothing.
#[test]
fn only_a_code_that_settles_a_devices_send_is_its_refusal() {
    let valid = model::history(11, 600);
    let told = |code| {
        let mut events = valid.clone();
        let devices: BTreeSet<Op> = events
            .iter()
            .filter_map(|event| match event {
                Event::Send { op, way: Way::Session, .. } => Some(*op),
                _ => None,
            })
            .collect();
        for event in &mut events {
            if let Event::Sent { op, outcome, .. } = event
                && devices.contains(op)
                && matches!(outcome, Outcome::Accepted { .. })
            {
                *outcome = Outcome::Refused { code };
            }
        }
        let demands = Demands { accepted_share_min: 0.0, ..demands() };
        check(&events, &demands).expect("a vector can be read")
    };
    let expired = told(ErrorCode::SessionExpired);
    assert_eq!(expired.verdict, Verdict::Holds, "{expired}");
    assert!(expired.counts.happened > 50, "{expired}");
    let ended = told(ErrorCode::SessionEnded);
    assert_eq!(ended.wrong.keys().copied().collect::<Vec<_>>(), [Code::C11]);
}

#[test]
fn an_empty_history_is_void() {
    let report = judge(&vec![Event::Quiet { at: Default::default() }]);
    assert_eq!(report.verdict, Verdict::Void, "{report}");
}

#[test]
fn a_story_is_one_mailboxs_part() {
    let events = model::history(7, 500);
    let events = events.events().expect("a vector can be read");
    let story: Vec<Event> = Story::of(events, User(1)).collect::<Result<_, _>>().expect("whole");
    let sends = story.iter().filter(|event| matches!(event, Event::Send { .. })).count();
    let ends = story.iter().filter(|event| matches!(event, Event::Sent { .. })).count();
    assert!(sends > 10 && (1..=sends).contains(&ends), "{sends} {ends}");
    for event in &story {
        match event {
            Event::Send { sender, to, .. } => {
                assert!(*sender == User(1) || to.contains(&User(1)));
            }
            Event::Taken { user, .. } | Event::Mailbox { user, .. } => assert_eq!(*user, User(1)),
            _ => {}
        }
    }
    assert!(story.is_sorted_by_key(|event| event.at().map_or(u64::MAX, |at| at.0)));
}

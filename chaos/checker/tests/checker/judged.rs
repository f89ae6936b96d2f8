//! What is right is found right.

use std::collections::BTreeMap;

use tidemark_checker::history::{Event, User};
use tidemark_checker::{Demands, History, Report, Story, Verdict, check};

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
        seen.silenced,
        seen.removed,
    ];
    assert!(reached.iter().all(|count| *count > 100), "{seen:?}");
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

//! The file format: what is written is read, and nothing else is.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidemark_checker::history::{
    Copy, Device, Event, FRAME_BYTES_MAX, Group, Judgement, MAGIC, Nanos, Node, Op, Origin,
    Outcome, RaftFacts, ReadError, User, VERSION, Way, WriteError,
};
use tidemark_checker::{Files, History, Reader, Report, Verdict, Writer, check};
use tidemark_types::{ErrorCode, Seq};

use crate::judged::{demands, judge};
use crate::model;

const HEADER_BYTES: usize = MAGIC.len() + 4;

fn write(path: &Path, events: &[Event]) {
    let mut writer = Writer::create(path).expect("a new file");
    events.iter().for_each(|event| writer.write(event).expect("in order"));
    writer.flush().expect("a disk");
}

fn read(path: &Path) -> Result<Vec<Event>, ReadError> {
    Reader::open(path)?.collect()
}

/// A history in one file of a folder of its own.
fn written(events: &[Event]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a disk");
    let path = folder.path().join("history");
    write(&path, events);
    (folder, path)
}

/// One of each kind.
fn kinds() -> Vec<Event> {
    let (at, user, device, seq) = (Nanos(1), User(2), Device(3), Seq::new(4));
    let (op, node, group) = (Op(5), Node(6), Group(7));
    let origin = Origin::Session { session: 8, n: 9 };
    let copy = Copy::Message { sender: user, origin, id: u128::MAX, content: u64::MAX };
    let (id, code) = (Some(10), ErrorCode::Blocked);
    let refusal =
        Copy::Refusal { sender: user, origin: Origin::Backend, id, recipient: User(0), code };
    let (kind, target, name) = ("kill".to_owned(), "node 1".to_owned(), "dropped".to_owned());
    let (process, what) = ("store".to_owned(), "files".to_owned());
    let (to, way) = (vec![user, User(0)], Way::Backend);
    let facts = RaftFacts {
        at,
        node,
        life: 1,
        group,
        term: 2,
        leads: true,
        last: 6,
        committed: Some(5),
        applied: 5,
        snapshot: 4,
        purged: 3,
    };
    vec![
        Event::Send { op, at, sender: user, device, way, id: 11, to, content: 12 },
        Event::Sent { op, at, outcome: Outcome::Accepted { seq, origin: Some(origin) } },
        Event::Sent { op, at, outcome: Outcome::Refused { code } },
        Event::Sent { op, at, outcome: Outcome::Unknown },
        Event::Head { op, at, user },
        Event::HeadIs { op, at, seq },
        Event::Range { op, at, user, after: seq },
        Event::RangeIs { op, at, floor: Seq::NONE, entries: vec![(seq, copy), (seq, refusal)] },
        Event::Start { at, user, device, cursor: seq },
        Event::Stop { at, user, device },
        Event::Taken { at, user, device, seq, copy },
        Event::Gap { at, user, device, to: seq },
        Event::CursorIs { asked: at, at, user, device, seq },
        Event::Silent { at, user },
        Event::Quiet { at },
        Event::StateHash { at, node, group, index: 13, hash: u128::MAX },
        Event::Raft(facts),
        Event::Fault { at, kind: kind.clone(), target: target.clone() },
        Event::Healed { at, kind: kind.clone(), target },
        Event::Effect { at, kind, name, amount: 14 },
        Event::Probe { at, group },
        Event::ProbeAck { at, group },
        Event::Cost { at, process, what, amount: 15, bound: 16 },
        Event::Decided { asked: at, at, user, sender: user, refused: true },
        Event::Target { at, user, device },
        Event::Hint { at, user, device, head: seq },
        Event::Judged { at, sender: user, id: 17, judgement: None },
        Event::Judged { at, sender: user, id: 17, judgement: Some(Judgement::Allow) },
        Event::Judged { at, sender: user, id: 17, judgement: Some(Judgement::Refuse { code }) },
        Event::Judged {
            at,
            sender: user,
            id: 17,
            judgement: Some(Judgement::Replace { content: 18 }),
        },
        Event::Judged { at, sender: user, id: 17, judgement: Some(Judgement::Drop) },
        Event::Mailbox { node, user, floor: Seq::NONE, head: seq, digest: u64::MAX },
        Event::Entry { user, seq, copy },
        Event::Dropped { user, seq },
        Event::ReplicaEntry { node, user, seq, copy: refusal },
    ]
}

#[test]
fn what_is_written_is_read() {
    let (_folder, path) = written(&kinds());
    assert_eq!(read(&path).unwrap(), kinds());
}

/// A second checker reads the same bytes: they change only with the version.
#[test]
fn the_bytes_of_a_frame_are_held_still() {
    let (_folder, path) = written(&[Event::HeadIs { op: Op(300), at: Nanos(1), seq: Seq::new(2) }]);
    let mut bytes = b"TIDEHIST\x01\0\0\0\x05\0\0\0".to_vec();
    let payload = [3, 0xac, 0x02, 1, 2];
    bytes.extend(crc32fast::hash(&payload).to_le_bytes());
    bytes.extend(payload);
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn a_torn_tail_is_told_and_accepted_of_a_killed_writer_only() {
    let events = kinds();
    let (_folder, path) = written(&events);
    let whole = fs::read(&path).unwrap();
    let before_last = {
        let (_folder, path) = written(&events[..events.len() - 1]);
        fs::read(path).unwrap().len()
    };
    for length in before_last + 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        match read(&path) {
            Err(ReadError::Torn { offset }) => assert_eq!(offset, before_last as u64),
            other => panic!("{length} of {} bytes: {other:?}", whole.len()),
        }
        let killed = Files::default().of_killed(&path);
        let left: Vec<Event> = killed.events().unwrap().map(Result::unwrap).collect();
        assert_eq!(left.len(), events.len() - 1);
        let whole = Files::default().whole(&path);
        assert!(whole.events().unwrap().any(|event| event.is_err()));
    }
}

#[test]
fn a_torn_header_is_an_empty_history_of_a_killed_writer() {
    let (_folder, path) = written(&[]);
    let header = fs::read(&path).unwrap();
    for length in 0..HEADER_BYTES {
        fs::write(&path, &header[..length]).unwrap();
        assert!(matches!(read(&path), Err(ReadError::Torn { offset: 0 })));
        assert_eq!(Files::default().of_killed(&path).events().unwrap().count(), 0);
    }
}

/// A length that was made longer may reach beyond the end, which looks torn; all else is damage.
#[test]
fn a_bit_that_flips_anywhere_is_an_error() {
    let events = kinds();
    let (_folder, path) = written(&events);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let error = read(&path).expect_err("it is damaged");
        match at {
            0..8 => assert!(matches!(error, ReadError::Foreign), "{at}: {error}"),
            8..HEADER_BYTES => assert!(matches!(error, ReadError::Version { .. }), "{at}: {error}"),
            _ => {
                let (ReadError::Damaged { offset, .. } | ReadError::Torn { offset }) = error else {
                    panic!("{at}: {error}");
                };
                assert!(offset <= at as u64, "{at}: {error}");
            }
        }
    }
}

#[test]
fn what_is_left_over_in_a_frame_is_damage() {
    let (_folder, path) = written(&[]);
    let mut bytes = fs::read(&path).unwrap();
    let mut payload = postcard::to_stdvec(&Event::Quiet { at: Nanos(1) }).unwrap();
    payload.push(0);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(&payload).to_le_bytes());
    bytes.extend(&payload);
    fs::write(&path, bytes).unwrap();
    let error = read(&path).expect_err("a byte is left over");
    assert!(matches!(error, ReadError::Damaged { offset: 12, .. }), "{error}");
}

#[test]
fn another_version_is_refused() {
    let (_folder, path) = written(&kinds());
    let mut bytes = fs::read(&path).unwrap();
    bytes[MAGIC.len()..HEADER_BYTES].copy_from_slice(&(VERSION + 1).to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = read(&path).expect_err("unknown");
    assert!(matches!(error, ReadError::Version { found } if found == VERSION + 1), "{error}");
}

#[test]
fn a_writer_refuses_what_could_not_be_read_in_order() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("history");
    let mut writer = Writer::create(&path).unwrap();
    let long = "x".repeat(FRAME_BYTES_MAX);
    let (kind, target) = (String::new(), String::new());
    writer.write(&Event::Quiet { at: Nanos(10) }).unwrap();
    let large = Event::Fault { at: Nanos(11), kind: long, target: target.clone() };
    assert!(matches!(writer.write(&large), Err(WriteError::TooLarge { .. })));
    let older = Event::Fault { at: Nanos(9), kind, target };
    assert!(matches!(writer.write(&older), Err(WriteError::Backwards { .. })));
    writer.write(&Event::Quiet { at: Nanos(10) }).unwrap();
    drop(writer);
    assert_eq!(read(&path).unwrap(), vec![Event::Quiet { at: Nanos(10) }; 2]);
    assert!(matches!(Writer::create(&path), Err(WriteError::Io(_))));
}

/// What a writer is does not matter: the order of time is made when it is read.
#[test]
fn several_files_are_one_history() {
    let events = model::history(3, 800);
    let folder = TempDir::new().unwrap();
    let mut files = Files::default();
    for part in 0..3 {
        let path = folder.path().join(part.to_string());
        let its = |event: &&Event| match event {
            Event::Taken { .. } | Event::Start { .. } | Event::Stop { .. } => part == 0,
            Event::Mailbox { .. } | Event::Entry { .. } => part == 1,
            _ => part == 2,
        };
        let its: Vec<Event> = events.iter().filter(its).cloned().collect();
        write(&path, &its);
        files = files.whole(path);
    }
    let merged: Vec<Event> = files.events().unwrap().map(Result::unwrap).collect();
    let times = |events: &[Event]| events.iter().map(Event::at).collect::<Vec<_>>();
    assert_eq!(times(&merged), times(&events));
    let report: Report = check(&files, &demands()).unwrap();
    assert_eq!(report.verdict, Verdict::Holds, "{report}");
    assert_eq!(report.counts, judge(&events).counts);
}

//! A second checker, written from the promises alone and in another language, says the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, iter};

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use tempfile::TempDir;
use tidemark_checker::history::Event;
use tidemark_checker::{Code, History, Writer};
use tidemark_types::ErrorCode;

use crate::corrupt::Tape;
use crate::corruptions::{self, Kind};
use crate::{blows, judged, model};

/// Where the model's seeds begin here: other histories than those that are judged elsewhere.
const SEED_FIRST: u64 = 1_000;

/// Valid histories.
const VALID: u64 = 100;

/// Broken histories of each kind.
const BROKEN_EACH: usize = 3;

/// Of so many, since not each has what a kind needs.
const SEEDS_MAX: u64 = 400;

/// Histories that are struck once.
const STRUCK: u64 = 200;

/// Does the second checker judge it as well?
fn is_both(code: Code) -> bool {
    code <= Code::C12 || code == Code::C18
}

/// Seeds of struck histories of which the two once thought differently.
const ONCE_DIFFERED: [u64; 6] = [502_075, 909_874, 914_302, 921_495, 924_969, 937_435];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("second/check.py")
}

/// Runs Python with these arguments.
fn python(arguments: impl IntoIterator<Item = PathBuf>) -> Output {
    // With -B nothing is written beside the script.
    let output = Command::new("python3").arg("-B").args(arguments).output();
    let output = output.expect("python3, which scripts/setup installs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "", "the second checker failed");
    output
}

/// Histories in files, for one run of the second checker.
struct Files {
    folder: TempDir,
    paths: Vec<PathBuf>,
}

impl Files {
    fn new() -> Self {
        Files { folder: tempfile::tempdir().expect("a folder"), paths: Vec::new() }
    }

    fn add(&mut self, name: &str, events: &Vec<Event>) {
        let path = self.folder.path().join(name);
        let mut writer = Writer::create(&path).expect("a new file");
        for event in events.events().expect("a vector can be read") {
            writer.write(&event.expect("a vector is whole")).expect("the disk has room");
        }
        writer.flush().expect("the disk has room");
        self.paths.push(path);
    }

    /// What the second checker says of each, and its exit code.
    fn verdicts(&self) -> (Vec<String>, Option<i32>) {
        let output = python(iter::once(script()).chain(self.paths.iter().cloned()));
        let lines = String::from_utf8(output.stdout).expect("it writes UTF-8");
        let verdict = |(line, path): (&str, &PathBuf)| {
            let verdict = line.strip_prefix(path.to_str()?)?.strip_prefix(": ")?;
            Some(verdict.to_owned())
        };
        let verdicts = lines.lines().zip(&self.paths).map(verdict);
        let verdicts: Vec<String> = verdicts.collect::<Option<_>>().expect("FILE: VERDICT");
        assert_eq!((verdicts.len(), lines.lines().count()), (self.paths.len(), self.paths.len()));
        (verdicts, output.status.code())
    }
}

/// The first histories that have what a kind breaks, broken.
fn broken(kind: &Kind) -> Vec<Vec<Event>> {
    let broken = (SEED_FIRST..SEED_FIRST + SEEDS_MAX).filter_map(|seed| {
        let mut tape = Tape::new(seed);
        (kind.apply)(&mut tape).map(|()| tape.events)
    });
    broken.take(BROKEN_EACH).collect()
}

#[test]
fn it_agrees_on_what_holds_and_on_what_is_broken() {
    let (mut files, mut kinds) = (Files::new(), Vec::new());
    for seed in SEED_FIRST..SEED_FIRST + VALID {
        let steps = 100 + (seed as usize % 10) * 50;
        files.add(&format!("valid {seed}"), &model::history(seed, steps));
        kinds.push(None);
    }
    for kind in corruptions::kinds().filter(|kind| is_both(kind.code)) {
        let all = broken(kind);
        assert_eq!(all.len(), BROKEN_EACH, "{}: too few histories have what it breaks", kind.name);
        for (at, events) in all.iter().enumerate() {
            files.add(&format!("{} {at}", kind.name), events);
            kinds.push(Some(kind));
        }
    }
    let (verdicts, code) = files.verdicts();
    let (mut problems, mut same) = (Vec::new(), 0);
    for (verdict, (kind, path)) in verdicts.iter().zip(kinds.iter().zip(&files.paths)) {
        let agrees = match kind {
            None => verdict == "holds",
            Some(_) => verdict.starts_with("violated "),
        };
        if !agrees {
            problems.push(format!("{}: {verdict}", path.display()));
        }
        if let Some(kind) = kind {
            let code = kind.code.to_string();
            same += usize::from(verdict.split(' ').any(|found| found == code));
            println!("{code}, {}: {verdict}", kind.name);
        }
    }
    let broken = kinds.iter().flatten().count();
    println!("{same} of {broken} broken histories give the first checker's code");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(code, Some(1));
}

/// Nobody thought of these ways to break a history, and some of them break nothing.
#[test]
fn it_agrees_on_histories_that_were_struck_anywhere() {
    let (mut files, mut reports) = (Files::new(), Vec::new());
    for seed in (SEED_FIRST..SEED_FIRST + STRUCK).chain(ONCE_DIFFERED) {
        let (events, rng) = (model::history(seed, 150), ChaCha8Rng::seed_from_u64(seed));
        let mut tape = Tape { events, rng };
        while !blows::strike(&mut tape) {}
        files.add(&format!("struck {seed}"), &tape.events);
        reports.push(judged::judge(&tape.events));
    }
    let (verdicts, _) = files.verdicts();
    let (mut problems, mut broken, mut kept) = (Vec::new(), 0, 0);
    for ((report, verdict), path) in reports.iter().zip(&verdicts).zip(&files.paths) {
        // Of a history that is not whole, each may find what it likes.
        if report.wrong.keys().any(|code| matches!(code, Code::C13 | Code::C14)) {
            continue;
        }
        let first = report.wrong.keys().copied().any(is_both);
        let second = verdict.starts_with("violated ");
        if first != second && !verdict.starts_with("unusable: ") {
            problems.push(format!("{}: {verdict}; {report}", path.display()));
        }
        (broken, kept) = (broken + usize::from(second), kept + usize::from(!first));
    }
    println!("{broken} of {} struck histories are broken, {kept} are not", reports.len());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(broken > 100 && kept > 10, "{broken} {kept}");
}

#[test]
fn its_exit_code_tells_what_holds_from_what_cannot_be_read() {
    let mut files = Files::new();
    files.add("history", &model::history(SEED_FIRST, 300));
    let holds = || (vec!["holds".to_owned()], Some(0));
    assert_eq!(files.verdicts(), holds());
    let whole = fs::read(&files.paths[0]).expect("it is there");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() - 1].to_vec();
    let header = whole[..12].to_vec();
    for (bytes, expected) in [
        (flipped, "unreadable: "),
        (cut, "unreadable: "),
        (Vec::new(), "unreadable: "),
        // Whole, and says nothing.
        (header, "unusable: "),
    ] {
        fs::write(&files.paths[0], bytes).expect("the disk has room");
        let (verdicts, code) = files.verdicts();
        assert!(verdicts[0].starts_with(expected), "{verdicts:?}");
        assert_eq!(code, Some(2), "{verdicts:?}");
    }
    fs::write(&files.paths[0], whole).expect("the disk has room");
    assert_eq!(files.verdicts(), holds());
}

/// It has these from the documents; here both are compared with what a build says.
#[test]
fn it_knows_what_each_error_code_says_of_a_send() {
    let program = "import sys; sys.path.insert(0, sys.argv[1]); import history; \
                   [print(*codes) for codes in (history.CODES, history.NO_EFFECT, history.FINAL)]";
    let folder = script().parent().expect("it is in a folder").to_owned();
    let output = python(["-c".into(), program.into(), folder]);
    let numbers = |fits: fn(ErrorCode) -> bool| -> BTreeSet<u16> {
        let codes = ErrorCode::ALL.iter().copied();
        codes.filter(|code| fits(*code)).map(|code| code as u16).collect()
    };
    let said = String::from_utf8(output.stdout).expect("it writes UTF-8");
    let said: Vec<BTreeSet<u16>> = said
        .lines()
        .map(|line| line.split(' ').map(|code| code.parse().expect("a number")).collect())
        .collect();
    let expected =
        [numbers(|_| true), numbers(ErrorCode::has_no_effect), numbers(ErrorCode::is_final)];
    assert_eq!(said, expected);
}

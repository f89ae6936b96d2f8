//! A device that prints: in which form, from where on, and how it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use tidemark_types::ErrorCode;

use crate::double::{Double, Fault};
use crate::rig::{Rig, Run};

const ALL: &[&str] = &["listen", "alice", "--from", "floor", "--limit", "6"];

/// Starts to listen as the device `cli`, new or not, and waits for this many lines.
fn listening(rig: &Rig, gateway: &Double, words: &[&str], lines: usize) -> Child {
    let address = gateway.address.to_string();
    let connection = ["listen", "alice", "--endpoint", &address, "--token", "a.b.c"];
    let mut process = rig.start(&[&connection, words].concat());
    let mut out = BufReader::new(process.stdout.take().expect("piped"));
    for _ in 0..lines {
        assert!(out.read_line(&mut String::new()).expect("UTF-8") > 0);
    }
    process.stdout = Some(out.into_inner());
    process
}

fn signalled(mut process: Child, signal: &str) -> i32 {
    let kill = Command::new("kill").args([signal, &process.id().to_string()]).status();
    assert!(kill.expect("there is a kill").success());
    process.wait().expect("it ends").code().expect("it exits")
}

fn seqs(run: &Run) -> Vec<u64> {
    assert_eq!(run.code, 0, "{run:?}");
    let words = run.out.lines().map(|line| line.split_whitespace().next().expect("a seq"));
    words.map(|seq| seq.parse().expect("a number")).collect()
}

#[test]
fn its_lines_are_those_of_a_history() {
    let gateway = Double::start();
    for output in ["text", "json"] {
        let history = ["history", "alice", "--after", "2", "-o", output];
        let history = Rig::new().run(&[&gateway], &history);
        let listened = Rig::new().run(&[&gateway], &[ALL, &["-o", output]].concat());
        assert_eq!((listened.code, &listened.out), (0, &history.out), "{}", listened.err);
        let connected = match output {
            "text" => format!("connected to {}\n", gateway.address),
            _ => format!("{{\"event\":\"connected\",\"gateway\":\"{}\"}}\n", gateway.address),
        };
        assert_eq!(listened.err, connected);
    }
}

#[test]
fn it_goes_on_where_it_stopped() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let listen = |words: &[&str]| rig.run(&[&gateway], &[&["listen", "alice"], words].concat());
    assert_eq!(seqs(&listen(&["--from", "last=5", "--limit", "2"])), [4, 5]);
    assert_eq!(seqs(&listen(&["--limit", "1"])), [6]);
    let again = listen(&["--from", "floor", "--limit", "1"]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(
        again.err.contains("device cli of alice has taken everything up to seq 6"),
        "{again:?}"
    );
    assert_eq!(seqs(&listen(&["--limit", "2"])), [7, 8]);
    let other = listen(&["--device", "other", "--from", "floor", "--limit", "1"]);
    assert_eq!(seqs(&other), [3]);
    let folder = format!("tidemark/{}", gateway.address);
    assert!(rig.path().join(folder).join("alice-other.redb").is_file());
}

#[test]
fn it_ends_when_it_is_told_to() {
    for signal in ["-INT", "-TERM"] {
        let (rig, gateway) = (Rig::new(), Double::start());
        let process = listening(&rig, &gateway, &["--from", "floor"], 6);
        let second = rig.run(&[&gateway], &["listen", "alice"]);
        assert_eq!(second.code, 2, "one process is the device: {second:?}");
        assert_eq!(signalled(process, signal), 0);
        let after = rig.run(&[&gateway], &["listen", "alice", "--from", "head"]);
        assert!(after.err.contains("up to seq 8"), "{after:?}");
    }
}

#[test]
fn a_reader_that_leaves_loses_nothing() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let mut process = listening(&rig, &gateway, &["--from", "floor"], 0);
    drop(process.stdout.take());
    assert_eq!(process.wait().expect("it ends").code(), Some(0));
    assert_eq!(seqs(&rig.run(&[&gateway], &["listen", "alice", "--limit", "1"])), [3]);
}

#[test]
fn a_refusal_ends_it_and_a_lost_connection_does_not() {
    for code in [ErrorCode::Unauthenticated, ErrorCode::TokenExpired, ErrorCode::PermissionDenied] {
        let gateway = Double::start();
        gateway.fault([Fault::Code(code)]);
        let run = Rig::new().run(&[&gateway], ALL);
        assert_eq!(run.code, 1, "{run:?}");
    }
    let gateway = Double::start();
    gateway.fault([Fault::Code(ErrorCode::Unavailable)]);
    let run = Rig::new().run(&[&gateway], ALL);
    assert_eq!(seqs(&run).len(), 6);
    assert!(run.err.contains("disconnected: "), "{run:?}");
    let run = Rig::new().run(&[&gateway], &[ALL, &["--endpoint", "a b"]].concat());
    assert_eq!(run.code, 2, "{run:?}");
}

//! What becomes of calls when gateways refuse, fail, are not there or die: the exit code, the
//! advice, and that a repetition is the same send.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;

use tidemark_env::SystemClock;
use tidemark_proto::v1::Stage;
use tidemark_token::{Keys, Role};
use tidemark_types::{DeviceId, ErrorCode, UserId};

use crate::double::{Double, Fault};
use crate::rig::{ID, Rig, Run};

const SEND: &[&str] = &["--deadline", "600ms", "send", "--from", "alice", "--to", "bob", "hello"];

/// An address where nobody listens, on a host where nobody ever does.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.9.0.2:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

fn run_after(faults: &[Fault], words: &[&str]) -> (Double, Run) {
    let gateway = Double::start();
    gateway.fault(faults.iter().copied());
    let run = Rig::new().run(&[&gateway], words);
    (gateway, run)
}

/// The id that a run told before it sent.
fn told(run: &Run) -> &str {
    run.err.lines().find_map(|line| line.strip_prefix("id ")).expect("an id")
}

#[test]
fn a_send_tells_its_id_first_and_sends_what_it_was_given() {
    let (gateway, run) = run_after(&[], SEND);
    assert_eq!((run.code, run.out.as_str()), (0, "accepted, seq 5\n"));
    let sends = gateway.sends();
    let send = &sends[0];
    assert_eq!((send.sender.as_str(), send.to[0].name.as_str()), ("alice", "bob"));
    assert_eq!((send.kind, &send.body[..]), (0, &b"hello"[..]));
    let id: tidemark_types::ClientMsgId = told(&run).parse().expect("a UUID of version 7");
    assert_eq!(&send.client_msg_id[..], id.as_bytes());
    assert_eq!(gateway.callers(), [("Bearer a.b.c".to_owned(), String::new())]);
}

#[test]
fn a_body_can_come_from_standard_input() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let address = gateway.address.to_string();
    let words = ["--endpoint", &address, "--token", "x", "send", "--from", "a", "--group", "g"];
    assert_eq!(rig.with_input(&words, b"\xff\n").code, 0);
    assert_eq!(&gateway.sends()[0].body[..], b"\xff\n");
    let large = rig.with_input(&words, &vec![b'x'; 192 * 1024 + 1]);
    assert_eq!(large.code, 1);
    assert!(large.err.contains("BODY_TOO_LARGE"), "{}", large.err);
    assert_eq!(gateway.sends().len(), 1);
}

#[test]
fn a_refusal_says_what_to_do() {
    let (_gateway, run) = run_after(&[Fault::Code(ErrorCode::PermissionDenied)], SEND);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("PERMISSION_DENIED: "), "{}", run.err);
    assert!(run.err.contains(ErrorCode::PermissionDenied.advice()), "{}", run.err);
}

#[test]
fn errors_are_json_as_well() {
    let words = [&["-o", "json"], SEND].concat();
    let (_gateway, run) = run_after(&[Fault::Code(ErrorCode::SeqExhausted)], &words);
    let lines: Vec<serde_json::Value> =
        run.err.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines[0]["id"].is_string());
    assert_eq!(lines[1]["error"], "refused");
    assert_eq!(lines[1]["code"], "SEQ_EXHAUSTED");
    assert_eq!(lines[1]["advice"], ErrorCode::SeqExhausted.advice());
    let usage = Rig::new().bare(&["-o", "json", "heed"]);
    let said: serde_json::Value = serde_json::from_str(&usage.err).expect("JSON");
    assert_eq!((usage.code, said["error"].as_str()), (2, Some("usage")));
}

/// A send whose id nobody could read is not made, and no exit code is lost.
#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let code = |words: &[&str]| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        rig.command(words).stderr(writer).status().expect("it runs").code()
    };
    let address = gateway.address.to_string();
    assert_eq!(code(&[&["--endpoint", &address, "--token", "x"], SEND].concat()), Some(2));
    assert!(gateway.sends().is_empty());
    let address = nowhere();
    let head = ["--endpoint", &address, "--token", "x", "--deadline", "300ms", "head", "alice"];
    assert_eq!(code(&head), Some(3));
}

#[test]
fn nobody_there_is_unavailable() {
    let address = nowhere();
    let words = [&["--endpoint", &address, "--token", "x"], SEND].concat();
    let run = Rig::new().bare(&words);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.err.contains("Connection refused"), "{}", run.err);
}

#[test]
fn the_next_gateway_takes_what_the_first_cannot() {
    let gateway = Double::start();
    let endpoints = format!("{},{}", nowhere(), gateway.address);
    let words = [&["--endpoint", &endpoints, "--token", "x"], SEND].concat();
    assert_eq!(Rig::new().bare(&words).code, 0);
    assert_eq!(gateway.sends().len(), 1);
}

#[test]
fn what_may_be_tried_again_is_tried_again_with_the_same_id() {
    let codes = [ErrorCode::Unavailable, ErrorCode::Overloaded, ErrorCode::Unknown];
    let faults: Vec<Fault> = codes.into_iter().map(Fault::Code).chain([Fault::Foreign]).collect();
    let (gateway, run) = run_after(&faults, &[&["--deadline", "10s"], &SEND[2..]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    let sends = gateway.sends();
    assert_eq!(sends.len(), 5);
    assert!(sends.iter().all(|send| *send == sends[0]));
}

#[test]
fn a_gateway_that_dies_leaves_the_outcome_unknown() {
    let (gateway, run) = run_after(&[Fault::Die], SEND);
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(gateway.sends().len(), 1);
    let command = run.err.lines().last().expect("a command to repeat").trim();
    assert!(command.contains(&format!(" send --id {} --from alice", told(&run))), "{command}");
    assert!(!command.contains("a.b.c"), "{command}");
    // The very command, but for the token and the gateway that is dead.
    let again = Double::start();
    let words: Vec<String> = shlex::split(command).expect("words");
    let at = words.iter().position(|word| word == "send").expect("a send");
    let words: Vec<&str> = words[at..].iter().map(String::as_str).collect();
    assert_eq!(Rig::new().run(&[&again], &words).code, 0);
    assert_eq!(again.sends(), gateway.sends());
}

#[test]
fn another_gateway_settles_what_the_first_left_unknown() {
    let (first, second) = (Double::start(), Double::start());
    first.fault([Fault::Die]);
    let run = Rig::new().run(&[&first, &second], &SEND[2..]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(first.sends(), second.sends());
}

#[test]
fn only_a_definite_answer_ends_the_doubt() {
    let after = |code| run_after(&[Fault::Foreign, Fault::Code(code)], SEND).1.code;
    assert_eq!(after(ErrorCode::Unauthenticated), 4);
    assert_eq!(after(ErrorCode::Internal), 4);
    assert_eq!(after(ErrorCode::SeqExhausted), 1);
    let repeated = [&["send", "--id", ID], &SEND[3..]].concat();
    let code = |code| run_after(&[Fault::Code(code)], &repeated).1.code;
    assert_eq!(code(ErrorCode::Unauthenticated), 4);
    assert_eq!(code(ErrorCode::Conflict), 1);
}

#[test]
fn a_read_that_got_no_answer_is_unavailable() {
    let words = ["--deadline", "300ms", "head", "alice"];
    assert_eq!(run_after(&[Fault::Die], &words).1.code, 3);
    assert_eq!(run_after(&[Fault::Foreign], &words).1.code, 0);
}

#[test]
fn delivery_is_waited_for() {
    let words = [SEND, &["--wait", "delivered"]].concat();
    let gateway = Double::start();
    gateway.stages([Stage::Accepted, Stage::Accepted, Stage::Delivered]);
    let run = Rig::new().run(&[&gateway], &words);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("user:carol  delivered"), "{}", run.out);

    let gateway = Double::start();
    gateway.stages([Stage::Refused]);
    let run = Rig::new().run(&[&gateway], &words);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.out.contains("user:carol  refused    BLOCKED"), "{}", run.out);
    assert!(run.err.contains("accepted, but not by user:carol"), "{}", run.err);

    let gateway = Double::start();
    gateway.stages([Stage::Accepted]);
    let run = Rig::new().run(&[&gateway], &words);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.err.contains("not delivered to: carol"), "{}", run.err);
    assert!(run.err.contains(&format!("--id {}", told(&run))), "{}", run.err);
}

/// A local cluster: the file is found, its key makes tokens of the role that each call needs.
#[test]
fn a_local_cluster_needs_no_flags() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let home = rig.path().join(".tidemark");
    fs::create_dir_all(home.join("keys")).expect("a folder");
    let key = home.join("keys/local.hs256");
    let made = rig.bare(&["token", "key", ".tidemark/keys/local.hs256"]);
    assert_eq!(made.code, 0, "{made:?}");
    let cluster = "07070707-0707-0707-0707-070707070707";
    let file = serde_json::json!({
        "cluster": cluster,
        "gateways": [{"grpc": gateway.address.to_string(), "http": nowhere()}],
        "stores": [{"node": 1, "grpc": nowhere(), "http": nowhere()}],
        "key": "keys/local.hs256",
    });
    fs::write(home.join("cluster.json"), file.to_string()).expect("written");
    assert_eq!(rig.bare(&["head", "alice"]).code, 0);
    assert_eq!(rig.bare(&["cluster", "map"]).code, 0);
    let keys = Keys::read(key, Arc::new(SystemClock::new())).expect("a key");
    let callers = gateway.callers();
    for ((bearer, named), role) in callers.iter().zip([Role::Service, Role::Admin]) {
        let token = bearer.strip_prefix("Bearer ").expect("a token");
        assert_eq!(keys.verify(token).expect("a good one").role, role);
        assert_eq!(named, cluster);
    }
    let listened = rig.bare(&["listen", "alice", "--from", "floor", "--limit", "1"]);
    assert_eq!(listened.code, 0, "{listened:?}");
    assert!(home.join("devices/alice-cli.redb").is_file());
    let (token, _) = gateway.callers().pop().expect("a Hello");
    let (user, device) = (UserId::new("alice").expect("legal"), DeviceId::new("cli").ok());
    assert_eq!(keys.verify(&token).expect("a good one").role, Role::Device { user, device });
    let health = rig.bare(&["health"]);
    assert_eq!((health.code, health.out.lines().count()), (3, 2), "{health:?}");
}

#[test]
fn a_token_is_made_offline() {
    let rig = Rig::new();
    rig.bare(&["token", "key", "k.hs256"]);
    let make = ["token", "make", "--key", "k.hs256", "--role", "device", "--user", "alice"];
    let run = rig.bare(&[&make[..], &["--device", "phone", "--valid", "1h"]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    let path = rig.path().join("k.hs256");
    let keys = Keys::read(path, Arc::new(SystemClock::new())).expect("a key");
    let claims = keys.verify(run.out.trim()).expect("a good one");
    assert!(claims.may_act_for(&UserId::new("alice").expect("legal")).is_ok());
    assert!(claims.may_act_for(&UserId::new("bob").expect("legal")).is_err());
    let wide = ["token", "make", "--key", "k.hs256", "--role", "service", "--user", "alice"];
    assert_eq!(rig.bare(&wide).code, 2);
    assert_eq!(rig.bare(&["token", "make", "--role", "admin"]).code, 2);
}

#[test]
fn health_says_what_is_missing() {
    let (rig, server) = (Rig::new(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = server.local_addr().expect("bound").to_string();
    let answers = ["200 OK\r\nContent-Length: 3\r\n\r\nok\n", READYZ_MISSING];
    let serve = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = server.accept().expect("a connection");
            use std::io::{Read, Write};
            let _ = stream.read(&mut [0; 1024]).expect("a request");
            write!(stream, "HTTP/1.1 {answer}").expect("written");
        }
    });
    let run = rig.bare(&["health", &address]);
    assert_eq!(run.code, 0, "{run:?}");
    let run = rig.bare(&["health", &address, "-o", "json"]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.out.contains(r#""ready":false,"reason":"shard-3 has no leader""#), "{}", run.out);
    serve.join().expect("it served");
}

const READYZ_MISSING: &str =
    "503 Service Unavailable\r\nContent-Length: 21\r\n\r\nshard-3 has no leader";

#[test]
fn usage_is_told_apart() {
    let rig = Rig::new();
    assert_eq!(rig.bare(&["--help"]).code, 0);
    assert_eq!(rig.bare(&["head"]).code, 2);
    for (words, said) in [
        (&["head", "alice"][..], "no gateway is known"),
        (&["head", "alice", "--endpoint", "127.0.0.1:1"], "no token and no key"),
    ] {
        let run = rig.bare(words);
        assert_eq!(run.code, 2);
        assert!(run.err.contains(said), "{}", run.err);
    }
    assert_eq!(rig.bare(&["head", "alice", "--token", "x", "--endpoint", "a b"]).code, 2);
}

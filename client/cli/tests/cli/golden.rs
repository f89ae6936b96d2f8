//! Every command's output, in both forms: programs read the one and people know the other.

use std::io::Write;

use goldenfile::Mint;

use tidemark_types::ErrorCode;

use crate::double::{Double, Fault};
use crate::rig::{ID, Rig};

/// Each command, and the name of its golden files.
const COMMANDS: [(&str, &[&str]); 30] = [
    ("send", &["send", "--from", "alice", "--to", "bob", "--id", ID, "hello"]),
    (
        "send_delivered",
        &[
            "send",
            "--from",
            "alice",
            "--to",
            "bob",
            "--to",
            "carol",
            "--id",
            ID,
            "--wait",
            "delivered",
            "hello",
        ],
    ),
    ("history", &["history", "alice"]),
    ("head", &["head", "alice"]),
    ("mark", &["mark", "alice", "5", "--as", "delivered", "--id", ID]),
    ("recall", &["recall", "alice", "5", "--id", ID]),
    ("edit", &["edit", "alice", "5", "--kind", "2", "--id", ID, "new"]),
    ("unread", &["unread", "alice"]),
    ("typing", &["typing", "alice", "bob", "--stop"]),
    ("presence", &["presence", "bob", "--by", "alice"]),
    ("presence_away", &["presence", "carol"]),
    ("block", &["block", "alice", "bob"]),
    ("unblock", &["unblock", "alice", "bob"]),
    ("device_list", &["device", "list", "alice"]),
    ("device_forget", &["device", "forget", "alice", "phone"]),
    ("device_logout", &["device", "logout", "alice", "phone"]),
    ("device_push", &["device", "push", "alice", "phone", "--provider", "apns", "token"]),
    ("allow", &["allow", "alice", "bob"]),
    ("disallow", &["disallow", "alice", "bob"]),
    ("accept", &["accept", "alice", "contacts"]),
    ("group_add", &["group", "add", "team", "dave", "eve"]),
    ("group_info", &["group", "info", "team", "--by", "alice"]),
    ("group_members", &["group", "members", "team"]),
    ("sequence_take", &["sequence", "take", "orders", "--id", ID]),
    ("sequence_take_some", &["sequence", "take", "orders", "--count", "10", "--id", ID]),
    ("sequence_current", &["sequence", "current", "orders"]),
    ("sequence_current_none", &["sequence", "current", "invoices"]),
    ("cluster_status", &["cluster", "status"]),
    ("cluster_map", &["cluster", "map"]),
    ("shard_leader", &["shard", "leader", "0"]),
];

#[test]
fn outputs_keep_their_form() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let mut mint = Mint::new("testdata");
    for (name, words) in COMMANDS {
        for (output, ending) in [("text", "txt"), ("json", "json")] {
            let run = rig.run(&[&gateway], &[words, &["-o", output]].concat());
            assert_eq!(run.code, 0, "{name}: {run:?}");
            let mut file = mint.new_goldenfile(format!("{name}.{ending}")).expect("a file");
            file.write_all(run.out.as_bytes()).expect("written");
        }
    }
}

#[test]
fn a_history_ends_at_its_limit() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let lines = |words: &[&str]| {
        let run = rig.run(&[&gateway], &[&["history", "alice"], words].concat());
        assert_eq!(run.code, 0, "{run:?}");
        run.out.lines().count()
    };
    // Six entries, and the line that says what is gone.
    assert_eq!(lines(&[]), 7);
    assert_eq!(lines(&["--limit", "3"]), 4);
    assert_eq!(lines(&["--after", "3"]), 5);
    assert_eq!(lines(&["--after", "3", "--limit", "1"]), 1);
    assert_eq!(lines(&["--after", "8"]), 0);
}

#[test]
fn leaders_are_found_and_moved() {
    let (rig, gateway) = (Rig::new(), Double::start());
    let moved = rig.run(&[&gateway], &["shard", "transfer", "1", "--to", "2", "-o", "json"]);
    assert_eq!((moved.code, moved.out.as_str()), (0, "{\"shard\":1,\"leader\":2}\n"));
    let none = rig.run(&[&gateway], &["shard", "leader", "1"]);
    assert_eq!(none.code, 3, "{none:?}");
    let beyond = rig.run(&[&gateway], &["shard", "leader", "9"]);
    assert_eq!(beyond.code, 2, "{beyond:?}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let run = Rig::new().bare(&["completions", shell]);
        assert_eq!(run.code, 0);
        assert!(run.out.contains("transfer"), "{shell}");
    }
}

#[test]
fn an_act_names_the_message_and_nobody() {
    let (rig, gateway) = (Rig::new(), Double::start());
    for words in [&["mark", "alice", "5"][..], &["edit", "alice", "6", "--kind", "2", "new"]] {
        let run = rig.run(&[&gateway], words);
        assert_eq!((run.code, run.out.trim_end()), (0, "accepted, seq 5"), "{run:?}");
    }
    let sends = gateway.sends();
    let said = sends.iter().map(|send| {
        let about = send.about.expect("an act");
        assert!(send.to.is_empty());
        (about.kind().as_str_name(), about.epoch, about.seq, send.kind, &send.body[..])
    });
    let wanted = [("ACT_KIND_READ", 1, 5, 0, &b""[..]), ("ACT_KIND_EDIT", 1, 6, 2, &b"new"[..])];
    assert_eq!(said.collect::<Vec<_>>(), wanted);
}

#[test]
fn a_group_is_changed_as_it_was_said() {
    let (rig, gateway) = (Rig::new(), Double::start());
    for (words, said) in [
        (
            "create team --owner alice --member bob --member carol --max 20 --post admins",
            "team: created bob, carol",
        ),
        ("join team frank", "team: joined frank"),
        ("leave team frank", "team: left frank"),
        ("kick team dave --by alice", "team: left dave"),
        ("role team bob admin --by alice", "team: role set bob"),
        ("policy team --open --by alice", "team: policy set"),
        ("delete team", "team: deleted"),
    ] {
        let words: Vec<&str> = ["group"].into_iter().chain(words.split(' ')).collect();
        let run = rig.run(&[&gateway], &words);
        assert_eq!((run.code, run.out.trim_end()), (0, said), "{run:?}");
    }
    gateway.fault([Fault::Code(ErrorCode::Forbidden)]);
    let refused = rig.run(&[&gateway], &["group", "delete", "team", "--by", "bob"]);
    assert_eq!(refused.code, 1, "{refused:?}");
}

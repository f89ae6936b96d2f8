//! An independent sender to Apple, `@parse/node-apn`: what it has spoken to the real service for years
//! the simulator must take, and its answers must mean to it what Apple's do.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tidemark_push_sim::{Service, Sim, SimConfig};

/// Installs the packages, and gives their folder.
fn npm() -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("push-npm");
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm/install");
    let done = Command::new(install).arg(&folder).status().expect("bash");
    assert!(done.success(), "the packages could not be installed");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_sender_takes_it_for_apple() {
    let sim = Sim::start(SimConfig::default()).await.expect("it starts");
    let folder = tempfile::tempdir().expect("a folder");
    sim.write(folder.path()).expect("written");
    let (lives, gone) = ("ab".repeat(32), "cd".repeat(32));
    sim.kill(Service::Apns, &gone, 1_700_000_000_123);
    let credentials = sim.credentials();
    let mut node = Command::new("node");
    node.current_dir(npm()).arg("sender.js");
    node.args([folder.path().join("apns.p8"), folder.path().join("ca.pem")]);
    node.args([&credentials.key_id, &credentials.team_id, &credentials.topic]);
    node.arg(sim.apns().port().to_string()).args([lives.as_str(), &gone, "00", &lives]);
    let output = tokio::task::spawn_blocking(move || node.output()).await.expect("it ran");
    let output = output.expect("node");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let sent = json!({ "sent": 1, "status": null, "response": null, "error": null });
    assert_eq!(said.len(), 4, "{lines}{errors}");
    assert_eq!((&said[0], &said[3]), (&sent, &sent), "{errors}");
    assert_eq!(said[1]["status"], 410);
    let dead = json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_123_u64 });
    assert_eq!(said[1]["response"], dead);
    assert_eq!(said[2]["response"]["reason"], "BadDeviceToken");
    let received = sim.received(Service::Apns);
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers["apns-push-type"], "alert");
    assert!(received[0].body.contains("\"alert\":\"hello\""), "{}", received[0].body);
}

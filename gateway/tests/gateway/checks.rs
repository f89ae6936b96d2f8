//! What an operator lets be checked of devices' sends: limits, rates, words, and a real hook on
//! loopback that judges, hangs, fails, or changes its mind.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use prost::Message as _;
use tempfile::TempDir;
use tidemark_gateway::config::{
    ChecksConfig, FilterConfig, HookConfig, Kinds, OnFailure, Rate, RatesConfig,
};
use tidemark_gateway::devices::Devices;
use tidemark_proto::convert::error_code;
use tidemark_proto::v1;
use tidemark_proto::v1::send_ack;
use tidemark_types::ErrorCode;
use tokio::time::Instant;

use crate::device::{Device, checking, gateway, hello, hello_at, send, texts};
use crate::hooks::{
    Hook, SECRET, serve_grpc, serve_grpcs, serve_http, serve_https, silent, way_to,
};
use crate::store::Cluster;

fn kinds(ranges: &[&str]) -> Kinds {
    let list = ranges.iter().map(|range| format!("{range:?}")).collect::<Vec<_>>().join(",");
    let text = format!("kinds = [{list}]");
    toml::from_str::<ChecksConfig>(&text).unwrap().kinds
}

/// A send to bob with this body.
fn say(session: u64, n: u64, body: &str) -> v1::Send {
    v1::Send { body: body.to_owned().into(), ..send(session, n, &["bob"]) }
}

/// An acknowledgement in short: `3 ok`, or `3 FILTERED`.
fn short(ack: &v1::SendAck) -> String {
    let result = match ack.result.as_ref().expect("it has one") {
        send_ack::Result::Accepted(_) => "ok".to_owned(),
        send_ack::Result::Failure(failure) => error_code(failure.code).to_string(),
    };
    format!("{} {result}", ack.n)
}

/// The next acknowledgements, in short.
async fn acks(device: &mut Device, count: usize) -> Vec<String> {
    let mut acks = Vec::new();
    for _ in 0..count {
        acks.push(short(&device.ack().await));
    }
    acks.sort();
    acks
}

/// The next acknowledgement, which says this.
async fn refused(device: &mut Device, told: &str) -> v1::Failure {
    let ack = device.ack().await;
    assert_eq!(short(&ack), told);
    let Some(send_ack::Result::Failure(failure)) = ack.result else { panic!("{ack:?}") };
    failure
}

/// The hint of a send that is given back, in milliseconds.
async fn given_back(device: &mut Device, n: u64) -> u32 {
    refused(device, &format!("{n} RETRY_AFTER")).await.retry_after_ms
}

/// What bob has.
async fn bobs(gateway: &Devices) -> Vec<String> {
    let (mut bob, welcome) = Device::welcomed(gateway, hello("bob", "reader")).await;
    if welcome.seq_svr == 0 {
        return Vec::new();
    }
    texts(&bob.page().await)
}

#[tokio::test(start_paused = true)]
async fn limits_refuse_for_good_whatever_another_gateway_thinks() {
    let cluster = Cluster::new();
    let config =
        ChecksConfig { body_bytes_max: 4, kinds: kinds(&["1-9"]), ..ChecksConfig::default() };
    let (strict, lax) = (checking(&cluster, &config), gateway(&cluster));
    let (mut alice, session) = Device::with_session(&strict, "alice").await;
    let sends = [
        say(session, 1, "large"),
        v1::Send { kind: 10, ..say(session, 2, "fine") },
        say(session, 3, "fine"),
        send(session, 4, &[]),
    ];
    let mut first = Vec::new();
    for one in &sends {
        alice.say(one.clone()).await;
        first.push(alice.ack().await);
    }
    let told: Vec<_> = first.iter().map(short).collect();
    assert_eq!(told, ["1 BODY_TOO_LARGE", "2 KIND_NOT_ALLOWED", "3 ok", "4 BAD_RECIPIENT"]);
    let (mut again, welcome) = Device::welcomed(&lax, hello_at("alice", "phone", 1, 1)).await;
    assert_eq!(welcome.body_bytes_max, 192 * 1024);
    for (one, first) in sends.into_iter().zip(first) {
        again.say(one).await;
        assert_eq!(again.ack().await.encode_to_vec(), first.encode_to_vec());
    }
    let (_, welcome) = Device::welcomed(&strict, hello("alice", "laptop")).await;
    assert_eq!(welcome.body_bytes_max, 4, "devices are told");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_sends_too_fast_is_slowed_down_and_loses_nothing() {
    let cluster = Cluster::new();
    let user = Some(Rate { sends: 5, within_ms: 1_000 });
    let rates = RatesConfig { user, ..RatesConfig::default() };
    let here = checking(&cluster, &ChecksConfig { rates, ..ChecksConfig::default() });
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let began = Instant::now();
    for n in 1..=25 {
        alice.say(send(session, n, &["bob"])).await;
    }
    let told = acks(&mut alice, 25).await;
    assert!(told.iter().all(|ack| ack.ends_with(" ok")), "{told:?}");
    assert_eq!(cluster.attempts(), (1..=25).collect::<Vec<_>>());
    // Five at once, and then one every 200 ms; the last one need not be waited for.
    assert!(began.elapsed() >= Duration::from_millis(200 * 19), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(200 * 22), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_far_too_fast_is_given_back_with_all_behind_it() {
    let cluster = Cluster::new();
    let pair = Some(Rate { sends: 1, within_ms: 60_000 });
    let rates = RatesConfig { pair, ..RatesConfig::default() };
    let here = checking(&cluster, &ChecksConfig { rates, ..ChecksConfig::default() });
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    alice.say(send(session, 1, &["bob"])).await;
    assert_eq!(acks(&mut alice, 1).await, ["1 ok"]);
    alice.say(send(session, 2, &["bob"])).await;
    let wait = given_back(&mut alice, 2).await;
    assert!((1..=60_000).contains(&wait), "{wait}");
    // Carol was not written to too often, but it would be out of order. Whoever has not heard of the
    // second one hears which one must come.
    for n in 3..=5 {
        alice.say(send(session, n, &["carol"])).await;
        let failure = refused(&mut alice, &format!("{n} OUT_OF_ORDER")).await;
        assert_eq!(failure.detail, Some(v1::failure::Detail::Expected(2)));
    }
    assert_eq!(cluster.attempts(), [1], "nothing was consumed");
    tokio::time::sleep(Duration::from_millis(wait.into())).await;
    for n in [2, 3] {
        alice.say(send(session, n, if n == 2 { &["bob"] } else { &["carol"] })).await;
    }
    assert_eq!(acks(&mut alice, 2).await, ["2 ok", "3 ok"]);
    assert_eq!(cluster.attempts(), [1, 2, 3]);
    // What was taken before has its answer through any gateway, once it may be asked for.
    let there = gateway(&cluster);
    let (mut again, _) = Device::welcomed(&there, hello_at("alice", "phone", 1, 3)).await;
    again.say(send(session, 2, &["bob"])).await;
    assert_eq!(acks(&mut again, 1).await, ["2 ok"]);
}

fn words(folder: &TempDir, list: &str) -> ChecksConfig {
    let file = folder.path().join("words.txt");
    std::fs::write(&file, list).unwrap();
    let filter = FilterConfig { file, reload_ms: 10, kinds: kinds(&["1"]) };
    ChecksConfig { filter: Some(filter), ..ChecksConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn words_are_refused_replaced_and_dropped() {
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let config = words(&folder, "reject evil\nreplace darn\ndrop spam\n");
    let here = checking(&cluster, &config);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let bodies = ["hello", "Evil!", "darn it", "buy spam", "bye"];
    for (n, body) in (1..).zip(bodies) {
        alice.say(say(session, n, body)).await;
    }
    // Pictures are no text.
    alice.say(v1::Send { kind: 2, ..say(session, 6, "evil") }).await;
    let told = acks(&mut alice, 6).await;
    assert_eq!(told, ["1 ok", "2 FILTERED", "3 ok", "4 ok", "5 ok", "6 ok"]);
    assert_eq!(bobs(&here).await, ["hello", "**** it", "bye", "evil"]);
    let (mut own, _) = Device::welcomed(&here, hello("alice", "laptop")).await;
    assert_eq!(texts(&own.page().await), ["hello", "**** it", "buy spam", "bye", "evil"]);
    // Through a gateway without words: what was asked for is the same, and so is the answer.
    let lax = gateway(&cluster);
    let (mut again, _) = Device::welcomed(&lax, hello_at("alice", "phone", 1, 5)).await;
    for (n, body) in (1..).zip(bodies) {
        again.say(say(session, n, body)).await;
    }
    let told = acks(&mut again, 5).await;
    assert_eq!(told, ["1 ok", "2 FILTERED", "3 ok", "4 ok", "5 ok"]);
    assert_eq!(bobs(&here).await.len(), 4);
}

/// Puts another list in the file's place.
fn put(folder: &Path, list: &str) {
    let new = folder.join("new");
    std::fs::write(&new, list).unwrap();
    std::fs::rename(new, folder.join("words.txt")).unwrap();
}

/// Sends until it is answered so; the n that it has come to.
async fn until(alice: &mut Device, session: u64, n: &mut u64, body: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        *n += 1;
        alice.say(v1::Send { base: *n, ..say(session, *n, body) }).await;
        if short(&alice.ack().await) == format!("{n} {wanted}") {
            return;
        }
        assert!(Instant::now() < deadline, "{body} is never {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_list_is_read_anew_and_a_broken_one_is_not_used() {
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let here = checking(&cluster, &words(&folder, "reject evil\n"));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let mut n = 0;
    until(&mut alice, session, &mut n, "evil", "FILTERED").await;
    until(&mut alice, session, &mut n, "good", "ok").await;
    put(folder.path(), "reject good\n");
    until(&mut alice, session, &mut n, "good", "FILTERED").await;
    until(&mut alice, session, &mut n, "evil", "ok").await;
    // Broken, then gone: long enough for it to have been looked at often.
    put(folder.path(), "reject better\nnonsense\n");
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::remove_file(folder.path().join("words.txt")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    n += 1;
    alice.say(v1::Send { base: n, ..say(session, n, "good") }).await;
    assert_eq!(short(&alice.ack().await), format!("{n} FILTERED"));
    put(folder.path(), "reject better\n");
    until(&mut alice, session, &mut n, "better", "FILTERED").await;
}

/// Asks this hook, more patiently than an operator may let it.
fn asking(url: String, secret: Option<&Path>) -> HookConfig {
    let secret_file = secret.map(Path::to_owned);
    HookConfig { url, secret_file, deadline_ms: 30_000, ..HookConfig::default() }
}

fn hooked(hook: HookConfig) -> ChecksConfig {
    ChecksConfig { hook: Some(hook), ..ChecksConfig::default() }
}

/// Every verdict, in order, and what is left of the first ones when the hook has changed its mind.
async fn judges(hook: Arc<Hook>, config: HookConfig) {
    let cluster = Cluster::new();
    let config = hooked(config);
    let (here, there) = (checking(&cluster, &config), checking(&cluster, &config));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let bodies = ["last", "reject", "replace", "drop", "allow"];
    for (n, body) in (1..).zip(bodies) {
        alice.say(say(session, n, body)).await;
    }
    let wanted = ["1 ok", "2 HOOK_REFUSED", "3 ok", "4 ok", "5 ok"];
    assert_eq!(acks(&mut alice, 5).await, wanted);
    // The first one was judged when all were asked about: they are, at the same time.
    assert_eq!(cluster.attempts(), [1, 2, 3, 4, 5], "in order all the same");
    assert_eq!(bobs(&here).await, ["last", "replaced", "allow"]);
    let asked = hook.asked();
    assert_eq!(asked.len(), 5);
    assert!(asked.iter().all(|asked| asked.starts_with("alice/phone to bob ")), "{asked:?}");

    hook.reject_all();
    let (mut again, _) = Device::welcomed(&there, hello_at("alice", "phone", 1, 4)).await;
    for (n, body) in (1..).zip(bodies) {
        again.say(say(session, n, body)).await;
    }
    assert_eq!(acks(&mut again, 5).await, wanted, "the first verdict counts");
    again.say(say(session, 6, "allow")).await;
    assert_eq!(acks(&mut again, 1).await, ["6 HOOK_REFUSED"]);
    assert_eq!(hook.asked().len(), 11);
}

#[tokio::test]
async fn a_grpc_hook_judges() {
    let hook = Hook::new();
    let address = serve_grpc(hook.clone(), None).await;
    judges(hook, asking(format!("grpc://{address}"), None)).await;
}

#[tokio::test]
async fn an_http_hook_judges_what_is_signed() {
    let hook = Hook::new();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let address = serve_http(hook.clone()).await;
    judges(hook, asking(format!("http://{address}/judge"), Some(&secret))).await;
}

#[tokio::test]
async fn an_https_hook_judges_if_its_authority_is_trusted() {
    let hook = Hook::new();
    let folder = tempfile::tempdir().unwrap();
    let (secret, ca) = (folder.path().join("secret"), folder.path().join("ca.pem"));
    std::fs::write(&secret, SECRET).unwrap();
    let (port, authority) = serve_https(hook.clone()).await;
    std::fs::write(&ca, authority).unwrap();
    let stranger = asking(format!("https://localhost:{port}/judge"), Some(&secret));
    let trusted = HookConfig { ca_file: Some(ca.clone()), ..stranger.clone() };
    // The certificate is `localhost`'s.
    let url = format!("https://127.0.0.1:{port}/judge");
    let misnamed = HookConfig { url, ca_file: Some(ca), ..stranger.clone() };
    for refused in [stranger, misnamed] {
        let config = HookConfig { on_failure: OnFailure::Hold, ..refused };
        let here = checking(&Cluster::new(), &hooked(config));
        let (mut alice, session) = Device::with_session(&here, "alice").await;
        alice.say(say(session, 1, "allow")).await;
        assert!(given_back(&mut alice, 1).await > 0);
    }
    assert!(hook.asked().is_empty(), "who is not trusted is told nothing");
    judges(hook, trusted).await;
}

/// Without a certificate that is trusted nobody is told anything, and nobody judges: a send goes, or
/// waits, as the operator says, and is counted.
#[tokio::test]
async fn a_grpcs_hook_judges_if_its_authority_is_trusted() {
    // What runs in this thread counts here.
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let has = |outcome: &str, count: u32| {
        let line = format!("gateway_hook_calls_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(counted.render().contains(&line), "no {line} in {}", counted.render());
    };
    let hook = Hook::new();
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own.pem"), folder.path().join("other.pem"));
    let (port, authority) = serve_grpcs(hook.clone()).await;
    std::fs::write(&own, authority).unwrap();
    let (_, authority) = serve_grpcs(Hook::new()).await;
    std::fs::write(&other, authority).unwrap();
    let at = |url: String, ca_file: Option<&Path>| HookConfig {
        ca_file: ca_file.map(Path::to_owned),
        // So long that nothing waits for it.
        pause_ms: 600_000,
        ..asking(url, None)
    };
    let url = format!("grpcs://localhost:{port}");
    let untrusted = [
        at(url.clone(), None),
        at(url.clone(), Some(&other)),
        // The certificate is `localhost`'s.
        at(format!("grpcs://127.0.0.1:{port}"), Some(&own)),
        at(format!("grpc://localhost:{port}"), None),
    ];
    for refused in untrusted {
        let lax = checking(&Cluster::new(), &hooked(refused.clone()));
        let (mut alice, session) = Device::with_session(&lax, "alice").await;
        alice.say(say(session, 1, "reject")).await;
        assert_eq!(acks(&mut alice, 1).await, ["1 ok"], "{refused:?}");
        let strict = HookConfig { on_failure: OnFailure::Hold, ..refused };
        let strict = checking(&Cluster::new(), &hooked(strict));
        let (mut alice, session) = Device::with_session(&strict, "alice").await;
        alice.say(say(session, 1, "allow")).await;
        assert!(given_back(&mut alice, 1).await > 0);
    }
    assert!(hook.asked().is_empty(), "who is not trusted is told nothing");
    has("failed", 8);
    judges(hook, at(url, Some(&own))).await;
    has("failed", 8);
    has("judged", 11);
}

#[tokio::test]
async fn a_hook_with_another_secret_does_not_judge() {
    let hook = Hook::new();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET.replace("MfKQ", "MfKR")).unwrap();
    let address = serve_http(hook.clone()).await;
    let config = asking(format!("http://{address}/judge"), Some(&secret));
    let cluster = Cluster::new();
    let here = checking(&cluster, &hooked(config));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    alice.say(say(session, 1, "reject")).await;
    assert_eq!(acks(&mut alice, 1).await, ["1 ok"]);
    assert!(hook.asked().is_empty(), "the signature is wrong");
}

/// It costs a few sends their deadline, and then none.
#[tokio::test]
async fn a_hook_that_hangs_is_left_alone() {
    let cluster = Cluster::new();
    let hook = Hook::new();
    let address = serve_grpc(hook.clone(), None).await;
    let config = HookConfig {
        deadline_ms: 50,
        failures_max: 3,
        pause_ms: 600_000,
        ..asking(format!("grpc://{address}"), None)
    };
    let here = checking(&cluster, &hooked(config));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for n in 1..=300 {
        alice.say(v1::Send { base: n, ..say(session, n, "hang") }).await;
        assert_eq!(acks(&mut alice, 1).await, [format!("{n} ok")]);
    }
    assert!(hook.asked().len() <= 3, "after three failures nobody asks: {:?}", hook.asked());
    assert_eq!(cluster.attempts(), (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hook_that_takes_connections_and_says_nothing_is_left_alone() {
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let (address, connections) = silent().await;
    let hook = HookConfig {
        deadline_ms: 50,
        failures_max: 2,
        pause_ms: 600_000,
        ..asking(format!("http://{address}/"), Some(&secret))
    };
    let here = checking(&cluster, &hooked(hook));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for n in 1..=5 {
        alice.say(say(session, n, "reject")).await;
        assert_eq!(acks(&mut alice, 1).await, [format!("{n} ok")]);
    }
    assert!(connections.load(Ordering::SeqCst) <= 2, "after two failures nobody asks");
}

/// Nothing tells of it but that pings stay without an answer.
#[tokio::test(start_paused = true)]
async fn a_hook_whose_host_vanishes_is_connected_to_anew() {
    let cluster = Cluster::new();
    let hook = Hook::new();
    let (address, vanishes) = way_to(serve_grpc(hook.clone(), None).await).await;
    let here = checking(&cluster, &hooked(asking(format!("grpc://{address}"), None)));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    alice.say(say(session, 1, "reject")).await;
    assert_eq!(acks(&mut alice, 1).await, ["1 HOOK_REFUSED"]);
    // While nobody is asked anything: the next one is judged at once.
    vanishes.send_replace(());
    tokio::time::sleep(Duration::from_secs(16)).await;
    let began = Instant::now();
    alice.say(say(session, 2, "reject")).await;
    assert_eq!(acks(&mut alice, 1).await, ["2 HOOK_REFUSED"]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // While it is: that call fails with the connection, long before its time is up.
    vanishes.send_replace(());
    let began = Instant::now();
    alice.say(say(session, 3, "reject")).await;
    assert_eq!(acks(&mut alice, 1).await, ["3 ok"]);
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    alice.say(say(session, 4, "reject")).await;
    assert_eq!(acks(&mut alice, 1).await, ["4 HOOK_REFUSED"]);
}

/// A gateway that lets nothing go without this hook, where nobody listens yet.
async fn strict(cluster: &Arc<Cluster>) -> (Arc<Devices>, SocketAddr) {
    // On a host of its own, where nobody gets the port meanwhile.
    let free = std::net::TcpListener::bind("127.9.0.3:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    let hook = HookConfig {
        on_failure: OnFailure::Hold,
        failures_max: 2,
        pause_ms: 50,
        ..asking(format!("grpc://{address}"), None)
    };
    (checking(cluster, &hooked(hook)), address)
}

/// The device is told once, not each time that the gateway has tried.
#[tokio::test(start_paused = true)]
async fn without_its_hook_sends_wait_in_their_places_until_their_time_is_up() {
    let cluster = Cluster::new();
    let (here, _) = strict(&cluster).await;
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for _ in 0..3 {
        let began = Instant::now();
        for n in 1..=3 {
            alice.say(say(session, n, "allow")).await;
        }
        assert_eq!(acks(&mut alice, 3).await, ["1 RETRY_AFTER", "2 RETRY_AFTER", "3 RETRY_AFTER"]);
        assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
    }
    assert!(cluster.attempts().is_empty(), "nothing was consumed");
}

#[tokio::test]
async fn what_waits_for_a_hook_goes_when_it_judges_again() {
    let cluster = Cluster::new();
    let (here, address) = strict(&cluster).await;
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let say = |n| say(session, n, if n == 1 { "reject" } else { "allow" });
    alice.say(say(1)).await;
    alice.say(say(2)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(cluster.attempts().is_empty(), "nothing goes unjudged");
    let hook = Hook::new();
    serve_grpc(hook.clone(), Some(address)).await;
    let mut settled = Vec::new();
    while settled.len() < 2 {
        let ack = alice.ack().await;
        match short(&ack) {
            // The machine took its time.
            told if told.ends_with("RETRY_AFTER") => alice.say(say(ack.n)).await,
            told => settled.push(told),
        }
    }
    settled.sort();
    assert_eq!(settled, ["1 HOOK_REFUSED", "2 ok"]);
}

#[tokio::test]
async fn a_hook_that_answers_nonsense_fails() {
    let cluster = Cluster::new();
    let hook = Hook::new();
    let address = serve_grpc(hook.clone(), None).await;
    let config = ChecksConfig {
        body_bytes_max: 20,
        ..hooked(HookConfig {
            on_failure: OnFailure::Hold,
            // So long that nothing waits for it.
            pause_ms: 600_000,
            ..asking(format!("grpc://{address}"), None)
        })
    };
    let here = checking(&cluster, &config);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for body in ["unspecified", "error", "replace with more"] {
        alice.say(say(session, 1, body)).await;
        assert!(given_back(&mut alice, 1).await > 0, "{body}");
    }
    assert_eq!(hook.asked().len(), 3);
    assert!(cluster.attempts().is_empty());
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_at_the_start() {
    use tidemark_env::{SeededRng, SystemClock};
    use tidemark_gateway::checks::Checks;
    let refused = |config: &ChecksConfig| {
        let made = Checks::new(config, Arc::new(SystemClock::new()), &SeededRng::new(1));
        made.err().expect("refused").to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    let broken = words(&folder, "reject a\nb\n");
    assert!(refused(&broken).contains("line 2"), "{}", refused(&broken));
    std::fs::remove_file(folder.path().join("words.txt")).unwrap();
    assert!(refused(&broken).contains("words.txt"), "{}", refused(&broken));
    let no_secret = asking("http://127.0.0.1:1/".to_owned(), Some(Path::new("nowhere")));
    assert!(refused(&hooked(no_secret)).contains("nowhere"));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let https = asking("https://localhost:1/".to_owned(), Some(&secret));
    let grpcs = asking("grpcs://localhost:1".to_owned(), None);
    for hook in [https, grpcs.clone()] {
        let no_ca = HookConfig { ca_file: Some(secret.clone()), ..hook };
        assert!(refused(&hooked(no_ca)).contains("not a PEM with certificates"));
    }
    let away = HookConfig { ca_file: Some(folder.path().join("away.pem")), ..grpcs };
    assert!(refused(&hooked(away)).contains("away.pem"));
    let no_host = refused(&hooked(asking("grpc://".to_owned(), None)));
    assert!(no_host.starts_with("checks.hook.url: "), "{no_host}");
    let codes = [ErrorCode::Filtered, ErrorCode::HookRefused, ErrorCode::KindNotAllowed];
    assert!(codes.iter().all(|code| code.is_final()));
}

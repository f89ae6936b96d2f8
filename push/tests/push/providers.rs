//! One attempt at a time.

use std::time::Duration;

use futures::future::join_all;
use tidemark_push::{BuildError, Hint, Outcome, Providers, PushConfig};
use tidemark_push_sim::{Counted, Credentials, Fault, Service};
use tidemark_types::{DeviceId, UnixMs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bench::{ALL, Bench, hint};

#[tokio::test]
async fn every_service_takes_our_push_and_the_device_reads_the_hint() {
    let bench = Bench::start().await;
    for (name, service) in ALL {
        let (target, known_as) = bench.target(service);
        assert_eq!(bench.send(&hint(name, &target, 7)).await, Outcome::Accepted, "{name}");
        let received = bench.sim.received(service);
        assert_eq!(received.len(), 1, "{name}");
        assert_eq!(received[0].target, known_as);
        let body = &received[0].body;
        assert!(body.contains("ann") && body.contains('7'), "{name}: {body}");
    }
}

#[tokio::test]
async fn what_can_be_shown_is_shown() {
    let bench = Bench::with(|text| {
        text.replace("kind = \"apns\"", "kind = \"apns\"\nalert = \"<News>\"")
            .replace("kind = \"wns\"", "kind = \"wns\"\ntoast = \"<News>\"")
            .replace("kind = \"mpns\"", "kind = \"mpns\"\ntoast = \"<News>\"")
    })
    .await;
    for (name, service) in [ALL[0], ALL[2], ALL[4]] {
        let (target, _) = bench.target(service);
        assert_eq!(bench.send(&hint(name, &target, 7)).await, Outcome::Accepted, "{name}");
        let body = bench.sim.received(service).remove(0).body;
        assert!(body.contains("News"), "{name}: {body}");
    }
}

#[tokio::test]
async fn every_service_says_that_a_token_is_dead() {
    let bench = Bench::start().await;
    for (name, service) in ALL {
        let (target, known_as) = bench.target(service);
        bench.sim.kill(service, &known_as, 1_700_000_000_123);
        // Only Apple says since when.
        let since = (service == Service::Apns).then_some(UnixMs::new(1_700_000_000_123));
        let outcome = bench.send(&hint(name, &target, 7)).await;
        assert_eq!(outcome, Outcome::TokenDead { since }, "{name}");
    }
}

#[tokio::test]
async fn a_service_that_is_busy_says_when_to_come_back() {
    let bench = Bench::start().await;
    for (name, service) in ALL {
        let (target, _) = bench.target(service);
        let busy = Fault::new(service, 503, "");
        bench.sim.fail(Fault { retry_after: Some(77), ..busy });
        let outcome = bench.send(&hint(name, &target, 7)).await;
        let Outcome::Retry { after, .. } = outcome else { panic!("{name}: {outcome:?}") };
        assert_eq!(after, Some(Duration::from_secs(77)), "{name}");
        assert_eq!(bench.send(&hint(name, &target, 7)).await, Outcome::Accepted, "{name}");
    }
}

#[tokio::test]
async fn the_vendors_own_words_are_understood() {
    let bench = Bench::start().await;
    for (service, status, reason, label) in [
        (Service::Apns, 429, "TooManyRequests", "retry"),
        (Service::Apns, 400, "DeviceTokenNotForTopic", "token_dead"),
        (Service::Apns, 403, "Forbidden", "auth_broken"),
        (Service::Fcm, 429, "QUOTA_EXCEEDED", "retry"),
        (Service::Fcm, 403, "SENDER_ID_MISMATCH", "token_dead"),
        (Service::Fcm, 401, "THIRD_PARTY_AUTH_ERROR", "auth_broken"),
        (Service::Wns, 200, "channelthrottled", "retry"),
        (Service::Wns, 200, "dropped", "retry"),
        (Service::Wns, 406, "throttled", "retry"),
        (Service::Wns, 410, "Domain Blocked", "auth_broken"),
        (Service::Mpns, 200, "QueueFull", "retry"),
        (Service::Mpns, 412, "Dropped", "retry"),
        (Service::BbPush, 200, "4001", "retry"),
        (Service::BbPush, 200, "2007", "accepted"),
        (Service::WebPush, 429, "", "retry"),
        (Service::WebPush, 307, "", "reject"),
        (Service::Webhook, 401, "", "auth_broken"),
    ] {
        let name = ALL.iter().find(|(_, other)| *other == service).expect("it is one of all").0;
        let (target, _) = bench.target(service);
        bench.sim.fail(Fault::new(service, status, reason));
        let outcome = bench.send(&hint(name, &target, 7)).await;
        assert_eq!(outcome.label(), label, "{name} {status} {reason}: {outcome:?}");
    }
}

#[tokio::test]
async fn apple_sees_one_id_for_all_attempts_at_a_hint_and_one_collapse_id_for_a_user() {
    let bench = Bench::start().await;
    let (target, _) = bench.target(Service::Apns);
    for head in [7, 7, 8] {
        assert_eq!(bench.send(&hint("apns", &target, head)).await, Outcome::Accepted);
    }
    let received = bench.sim.received(Service::Apns);
    let header = |n: usize, name: &str| received[n].headers[name].clone();
    assert_eq!(header(0, "apns-id"), header(1, "apns-id"));
    assert_ne!(header(0, "apns-id"), header(2, "apns-id"));
    assert_eq!(header(0, "apns-collapse-id"), header(2, "apns-collapse-id"));
}

#[tokio::test]
async fn apples_token_is_renewed_in_time_and_not_too_often() {
    for counted in [Counted::Made, Counted::Came, Counted::Either] {
        let bench = Bench::counting(counted).await;
        let (target, _) = bench.target(Service::Apns);
        // More than an hour, so that one token would not do, and in steps below what allows two.
        for minutes in 0..14 {
            let outcome = bench.send(&hint("apns", &target, 7)).await;
            assert_eq!(outcome, Outcome::Accepted, "{counted:?} after {} minutes", 10 * minutes);
            bench.advance(Duration::from_secs(10 * 60));
        }
    }
}

/// Apple counts the tokens of a key, whoever makes them, and perhaps by when they come: the first one may
/// come at any time before the next one is due.
#[tokio::test]
async fn gateways_that_start_all_the_time_are_one_sender_to_apple() {
    for counted in [Counted::Made, Counted::Came, Counted::Either] {
        for first in [30, 39] {
            let bench = Bench::counting(counted).await;
            bench.past_apples_mark(first);
            let (target, _) = bench.target(Service::Apns);
            for minutes in (0..80).step_by(5) {
                for gateway in [&bench.providers, &bench.another()] {
                    let apns = gateway.get("apns").expect("it is configured");
                    let outcome = apns.send(&hint("apns", &target, 7)).await;
                    let after = format!("{counted:?} {minutes} minutes after {first}");
                    assert_eq!(outcome, Outcome::Accepted, "{after}");
                }
                bench.advance(Duration::from_secs(5 * 60));
            }
        }
    }
}

/// Of another sender with the key nothing is known, and no token that Apple would take.
#[tokio::test]
async fn a_token_too_many_without_one_before_waits_until_apple_takes_it() {
    let bench = Bench::start().await;
    bench.past_apples_mark(21);
    let (target, _) = bench.target(Service::Apns);
    let too_many = Fault::new(Service::Apns, 429, "TooManyProviderTokenUpdates");
    bench.sim.fail(too_many);
    let outcome = bench.send(&hint("apns", &target, 7)).await;
    let Outcome::Retry { after, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(after, Some(Duration::from_secs(20 * 60)));
    assert_eq!(bench.send(&hint("apns", &target, 7)).await, Outcome::Accepted);
}

#[tokio::test]
async fn a_token_that_apple_calls_expired_is_renewed_once() {
    let bench = Bench::start().await;
    bench.past_apples_mark(1);
    let (target, _) = bench.target(Service::Apns);
    assert_eq!(bench.send(&hint("apns", &target, 7)).await, Outcome::Accepted);
    bench.advance(Duration::from_secs(30 * 60));
    bench.sim.fail(Fault::new(Service::Apns, 403, "ExpiredProviderToken"));
    assert_eq!(bench.send(&hint("apns", &target, 8)).await, Outcome::Accepted);
    // The next one would be too young to be renewed: a clock is wrong, and a human must look.
    bench.sim.fail(Fault::new(Service::Apns, 403, "ExpiredProviderToken"));
    let outcome = bench.send(&hint("apns", &target, 9)).await;
    assert_eq!(outcome.label(), "auth_broken");
    assert_eq!(bench.sim.received(Service::Apns).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn apple_gets_one_stream_until_it_knows_us_and_then_many() {
    let bench = Bench::start().await;
    let send = |n: u32| {
        let hint = hint("apns", &format!("{n:064x}"), 7);
        let bench = &bench;
        async move { bench.send(&hint).await }
    };
    for round in 0..3 {
        let outcomes = join_all((0..50).map(send)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted), "{outcomes:?}");
        assert_eq!(bench.sim.received(Service::Apns).len(), 50 * (round + 1));
    }
    assert_eq!(bench.sim.refused_streams(), 0);
}

#[tokio::test]
async fn a_connection_that_apple_closes_is_made_again() {
    let bench = Bench::start().await;
    let (target, _) = bench.target(Service::Apns);
    for head in 1..=5 {
        let shutdown = Fault::new(Service::Apns, 503, "Shutdown");
        bench.sim.fail(Fault { close: true, ..shutdown });
        assert_eq!(bench.send(&hint("apns", &target, head)).await.label(), "retry");
        assert_eq!(bench.send(&hint("apns", &target, head)).await, Outcome::Accepted);
    }
}

#[tokio::test]
async fn tokens_of_google_and_microsoft_are_got_again_when_they_are_refused() {
    let bench = Bench::start().await;
    for (name, service) in [ALL[1], ALL[2]] {
        let (target, _) = bench.target(service);
        for _ in 0..3 {
            assert_eq!(bench.send(&hint(name, &target, 7)).await, Outcome::Accepted, "{name}");
            bench.sim.revoke_bearers();
        }
        bench.advance(Duration::from_secs(2 * 24 * 3_600));
        assert_eq!(bench.send(&hint(name, &target, 7)).await, Outcome::Accepted, "{name}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_a_matter_for_a_human() {
    let bench = Bench::with(|text| {
        text.replace("SIMTEAM001", "OTHERTEAM1")
            .replace("client_id = \"ms-app", "client_id = \"else-ms-app")
            .replace("application_id = \"1234", "application_id = \"4321")
    })
    .await;
    for (name, service) in [ALL[0], ALL[2], ALL[5]] {
        let (target, _) = bench.target(service);
        let outcome = bench.send(&hint(name, &target, 7)).await;
        assert_eq!(outcome.label(), "auth_broken", "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_reason_to_come_back() {
    let bench = Bench::start().await;
    let hints = ALL.map(|(name, service)| hint(name, &bench.target(service).0, 7));
    let Bench { sim, providers, .. } = bench;
    drop(sim);
    for hint in hints {
        let provider = providers.get(&hint.provider).expect("it is configured");
        // What was accepted while the simulator stopped may still be answered.
        tokio::task::yield_now().await;
        let outcome = provider.send(&hint).await;
        assert_eq!(outcome.label(), "retry", "{}: {outcome:?}", hint.provider);
    }
}

#[tokio::test]
async fn a_client_can_name_no_server_but_those_that_are_allowed() {
    let bench = Bench::start().await;
    let http = bench.sim.http();
    let subscription = bench.target(Service::WebPush).0;
    let elsewhere = |to: &str| subscription.replace(&http.to_string(), to);
    for (provider, target) in [
        ("wns", format!("http://127.0.0.1:{}/wns/channel/abc", http.port() ^ 1)),
        ("wns", "https://example.com/wns/channel/abc".to_owned()),
        ("mpns", "https://example.com/mpns/channel/abc".to_owned()),
        ("webpush", elsewhere("127.0.0.1:1")),
        ("webpush", elsewhere("192.168.0.1")),
        ("apns", "../../admin".to_owned()),
        ("fcm", "a/b".to_owned()),
        ("bbpush", "push_all".to_owned()),
    ] {
        assert!(bench.providers.check(provider, &target).is_err(), "{provider} {target}");
        let outcome = match provider {
            // A target that a check let through once: nothing is called either.
            "wns" | "mpns" | "webpush" => {
                let hint = Hint {
                    device: DeviceId::new("d").expect("legal"),
                    ..hint(provider, &target, 7)
                };
                bench.providers.get(provider).expect("configured").send(&hint).await
            }
            _ => continue,
        };
        assert_eq!(outcome.label(), "reject", "{provider} {target}: {outcome:?}");
    }
    let unknown = bench.providers.check("pigeon", "x").expect_err("unknown");
    assert_eq!(unknown.to_string(), "no push provider is called \"pigeon\"");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let other = listener.local_addr().expect("it listens");
    let bench = Bench::with(|text| {
        let origins = format!("origins = [\"http://{other}\", ");
        text.replace("origins = [", &origins)
    })
    .await;
    let there = bench.sim.http();
    let redirects = tokio::spawn(async move {
        let mut asked = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.expect("a request");
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).expect("a path").to_owned();
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{there}{path}\r\n\
                 content-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.expect("written");
            // To close with something unread would break the connection before the answer is read.
            stream.read_to_end(&mut Vec::new()).await.expect("the client closes");
            asked += 1;
            if asked == 3 {
                break;
            }
        }
    });
    for service in [Service::Wns, Service::WebPush, Service::Mpns] {
        let name = ALL.iter().find(|(_, other)| *other == service).expect("it is one of all").0;
        let (target, _) = bench.target(service);
        assert_eq!(bench.send(&hint(name, &target, 7)).await, Outcome::Accepted, "{name}");
        let elsewhere = target.replace(&there.to_string(), &other.to_string());
        let outcome = bench.send(&hint(name, &elsewhere, 8)).await;
        assert_eq!(outcome.label(), "reject", "{name}: {outcome:?}");
        assert_eq!(bench.sim.received(service).len(), 1, "{name}");
    }
    redirects.await.expect("each was asked once");
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_not_talked_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("ca.pem");
    let authority = Credentials::new().expect("keys");
    std::fs::write(&other, authority.ca_pem()).expect("written");
    let bench = Bench::with(|text| {
        let trusts = |line: &str| line.starts_with("tls = { ca = ");
        assert_eq!(text.lines().filter(|line| trusts(line)).count(), 1);
        let other = format!("tls = {{ ca = {:?} }}", other.display().to_string());
        let lines = text.lines().map(|line| if trusts(line) { other.as_str() } else { line });
        lines.map(|line| format!("{line}\n")).collect()
    })
    .await;
    let (target, _) = bench.target(Service::Apns);
    let outcome = bench.send(&hint("apns", &target, 7)).await;
    assert_eq!(outcome.label(), "retry", "{outcome:?}");
    assert_eq!(bench.sim.received(Service::Apns), []);
}

#[test]
fn keys_that_are_none_are_refused_when_the_providers_are_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, "not a key").expect("written");
    let path = path.display();
    let kinds = [
        format!(
            "kind = \"apns\"\nkey = \"{path}\"\nkey_id = \"ABC123DEFG\"\nteam_id = \"DEF123GHIJ\"\ntopic = \"t\""
        ),
        format!("kind = \"fcm\"\nservice_account = \"{path}\""),
        format!("kind = \"webpush\"\nvapid_key = \"{path}\"\nsubject = \"mailto:a@b\""),
        format!("kind = \"webhook\"\nendpoint = \"https://example.com\"\nsecrets = \"{path}\""),
        format!(
            "kind = \"webhook\"\nendpoint = \"https://example.com\"\nsecrets = \"{path}.none\""
        ),
    ];
    for kind in kinds {
        let config: PushConfig = toml::from_str(&format!("[providers.a]\n{kind}")).expect("TOML");
        let clock: std::sync::Arc<dyn tidemark_env::Clock> =
            std::sync::Arc::new(tidemark_env::SystemClock::new());
        let rng: std::sync::Arc<dyn tidemark_env::Rng> =
            std::sync::Arc::new(tidemark_env::SystemRng);
        let refused = Providers::build(&config, &clock, &rng).err().expect("refused");
        let by_name = matches!(refused, BuildError::NotAKey { .. } | BuildError::Io { .. });
        assert!(by_name, "{kind}: {refused}");
    }
}

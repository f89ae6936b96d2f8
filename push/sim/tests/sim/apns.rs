//! Apple's rules.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Request};
use serde_json::json;
use tidemark_push_sim::{Counted, Fault, Service, Sim, SimConfig};
use tokio::net::TcpStream;

use crate::raw::{Raw, client, es256, now};

const DEVICE: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

async fn sim() -> Sim {
    Sim::start(SimConfig::default()).await.expect("it starts")
}

fn token(sim: &Sim, iat: u64) -> String {
    let credentials = sim.credentials();
    let header = json!({ "alg": "ES256", "kid": credentials.key_id });
    let claims = json!({ "iss": credentials.team_id, "iat": iat });
    es256(&credentials.apns_key().expect("a key"), &header, &claims)
}

fn good(sim: &Sim, token: &str) -> Raw {
    let headers = [
        ("authorization", &*format!("bearer {token}")),
        ("apns-id", "123e4567-e89b-12d3-a456-42665544000a"),
        ("apns-topic", &*sim.credentials().topic),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-expiration", "1800000000"),
        ("apns-collapse-id", "conversation"),
    ];
    let url = format!("https://{}/3/device/{DEVICE}", sim.apns());
    Raw::post(url, &headers, r#"{"aps":{"alert":"hello"}}"#)
}

#[tokio::test]
async fn a_good_request_is_taken_and_answered_with_its_id() {
    let sim = sim().await;
    let client = client(&sim, true);
    let answer = good(&sim, &token(&sim, now())).send(&client).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("apns-id"), "123e4567-e89b-12d3-a456-42665544000a");
    let received = sim.received(Service::Apns);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].target, DEVICE);
    assert_eq!(received[0].headers["apns-collapse-id"], "conversation");
    assert!(!received[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn each_rule_refuses_what_breaks_it() {
    let sim = sim().await;
    let client = client(&sim, true);
    let good = good(&sim, &token(&sim, now()));
    let g = || good.clone();
    let long = "c".repeat(65);
    let cases = [
        (g().twice("apns-priority", "5"), 400, "DuplicateHeaders"),
        (g().with("apns-id", "123e4567e89b12d3a45642665544000a"), 400, "BadMessageId"),
        (g().method(Method::PUT), 405, "MethodNotAllowed"),
        (g().without("apns-topic"), 400, "MissingTopic"),
        (g().with("apns-topic", "com.other"), 400, "TopicDisallowed"),
        (g().with("apns-collapse-id", &long), 400, "BadCollapseId"),
        (g().without("apns-push-type"), 400, "InvalidPushType"),
        (g().with("apns-push-type", "shout"), 400, "InvalidPushType"),
        (g().with("apns-push-type", "background"), 400, "BadPriority"),
        (g().with("apns-priority", "7"), 400, "BadPriority"),
        (g().with("apns-expiration", "soon"), 400, "BadExpirationDate"),
        (g().to("/3/device/", "/4/device/"), 404, "BadPath"),
        (g().to(DEVICE, ""), 400, "MissingDeviceToken"),
        (g().to(DEVICE, "00fc"), 400, "BadDeviceToken"),
        (g().to("00fc", "00fg"), 400, "BadDeviceToken"),
        (g().without("authorization"), 403, "MissingProviderToken"),
        (g().with("authorization", "basic abc"), 403, "MissingProviderToken"),
        (g().with("authorization", "bearer abc"), 403, "InvalidProviderToken"),
        (g().body(""), 400, "PayloadEmpty"),
        (g().body("x".repeat(4097)), 413, "PayloadTooLarge"),
    ];
    for (request, status, reason) in cases {
        let answer = request.send(&client).await;
        assert_eq!((answer.status, answer.json()), (status, json!({ "reason": reason })));
    }
    assert_eq!(sim.received(Service::Apns), []);
    assert_eq!(g().body("x".repeat(4096)).send(&client).await.status, 200, "it is not too large");
    assert_eq!(g().with("apns-collapse-id", &long[1..]).send(&client).await.status, 200);
}

#[tokio::test]
async fn a_token_is_signed_by_the_key_for_the_team_and_young() {
    let sim = sim().await;
    let client = client(&sim, true);
    let credentials = sim.credentials();
    let (own, other) = (credentials.apns_key(), credentials.vapid_key());
    let (own, other) = (own.expect("a key"), other.expect("a key"));
    let made = |key: &str, kid: &str, alg: &str, iss: &str, iat: u64| {
        es256(key, &json!({ "alg": alg, "kid": kid }), &json!({ "iss": iss, "iat": iat }))
    };
    let (kid, iss) = (credentials.key_id.as_str(), credentials.team_id.as_str());
    for (token, reason) in [
        (made(&other, kid, "ES256", iss, now()), "InvalidProviderToken"),
        (made(&own, "OTHER", "ES256", iss, now()), "InvalidProviderToken"),
        (made(&own, kid, "none", iss, now()), "InvalidProviderToken"),
        (made(&own, kid, "ES256", "OTHER", now()), "InvalidProviderToken"),
        (made(&own, kid, "ES256", iss, now() + 3_600), "InvalidProviderToken"),
        (made(&own, kid, "ES256", iss, now() - 3_700), "ExpiredProviderToken"),
    ] {
        let answer = good(&sim, &token).send(&client).await;
        assert_eq!((answer.status, answer.json()), (403, json!({ "reason": reason })));
    }
    let first = token(&sim, now());
    assert_eq!(good(&sim, &first).send(&client).await.status, 200);
    sim.advance(Duration::from_secs(3_700));
    let answer = good(&sim, &first).send(&client).await;
    assert_eq!(answer.json(), json!({ "reason": "ExpiredProviderToken" }));
}

/// Whoever makes another one, on whichever connection.
#[tokio::test]
async fn tokens_change_no_more_often_than_every_20_minutes_by_either_time() {
    // By when each is made, after the first one, by how much it comes later than the one before, and who
    // refuses it.
    let cases = [
        (-1_300, 0, [false, true, true]),
        (-1, 1_300, [true, false, true]),
        (1_190, 1_300, [true, false, true]),
        (1_300, 1_300, [false, false, false]),
    ];
    let all = [Counted::Made, Counted::Came, Counted::Either];
    for (which, counted) in all.into_iter().enumerate() {
        for (after, later, refused) in cases {
            let config = SimConfig { counted, ..SimConfig::default() };
            let sim = Sim::start(config).await.expect("it starts");
            let made = now();
            let first = token(&sim, made);
            assert_eq!(good(&sim, &first).send(&client(&sim, true)).await.status, 200);
            sim.advance(Duration::from_secs(later));
            let other = token(&sim, made.saturating_add_signed(after));
            let answer = good(&sim, &other).send(&client(&sim, true)).await;
            let told = (answer.status, answer.json());
            let too_many = (429, json!({ "reason": "TooManyProviderTokenUpdates" }));
            assert_eq!(told == too_many, refused[which], "{counted:?} {after} {later}: {told:?}");
            assert_eq!(told.0 == 200, !refused[which], "{counted:?} {after} {later}: {told:?}");
            assert_eq!(good(&sim, &first).send(&client(&sim, true)).await.status, 200, "known");
        }
    }
}

#[tokio::test]
async fn a_dead_device_is_gone_since_then() {
    let sim = sim().await;
    sim.kill(Service::Apns, DEVICE, 1_700_000_000_123);
    let client = client(&sim, true);
    let answer = good(&sim, &token(&sim, now())).send(&client).await;
    assert_eq!(answer.status, 410);
    let gone = json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_123_u64 });
    assert_eq!(answer.json(), gone);
}

#[tokio::test]
async fn a_fault_is_met_as_often_as_ordered_by_what_is_valid() {
    let sim = sim().await;
    let client = client(&sim, true);
    let good = good(&sim, &token(&sim, now()));
    let busy = Fault::new(Service::Apns, 429, "TooManyRequests");
    sim.fail(Fault { count: 2, retry_after: Some(7), ..busy });
    sim.fail(Fault { close: true, ..Fault::new(Service::Apns, 503, "Shutdown") });
    let mut met = Vec::new();
    for _ in 0..5 {
        let invalid = good.clone().without("apns-topic").send(&client).await;
        assert_eq!(invalid.status, 400, "it does not use up a fault");
        let answer = good.clone().send(&client).await;
        met.push((answer.status, answer.header("retry-after")));
    }
    let seven = || "7".to_owned();
    let (none, busy) = (String::new(), [(429, seven()), (429, seven())]);
    assert_eq!(met[..2], busy);
    assert_eq!(met[2..], [(503, none.clone()), (200, none.clone()), (200, none)]);
    assert_eq!(sim.received(Service::Apns).len(), 2);
}

#[tokio::test]
async fn nothing_less_than_http_2_over_tls_is_served() {
    let sim = sim().await;
    let good = good(&sim, &token(&sim, now()));
    let send =
        |client: reqwest::Client, url: String| client.post(url).body(good.body.clone()).send();
    assert!(send(client(&sim, false), good.url.clone()).await.is_err(), "HTTP/1.1");
    let plain = good.url.replace("https://", "http://");
    assert!(send(client(&sim, true), plain).await.is_err(), "no TLS");
    assert!(good.clone().send(&client(&sim, true)).await.status == 200);
}

#[tokio::test]
async fn one_stream_at_a_time_until_a_token_was_taken() {
    let sim = sim().await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = sim.credentials().ca_pem().as_bytes().to_vec();
    let ca = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).expect("a certificate");
    roots.add(ca).expect("it is one");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(sim.apns()).await.expect("it listens");
    let name = "localhost".try_into().expect("a name");
    let stream = tls.connect(name, stream).await.expect("it is trusted");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);

    let good = good(&sim, &token(&sim, now()));
    let request = || {
        let mut request = Request::post(&good.url);
        for (name, value) in &good.headers {
            request = request.header(name, value);
        }
        request.body(()).expect("a request")
    };
    sender = sender.ready().await.expect("open");
    let (first, mut body) = sender.send_request(request(), false).expect("sent");
    sender = sender.ready().await.expect("open");
    let (second, _) = sender.send_request(request(), true).expect("sent");
    let refused = second.await.expect_err("it is one too many");
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
    body.send_data(Bytes::from(good.body.clone()), true).expect("sent");
    assert_eq!(first.await.expect("an answer").status(), 200);
    assert_eq!(sim.refused_streams(), 1);

    let mut streams = Vec::new();
    for _ in 0..10 {
        sender = sender.ready().await.expect("open");
        let (answer, mut body) = sender.send_request(request(), false).expect("sent");
        streams.push(answer);
        body.send_data(Bytes::from(good.body.clone()), true).expect("sent");
    }
    for answer in streams {
        assert_eq!(answer.await.expect("an answer").status(), 200, "now all are served");
    }
}

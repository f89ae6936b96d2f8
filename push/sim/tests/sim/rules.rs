//! The rules of all services but Apple's.

use hyper::Method;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer;
use rsa::pkcs1v15;
use rsa::signature::SignatureEncoding;
use serde_json::{Value, json};
use tidemark_push_sim::{Service, Sim, SimConfig};

use crate::raw::{Answer, Raw, bytes, client, es256, now};

async fn sim() -> Sim {
    Sim::start(SimConfig::default()).await.expect("it starts")
}

/// Each request, and how its answer begins as the closure writes it.
async fn refused(sim: &Sim, cases: Vec<(Raw, &str)>, say: impl Fn(&Answer) -> String) {
    let client = client(sim, false);
    for (n, (request, expected)) in cases.into_iter().enumerate() {
        let said = say(&request.send(&client).await);
        assert!(said.starts_with(expected), "case {n}: {said}, not {expected}");
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn rs256(pem: &str, claims: &Value) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rsa::pkcs8::DecodePrivateKey;
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(pem).expect("a key");
    let key = pkcs1v15::SigningKey::<sha2::Sha256>::new(key);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "RS256" })), part(claims));
    let signature = key.sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn assertion(sim: &Sim, change: impl Fn(&mut Value)) -> Raw {
    let account = sim.credentials().service_account(sim.http()).expect("a key");
    let account: Value = serde_json::from_str(&account).expect("JSON");
    let mut claims = json!({
        "iss": account["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": account["token_uri"],
        "iat": now(),
        "exp": now() + 3_600,
    });
    change(&mut claims);
    let token = rs256(account["private_key"].as_str().expect("a PEM"), &claims);
    let body = form(&[("grant_type", GRANT), ("assertion", &token)]);
    Raw::post(format!("http://{}/fcm/token", sim.http()), &FORM, &body)
}

#[tokio::test]
async fn google_gives_a_token_for_a_good_assertion_only() {
    let sim = sim().await;
    let mut wrong = assertion(&sim, |_| {});
    // The signature's last characters.
    let end = wrong.body.len() - 8;
    wrong.body[end..].copy_from_slice(b"AAAAAAAA");
    let cases = vec![
        (wrong, "400 invalid_grant"),
        (assertion(&sim, |c| c["iss"] = json!("else")), "400 invalid_grant"),
        (assertion(&sim, |c| c["aud"] = json!("https://else")), "400 invalid_grant"),
        (assertion(&sim, |c| c["exp"] = json!(now() - 1)), "400 invalid_grant"),
        (assertion(&sim, |c| c["exp"] = json!(now() + 3_700)), "400 invalid_grant"),
        (assertion(&sim, |c| c["scope"] = json!("else")), "400 invalid_scope"),
        (assertion(&sim, |_| {}).body(form(&[("grant_type", "x")])), "400 unsupported_grant_type"),
        (assertion(&sim, |_| {}), "200 "),
    ];
    let say = |a: &Answer| format!("{} {}", a.status, a.json()["error"].as_str().unwrap_or(""));
    refused(&sim, cases, say).await;
}

#[tokio::test]
async fn googles_rules_refuse_what_breaks_them() {
    let sim = sim().await;
    let granted = assertion(&sim, |_| {}).send(&client(&sim, false)).await.json();
    let bearer = format!("Bearer {}", granted["access_token"].as_str().expect("a token"));
    let message = json!({ "message": {
        "token": "device:1",
        "data": { "head": "7" },
        "android": { "ttl": "60s", "priority": "HIGH", "collapse_key": "c" },
    } });
    let url =
        format!("http://{}/v1/projects/{}/messages:send", sim.http(), sim.credentials().project);
    let good = Raw::post(url, &[("authorization", &bearer)], &message.to_string());
    let g = || good.clone();
    let changed = |change: fn(&mut Value)| {
        let mut message = message.clone();
        change(&mut message["message"]);
        g().body(message.to_string())
    };
    sim.kill(Service::Fcm, "gone", 0);
    let cases = vec![
        (g().method(Method::GET), "405"),
        (g().without("authorization"), "401"),
        (g().with("authorization", "Bearer else"), "401"),
        (g().to("sim-project", "other"), "404"),
        (g().body("{"), "400 INVALID_ARGUMENT"),
        (changed(|m| m["colour"] = json!("red")), "400 INVALID_ARGUMENT message"),
        (changed(|m| m["data"] = json!({ "head": 7 })), "400 INVALID_ARGUMENT message.data"),
        (changed(|m| m["data"] = json!({ "from": "x" })), "400 INVALID_ARGUMENT message.data"),
        (changed(|m| m["data"] = json!({ "x": "x".repeat(4096) })), "400 INVALID_ARGUMENT message"),
        (
            changed(|m| m["android"]["ttl"] = json!("2419201s")),
            "400 INVALID_ARGUMENT message.android.ttl",
        ),
        (changed(|m| m["android"]["ttl"] = json!(60)), "400 INVALID_ARGUMENT message.android.ttl"),
        (
            changed(|m| m["android"]["priority"] = json!("high")),
            "400 INVALID_ARGUMENT message.android.priority",
        ),
        (changed(|m| m["token"] = json!("a b")), "400 INVALID_ARGUMENT message.token"),
        (changed(|m| m["token"] = json!("gone")), "404 UNREGISTERED"),
        (g(), "200"),
    ];
    refused(&sim, cases, |answer| {
        let error = answer.json()["error"].take();
        let details = error["details"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let code = details.first().map(|d| text(&d["errorCode"])).unwrap_or_default();
        let field = details.get(1).map(|d| text(&d["fieldViolations"][0]["field"]));
        format!("{} {code} {}", answer.status, field.unwrap_or_default())
    })
    .await;
    assert_eq!(sim.received(Service::Fcm).len(), 1);
}

/// A grant of Microsoft's token endpoint; what is `None` is right.
fn wns_grant(sim: &Sim, wrong: [Option<&str>; 4]) -> Raw {
    let folder = tempfile::tempdir().expect("a folder");
    sim.write(folder.path()).expect("written");
    let secret = std::fs::read_to_string(folder.path().join("wns.secret")).expect("a secret");
    let id = sim.credentials().client_id.clone();
    let right = ["client_credentials", &id, &secret, "https://wns.windows.com/.default"];
    let names = ["grant_type", "client_id", "client_secret", "scope"];
    let fields: Vec<_> = (0..4).map(|n| (names[n], wrong[n].unwrap_or(right[n]))).collect();
    Raw::post(format!("http://{}/wns/token", sim.http()), &FORM, &form(&fields))
}

#[tokio::test]
async fn microsoft_gives_a_token_to_whom_it_knows_only() {
    let sim = sim().await;
    let cases = vec![
        (wns_grant(&sim, [Some("password"), None, None, None]), "400 unsupported_grant_type"),
        (wns_grant(&sim, [None, Some("else"), None, None]), "400 invalid_client"),
        (wns_grant(&sim, [None, None, Some("else"), None]), "400 invalid_client"),
        (wns_grant(&sim, [None, None, None, Some("else")]), "400 invalid_scope"),
        (wns_grant(&sim, [None, None, None, Some("notify.windows.com")]), "200 "),
        (wns_grant(&sim, [None; 4]), "200 "),
    ];
    let say = |a: &Answer| format!("{} {}", a.status, a.json()["error"].as_str().unwrap_or(""));
    refused(&sim, cases, say).await;
}

#[tokio::test]
async fn microsofts_rules_refuse_what_breaks_them() {
    let sim = sim().await;
    let granted = wns_grant(&sim, [None; 4]).send(&client(&sim, false)).await.json();
    let bearer = format!("Bearer {}", granted["access_token"].as_str().expect("a token"));
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-wns-type", "wns/raw"),
        ("content-type", "application/octet-stream"),
        ("x-wns-tag", "sixteen-letters."),
        ("x-wns-ttl", "60"),
        ("x-wns-cache-policy", "cache"),
        ("x-wns-requestforstatus", "true"),
    ];
    let good = Raw::post(format!("http://{}/wns/channel/abc", sim.http()), &headers, "wake");
    let g = || good.clone();
    sim.kill(Service::Wns, "gone", 0);
    let cases = vec![
        (g().method(Method::PUT), "405"),
        (g().without("authorization"), "401"),
        (g().with("authorization", "Bearer else"), "401"),
        (g().with("expect", "x"), "400 chunks"),
        (g().without("x-wns-type"), "400 X-WNS-Type"),
        (g().with("x-wns-type", "wns/song"), "400 X-WNS-Type"),
        (g().with("content-type", "text/xml"), "400 Content-Type"),
        (g().with("x-wns-type", "wns/toast"), "400 Content-Type"),
        (g().with("x-wns-tag", "seventeen-letters"), "400 X-WNS-Tag"),
        (g().with("x-wns-cache-policy", "keep"), "400 X-WNS-Cache-Policy"),
        (g().with("x-wns-ttl", "long"), "400 X-WNS-TTL"),
        (g().to("/abc", "/"), "404"),
        (g().to("/abc", "/gone"), "410"),
        (g().body("x".repeat(5_001)), "413"),
        (g().body("x".repeat(5_000)), "200 received connected"),
    ];
    refused(&sim, cases, |answer| {
        let header = |name| answer.header(name);
        let (status, device) = (header("x-wns-status"), header("x-wns-deviceconnectionstatus"));
        match answer.status {
            200 => format!("200 {status} {device}"),
            other => format!("{other} {}", header("x-wns-error-description")),
        }
    })
    .await;
    assert_eq!(sim.received(Service::Wns).len(), 1);
    for (length, body, why) in [
        ("transfer-encoding: chunked\r\n", "4\r\nwake\r\n0\r\n\r\n", "chunks and expectations"),
        ("", "", "there is no Content-Length"),
    ] {
        let mut request = "POST /wns/channel/abc HTTP/1.1\r\nhost: x\r\n".to_owned();
        for (name, value) in &headers {
            request += &format!("{name}: {value}\r\n");
        }
        let answer =
            bytes(&sim, &format!("{request}connection: close\r\n{length}\r\n{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(why), "{answer}");
    }
}

#[tokio::test]
async fn web_pushs_rules_refuse_what_breaks_them() {
    let sim = sim().await;
    let credentials = sim.credentials();
    let (pem, public) = (credentials.vapid_key().expect("a key"), credentials.vapid_public());
    let to_us = sim.subscribe(Some(public.clone()));
    let to_other = sim.subscribe(Some("else".to_owned()));
    let claims = |aud: &str, exp: u64, sub: &str| json!({ "aud": aud, "exp": exp, "sub": sub });
    let origin = format!("http://{}", sim.http());
    let signed = |claims: &Value| {
        let token = es256(&pem, &json!({ "alg": "ES256", "typ": "JWT" }), claims);
        format!("vapid t={token},k={public}")
    };
    let sub = "mailto:a@example.org";
    let us = signed(&claims(&origin, now() + 3_600, sub));
    let body = sealed(&to_us.keys["p256dh"], &to_us.keys["auth"], b"wake up\x02\0\0");
    let headers = [
        ("authorization", us.as_str()),
        ("ttl", "60"),
        ("urgency", "high"),
        ("topic", "0123456789abcdef0123456789abcdef"),
        ("content-encoding", "aes128gcm"),
    ];
    let good = Raw::post(to_us.endpoint.clone(), &headers, "").body(body.clone());
    let g = || good.clone();
    let mut broken = body.clone();
    *broken.last_mut().expect("a tag") ^= 1;
    let unpadded = sealed(&to_us.keys["p256dh"], &to_us.keys["auth"], b"wake up");
    let gone = sim.subscribe(None);
    let gone_id = gone.endpoint.rsplit('/').next().expect("an id");
    sim.kill(Service::WebPush, gone_id, 0);
    let cases = vec![
        (g().method(Method::PUT), "405"),
        (g().to("/push/", "/push/0"), "404"),
        (Raw { url: gone.endpoint.clone(), ..g() }, "410"),
        (g().without("ttl"), "400 TTL"),
        (g().with("ttl", "-1"), "400 TTL"),
        (g().with("urgency", "extreme"), "400 Urgency"),
        (g().with("topic", &"t".repeat(33)), "400 Topic"),
        (g().with("topic", "not/base64url"), "400 Topic"),
        (g().without("authorization"), "401"),
        (g().with("authorization", &us.replace("k=", "k=BA")), "403 the VAPID signature"),
        (
            g().with("authorization", &signed(&claims("http://else", now() + 60, sub))),
            "403 the VAPID token is for",
        ),
        (
            g().with("authorization", &signed(&claims(&origin, now() - 60, sub))),
            "403 the VAPID token has ended",
        ),
        (
            g().with("authorization", &signed(&claims(&origin, now() + 90_000, sub))),
            "403 the VAPID token has ended",
        ),
        (
            g().with("authorization", &signed(&claims(&origin, now() + 60, "me"))),
            "403 the VAPID token names nobody",
        ),
        (Raw { url: to_other.endpoint.clone(), ..g() }, "403 the subscription is for another"),
        (g().with("content-encoding", "aesgcm"), "400 Content-Encoding"),
        (g().body("x".repeat(4_097)), "413"),
        (g().body(broken), "400 the device cannot decrypt"),
        (g().body(unpadded), "400 the device cannot decrypt"),
        (g(), "201"),
    ];
    refused(&sim, cases, |answer| format!("{} {}", answer.status, answer.body)).await;
    let received = sim.received(Service::WebPush);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, "wake up");
}

/// RFC 8291, once more: the third time in this repository, and the only one by its own hand.
fn sealed(p256dh: &str, auth: &str, text: &[u8]) -> Vec<u8> {
    use aes_gcm::aead::Aead;
    use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, Mac};
    let mac = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = <Hmac<sha2::Sha256> as Mac>::new_from_slice(key).expect("any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    };
    let theirs = URL_SAFE_NO_PAD.decode(p256dh).expect("base64url");
    let auth = URL_SAFE_NO_PAD.decode(auth).expect("base64url");
    let own = SigningKey::from_slice(&[9; 32]).expect("a key");
    let public = own.verifying_key().to_encoded_point(false);
    let to = p256::PublicKey::from_sec1_bytes(&theirs).expect("a point");
    let shared = p256::ecdh::diffie_hellman(own.as_nonzero_scalar(), to.as_affine());
    let salt = [5; 16];
    let secret = mac(&auth, &[shared.raw_secret_bytes()]);
    let input = mac(&secret, &[&b"WebPush: info\0"[..], &theirs, public.as_bytes(), &[1]]);
    let content = mac(&salt, &[&input[..]]);
    let key = mac(&content, &[&b"Content-Encoding: aes128gcm\0\x01"[..]]);
    let nonce = mac(&content, &[&b"Content-Encoding: nonce\0\x01"[..]]);
    let cipher = Aes128Gcm::new_from_slice(&key[..16]).expect("16 bytes");
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce[..12]), text).expect("short");
    [&salt[..], &[0, 0, 16, 0, 65], public.as_bytes(), &sealed].concat()
}

#[tokio::test]
async fn the_phone_services_rules_refuse_what_breaks_them() {
    let sim = sim().await;
    let headers = [
        ("x-messageid", "123e4567-e89b-12d3-a456-42665544000a"),
        ("x-windowsphone-target", "toast"),
        ("x-notificationclass", "12"),
        ("content-type", "text/xml"),
    ];
    let toast = "<?xml version=\"1.0\"?><wp:Notification xmlns:wp=\"WPNotification\"><wp:Toast/>\
                 </wp:Notification>";
    let good = Raw::post(format!("http://{}/mpns/channel/abc", sim.http()), &headers, toast);
    let g = || good.clone();
    let raw = || {
        let raw = g().without("x-windowsphone-target").with("x-notificationclass", "3");
        raw.without("content-type").body("wake")
    };
    sim.kill(Service::Mpns, "gone", 0);
    let cases = vec![
        (g().method(Method::GET), "405"),
        (g().with("x-messageid", "7"), "400"),
        (g().with("x-windowsphone-target", "tile"), "400"),
        (g().with("x-notificationclass", "3"), "400"),
        (g().without("x-notificationclass"), "400"),
        (g().without("content-type"), "400"),
        (g().body("<toast/>"), "400"),
        (g().body(toast.replace("<wp:Toast/>", &"x".repeat(3 * 1024))), "400"),
        (raw().body("x".repeat(1025)), "400"),
        (raw().body(""), "400"),
        (g().to("/abc", "/gone"), "404 Dropped Expired"),
        (raw(), "200 Received Active"),
        (g(), "200 Received Active"),
    ];
    refused(&sim, cases, |answer| {
        let header = |name| answer.header(name);
        let (status, subscription) =
            (header("x-notificationstatus"), header("x-subscriptionstatus"));
        format!("{} {status} {subscription}", answer.status)
    })
    .await;
    assert_eq!(sim.received(Service::Mpns).len(), 2);
}

#[tokio::test]
async fn paps_rules_refuse_what_breaks_them() {
    use base64::Engine;
    let sim = sim().await;
    let folder = tempfile::tempdir().expect("a folder");
    sim.write(folder.path()).expect("written");
    let password = std::fs::read_to_string(folder.path().join("bb.password")).expect("a password");
    let application = sim.credentials().application_id.clone();
    let basic = |password: &str| {
        let pair = format!("{application}:{password}");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let document = |id: &str| {
        format!(
            "--cut\r\nContent-Type: application/xml\r\n\r\n<?xml version=\"1.0\"?><pap>\
             <push-message push-id=\"{id}\" source-reference=\"{application}\" \
             deliver-before-timestamp=\"2030-01-01T00:00:00Z\">\
             <address address-value=\"2100000A\"/>\
             <quality-of-service delivery-method=\"unconfirmed\"/></push-message></pap>\r\n\
             --cut\r\nContent-Type: text/plain\r\n\r\nwake\r\n--cut--\r\n"
        )
    };
    let kind = "multipart/related; type=\"application/xml\"; boundary=cut";
    let headers = [("authorization", &*basic(&password)), ("content-type", kind)];
    let url = format!("http://{}/mss/PD_pushRequest", sim.http());
    let good = Raw::post(url, &headers, &document("1"));
    let g = || good.clone();
    let changed = |from: &str, to: &str| {
        let document = document("2");
        assert!(document.contains(from), "there is no {from}");
        g().body(document.replace(from, to))
    };
    sim.kill(Service::BbPush, "2100000D", 0);
    let cases = vec![
        (g().method(Method::PUT), "405"),
        (g().without("authorization"), "401"),
        (g().with("authorization", &basic("else")), "401"),
        (g().with("content-type", "text/xml"), "200 2000"),
        (g().with("content-type", &kind.replace("cut", "other")), "200 2000"),
        (changed("--cut--", ""), "200 2000"),
        (changed("push-id=", "pushed="), "200 2000"),
        (changed("source-reference=\"1234", "source-reference=\"9"), "200 2001"),
        (changed("2030-01-01T", "2030-01-01 "), "200 2000"),
        (changed("\"unconfirmed\"", "\"loudly\""), "200 2000"),
        (changed("2100000A", "push_all"), "200 2002"),
        (changed("2100000A", "2100000D"), "200 2002"),
        (changed("wake", &"x".repeat(8 * 1024 + 1)), "200 2000"),
        (g(), "200 1001"),
        (g(), "200 2007"),
    ];
    refused(&sim, cases, |answer| {
        let code = answer.body.split_once("code=\"").map_or("", |(_, rest)| rest);
        format!("{} {}", answer.status, code.split('"').next().unwrap_or_default())
    })
    .await;
    assert_eq!(sim.received(Service::BbPush).len(), 1);
}

#[tokio::test]
async fn a_webhook_is_signed_and_fresh() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, Mac};
    let sim = sim().await;
    let secret = sim.credentials().webhook_secret();
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").expect("its prefix"));
    let secret = secret.expect("base64");
    let signed = |at: u64, body: &str| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).expect("any length");
        mac.update(format!("msg_1.{at}.{body}").as_bytes());
        let signature = format!("v1,AAAA v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let headers = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &*at.to_string()),
            ("webhook-signature", &*signature),
        ];
        Raw::post(format!("http://{}/webhook", sim.http()), &headers, body)
    };
    let body = r#"{"data":{"target":"t"}}"#;
    sim.kill(Service::Webhook, "gone", 0);
    let cases = vec![
        (signed(now(), body).method(Method::PUT), "405"),
        (signed(now(), body).without("webhook-id"), "401"),
        (signed(now(), body).with("webhook-id", "msg_2"), "401"),
        (signed(now(), body).without("webhook-timestamp"), "401"),
        (signed(now() - 400, body), "401 the timestamp"),
        (signed(now() + 400, body), "401 the timestamp"),
        (signed(now(), body).without("webhook-signature"), "401"),
        (signed(now(), body).body("{}"), "401 no signature"),
        (signed(now(), "{}"), "400"),
        (signed(now(), r#"{"data":{"target":"gone"}}"#), "200 {\"invalid_tokens\":[\"gone\"]}"),
        (signed(now(), body), "204"),
    ];
    refused(&sim, cases, |answer| format!("{} {}", answer.status, answer.body)).await;
    assert_eq!(sim.received(Service::Webhook).len(), 1);
}

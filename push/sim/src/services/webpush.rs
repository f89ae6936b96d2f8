//! Web Push (RFC 8030), with the sender's signature (RFC 8292) and the device's decryption (RFC 8291
//! over RFC 8188).

use std::net::SocketAddr;

use aes_gcm::aead::Aead;
use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use p256::ecdsa::VerifyingKey;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{PublicKey, ecdh};
use sha2::Sha256;

use super::Judged;
use crate::http::{Call, Reply};
use crate::jwt::Jwt;
use crate::state::{Service, State, Subscriber};

/// Bytes of a body that a service must take, and that most take at most.
const BODY_BYTES_MAX: usize = 4096;

/// Seconds that a signature is good for at most.
const TOKEN_S_MAX: u64 = 24 * 3_600;

/// Characters of a topic.
const TOPIC_MAX: usize = 32;

/// Salt, record size, length of a key.
const HEADER_BYTES: usize = 16 + 4 + 1;

pub(crate) fn webpush(
    state: &State,
    at: SocketAddr,
    call: &Call,
    id: &str,
) -> Result<Judged, Reply> {
    let refuse = |status, why: &str| Err(Reply::text(status, why));
    if call.method != hyper::Method::POST {
        return refuse(405, "the method is not POST");
    }
    let subscriber = state.inner.lock().subscribers.get(id).cloned();
    let Some(subscriber) = subscriber else { return refuse(404, "there is no such subscription") };
    if state.dead(Service::WebPush, id).is_some() {
        return refuse(410, "the subscription has ended");
    }
    if call.header("ttl").is_none_or(|ttl| ttl.parse::<u32>().is_err()) {
        return refuse(400, "TTL is missing or not a number");
    }
    if !matches!(call.header("urgency"), None | Some("very-low" | "low" | "normal" | "high")) {
        return refuse(400, "Urgency is unknown");
    }
    if call.header("topic").is_some_and(|topic| !is_topic(topic)) {
        return refuse(400, "Topic is not up to 32 characters of base64url");
    }
    authorized(state, at, call.header("authorization"), subscriber.server.as_deref())
        .map_err(|(status, why)| Reply::text(status, why))?;
    if call.header("content-encoding") != Some("aes128gcm") {
        return refuse(400, "Content-Encoding is not aes128gcm");
    }
    if call.body.len() > BODY_BYTES_MAX {
        return refuse(413, "the body is too large");
    }
    // A real service cannot look inside; its device would drop it without a word.
    let Some(body) = decrypt(&call.body, &subscriber) else {
        return refuse(400, "the device cannot decrypt it");
    };
    let location = format!("http://{at}/message/{id}");
    let reply = Reply::status(201).with("location", location);
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Judged::new(id, body, reply))
}

fn is_topic(topic: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=TOPIC_MAX).contains(&topic.len()) && topic.bytes().all(plain)
}

fn authorized(
    state: &State,
    at: SocketAddr,
    header: Option<&str>,
    server: Option<&str>,
) -> Result<(), (u16, &'static str)> {
    let unsigned = (401, "there is no VAPID signature");
    let fields = header.and_then(|h| h.strip_prefix("vapid ")).ok_or(unsigned)?;
    let field = |name: &str| {
        let found = fields.split(',').find_map(|field| field.trim().strip_prefix(name));
        found.ok_or(unsigned)
    };
    let (token, key) = (field("t=")?, field("k=")?);
    let wrong = (403, "the VAPID signature is wrong");
    let point = URL_SAFE_NO_PAD.decode(key).map_err(|_| wrong)?;
    let verifying = VerifyingKey::from_sec1_bytes(&point).map_err(|_| wrong)?;
    let jwt = Jwt::parse(token).filter(|jwt| jwt.is_es256(&verifying)).ok_or(wrong)?;
    if jwt.claims["aud"] != format!("http://{at}").as_str() {
        return Err((403, "the VAPID token is for another service"));
    }
    let (expires, now) = (jwt.claims["exp"].as_u64().ok_or(wrong)?, state.now());
    if expires < now || expires > now + TOKEN_S_MAX {
        return Err((403, "the VAPID token has ended, or lives too long"));
    }
    let subject = jwt.claims["sub"].as_str().unwrap_or_default();
    if !subject.starts_with("mailto:") && !subject.starts_with("https:") {
        return Err((403, "the VAPID token names nobody"));
    }
    match server {
        Some(server) if server != key => Err((403, "the subscription is for another server")),
        _ => Ok(()),
    }
}

/// What the device reads: one record, keyed by both sides' keys and its secret.
fn decrypt(body: &[u8], to: &Subscriber) -> Option<Vec<u8>> {
    let (header, rest) = body.split_at_checked(HEADER_BYTES)?;
    let (salt, size) = (&header[..16], u32::from_be_bytes(header[16..20].try_into().ok()?));
    let (point, sealed) = rest.split_at_checked(usize::from(header[20]))?;
    if sealed.len() > usize::try_from(size).ok()? {
        // More than one record, which Web Push does not have.
        return None;
    }
    let from = PublicKey::from_sec1_bytes(point).ok()?;
    let own = to.secret.public_key().to_encoded_point(false);
    let shared = ecdh::diffie_hellman(to.secret.to_nonzero_scalar(), from.as_affine());
    let mut info = b"WebPush: info\0".to_vec();
    info.extend_from_slice(own.as_bytes());
    info.extend_from_slice(point);
    let (mut input, mut key, mut nonce) = ([0; 32], [0; 16], [0; 12]);
    let secret = Hkdf::<Sha256>::new(Some(&to.auth), shared.raw_secret_bytes());
    secret.expand(&info, &mut input).ok()?;
    let content = Hkdf::<Sha256>::new(Some(salt), &input);
    content.expand(b"Content-Encoding: aes128gcm\0", &mut key).ok()?;
    content.expand(b"Content-Encoding: nonce\0", &mut nonce).ok()?;
    let cipher = Aes128Gcm::new_from_slice(&key).ok()?;
    let mut text = cipher.decrypt(Nonce::from_slice(&nonce), sealed).ok()?;
    // Zeros, and before them what ends a last record.
    while text.last() == Some(&0) {
        text.pop();
    }
    (text.pop() == Some(2)).then_some(text)
}

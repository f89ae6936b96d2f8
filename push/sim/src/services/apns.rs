//! Apple Push Notification service, after "Sending notification requests to APNs", "Handling
//! notification responses from APNs" and "Establishing a token-based connection to APNs".

use p256::ecdsa::VerifyingKey;
use serde_json::json;
use uuid::Uuid;

use super::Judged;
use crate::credentials::random_hex;
use crate::http::{Call, Reply};
use crate::jwt::Jwt;
use crate::state::{Service, State};

/// Bytes of a payload.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// Bytes of a collapse id.
const COLLAPSE_BYTES_MAX: usize = 64;

/// Seconds that a token is good for.
const TOKEN_S: u64 = 3_600;

/// Seconds within which no more than one token is taken.
const UPDATE_S: u64 = 1_200;

/// Seconds that a sender's clock may be ahead.
const SKEW_S: u64 = 300;

const TYPES: [&str; 9] = [
    "alert",
    "background",
    "complication",
    "controls",
    "fileprovider",
    "liveactivity",
    "location",
    "mdm",
    "voip",
];

const HEADERS: [&str; 7] = [
    "authorization",
    "apns-id",
    "apns-topic",
    "apns-push-type",
    "apns-priority",
    "apns-expiration",
    "apns-collapse-id",
];

/// By which time APNs counts how often an application changes its token. Apple does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// That of which it says that it was made then.
    Made,
    /// That at which it came first.
    Came,
    /// Either: what one of them forbids is refused.
    #[default]
    Either,
}

/// A token that was taken, with both times, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    made: u64,
    came: u64,
}

impl Counted {
    /// Is one of these tokens too soon after the other?
    fn is_soon(self, one: Taken, other: Taken) -> bool {
        let made = one.made.abs_diff(other.made) < UPDATE_S;
        let came = one.came.abs_diff(other.came) < UPDATE_S;
        match self {
            Counted::Made => made,
            Counted::Came => came,
            Counted::Either => made || came,
        }
    }
}

/// The id of a notification: the sender's, or a new one.
pub(crate) fn apns_id(call: &Call) -> String {
    let given = call.header("apns-id").filter(|id| is_canonical(id)).map(str::to_owned);
    let made = || Uuid::try_parse(&random_hex()).expect("32 hex digits are one").to_string();
    given.unwrap_or_else(made)
}

/// 8-4-4-4-12 hex digits.
fn is_canonical(id: &str) -> bool {
    id.len() == 36 && Uuid::try_parse(id).is_ok()
}

pub(super) fn refusal(status: u16, reason: &str) -> Reply {
    Reply::json(status, &json!({ "reason": reason }))
}

pub(crate) fn apns(state: &State, call: &Call) -> Result<Judged, Reply> {
    let refuse = |status, reason| Err(refusal(status, reason));
    if call.twice(&HEADERS) {
        return refuse(400, "DuplicateHeaders");
    }
    if call.header("apns-id").is_some_and(|id| !is_canonical(id)) {
        return refuse(400, "BadMessageId");
    }
    if call.method != hyper::Method::POST {
        return refuse(405, "MethodNotAllowed");
    }
    match call.header("apns-topic") {
        None => return refuse(400, "MissingTopic"),
        Some(topic) if topic != state.credentials.topic => return refuse(400, "TopicDisallowed"),
        Some(_) => {}
    }
    if call.header("apns-collapse-id").is_some_and(|id| id.len() > COLLAPSE_BYTES_MAX) {
        return refuse(400, "BadCollapseId");
    }
    headers(call).map_err(|reason| refusal(400, reason))?;
    let Some(target) = call.path.strip_prefix("/3/device/") else {
        return refuse(404, "BadPath");
    };
    match target {
        "" => return refuse(400, "MissingDeviceToken"),
        target if !is_token(target) => return refuse(400, "BadDeviceToken"),
        _ => {}
    }
    token(state, call.header("authorization"))
        .map_err(|(status, reason)| refusal(status, reason))?;
    if let Some(since) = state.dead(Service::Apns, target) {
        return Err(Reply::json(410, &json!({ "reason": "Unregistered", "timestamp": since })));
    }
    match call.body.len() {
        0 => refuse(400, "PayloadEmpty"),
        1..=PAYLOAD_BYTES_MAX => Ok(Judged::new(target, call.text(), Reply::status(200))),
        _ => refuse(413, "PayloadTooLarge"),
    }
}

fn headers(call: &Call) -> Result<(), &'static str> {
    let kind = call.header("apns-push-type").filter(|kind| TYPES.contains(kind));
    let kind = kind.ok_or("InvalidPushType")?;
    match (kind, call.header("apns-priority").unwrap_or("10")) {
        // Apple calls this an error: a background push must not wake the screen.
        ("background", "5" | "1") => {}
        ("background", _) => return Err("BadPriority"),
        (_, "10" | "5" | "1") => {}
        _ => return Err("BadPriority"),
    }
    match call.header("apns-expiration").map(str::parse::<u64>) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(_)) => Err("BadExpirationDate"),
    }
}

/// Apple does not promise a length; today's have 64 digits.
fn is_token(target: &str) -> bool {
    target.len() >= 64 && target.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn token(state: &State, header: Option<&str>) -> Result<(), (u16, &'static str)> {
    let invalid = (403, "InvalidProviderToken");
    // The scheme's name is written in any case.
    let (scheme, token) = header.and_then(|header| header.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err((403, "MissingProviderToken"));
    }
    let jwt = Jwt::parse(token).ok_or(invalid)?;
    let credentials = &state.credentials;
    let key = VerifyingKey::from(credentials.apns.public_key());
    let known = jwt.header["kid"] == credentials.key_id.as_str();
    if !known || !jwt.is_es256(&key) || jwt.claims["iss"] != credentials.team_id.as_str() {
        return Err(invalid);
    }
    let (made, now) = (jwt.claims["iat"].as_u64().ok_or(invalid)?, state.now());
    if made > now + SKEW_S {
        return Err(invalid);
    }
    if now > made + TOKEN_S {
        return Err((403, "ExpiredProviderToken"));
    }
    let mut inner = state.inner.lock();
    if !inner.provider_tokens.contains_key(token) {
        let taken = Taken { made, came: now };
        if inner.provider_tokens.values().any(|other| state.counted.is_soon(taken, *other)) {
            return Err((429, "TooManyProviderTokenUpdates"));
        }
        inner.provider_tokens.insert(token.to_owned(), taken);
    }
    Ok(())
}

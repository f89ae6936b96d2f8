//! Firebase Cloud Messaging, HTTP v1, after the reference of `projects.messages` and its error codes;
//! and Google's token endpoint (RFC 7523).

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::Judged;
use crate::credentials::token_uri;
use crate::http::{Call, Reply};
use crate::jwt::Jwt;
use crate::state::{Service, State};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Seconds of a token, and of an assertion at most.
const LIFE_S: u64 = 3_600;

/// Bytes of a message's data.
const DATA_BYTES_MAX: usize = 4096;

/// Seconds that a message is kept at most: 28 days.
const TTL_S_MAX: f64 = 2_419_200.0;

pub(super) fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    let details = match code {
        "" => json!([]),
        code => json!([{ "@type": kind, "errorCode": code }]),
    };
    Reply::json(
        status,
        &json!({ "error": {
        "code": status, "message": message, "status": code, "details": details,
    } }),
    )
}

fn invalid(field: &str, description: &str) -> Reply {
    let bad = json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": field, "description": description }],
    });
    let code = json!({
        "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
        "errorCode": "INVALID_ARGUMENT",
    });
    Reply::json(
        400,
        &json!({ "error": {
        "code": 400, "message": description, "status": "INVALID_ARGUMENT", "details": [code, bad],
    } }),
    )
}

pub(crate) fn fcm(state: &State, call: &Call, project: &str) -> Result<Judged, Reply> {
    if call.method != hyper::Method::POST {
        return Err(refusal(405, "", "the method is not POST"));
    }
    if !state.bears(call.header("authorization")) {
        return Err(refusal(401, "", "the request had invalid authentication credentials"));
    }
    if project != state.credentials.project {
        return Err(refusal(404, "", "there is no such project"));
    }
    let body = call.json();
    let message = fields(&body, "", &["message", "validate_only"])?;
    let message = fields(
        message.get("message").unwrap_or(&Value::Null),
        "message",
        &["token", "data", "notification", "android", "apns", "webpush", "fcm_options"],
    )?;
    data(message.get("data"))?;
    android(message.get("android"))?;
    let target = message.get("token").and_then(Value::as_str).unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte);
    if target.is_empty() || !target.bytes().all(plain) {
        return Err(invalid("message.token", "the registration token is not valid"));
    }
    if state.dead(Service::Fcm, target).is_some() {
        return Err(refusal(404, "UNREGISTERED", "the device is not registered"));
    }
    let name = format!("projects/{project}/messages/0:1");
    let body = message.get("data").map(Value::to_string).unwrap_or_default();
    Ok(Judged::new(target, body, Reply::json(200, &json!({ "name": name }))))
}

/// An object without names that Google does not know.
fn fields<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>, Reply> {
    let object = value.as_object().ok_or_else(|| invalid(at, "it is not an object"))?;
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(invalid(at, &format!("the name {name:?} is unknown"))),
        None => Ok(object),
    }
}

fn data(data: Option<&Value>) -> Result<(), Reply> {
    let Some(data) = data else { return Ok(()) };
    let object = data.as_object().ok_or_else(|| invalid("message.data", "it is not an object"))?;
    for (name, value) in object {
        let reserved = name == "from" || ["google", "gcm"].iter().any(|r| name.starts_with(r));
        if reserved || !value.is_string() {
            return Err(invalid("message.data", "it takes texts, and no reserved name"));
        }
    }
    match data.to_string().len() {
        0..=DATA_BYTES_MAX => Ok(()),
        _ => Err(invalid("message", "the message is too big")),
    }
}

fn android(android: Option<&Value>) -> Result<(), Reply> {
    let Some(android) = android else { return Ok(()) };
    let known = [
        "collapse_key",
        "priority",
        "ttl",
        "restricted_package_name",
        "data",
        "notification",
        "fcm_options",
        "direct_boot_ok",
    ];
    let android = fields(android, "message.android", &known)?;
    let priority = android.get("priority").is_none_or(|p| p == "HIGH" || p == "NORMAL");
    if !priority {
        return Err(invalid("message.android.priority", "it is HIGH or NORMAL"));
    }
    let seconds = |ttl: &Value| ttl.as_str()?.strip_suffix('s')?.parse::<f64>().ok();
    let ttl = android
        .get("ttl")
        .is_none_or(|ttl| seconds(ttl).is_some_and(|seconds| (0.0..=TTL_S_MAX).contains(&seconds)));
    match ttl {
        true => Ok(()),
        false => Err(invalid("message.android.ttl", "it is not a duration up to four weeks")),
    }
}

/// Google's token endpoint.
pub(crate) fn fcm_token(state: &State, at: SocketAddr, call: &Call) -> Reply {
    let refuse = |error: &str, why: &str| {
        Reply::json(400, &json!({ "error": error, "error_description": why }))
    };
    let form = call.form();
    let field = |name| form.get(name).map_or("", String::as_str);
    if field("grant_type") != GRANT {
        return refuse("unsupported_grant_type", "it is not a JWT bearer grant");
    }
    let Some(jwt) = Jwt::parse(field("assertion")) else {
        return refuse("invalid_grant", "the assertion is not a JWT");
    };
    if !jwt.is_rs256(state.credentials.fcm().to_public_key()) {
        return refuse("invalid_grant", "invalid JWT signature");
    }
    let (claims, now) = (&jwt.claims, state.now());
    let number = |name: &str| claims[name].as_u64().unwrap_or_default();
    let (issued, expires) = (number("iat"), number("exp"));
    if expires < now || issued > now + 300 || expires > issued + LIFE_S {
        return refuse(
            "invalid_grant",
            "the JWT must be a short-lived token, in a reasonable timeframe",
        );
    }
    if claims["iss"] != state.credentials.client_email.as_str() {
        return refuse("invalid_grant", "the account is not known");
    }
    if claims["aud"] != token_uri(at).as_str() {
        return refuse("invalid_grant", "the audience is another");
    }
    if claims["scope"] != SCOPE {
        return refuse("invalid_scope", "the scope is another");
    }
    let token = state.grant(LIFE_S);
    Reply::json(
        200,
        &json!({ "access_token": token, "expires_in": LIFE_S, "token_type": "Bearer" }),
    )
}

//! Windows Push Notification Services, after "Push notification service request and response
//! headers"; and the two token endpoints, which here are one.

use serde_json::json;

use super::Judged;
use crate::http::{Call, Reply};
use crate::state::{Service, State};

/// Bytes of a notification.
const BYTES_MAX: usize = 5_000;

/// Characters of a tag.
const TAG_MAX: usize = 16;

/// Seconds of a token: a day, as login.live.com gives.
const LIFE_S: u64 = 86_400;

const SCOPES: [&str; 2] = ["notify.windows.com", "https://wns.windows.com/.default"];

pub(super) fn refusal(status: u16, reason: &str) -> Reply {
    let reply = Reply::status(status);
    match status {
        // What was ordered is a status of the notification.
        200 => reply.with("x-wns-status", reason),
        404 | 406 | 410 => {
            reply.with("x-wns-status", "dropped").with("x-wns-error-description", reason)
        }
        _ => reply.with("x-wns-error-description", reason),
    }
}

pub(crate) fn wns(state: &State, call: &Call, channel: &str) -> Result<Judged, Reply> {
    let refuse = |status, reason| Err(refusal(status, reason));
    if call.method != hyper::Method::POST {
        return refuse(405, "the method is not POST");
    }
    if !state.bears(call.header("authorization")) {
        return refuse(401, "the access token is missing or expired");
    }
    if call.headers.contains_key("transfer-encoding") || call.headers.contains_key("expect") {
        return refuse(400, "chunks and expectations are not supported");
    }
    if call.header("content-length").is_none() {
        return refuse(400, "there is no Content-Length");
    }
    let content = match call.header("x-wns-type") {
        Some("wns/raw") => "application/octet-stream",
        Some("wns/toast" | "wns/tile" | "wns/badge") => "text/xml",
        _ => return refuse(400, "X-WNS-Type is missing or unknown"),
    };
    if call.header("content-type") != Some(content) {
        return refuse(400, "Content-Type does not go with X-WNS-Type");
    }
    if call.header("x-wns-tag").is_some_and(|tag| tag.len() > TAG_MAX) {
        return refuse(400, "X-WNS-Tag is too long");
    }
    if !matches!(call.header("x-wns-cache-policy"), None | Some("cache" | "no-cache")) {
        return refuse(400, "X-WNS-Cache-Policy is unknown");
    }
    if call.header("x-wns-ttl").is_some_and(|ttl| ttl.parse::<u64>().is_err()) {
        return refuse(400, "X-WNS-TTL is not a number");
    }
    if channel.is_empty() {
        return refuse(404, "there is no such channel");
    }
    if state.dead(Service::Wns, channel).is_some() {
        return refuse(410, "the channel expired");
    }
    if call.body.len() > BYTES_MAX {
        return refuse(413, "the payload is too large");
    }
    let mut reply = Reply::status(200).with("x-wns-status", "received");
    if call.header("x-wns-requestforstatus") == Some("true") {
        reply = reply.with("x-wns-deviceconnectionstatus", "connected");
    }
    Ok(Judged::new(channel, call.text(), reply))
}

/// Microsoft's token endpoint.
pub(crate) fn wns_token(state: &State, call: &Call) -> Reply {
    let refuse = |error: &str| Reply::json(400, &json!({ "error": error }));
    let form = call.form();
    let field = |name| form.get(name).map_or("", String::as_str);
    if field("grant_type") != "client_credentials" {
        return refuse("unsupported_grant_type");
    }
    let credentials = &state.credentials;
    let known = field("client_id") == credentials.client_id;
    if !known || field("client_secret") != credentials.client_secret {
        return refuse("invalid_client");
    }
    if !SCOPES.contains(&field("scope")) {
        return refuse("invalid_scope");
    }
    let token = state.grant(LIFE_S);
    // As text, as login.live.com writes it.
    let life = LIFE_S.to_string();
    Reply::json(200, &json!({ "access_token": token, "expires_in": life, "token_type": "bearer" }))
}

//! A server that takes webhooks after Standard Webhooks 1.0.0.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

use super::Judged;
use crate::http::{Call, Reply};
use crate::state::{Service, State};

/// Seconds that the sender's clock may differ.
const SKEW_S: u64 = 300;

pub(crate) fn webhook(state: &State, call: &Call) -> Result<Judged, Reply> {
    let refuse = |status, why: &str| Err(Reply::text(status, why));
    if call.method != hyper::Method::POST {
        return refuse(405, "the method is not POST");
    }
    let header = |name| call.header(name).ok_or_else(|| Reply::text(401, format!("no {name}")));
    let (id, at) = (header("webhook-id")?, header("webhook-timestamp")?);
    let signatures = header("webhook-signature")?;
    if at.parse::<u64>().is_ok_and(|at| at.abs_diff(state.now()) <= SKEW_S) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&state.credentials.webhook)
            .expect("it takes any length");
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(&call.body);
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        if !signatures.split(' ').any(|given| given == signature) {
            return refuse(401, "no signature is right");
        }
    } else {
        return refuse(401, "the timestamp is too far from now");
    }
    let said = call.json();
    let Some(target) = said["data"]["target"].as_str() else {
        return refuse(400, "there is no data.target");
    };
    if state.dead(Service::Webhook, target).is_some() {
        return Err(Reply::json(200, &json!({ "invalid_tokens": [target] })));
    }
    Ok(Judged::new(target, call.text(), Reply::status(204)))
}

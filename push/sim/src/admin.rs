//! Orders to the simulator, and questions.
//!
//! ```text
//!  GET  /sim/received[?service=apns&target=…]   what each device received
//!  POST /sim/fail       {"service":"fcm","count":3,"status":429,"reason":"QUOTA_EXCEEDED","retry_after":60}
//!  POST /sim/kill       {"service":"apns","target":"…"[,"since_ms":…]}
//!  POST /sim/advance    {"seconds":3600}
//!  POST /sim/subscribe  {["server":"the key of the only one who may push"]}
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::http::{Call, Reply};
use crate::sim::subscribe;
use crate::state::{Fault, Service, State};

/// How far the clock may go ahead with one order: ten years.
const ADVANCE_S_MAX: u64 = 315_360_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    service: Service,
    target: String,
    since_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    server: Option<String>,
}

pub(crate) fn answer(state: &State, at: SocketAddr, call: &Call, what: &str) -> Reply {
    let done = Reply::json(200, &json!({}));
    let judged = match (&call.method, what) {
        (&Method::GET, "received") => received(state, call),
        (&Method::POST, "fail") => order(call).map(|fault: Fault| match state.order(fault) {
            true => done,
            false => Reply::text(409, "too many faults are ordered"),
        }),
        (&Method::POST, "kill") => order(call).map(|kill: Kill| {
            let since = kill.since_ms.unwrap_or_else(|| state.now_ms());
            state.kill(kill.service, &kill.target, since);
            done
        }),
        (&Method::POST, "advance") => order(call).map(|advance: Advance| {
            state.advance(Duration::from_secs(advance.seconds.min(ADVANCE_S_MAX)));
            done
        }),
        (&Method::POST, "subscribe") => order(call)
            .map(|order: Subscribe| Reply::json(201, &json!(subscribe(state, at, order.server)))),
        _ => Ok(Reply::status(404)),
    };
    judged.unwrap_or_else(|reply| reply)
}

fn order<T: DeserializeOwned>(call: &Call) -> Result<T, Reply> {
    serde_json::from_slice(&call.body).map_err(|error| Reply::text(400, error.to_string()))
}

fn received(state: &State, call: &Call) -> Result<Reply, Reply> {
    let (mut service, mut target) = (None, None);
    for (name, value) in url::form_urlencoded::parse(call.query.as_bytes()).into_owned() {
        match name.as_str() {
            "service" => {
                let known = serde_json::from_value::<Service>(json!(value));
                service = Some(known.map_err(|error| Reply::text(400, error.to_string()))?);
            }
            "target" => target = Some(value),
            _ => return Err(Reply::text(400, format!("{name} is unknown"))),
        }
    }
    let inner = state.inner.lock();
    let wanted = inner.received.iter().filter(|received| {
        service.is_none_or(|service| received.service == service)
            && target.as_ref().is_none_or(|target| received.target == *target)
    });
    Ok(Reply::json(200, &json!(wanted.collect::<Vec<_>>())))
}

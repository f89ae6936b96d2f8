//! BlackBerry Push, by the Push Access Protocol (OMA-TS-PAP), after BlackBerry's examples and its
//! table of response codes. The public service ended in 2022.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Judged;
use crate::http::{Call, Reply};
use crate::state::{Service, State};

/// Bytes of a notification's content.
const CONTENT_BYTES_MAX: usize = 8 * 1024;

/// The answer with this code; with another status than 200 there is no document.
pub(super) fn answer(status: u16, code: &str, push_id: &str) -> Reply {
    if status != 200 {
        return Reply::status(status);
    }
    Reply::text(
        200,
        format!(
            "<?xml version=\"1.0\"?><!DOCTYPE pap PUBLIC \"-//WAPFORUM//DTD PAP 2.1//EN\" \
             \"http://www.openmobilealliance.org/tech/DTD/pap_2.1.dtd\"><pap>\
             <push-response push-id=\"{push_id}\"><response-result code=\"{code}\" desc=\"\"/>\
             </push-response></pap>"
        ),
    )
    .with("content-type", "application/xml")
}

pub(crate) fn bbpush(state: &State, call: &Call) -> Result<Judged, Reply> {
    if call.method != hyper::Method::POST {
        return Err(Reply::status(405));
    }
    let credentials = &state.credentials;
    let pair = format!("{}:{}", credentials.application_id, credentials.password);
    let basic = format!("Basic {}", STANDARD.encode(pair));
    if call.header("authorization") != Some(&basic) {
        return Err(Reply::status(401));
    }
    let bad = || answer(200, "2000", "");
    let text = call.text();
    let [control, content] = parts(call, &text).ok_or_else(bad)?;
    let attribute = |element, name| attribute(control, element, name).ok_or_else(bad);
    let id = attribute("push-message", "push-id")?;
    let refuse = |code: &str| Err(answer(200, code, id));
    if attribute("push-message", "source-reference")? != credentials.application_id {
        return refuse("2001");
    }
    if !is_timestamp(attribute("push-message", "deliver-before-timestamp")?) {
        return refuse("2000");
    }
    let methods = ["confirmed", "preferconfirmed", "unconfirmed", "notspecified"];
    if !methods.contains(&attribute("quality-of-service", "delivery-method")?) {
        return refuse("2000");
    }
    let target = attribute("address", "address-value")?;
    if content.len() > CONTENT_BYTES_MAX {
        return refuse("2000");
    }
    let hex = target.len() >= 8 && target.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || state.dead(Service::BbPush, target).is_some() {
        return refuse("2002");
    }
    if state.inner.lock().once.contains(id) {
        return refuse("2007");
    }
    let judged = Judged::new(target, content.to_owned(), answer(200, "1001", id));
    Ok(Judged { once: Some(id.to_owned()), ..judged })
}

/// The two parts of `multipart/related` (RFC 2387), without their headers.
fn parts<'a>(call: &Call, text: &'a str) -> Option<[&'a str; 2]> {
    let kind = call.header("content-type")?;
    let mut words = kind.split(';').map(str::trim);
    if words.next()? != "multipart/related" || !kind.contains("type=\"application/xml\"") {
        return None;
    }
    let boundary = words.find_map(|word| word.strip_prefix("boundary="))?.trim_matches('"');
    let line = format!("--{boundary}");
    let mut parts = text.split(&line).skip(1);
    let mut part = |content_type: &str| {
        let (headers, body) = parts.next()?.split_once("\r\n\r\n")?;
        let right = headers.to_ascii_lowercase().contains(content_type);
        right.then(|| body.trim_end_matches("\r\n"))
    };
    let found = [part("content-type: application/xml")?, part("content-type:")?];
    (parts.next()?.trim_end() == "--").then_some(found)
}

/// An attribute of the first element of that name.
fn attribute<'a>(document: &'a str, element: &str, name: &str) -> Option<&'a str> {
    let from = document.find(&format!("<{element} "))?;
    let tag = &document[from..from + document[from..].find('>')?];
    let value = tag.split_once(&format!(" {name}=\""))?.1;
    value.split_once('"').map(|(value, _)| value)
}

/// `YYYY-MM-DDThh:mm:ssZ`
fn is_timestamp(text: &str) -> bool {
    let form = "0000-00-00T00:00:00Z";
    let fits = |(have, want): (char, char)| match want {
        '0' => have.is_ascii_digit(),
        want => have == want,
    };
    text.len() == form.len() && text.chars().zip(form.chars()).all(fits)
}

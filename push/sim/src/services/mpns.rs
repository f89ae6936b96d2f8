//! Microsoft Push Notification Service, of Windows Phone, after its "response codes" and "sending a
//! toast/raw notification". The service itself ended in 2018.

use uuid::Uuid;

use super::Judged;
use crate::http::{Call, Reply};
use crate::state::{Service, State};

/// Bytes of a toast or tile, and of a raw notification.
const XML_BYTES_MAX: usize = 3 * 1024;
const RAW_BYTES_MAX: usize = 1024;

pub(super) fn answer(status: u16, notification: &str, subscription: &str) -> Reply {
    Reply::status(status)
        .with("x-notificationstatus", notification)
        .with("x-subscriptionstatus", subscription)
        .with("x-deviceconnectionstatus", "Connected")
}

pub(crate) fn mpns(state: &State, call: &Call, channel: &str) -> Result<Judged, Reply> {
    let refuse = |status| Err(Reply::status(status));
    if call.method != hyper::Method::POST {
        return refuse(405);
    }
    if call.header("x-messageid").is_some_and(|id| Uuid::try_parse(id).is_err()) {
        return refuse(400);
    }
    // The last digit of a class says what it is for; the first, how long it may wait.
    let (class, bytes_max, xml) = match call.header("x-windowsphone-target") {
        Some("token") => ("1", XML_BYTES_MAX, true),
        Some("toast") => ("2", XML_BYTES_MAX, true),
        None => ("3", RAW_BYTES_MAX, false),
        Some(_) => return refuse(400),
    };
    let given = call.header("x-notificationclass").unwrap_or_default();
    if !["", "1", "2"].iter().any(|wait| given == format!("{wait}{class}")) {
        return refuse(400);
    }
    let text = call.text();
    if xml && (call.header("content-type") != Some("text/xml") || !is_notification(&text)) {
        return refuse(400);
    }
    if call.body.is_empty() || call.body.len() > bytes_max {
        return refuse(400);
    }
    if channel.is_empty() || state.dead(Service::Mpns, channel).is_some() {
        return Err(answer(404, "Dropped", "Expired"));
    }
    Ok(Judged::new(channel, text, answer(200, "Received", "Active")))
}

fn is_notification(text: &str) -> bool {
    let open = text.contains("<wp:Notification xmlns:wp=\"WPNotification\">");
    open && text.trim_end().ends_with("</wp:Notification>")
}

//! One file per service: its rules, each as its vendor's documents state it. A rule looks at a request
//! and says why it is refused, in the vendor's words.

mod apns;
mod bbpush;
mod fcm;
mod mpns;
mod webhook;
mod webpush;
mod wns;

pub use self::apns::Counted;
pub(crate) use self::apns::{Taken, apns, apns_id};
pub(crate) use self::bbpush::bbpush;
pub(crate) use self::fcm::{fcm, fcm_token};
pub(crate) use self::mpns::mpns;
pub(crate) use self::webhook::webhook;
pub(crate) use self::webpush::webpush;
pub(crate) use self::wns::{wns, wns_token};

use crate::http::Reply;
use crate::state::{Fault, Service};

/// A request that breaks no rule.
pub(crate) struct Judged {
    /// For which device.
    pub(crate) target: String,
    /// What it gets.
    pub(crate) body: String,
    /// An id that is taken once only.
    pub(crate) once: Option<String>,
    /// What the sender is answered.
    pub(crate) reply: Reply,
}

impl Judged {
    fn new(target: &str, body: String, reply: Reply) -> Judged {
        Judged { target: target.to_owned(), body, once: None, reply }
    }
}

/// A fault that was ordered, in the service's own form.
pub(crate) fn failed(fault: &Fault) -> Reply {
    let Fault { status, reason, retry_after, .. } = fault;
    let reply = match fault.service {
        Service::Apns => apns::refusal(*status, reason),
        Service::Fcm => fcm::refusal(*status, reason, "as ordered"),
        Service::Wns => wns::refusal(*status, reason),
        Service::Mpns => mpns::answer(*status, reason, "Active"),
        Service::BbPush => bbpush::answer(*status, reason, ""),
        Service::WebPush | Service::Webhook => Reply::text(*status, reason),
    };
    reply.with_pause(*retry_after)
}

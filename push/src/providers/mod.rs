//! One file per service: its requests, and what its answers mean.
//!
//! Each is a request, made by a function without I/O, and a table from an answer to an outcome.

mod apns;
mod bbpush;
mod fcm;
mod log;
mod mpns;
mod webhook;
mod webpush;
mod wns;

pub(crate) use self::apns::{Apns, ProviderTokens};
pub(crate) use self::bbpush::BbPush;
pub(crate) use self::fcm::Fcm;
pub(crate) use self::log::Log;
pub(crate) use self::mpns::Mpns;
pub(crate) use self::webhook::Webhook;
pub(crate) use self::webpush::WebPush;
pub(crate) use self::wns::Wns;

/// A text between two tags, or in quotes, of XML.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // XML has no way to write the others.
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

/// Seconds since the epoch.
fn seconds(clock: &dyn tidemark_env::Clock) -> u64 {
    clock.wall().get() / 1_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_text_leaves_its_place_in_xml() {
        assert_eq!(super::xml("a<b>&\"'\n"), "a&lt;b&gt;&amp;&quot;&apos;");
    }
}

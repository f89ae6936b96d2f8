//! What all providers share of HTTP: a client, where it may connect to, and what came back.

mod address;
mod bearer;
mod client;

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode};
use tidemark_env::Clock;

pub(crate) use self::address::{Guard, endpoint, origin};
pub(crate) use self::bearer::{Bearer, Grant};
pub use self::client::tls_client;
pub(crate) use self::client::{Protocol, client, client_for};
use crate::provider::Outcome;

/// Bytes of an answer that are read: an error of any service has far below 4 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a service answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Makes a call. What is not answered is to be tried again.
pub(crate) async fn call(request: RequestBuilder) -> Result<Answer, Outcome> {
    fetch(request, ANSWER_BYTES_MAX).await.map_err(|reason| Outcome::retry(None, reason))
}

/// Makes a call, and reads so many bytes of its answer at most; or why there is none.
pub(crate) async fn fetch(request: RequestBuilder, bytes_max: usize) -> Result<Answer, String> {
    // The URL may hold a token.
    let unreachable = |error: reqwest::Error| describe(&error.without_url());
    let mut response = request.send().await.map_err(unreachable)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        let room = bytes_max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == bytes_max {
            break;
        }
    }
    Ok(Answer { status, headers, body })
}

/// An error with what caused it.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Answer {
    /// When the service wants to be asked again: seconds, or a date.
    pub(crate) fn retry_after(&self, clock: &dyn Clock) -> Option<Duration> {
        let text = self.header(RETRY_AFTER.as_str())?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(at.saturating_sub(Duration::from_millis(clock.wall().get())))
    }

    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The answer in a line, for people.
    pub(crate) fn line(&self, reason: &str) -> String {
        let words: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        match words.trim() {
            "" => self.status.to_string(),
            words => format!("{}: {words}", self.status),
        }
    }

    /// The body as text, for people.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use reqwest::header::HeaderValue;
    use tidemark_env::ManualClock;
    use tidemark_types::UnixMs;

    use super::*;

    /// An answer as a table of a test writes it.
    pub(crate) fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let value = |text| HeaderValue::from_str(text).expect("a test's own constant");
        let name = reqwest::header::HeaderName::from_static;
        Answer {
            status: StatusCode::from_u16(status).expect("a test's own constant"),
            headers: headers.iter().map(|(n, text)| (name(n), value(text))).collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        // 1994-11-06 08:49:37 GMT.
        let clock = ManualClock::at(UnixMs::new(784_111_777_000));
        for (text, pause) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            let answer = answer(503, &[("retry-after", text)], "");
            assert_eq!(answer.retry_after(&clock), pause.map(Duration::from_secs), "{text}");
        }
        assert_eq!(answer(503, &[], "").retry_after(&clock), None);
    }

    #[test]
    fn a_service_cannot_write_into_the_log_what_it_likes() {
        let answer = answer(400, &[], "");
        assert_eq!(answer.line("no\nsuch\u{1b}[31m topic"), "400 Bad Request: nosuch[31m topic");
        assert_eq!(answer.line(""), "400 Bad Request");
        assert!(answer.line(&"x".repeat(9_000)).len() < 300);
    }
}

//! Apple Push Notification service: HTTP/2, tokens signed by us, one request per device.
//!
//! Apple keeps one notification per application for a device that is off, so all of ours collapse.
//! The id is the same for every attempt at a hint. Until Apple has taken a token on a connection it
//! allows one stream on it: one attempt goes ahead of all others.

mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::json;
use tidemark_env::Clock;
use tidemark_types::UnixMs;
use tokio::sync::Mutex;
use url::Url;

use self::token::ProviderToken;
pub(crate) use self::token::ProviderTokens;
use super::seconds;
use crate::build::BuildError;
use crate::config::ApnsConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError, length};
use crate::wire::{Answer, Protocol, call, client, endpoint};

/// Apple's tokens have 32 bytes today, and it says that this will change.
const TOKEN_HEX: std::ops::RangeInclusive<usize> = 64..=200;

/// After too many new tokens, where none before them serves: Apple counts them over this time.
const TOKEN_UPDATES: Duration = Duration::from_secs(20 * 60);

/// Speaks to Apple.
pub(crate) struct Apns {
    client: Client,
    endpoint: Url,
    token: Arc<ProviderToken>,
    config: ApnsConfig,
    clock: Arc<dyn Clock>,
    /// Has Apple taken a token on the connection that there is now?
    trusted: AtomicBool,
    /// Held by the attempt that goes ahead while it has not.
    first: Mutex<()>,
}

impl Apns {
    /// From a configuration that was validated.
    pub(crate) fn new(
        config: &ApnsConfig,
        tokens: &mut ProviderTokens,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        Ok(Apns {
            client: client(Protocol::Http2, &config.tls, None)?,
            endpoint: endpoint(&config.endpoint).expect("it was validated"),
            token: tokens.of(config)?,
            config: config.clone(),
            clock,
            trusted: AtomicBool::new(false),
            first: Mutex::new(()),
        })
    }

    async fn attempt(&self, hint: &Hint) -> Outcome {
        // Whoever waited here may find the connection trusted, and goes on with the others.
        let ahead = match self.trusted.load(Ordering::Acquire) {
            true => None,
            false => Some(self.first.lock().await),
        };
        let ahead = ahead.filter(|_| !self.trusted.load(Ordering::Acquire));
        let token = self.token.get(&*self.clock);
        let outcome = match self.post(hint, &token).await {
            Ok(answer) => match self.instead(&token, &answer) {
                Some(other) => self.post(hint, &other).await.map(|answer| self.judge(&answer)),
                None => Ok(self.judge(&answer)),
            },
            Err(unreachable) => Err(unreachable),
        };
        // A service that is busy may be closing the connection, and the next one is a new one.
        let lost =
            matches!(outcome, Err(_) | Ok(Outcome::AuthBroken { .. } | Outcome::Retry { .. }));
        self.trusted.store(!lost, Ordering::Release);
        drop(ahead);
        outcome.unwrap_or_else(|unreachable| unreachable)
    }

    /// The token with which an attempt is repeated that was refused for the one it had.
    fn instead(&self, token: &str, answer: &Answer) -> Option<String> {
        match reason(answer).as_str() {
            "ExpiredProviderToken" => self.token.refresh(token, &*self.clock),
            "TooManyProviderTokenUpdates" => self.token.before(token, &*self.clock),
            _ => None,
        }
    }

    async fn post(&self, hint: &Hint, token: &str) -> Result<Answer, Outcome> {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("/3/device/{}", hint.target));
        let config = &self.config;
        let (kind, priority) = match config.alert.is_empty() {
            // Apple refuses a background push of a higher priority.
            true => ("background", "5"),
            false => ("alert", "10"),
        };
        let until = seconds(&*self.clock) + config.ttl_s;
        let request = self
            .client
            .post(url)
            .header("authorization", format!("bearer {token}"))
            .header("apns-id", hint.id().to_string())
            .header("apns-topic", &config.topic)
            .header("apns-push-type", kind)
            .header("apns-priority", priority)
            .header("apns-expiration", until.to_string())
            .header("apns-collapse-id", hint.collapse())
            .header("content-type", "application/json")
            .body(payload(hint, &config.alert));
        call(request).await
    }

    fn judge(&self, answer: &Answer) -> Outcome {
        judge(answer, answer.retry_after(&*self.clock))
    }
}

impl PushProvider for Apns {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        check(target)
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(self.attempt(hint))
    }
}

fn check(target: &str) -> Result<(), TargetError> {
    length(target)?;
    let hex = target.len().is_multiple_of(2) && target.bytes().all(|b| b.is_ascii_hexdigit());
    match hex && TOKEN_HEX.contains(&target.len()) {
        true => Ok(()),
        false => Err(TargetError::Form("a device token of Apple: 64 to 200 hex digits")),
    }
}

fn payload(hint: &Hint, alert: &str) -> String {
    let wake = hint.wake();
    let aps = match alert {
        "" => json!({ "content-available": 1 }),
        // The application may replace the text by what it has fetched.
        alert => json!({ "alert": alert, "sound": "default", "mutable-content": 1 }),
    };
    json!({ "aps": aps, "tidemark": wake }).to_string()
}

fn reason(answer: &Answer) -> String {
    answer.json()["reason"].as_str().unwrap_or_default().to_owned()
}

/// Apple's table.
fn judge(answer: &Answer, after: Option<Duration>) -> Outcome {
    let reason = reason(answer);
    let line = answer.line(&reason);
    match (answer.status.as_u16(), reason.as_str()) {
        (200, _) => Outcome::Accepted,
        (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => Outcome::dead(),
        (400, "BadTopic" | "MissingTopic" | "TopicDisallowed") => Outcome::broken(line),
        (400, "IdleTimeout") => Outcome::retry(after, line),
        (403, "ExpiredProviderToken") => {
            Outcome::broken("Apple calls a good token expired: look at this machine's clock")
        }
        (403, _) => Outcome::broken(line),
        (410, _) => {
            let since = answer.json()["timestamp"].as_u64().map(UnixMs::new);
            Outcome::TokenDead { since }
        }
        (429, "TooManyProviderTokenUpdates") => Outcome::retry(Some(TOKEN_UPDATES), line),
        (429 | 500.., _) => Outcome::retry(after, line),
        _ => Outcome::reject(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::tests::hint;
    use crate::wire::tests::answer;

    #[test]
    fn a_target_is_hex_of_a_sane_length() {
        assert_eq!(check(&"0aF9".repeat(16)), Ok(()));
        for target in ["", "0a", &"0aF9".repeat(51), &"0aG9".repeat(16), &"0".repeat(65)] {
            assert!(check(target).is_err(), "{target}");
        }
        assert!(check(&format!("../{}", "0".repeat(64))).is_err());
    }

    #[test]
    fn an_answer_means_what_apple_says() {
        for (status, reason, label) in [
            (200, "", "accepted"),
            (400, "BadDeviceToken", "token_dead"),
            (400, "DeviceTokenNotForTopic", "token_dead"),
            (400, "BadTopic", "auth_broken"),
            (400, "MissingTopic", "auth_broken"),
            (400, "TopicDisallowed", "auth_broken"),
            (400, "BadCollapseId", "reject"),
            (400, "BadExpirationDate", "reject"),
            (400, "BadMessageId", "reject"),
            (400, "BadPriority", "reject"),
            (400, "InvalidPushType", "reject"),
            (400, "PayloadEmpty", "reject"),
            (400, "IdleTimeout", "retry"),
            (403, "BadCertificate", "auth_broken"),
            (403, "ExpiredProviderToken", "auth_broken"),
            (403, "Forbidden", "auth_broken"),
            (403, "InvalidProviderToken", "auth_broken"),
            (403, "MissingProviderToken", "auth_broken"),
            (404, "BadPath", "reject"),
            (405, "MethodNotAllowed", "reject"),
            (410, "ExpiredToken", "token_dead"),
            (410, "Unregistered", "token_dead"),
            (413, "PayloadTooLarge", "reject"),
            (429, "TooManyProviderTokenUpdates", "retry"),
            (429, "TooManyRequests", "retry"),
            (500, "InternalServerError", "retry"),
            (503, "ServiceUnavailable", "retry"),
            (503, "Shutdown", "retry"),
            (302, "", "reject"),
        ] {
            let answer = answer(status, &[], &json!({ "reason": reason }).to_string());
            assert_eq!(judge(&answer, None).label(), label, "{status} {reason}");
        }
    }

    #[test]
    fn a_death_has_a_date() {
        let since = |body| judge(&answer(410, &[], body), None);
        let dated = r#"{"reason":"Unregistered","timestamp":1700000000123}"#;
        assert_eq!(
            since(dated),
            Outcome::TokenDead { since: Some(UnixMs::new(1_700_000_000_123)) }
        );
        assert_eq!(since(r#"{"reason":"Unregistered"}"#), Outcome::dead());
    }

    #[test]
    fn the_largest_payload_is_far_below_apples_limit() {
        let mut hint = hint("phone", u32::MAX);
        hint.user = tidemark_types::UserId::new("\u{1}".repeat(64)).expect("legal");
        assert!(payload(&hint, &"\"".repeat(crate::config::TEXT_BYTES_MAX)).len() < 4096);
    }

    #[test]
    fn without_a_text_nothing_is_shown() {
        let hint = hint("phone", 7);
        assert_eq!(
            payload(&hint, ""),
            r#"{"aps":{"content-available":1},"tidemark":{"epoch":1,"head":7,"user":"ann"}}"#
        );
        assert!(payload(&hint, "News").contains(r#""alert":"News""#));
    }
}

//! Web Push (RFC 8030): browsers, and phones with UnifiedPush. The hint is encrypted for the device
//! (RFC 8291), the request signed by our key (RFC 8292).
//!
//! The target is a subscription as browsers give it, JSON with endpoint and keys. The endpoint is
//! the client's word: it may be any server, also one of the client's own, so that nothing it answers
//! says anything about other devices.

mod encrypt;
mod vapid;

use std::sync::Arc;
use std::time::Duration;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use p256::PublicKey;
use reqwest::Client;
use serde::Deserialize;
use tidemark_env::{Clock, Rng};
use url::Url;

use self::vapid::Vapid;
use crate::build::BuildError;
use crate::config::WebPushConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError, length};
use crate::wire::{Answer, Guard, Protocol, call, client};

/// Base64 for URLs, written without padding and read with or without it.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Hints are padded to a multiple of this, so that their length does not tell whose they are.
const PADDED: usize = 128;

/// Speaks to any push service.
pub(crate) struct WebPush {
    client: Client,
    guard: Guard,
    vapid: Vapid,
    config: WebPushConfig,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

/// A device's subscription.
struct Subscription {
    endpoint: Url,
    key: PublicKey,
    auth: [u8; 16],
}

impl WebPush {
    /// From a configuration that was validated.
    pub(crate) fn new(
        config: &WebPushConfig,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, BuildError> {
        let guard = Guard::new(&config.origins, None);
        Ok(WebPush {
            client: client(Protocol::Any, &config.tls, Some(&guard))?,
            guard,
            vapid: Vapid::read(&config.vapid_key, &config.subject)?,
            config: config.clone(),
            clock,
            rng,
        })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let refused = |error: TargetError| Outcome::reject(error.to_string());
        let to = subscription(&hint.target, &self.guard).map_err(refused)?;
        let mut text = hint.json().into_bytes();
        let length = (text.len() + 1).next_multiple_of(PADDED);
        encrypt::pad(&mut text, length);
        let body = encrypt::encrypt(&text, &to.key, &to.auth, &*self.rng);
        let request = self
            .client
            .post(to.endpoint.clone())
            .header("ttl", self.config.ttl_s.to_string())
            .header("urgency", &self.config.urgency)
            .header("topic", hint.collapse())
            .header("content-encoding", "aes128gcm")
            .header("content-type", "application/octet-stream")
            .header("authorization", self.vapid.authorization(&to.endpoint, &*self.clock))
            .body(body);
        let answer = call(request).await?;
        Ok(judge(&answer, answer.retry_after(&*self.clock)))
    }
}

impl PushProvider for WebPush {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        subscription(target, &self.guard).map(|_| ())
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async { self.attempt(hint).await.unwrap_or_else(|failed| failed) })
    }

    fn shares_fate(&self) -> bool {
        false
    }
}

fn subscription(target: &str, guard: &Guard) -> Result<Subscription, TargetError> {
    #[derive(Deserialize)]
    struct Text {
        endpoint: String,
        keys: Keys,
    }
    #[derive(Deserialize)]
    struct Keys {
        p256dh: String,
        auth: String,
    }
    length(target)?;
    let form = |what| move || TargetError::Form(what);
    let text: Text = serde_json::from_str(target)
        .map_err(|_| form("a subscription: {endpoint, keys: {p256dh, auth}}")())?;
    let key = BASE64URL.decode(&text.keys.p256dh).ok();
    let key = key.and_then(|bytes| PublicKey::from_sec1_bytes(&bytes).ok());
    let auth = BASE64URL.decode(&text.keys.auth).ok();
    Ok(Subscription {
        endpoint: guard.check(&text.endpoint)?,
        key: key.ok_or_else(form("a subscription with a P-256 key in keys.p256dh"))?,
        auth: auth
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(form("a subscription with 16 bytes in keys.auth"))?,
    })
}

/// RFC 8030's table. Whoever answers may be the client itself: nothing here stops other pushes.
fn judge(answer: &Answer, after: Option<Duration>) -> Outcome {
    let line = answer.line(&answer.text());
    match answer.status.as_u16() {
        200..=299 => Outcome::Accepted,
        404 | 410 => Outcome::dead(),
        408 | 429 | 500.. => Outcome::retry(after, line),
        // Among these redirects, which are not followed, and 403: the subscription was made for
        // another key than ours.
        _ => Outcome::reject(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::answer;

    /// The key and secret of RFC 8291, appendix A.
    const KEY: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn check(endpoint: &str, key: &str, auth: &str) -> Result<(), TargetError> {
        let keys = serde_json::json!({ "p256dh": key, "auth": auth });
        let text =
            serde_json::json!({ "endpoint": endpoint, "expirationTime": null, "keys": keys });
        subscription(&text.to_string(), &Guard::default()).map(|_| ())
    }

    #[test]
    fn a_subscription_is_a_public_endpoint_and_two_keys() {
        let endpoint = "https://push.example.com/p/abc";
        assert_eq!(check(endpoint, KEY, AUTH), Ok(()));
        assert_eq!(check(endpoint, KEY, &format!("{AUTH}==")), Ok(()), "some pad");
        for (endpoint, key, auth) in [
            ("http://push.example.com/p/abc", KEY, AUTH),
            ("https://192.168.0.1/p/abc", KEY, AUTH),
            (endpoint, "BCVx", AUTH),
            // The right length, but no point of the curve.
            (endpoint, &format!("BA{}", "A".repeat(85)), AUTH),
            (endpoint, KEY, "BTBZ"),
            (endpoint, "", ""),
        ] {
            assert!(check(endpoint, key, auth).is_err(), "{endpoint} {key} {auth}");
        }
        assert!(subscription(endpoint, &Guard::default()).is_err());
    }

    #[test]
    fn an_answer_concerns_the_one_subscription_only() {
        for (status, label) in [
            (200, "accepted"),
            (201, "accepted"),
            (202, "accepted"),
            (301, "reject"),
            (307, "reject"),
            (400, "reject"),
            (401, "reject"),
            (403, "reject"),
            (404, "token_dead"),
            (410, "token_dead"),
            (413, "reject"),
            (429, "retry"),
            (500, "retry"),
            (503, "retry"),
        ] {
            assert_eq!(judge(&answer(status, &[], ""), None).label(), label, "{status}");
        }
    }
}

//! A call to a server of the operator, signed after Standard Webhooks: for platforms that are not
//! here, and for pushes that the operator's own application server makes.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::Client;
use serde_json::json;
use sha2::Sha256;
use tidemark_env::Clock;
use url::Url;

use super::seconds;
use crate::build::{BuildError, read};
use crate::config::WebhookConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError, length};
use crate::wire::{Answer, Protocol, call, client, endpoint};

/// Secrets at once: the old one, the new one, and one for a mistake.
const SECRETS_MAX: usize = 4;

/// Bytes of a secret, as Standard Webhooks says.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Calls the operator's server.
pub(crate) struct Webhook {
    client: Client,
    endpoint: Url,
    secrets: Vec<Vec<u8>>,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// From a configuration that was validated.
    pub(crate) fn new(config: &WebhookConfig, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let bad = |reason| BuildError::not_a_key(&config.secrets, reason);
        let text = String::from_utf8(read(&config.secrets)?).map_err(|_| bad("it is not text"))?;
        let secrets = secrets(&text).map_err(bad)?;
        let client = client(Protocol::Any, &config.tls, None)?;
        let endpoint = endpoint(&config.endpoint).expect("it was validated");
        Ok(Webhook { client, endpoint, secrets, clock })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let (id, at) = (format!("msg_{}", hint.id().simple()), seconds(&*self.clock));
        let body = body(hint);
        let signature = sign(&self.secrets, &id, at, &body);
        let request = self
            .client
            .post(self.endpoint.clone())
            .header("webhook-id", id)
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", signature)
            .header("content-type", "application/json")
            .body(body);
        let answer = call(request).await?;
        Ok(judge(&answer, &hint.target, answer.retry_after(&*self.clock)))
    }
}

impl PushProvider for Webhook {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        length(target)?;
        match target.contains(char::is_control) {
            true => Err(TargetError::Form("a text without control characters")),
            false => Ok(()),
        }
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async { self.attempt(hint).await.unwrap_or_else(|failed| failed) })
    }
}

/// One secret a line, `whsec_` and base64.
fn secrets(text: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut secrets = Vec::new();
    for line in lines {
        let secret = line.strip_prefix("whsec_").ok_or("a secret does not begin with whsec_")?;
        let secret = STANDARD.decode(secret).map_err(|_| "a secret is not base64")?;
        if !SECRET_BYTES.contains(&secret.len()) {
            return Err("a secret has not 24 to 64 bytes");
        }
        secrets.push(secret);
    }
    match secrets.len() {
        1..=SECRETS_MAX => Ok(secrets),
        0 => Err("there is no secret"),
        _ => Err("there are more than 4 secrets"),
    }
}

/// A signature per secret, of id, time and body.
fn sign(secrets: &[Vec<u8>], id: &str, at: u64, body: &str) -> String {
    let signature = |secret: &Vec<u8>| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("it takes any length");
        mac.update(format!("{id}.{at}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

fn body(hint: &Hint) -> String {
    let wake = hint.wake();
    json!({
        "type": "push.wake",
        "data": {
            "user": wake.user,
            "device": hint.device.as_str(),
            "target": hint.target,
            "epoch": wake.epoch,
            "head": wake.head,
        },
    })
    .to_string()
}

/// A status, or the target in one of two lists of the answer.
fn judge(answer: &Answer, target: &str, after: Option<Duration>) -> Outcome {
    let said = answer.json();
    let lists = |name: &str| said[name].as_array().is_some_and(|l| l.iter().any(|t| t == target));
    let line = answer.line("");
    match answer.status.as_u16() {
        200..=299 if lists("invalid_tokens") => Outcome::dead(),
        200..=299 if lists("retry") => Outcome::retry(after, line),
        200..=299 => Outcome::Accepted,
        408 | 425 | 429 | 500.. => Outcome::retry(after, line),
        400 | 413 | 422 => Outcome::reject(line),
        // Also a redirect, which is not followed: each is a mistake in the configuration.
        _ => Outcome::broken(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::tests::hint;
    use crate::wire::tests::answer;

    #[test]
    fn an_answer_is_a_status_and_two_lists() {
        for (status, body, label) in [
            (200, "", "accepted"),
            (204, "", "accepted"),
            (202, r#"{"invalid_tokens":["other"]}"#, "accepted"),
            (200, r#"{"invalid_tokens":["token"]}"#, "token_dead"),
            (200, r#"{"retry":["token"]}"#, "retry"),
            (301, "", "auth_broken"),
            (400, "", "reject"),
            (401, "", "auth_broken"),
            (404, "", "auth_broken"),
            (410, "", "auth_broken"),
            (429, "", "retry"),
            (503, "", "retry"),
        ] {
            let outcome = judge(&answer(status, &[], body), "token", None);
            assert_eq!(outcome.label(), label, "{status} {body}");
        }
    }

    #[test]
    fn each_secret_signs_as_the_standard_says() {
        // The example of the Standard Webhooks specification's reference libraries.
        let text =
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
        let secrets = secrets(text).expect("two secrets");
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let signed = sign(&secrets, id, 1_614_265_330, body);
        let (first, second) = signed.split_once(' ').expect("two signatures");
        assert_eq!(first, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(second.starts_with("v1,") && second != first);
    }

    #[test]
    fn a_file_without_good_secrets_is_refused() {
        for (text, why) in [
            ("", "there is no secret"),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a secret does not begin with whsec_"),
            ("whsec_$", "a secret is not base64"),
            ("whsec_MfKQ9r8GKYqr", "a secret has not 24 to 64 bytes"),
        ] {
            assert_eq!(secrets(text), Err(why));
        }
        let many = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(5);
        assert_eq!(secrets(&many), Err("there are more than 4 secrets"));
    }

    #[test]
    fn the_body_says_who_and_how_far() {
        let expected = r#"{"data":{"device":"phone","epoch":1,"head":7,"target":"token","user":"ann"},"type":"push.wake"}"#;
        assert_eq!(body(&hint("phone", 7)), expected);
    }
}

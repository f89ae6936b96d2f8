//! A call to a server of the operator, signed after Standard Webhooks: for platforms that are not
//! here, and for pushes that the operator's own application server makes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemark_env::Clock;

use crate::build::BuildError;
use crate::config::WebhookConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError, length};
use crate::signed::SignedEndpoint;
use crate::wire::{Answer, call};

/// Calls the operator's server.
pub(crate) struct Webhook {
    endpoint: SignedEndpoint,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// From a configuration that was validated.
    pub(crate) fn new(config: &WebhookConfig, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let WebhookConfig { endpoint, secrets, tls, .. } = config;
        let endpoint = SignedEndpoint::new(endpoint, secrets, tls, clock.clone())?;
        Ok(Webhook { endpoint, clock })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let id = format!("msg_{}", hint.id().simple());
        let answer = call(self.endpoint.request(&id, body(hint).into())).await?;
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
    fn the_body_says_who_and_how_far() {
        let expected = r#"{"data":{"device":"phone","epoch":1,"head":7,"target":"token","user":"ann"},"type":"push.wake"}"#;
        assert_eq!(body(&hint("phone", 7)), expected);
    }
}

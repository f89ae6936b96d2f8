//! Windows Push Notification Services: an OAuth token for the application, one call per channel.
//!
//! A channel is a URL that the device gives: it must be on Microsoft's hosts. An answer of 200 is not
//! enough: the header says whether the notification was received or thrown away.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tidemark_env::Clock;
use url::Url;

use super::xml;
use crate::build::{BuildError, read_line};
use crate::config::WnsConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError};
use crate::wire::{Answer, Bearer, Grant, Guard, Protocol, call, client, endpoint};

/// When a channel is throttled, or drops what it gets: its device is asked too often, or has
/// notifications off.
const THROTTLED: Duration = Duration::from_secs(15 * 60);

/// Speaks to Microsoft.
pub(crate) struct Wns {
    client: Client,
    bearer: Bearer,
    guard: Guard,
    config: WnsConfig,
    clock: Arc<dyn Clock>,
}

impl Wns {
    /// From a configuration that was validated.
    pub(crate) fn new(config: &WnsConfig, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let guard = Guard::new(&config.origins, Some(&config.hosts));
        let token_url: Url = endpoint(&config.token_url).expect("it was validated");
        let secret = read_line(&config.client_secret)?;
        let (id, scope) = (config.client_id.clone(), config.scope.clone());
        let grant: Grant = Box::new(move || {
            vec![
                ("grant_type", "client_credentials".to_owned()),
                ("client_id", id.clone()),
                ("client_secret", secret.clone()),
                ("scope", scope.clone()),
            ]
        });
        let bearer = Bearer::new(client(Protocol::Any, &config.tls, None)?, token_url, grant);
        let client = client(Protocol::Http1, &config.tls, Some(&guard))?;
        Ok(Wns { client, bearer, guard, config: config.clone(), clock })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let refused = |error: TargetError| Outcome::reject(error.to_string());
        let url = self.guard.check(&hint.target).map_err(refused)?;
        let token = self.bearer.token(None, &*self.clock).await?;
        let mut answer = self.post(url.clone(), hint, &token).await?;
        if answer.status.as_u16() == 401 {
            let token = self.bearer.token(Some(&token), &*self.clock).await?;
            answer = self.post(url, hint, &token).await?;
        }
        Ok(judge(&answer, answer.retry_after(&*self.clock)))
    }

    async fn post(&self, url: Url, hint: &Hint, token: &str) -> Result<Answer, Outcome> {
        let (kind, content, body) = match self.config.toast.as_str() {
            "" => ("wns/raw", "application/octet-stream", hint.json()),
            text => ("wns/toast", "text/xml", toast(hint, text)),
        };
        let request = self
            .client
            .post(url)
            .bearer_auth(token)
            .header("x-wns-type", kind)
            .header("x-wns-ttl", self.config.ttl_s.to_string())
            .header("x-wns-cache-policy", "cache")
            .header("x-wns-requestforstatus", "true")
            .header("content-type", content)
            .body(body);
        call(request).await
    }
}

impl PushProvider for Wns {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        self.guard.check(target).map(|_| ())
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async { self.attempt(hint).await.unwrap_or_else(|failed| failed) })
    }
}

fn toast(hint: &Hint, text: &str) -> String {
    let (launch, text) = (xml(&hint.json()), xml(text));
    format!(
        "<toast launch=\"{launch}\"><visual><binding template=\"ToastGeneric\">\
         <text>{text}</text></binding></visual></toast>"
    )
}

/// Microsoft's table.
fn judge(answer: &Answer, after: Option<Duration>) -> Outcome {
    let described = answer.header("x-wns-error-description").unwrap_or_default().to_owned();
    let line = answer.line(&described);
    let status = answer.header("x-wns-status").unwrap_or_default();
    match answer.status.as_u16() {
        200 => match status.to_ascii_lowercase().as_str() {
            "dropped" | "channelthrottled" => {
                Outcome::retry(Some(after.unwrap_or(THROTTLED)), answer.line(status))
            }
            _ => Outcome::Accepted,
        },
        401 => Outcome::broken(line),
        // Microsoft blocks the sender, not the channel.
        410 if described.to_ascii_lowercase().contains("domain blocked") => Outcome::broken(line),
        404 | 410 => Outcome::dead(),
        406 => Outcome::retry(Some(after.unwrap_or(THROTTLED)), line),
        429 | 500.. => Outcome::retry(after, line),
        // Among these 403: the channel is another application's, which a client can bring about.
        _ => Outcome::reject(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::tests::hint;
    use crate::wire::tests::answer;

    #[test]
    fn an_answer_means_what_microsoft_says() {
        for (status, header, text, label) in [
            (200, "x-wns-status", "received", "accepted"),
            (200, "x-wns-status", "dropped", "retry"),
            (200, "x-wns-status", "channelthrottled", "retry"),
            (400, "x-wns-error-description", "bad header", "reject"),
            (401, "x-wns-error-description", "token", "auth_broken"),
            (403, "x-wns-error-description", "other app", "reject"),
            (404, "x-wns-status", "dropped", "token_dead"),
            (405, "x-wns-status", "dropped", "reject"),
            (406, "x-wns-status", "dropped", "retry"),
            (410, "x-wns-status", "dropped", "token_dead"),
            (410, "x-wns-error-description", "Domain Blocked", "auth_broken"),
            (413, "x-wns-status", "dropped", "reject"),
            (500, "x-wns-status", "dropped", "retry"),
            (503, "x-wns-status", "dropped", "retry"),
        ] {
            let answer = answer(status, &[(header, text)], "");
            assert_eq!(judge(&answer, None).label(), label, "{status} {text}");
        }
    }

    #[test]
    fn a_throttled_channel_rests_as_long_as_it_says_or_a_while() {
        let pause = |after| match judge(&answer(406, &[], ""), after) {
            Outcome::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(None), Some(THROTTLED));
        assert_eq!(pause(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_toast_stays_a_toast_whatever_the_text() {
        let toast = toast(&hint("phone", 7), "</text><evil/>");
        assert!(!toast.contains("<evil/>"), "{toast}");
        assert!(toast.contains("&quot;head&quot;:7"), "{toast}");
    }
}

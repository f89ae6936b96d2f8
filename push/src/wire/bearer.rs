//! A token that is got from a token endpoint (OAuth 2.0), shared by all attempts of a provider.

use std::time::Duration;

use reqwest::Client;
use tidemark_env::Clock;
use tokio::sync::Mutex;
use url::Url;

use super::{Answer, call};
use crate::provider::Outcome;

/// A token is replaced this long before it ends, so that none ends on its way.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a token lives of which the endpoint does not say it.
const LIFE_DEFAULT: Duration = Duration::from_secs(300);

/// The fields of the form by which a token is asked for, made anew each time.
pub(crate) type Grant = Box<dyn Fn() -> Vec<(&'static str, String)> + Send + Sync>;

/// Gets tokens, one call at a time.
pub(crate) struct Bearer {
    client: Client,
    url: Url,
    grant: Grant,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    value: String,
    until: Duration,
}

impl Bearer {
    pub(crate) fn new(client: Client, url: Url, grant: Grant) -> Self {
        Bearer { client, url, grant, token: Mutex::new(None) }
    }

    /// A token that is still good, other than `refused`. All who need one wait for the one call.
    pub(crate) async fn token(
        &self,
        refused: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<String, Outcome> {
        let mut kept = self.token.lock().await;
        let now = clock.monotonic();
        let good = |token: &&Token| token.until > now && Some(token.value.as_str()) != refused;
        if let Some(token) = kept.as_ref().filter(good) {
            return Ok(token.value.clone());
        }
        let form = (self.grant)();
        let answer = call(self.client.post(self.url.clone()).form(&form)).await?;
        let token = granted(&answer, now, clock)?;
        let value = token.value.clone();
        *kept = Some(token);
        Ok(value)
    }
}

fn granted(answer: &Answer, now: Duration, clock: &dyn Clock) -> Result<Token, Outcome> {
    let said = answer.json();
    if answer.status.is_success() {
        let Some(value) = said["access_token"].as_str() else {
            return Err(Outcome::broken("the token endpoint's answer has no access_token"));
        };
        // Some endpoints write the number as a text.
        let life = &said["expires_in"];
        let life = life.as_u64().or_else(|| life.as_str()?.parse().ok());
        let life = life.map_or(LIFE_DEFAULT, Duration::from_secs);
        return Ok(Token { value: value.to_owned(), until: now + life.saturating_sub(MARGIN) });
    }
    let reason = [&said["error"], &said["error_description"]].map(|v| v.as_str().unwrap_or(""));
    let line = answer.line(&format!("no token: {}", reason.join(" ")));
    match answer.status.as_u16() {
        408 | 429 | 500.. => Err(Outcome::retry(answer.retry_after(clock), line)),
        _ => Err(Outcome::broken(line)),
    }
}

#[cfg(test)]
mod tests {
    use tidemark_env::ManualClock;

    use super::*;
    use crate::wire::tests::answer;

    const NOW: Duration = Duration::from_secs(1_000);

    fn judge(status: u16, body: &str) -> Result<Duration, &'static str> {
        let granted = granted(&answer(status, &[], body), NOW, &ManualClock::default());
        granted.map(|token| token.until).map_err(|outcome| outcome.label())
    }

    #[test]
    fn a_token_ends_before_its_time() {
        let minutes = |minutes: u64| Ok(NOW + Duration::from_secs(minutes * 60));
        assert_eq!(judge(200, r#"{"access_token":"a","expires_in":3600}"#), minutes(59));
        assert_eq!(judge(200, r#"{"access_token":"a","expires_in":"3600"}"#), minutes(59));
        assert_eq!(judge(200, r#"{"access_token":"a"}"#), minutes(4));
        assert_eq!(judge(200, r#"{"access_token":"a","expires_in":1}"#), minutes(0));
    }

    #[test]
    fn who_is_refused_a_token_needs_a_human_and_who_was_early_does_not() {
        for (status, label) in [
            (200, "auth_broken"),
            (400, "auth_broken"),
            (401, "auth_broken"),
            (429, "retry"),
            (503, "retry"),
        ] {
            assert_eq!(judge(status, r#"{"error":"invalid_grant"}"#), Err(label), "{status}");
        }
    }
}

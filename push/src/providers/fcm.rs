//! Firebase Cloud Messaging, HTTP v1: an OAuth token for the service account, one call per device.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemark_env::Clock;
use url::Url;

use super::seconds;
use crate::build::{BuildError, read};
use crate::config::FcmConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError, length};
use crate::wire::{Answer, Bearer, Grant, Protocol, call, client, endpoint};

/// What the token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// Google asks for at least this before a retry.
const RETRY_MIN: Duration = Duration::from_secs(10);

/// And for this when a quota is used up and no other time is given.
const QUOTA: Duration = Duration::from_secs(60);

/// How long an assertion is good, at most an hour.
const ASSERTION_S: u64 = 3_600;

/// What is needed of a service account's key.
#[derive(Deserialize)]
struct ServiceAccount {
    project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    token_uri: String,
}

/// Speaks to Google.
pub(crate) struct Fcm {
    client: Client,
    url: Url,
    bearer: Bearer,
    config: FcmConfig,
    clock: Arc<dyn Clock>,
}

impl Fcm {
    /// From a configuration that was validated.
    pub(crate) fn new(config: &FcmConfig, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let path = &config.service_account;
        let bad = |reason| BuildError::not_a_key(path, reason);
        let account: ServiceAccount = serde_json::from_slice(&read(path)?)
            .map_err(|_| bad("it is not the key of a service account, in JSON"))?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-:.".contains(c);
        if account.project_id.is_empty() || !account.project_id.chars().all(plain) {
            return Err(bad("its project_id is none"));
        }
        let token_url =
            endpoint(&account.token_uri).ok_or_else(|| bad("its token_uri is not https"))?;
        let mut url = endpoint(&config.endpoint).expect("it was validated");
        url.set_path(&format!("/v1/projects/{}/messages:send", account.project_id));
        let client = client(Protocol::Any, &config.tls, None)?;
        let grant =
            grant(account, clock.clone()).ok_or_else(|| bad("its private_key is no RSA key"))?;
        let bearer = Bearer::new(client.clone(), token_url, grant);
        Ok(Fcm { client, url, bearer, config: config.clone(), clock })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let token = self.bearer.token(None, &*self.clock).await?;
        let mut answer = self.post(hint, &token).await?;
        // Without a code of its own it is our token that Google refuses.
        if answer.status.as_u16() == 401 && code(&details(&answer.json()["error"])).is_empty() {
            let token = self.bearer.token(Some(&token), &*self.clock).await?;
            answer = self.post(hint, &token).await?;
        }
        Ok(judge(&answer, answer.retry_after(&*self.clock)))
    }

    async fn post(&self, hint: &Hint, token: &str) -> Result<Answer, Outcome> {
        let request = self.client.post(self.url.clone()).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        call(request.body(message(hint, &self.config).to_string())).await
    }
}

impl PushProvider for Fcm {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        check(target)
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async { self.attempt(hint).await.unwrap_or_else(|failed| failed) })
    }
}

fn check(target: &str) -> Result<(), TargetError> {
    length(target)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte);
    match target.bytes().all(plain) {
        true => Ok(()),
        false => Err(TargetError::Form("a registration token of Firebase")),
    }
}

/// The form by which a token is asked for: an assertion, signed by the account's key (RFC 7523).
fn grant(account: ServiceAccount, clock: Arc<dyn Clock>) -> Option<Grant> {
    let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes()).ok()?;
    // What cannot sign is noticed here.
    jsonwebtoken::crypto::sign(b"", &key, Algorithm::RS256).ok()?;
    let header = Header { kid: Some(account.private_key_id), ..Header::new(Algorithm::RS256) };
    Some(Box::new(move || {
        let now = seconds(&*clock);
        let claims = json!({
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_S,
        });
        let assertion = encode(&header, &claims, &key).expect("the key has signed before");
        let kind = "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned();
        vec![("grant_type", kind), ("assertion", assertion)]
    }))
}

/// A data message: the application is started, and nothing is shown by itself.
fn message(hint: &Hint, config: &FcmConfig) -> Value {
    let wake = hint.wake();
    let priority = if config.high_priority { "HIGH" } else { "NORMAL" };
    json!({ "message": {
        "token": hint.target,
        // Google takes only texts here.
        "data": {
            "user": wake.user,
            "epoch": wake.epoch.to_string(),
            "head": wake.head.to_string(),
        },
        "android": {
            "collapse_key": hint.collapse(),
            "priority": priority,
            "ttl": format!("{}s", config.ttl_s),
        },
    } })
}

/// Google's table. Its own code says more than the status.
fn judge(answer: &Answer, after: Option<Duration>) -> Outcome {
    let error = answer.json()["error"].take();
    let details = details(&error);
    let code = code(&details);
    let line = answer.line(&format!("{code} {}", error["message"].as_str().unwrap_or_default()));
    let later = |least: Duration| Some(after.unwrap_or(least).max(RETRY_MIN));
    match (code, answer.status.as_u16()) {
        (_, 200) => Outcome::Accepted,
        ("UNREGISTERED" | "SENDER_ID_MISMATCH", _) => Outcome::dead(),
        ("QUOTA_EXCEEDED", _) | (_, 429) => Outcome::retry(later(QUOTA), line),
        ("UNAVAILABLE" | "INTERNAL", _) | (_, 408 | 500..) => {
            Outcome::retry(later(RETRY_MIN), line)
        }
        ("THIRD_PARTY_AUTH_ERROR", _) => Outcome::broken(line),
        (_, 401 | 403) => Outcome::broken(line),
        // No such project.
        ("", 404) => Outcome::broken(line),
        (_, 400) if names_the_token(&details) => Outcome::dead(),
        _ => Outcome::reject(line),
    }
}

fn details(error: &Value) -> Vec<Value> {
    error["details"].as_array().cloned().unwrap_or_default()
}

/// Google's own code for what is wrong, if it gives one.
fn code(details: &[Value]) -> &str {
    let is = |detail: &&Value| {
        let kind = detail["@type"].as_str();
        kind.is_some_and(|kind| kind.ends_with("google.firebase.fcm.v1.FcmError"))
    };
    let detail = details.iter().find(is);
    detail.and_then(|detail| detail["errorCode"].as_str()).unwrap_or_default()
}

/// Is it the token that a bad request is about?
fn names_the_token(details: &[Value]) -> bool {
    let violations = details.iter().filter_map(|detail| detail["fieldViolations"].as_array());
    violations.flatten().any(|violation| violation["field"] == "message.token")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::tests::hint;
    use crate::wire::tests::answer;

    fn error(status: u16, code: &str) -> Answer {
        let detail = json!({
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": code,
        });
        let details = if code.is_empty() { json!([]) } else { json!([detail]) };
        let body = json!({ "error": { "code": status, "message": "m", "details": details } });
        answer(status, &[], &body.to_string())
    }

    #[test]
    fn an_answer_means_what_google_says() {
        for (status, code, label) in [
            (200, "", "accepted"),
            (404, "UNREGISTERED", "token_dead"),
            (400, "UNREGISTERED", "token_dead"),
            (403, "SENDER_ID_MISMATCH", "token_dead"),
            (429, "QUOTA_EXCEEDED", "retry"),
            (429, "", "retry"),
            (500, "INTERNAL", "retry"),
            (503, "UNAVAILABLE", "retry"),
            (502, "", "retry"),
            (401, "THIRD_PARTY_AUTH_ERROR", "auth_broken"),
            (401, "", "auth_broken"),
            (403, "", "auth_broken"),
            (404, "", "auth_broken"),
            (400, "INVALID_ARGUMENT", "reject"),
            (413, "", "reject"),
        ] {
            assert_eq!(judge(&error(status, code), None).label(), label, "{status} {code}");
        }
        assert_eq!(judge(&answer(400, &[], "<html>"), None).label(), "reject");
    }

    #[test]
    fn a_bad_token_is_not_a_bad_request() {
        let body = json!({ "error": { "details": [
            { "@type": "type.googleapis.com/google.rpc.BadRequest",
              "fieldViolations": [{ "field": "message.token", "description": "d" }] },
            { "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
              "errorCode": "INVALID_ARGUMENT" },
        ] } });
        assert_eq!(judge(&answer(400, &[], &body.to_string()), None), Outcome::dead());
        let body = body.to_string().replace("message.token", "message.android.ttl");
        assert_eq!(judge(&answer(400, &[], &body), None).label(), "reject");
    }

    #[test]
    fn google_is_not_asked_again_at_once() {
        let pause = |status, after: Option<u64>| match judge(
            &error(status, ""),
            after.map(Duration::from_secs),
        ) {
            Outcome::Retry { after, .. } => after.expect("there is always one").as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!([pause(429, None), pause(429, Some(5)), pause(429, Some(90))], [60, 10, 90]);
        assert_eq!([pause(503, None), pause(503, Some(30))], [10, 30]);
    }

    #[test]
    fn a_message_is_all_text_and_below_the_limit() {
        let hint = Hint { target: "t".to_owned(), ..hint("phone", 7) };
        let message = message(&hint, &FcmConfig::default());
        assert_eq!(message["message"]["data"], json!({"user": "ann", "epoch": "1", "head": "7"}));
        assert_eq!(message["message"]["android"]["ttl"], "86400s");
        assert!(check("dGVzdA:APA91b-_x").is_ok());
        assert!(check("a b").is_err());
        assert!(check("a/../b").is_err());
    }
}

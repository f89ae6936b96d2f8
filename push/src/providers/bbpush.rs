//! BlackBerry Push, by the Push Access Protocol. **The public service ended in 2022**; a server on
//! premises may still take it. It is off unless a configuration names it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use reqwest::Client;
use tidemark_env::Clock;
use url::Url;

use super::xml;
use crate::build::{BuildError, read_line};
use crate::config::BbPushConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError, length};
use crate::wire::{Answer, Protocol, call, client, endpoint};

/// Separates the parts; nothing in them can hold it, as ids and texts are escaped or hex.
const BOUNDARY: &str = "tidemark-push-part";

/// Speaks PAP.
pub(crate) struct BbPush {
    client: Client,
    endpoint: Url,
    password: String,
    config: BbPushConfig,
    clock: Arc<dyn Clock>,
}

impl BbPush {
    /// From a configuration that was validated.
    pub(crate) fn new(config: &BbPushConfig, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        Ok(BbPush {
            client: client(Protocol::Http1, &config.tls, None)?,
            endpoint: endpoint(&config.endpoint).expect("it was validated"),
            password: read_line(&config.password)?,
            config: config.clone(),
            clock,
        })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let kind = format!("multipart/related; type=\"application/xml\"; boundary={BOUNDARY}");
        let until = self.clock.wall().plus(Duration::from_secs(self.config.ttl_s));
        let request = self
            .client
            .post(self.endpoint.clone())
            .basic_auth(&self.config.application_id, Some(&self.password))
            .header("content-type", kind)
            .body(parts(hint, &self.config, until.get()));
        let answer = call(request).await?;
        Ok(judge(&answer, answer.retry_after(&*self.clock)))
    }
}

impl PushProvider for BbPush {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        check(target)
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async { self.attempt(hint).await.unwrap_or_else(|failed| failed) })
    }
}

fn check(target: &str) -> Result<(), TargetError> {
    length(target)?;
    // Eight digits are a PIN; tokens of the later service were longer. `push_all` is everybody.
    let hex = target.bytes().all(|byte| byte.is_ascii_hexdigit());
    match hex && (8..=64).contains(&target.len()) {
        true => Ok(()),
        false => Err(TargetError::Form("a PIN or token of BlackBerry: 8 to 64 hex digits")),
    }
}

/// The control part, which says to whom, and the content.
fn parts(hint: &Hint, config: &BbPushConfig, until_ms: u64) -> String {
    let until = UNIX_EPOCH + Duration::from_millis(until_ms);
    let (id, application) = (hint.id(), xml(&config.application_id));
    let control = format!(
        "<?xml version=\"1.0\"?>\r\n\
         <!DOCTYPE pap PUBLIC \"{dtd}\" \"http://www.openmobilealliance.org/tech/DTD/pap_2.1.dtd\">\r\n\
         <pap><push-message push-id=\"{id}\" source-reference=\"{application}\" \
         deliver-before-timestamp=\"{until}\"><address address-value=\"{target}\"/>\
         <quality-of-service delivery-method=\"unconfirmed\"/></push-message></pap>",
        dtd = config.dtd,
        until = timestamp(until),
        target = xml(&hint.target),
    );
    let content = hint.json();
    format!(
        "--{BOUNDARY}\r\nContent-Type: application/xml; charset=UTF-8\r\n\r\n{control}\r\n\
         --{BOUNDARY}\r\nContent-Type: text/plain\r\nPush-Message-ID: {id}\r\n\r\n{content}\r\n\
         --{BOUNDARY}--\r\n"
    )
}

/// `YYYY-MM-DDThh:mm:ssZ`, from the same moment as the date of an HTTP header.
fn timestamp(at: std::time::SystemTime) -> String {
    // "Sun, 06 Nov 1994 08:49:37 GMT"
    let date = httpdate::fmt_http_date(at);
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(&date[8..11]).expect("a month's name") / 3 + 1;
    format!("{}-{month:02}-{}T{}Z", &date[12..16], &date[5..7], &date[17..25])
}

/// The table of PAP; its code stands in the body, and the status says little.
fn judge(answer: &Answer, after: Option<Duration>) -> Outcome {
    let text = answer.text();
    let line = answer.line(&text);
    match (answer.status.as_u16(), code(&text)) {
        (401 | 403, _) => Outcome::broken(line),
        (429 | 500.., _) => Outcome::retry(after, line),
        // Accepted, done, or known already.
        (200 | 202, Some(1000 | 1001 | 2007)) => Outcome::Accepted,
        (200 | 202, Some(2001)) => Outcome::broken(line),
        (200 | 202, Some(2002)) => Outcome::dead(),
        (200 | 202, Some(3002)) => Outcome::reject(line),
        (200 | 202, Some(3000..=4999)) => Outcome::retry(after, line),
        _ => Outcome::reject(line),
    }
}

/// The `code` of a `response-result` or a `badmessage-response`.
fn code(text: &str) -> Option<u32> {
    let element = ["<response-result", "<badmessage-response"];
    let at = element.iter().find_map(|name| Some(text.find(name)? + name.len()))?;
    let attributes = &text[at..at + text[at..].find('>')?];
    let value = &attributes[attributes.find("code=")? + "code=".len()..];
    let digits = value.trim_start_matches(['"', '\'']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::tests::hint;
    use crate::wire::tests::answer;

    #[test]
    fn an_answer_means_what_the_code_says() {
        for (status, code, label) in [
            (200, "1000", "accepted"),
            (200, "1001", "accepted"),
            (200, "2007", "accepted"),
            (200, "2000", "reject"),
            (200, "2001", "auth_broken"),
            (200, "2002", "token_dead"),
            (200, "2004", "reject"),
            (200, "3000", "retry"),
            (200, "3002", "reject"),
            (200, "4001", "retry"),
            (200, "22000", "reject"),
            (202, "1001", "accepted"),
            (401, "", "auth_broken"),
            (503, "", "retry"),
            (404, "", "reject"),
        ] {
            let body = format!("<pap><push-response><response-result code=\"{code}\" desc=\"d\"/>");
            let outcome = judge(&answer(status, &[], &body), None);
            assert_eq!(outcome.label(), label, "{status} {code}");
        }
    }

    #[test]
    fn a_code_is_found_where_it_belongs() {
        assert_eq!(code("<pap><badmessage-response code='2000'/></pap>"), Some(2000));
        assert_eq!(code("<response-result desc=\"x\" code=\"1001\"/>"), Some(1001));
        for text in ["", "<response-result", "<response-result desc=\"x\"/> code=\"1001\""] {
            assert_eq!(code(text), None, "{text}");
        }
    }

    #[test]
    fn the_parts_say_until_when() {
        let hint = Hint { target: "2100000A".to_owned(), ..hint("phone", 7) };
        let parts = parts(&hint, &BbPushConfig::default(), 784_111_777_000);
        assert!(parts.contains("deliver-before-timestamp=\"1994-11-06T08:49:37Z\""), "{parts}");
        assert!(parts.contains("address-value=\"2100000A\""), "{parts}");
        assert!(parts.len() < 8 * 1024);
    }

    #[test]
    fn nobody_pushes_to_everybody() {
        assert!(check("2100000A").is_ok());
        for target in ["push_all", "2100000", "2100000A\"/><address", ""] {
            assert!(check(target).is_err(), "{target}");
        }
    }
}

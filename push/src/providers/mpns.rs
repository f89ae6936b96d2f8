//! Microsoft Push Notification Service, of Windows Phone 7 and 8. **Its service ended in 2018.** The
//! protocol is here for stand-ins that speak it; it is off unless a configuration names it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tidemark_env::Clock;

use super::xml;
use crate::build::BuildError;
use crate::config::MpnsConfig;
use crate::hint::Hint;
use crate::provider::{Outcome, PushProvider, Sending, TargetError};
use crate::wire::{Answer, Guard, Protocol, call, client};

/// A device whose queue is full is asked again after minutes.
const QUEUE_FULL: Duration = Duration::from_secs(5 * 60);

/// A device that is not reached, or a channel over its daily limit: once an hour at most.
const HOURLY: Duration = Duration::from_secs(3_600);

/// Speaks to whatever took that service's place.
pub(crate) struct Mpns {
    client: Client,
    guard: Guard,
    config: MpnsConfig,
    clock: Arc<dyn Clock>,
}

impl Mpns {
    /// From a configuration that was validated.
    pub(crate) fn new(config: &MpnsConfig, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let guard = Guard::new(&config.origins, Some(&config.hosts));
        let client = client(Protocol::Http1, &config.tls, Some(&guard))?;
        Ok(Mpns { client, guard, config: config.clone(), clock })
    }

    async fn attempt(&self, hint: &Hint) -> Result<Outcome, Outcome> {
        let refused = |error: TargetError| Outcome::reject(error.to_string());
        let url = self.guard.check(&hint.target).map_err(refused)?;
        let request = self.client.post(url).header("x-messageid", hint.id().to_string());
        let request = match self.config.toast.as_str() {
            // Raw, at once; the header that names a target is left out for it.
            "" => request
                .header("x-notificationclass", "3")
                .header("content-type", "application/octet-stream")
                .body(hint.json()),
            text => request
                .header("x-windowsphone-target", "toast")
                .header("x-notificationclass", "2")
                .header("content-type", "text/xml")
                .body(toast(hint, text)),
        };
        let answer = call(request).await?;
        Ok(judge(&answer, answer.retry_after(&*self.clock)))
    }
}

impl PushProvider for Mpns {
    fn check(&self, target: &str) -> Result<(), TargetError> {
        self.guard.check(target).map(|_| ())
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async { self.attempt(hint).await.unwrap_or_else(|failed| failed) })
    }
}

fn toast(hint: &Hint, text: &str) -> String {
    let mut page = url::form_urlencoded::Serializer::for_suffix("/?".to_owned(), 2);
    page.append_pair("user", hint.user.as_str());
    page.append_pair("head", &hint.head.to_string());
    let (text, page) = (xml(text), xml(&page.finish()));
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><wp:Notification xmlns:wp=\"WPNotification\">\
         <wp:Toast><wp:Text1>{text}</wp:Text1><wp:Param>{page}</wp:Param></wp:Toast>\
         </wp:Notification>"
    )
}

/// Microsoft's table of then.
fn judge(answer: &Answer, after: Option<Duration>) -> Outcome {
    let header = |name| answer.header(name).unwrap_or_default().to_ascii_lowercase();
    let (notification, subscription) =
        (header("x-notificationstatus"), header("x-subscriptionstatus"));
    let line = answer.line(&format!("{notification} {subscription}"));
    let later = |least| Some(after.unwrap_or(least));
    match (answer.status.as_u16(), notification.as_str()) {
        (200, "queuefull") => Outcome::retry(later(QUEUE_FULL), line),
        // The user has turned it off: nobody waits for it.
        (200, _) => Outcome::Accepted,
        (401, _) => Outcome::reject(line),
        (404, _) if subscription == "expired" => Outcome::dead(),
        (406 | 412, _) => Outcome::retry(later(HOURLY), line),
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
    fn an_answer_means_what_the_service_said() {
        for (status, notification, subscription, label) in [
            (200, "Received", "Active", "accepted"),
            (200, "QueueFull", "Active", "retry"),
            (200, "Suppressed", "Active", "accepted"),
            (400, "", "", "reject"),
            (401, "", "", "reject"),
            (404, "Dropped", "Expired", "token_dead"),
            (404, "", "", "reject"),
            (405, "", "", "reject"),
            (406, "Dropped", "Active", "retry"),
            (412, "Dropped", "", "retry"),
            (503, "", "", "retry"),
        ] {
            let headers =
                [("x-notificationstatus", notification), ("x-subscriptionstatus", subscription)];
            let outcome = judge(&answer(status, &headers, ""), None);
            assert_eq!(outcome.label(), label, "{status} {notification}");
        }
    }

    #[test]
    fn a_toast_stays_a_toast_whatever_the_text() {
        let toast = toast(&hint("phone", 7), "<x>");
        assert!(toast.contains("<wp:Text1>&lt;x&gt;</wp:Text1>"), "{toast}");
        assert!(toast.contains("<wp:Param>/?user=ann&amp;head=7</wp:Param>"), "{toast}");
    }
}

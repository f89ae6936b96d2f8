//! The hook as an HTTP service: JSON in a POST that is signed after Standard Webhooks.
//!
//! It refuses what it does not understand: another status than 200, a body that is too long, a
//! verdict that it does not know.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tidemark_env::Clock;
use tidemark_proto::failure::first_cause;
use tidemark_proto::v1::{BeforeSendRequest, Id, IdKind};
use tidemark_types::ClientMsgId;
use tidemark_types::limits::BODY_BYTES_MAX;

use super::signature::Secret;
use super::{Error, Failed, Verdict};

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Bytes of an answer: a whole body in base64, and what is around it.
const ANSWER_BYTES_MAX: usize = BODY_BYTES_MAX * 2;

/// Calls it over a few connections that are kept.
pub(super) struct Caller {
    url: Uri,
    secret: Secret,
    clock: Arc<dyn Clock>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What it is told of a message.
#[derive(Serialize)]
struct Question<'a> {
    sender: &'a str,
    /// None, if a back end sends it.
    #[serde(skip_serializing_if = "str::is_empty")]
    device: &'a str,
    to: Vec<Recipient<'a>>,
    kind: u32,
    /// In base64.
    body: String,
    /// A UUID.
    client_msg_id: String,
    /// It is the new body of a message that is there.
    #[serde(skip_serializing_if = "is_not")]
    edit: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_not(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize)]
struct Recipient<'a> {
    kind: &'static str,
    name: &'a str,
}

/// What it says.
#[derive(Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Answer {
    Allow,
    Reject,
    Replace {
        /// In base64.
        body: String,
    },
    Drop,
}

impl Caller {
    /// At `http://HOST:PORT/PATH`, signed with this secret.
    pub(super) fn new(url: &str, secret: Secret, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let url: Uri = url.parse().map_err(|_| Error::Url(format!("{url} is no URL")))?;
        if url.host().is_none() {
            return Err(Error::Url(format!("{url} names no host")));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Caller { url, secret, clock, client })
    }

    pub(super) async fn ask(&self, request: &BeforeSendRequest) -> Result<Verdict, Failed> {
        let request = self.signed(request)?;
        let answer = self.client.request(request).await.map_err(|error| first_cause(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| first_cause(error.as_ref()))?.to_bytes();
        verdict(&body)
    }

    fn signed(&self, request: &BeforeSendRequest) -> Result<Request<Full<Bytes>>, Failed> {
        let body = question(request)?;
        let id = self.secret.message_id(&request.sender, &request.client_msg_id);
        let timestamp = (self.clock.wall().get() / 1_000).to_string();
        let signature = self.secret.sign(&id, &timestamp, &body);
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ID, id)
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, signature)
            .body(Full::new(body));
        request.map_err(|error| error.to_string())
    }
}

fn question(request: &BeforeSendRequest) -> Result<Bytes, Failed> {
    let id = ClientMsgId::try_from(request.client_msg_id.as_ref());
    let question = Question {
        sender: &request.sender,
        device: &request.device,
        to: request.to.iter().map(recipient).collect(),
        kind: request.kind,
        body: STANDARD.encode(&request.body),
        client_msg_id: id.map_err(|error| error.to_string())?.to_string(),
        edit: request.edit,
    };
    let json = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    Ok(json.into())
}

fn recipient(id: &Id) -> Recipient<'_> {
    let kind = match id.kind() {
        IdKind::User => "user",
        IdKind::Group => "group",
        IdKind::Counter | IdKind::Unspecified => "other",
    };
    Recipient { kind, name: &id.name }
}

fn verdict(body: &[u8]) -> Result<Verdict, Failed> {
    let answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(match answer {
        Answer::Allow => Verdict::Allow,
        Answer::Reject => Verdict::Reject,
        Answer::Replace { body } => {
            let body = STANDARD.decode(body).map_err(|error| error.to_string())?;
            Verdict::Replace(body.into())
        }
        Answer::Drop => Verdict::Drop,
    })
}

#[cfg(test)]
mod tests {
    use tidemark_proto::convert::bytes_of;
    use tidemark_types::UnixMs;

    use super::*;

    #[test]
    fn a_question_is_json_that_anybody_can_read() {
        let id = ClientMsgId::new(UnixMs::new(1_000), [7; 10]);
        let user = |name: &str| Id { kind: IdKind::User.into(), name: name.to_owned() };
        let request = BeforeSendRequest {
            sender: "alice".to_owned(),
            device: "phone".to_owned(),
            to: vec![user("bob"), user("\"carol\"")],
            kind: 3,
            body: Bytes::from_static(b"\xff!"),
            client_msg_id: bytes_of(id.as_bytes()),
            edit: false,
        };
        let wanted = "{\"sender\":\"alice\",\"device\":\"phone\",\
                      \"to\":[{\"kind\":\"user\",\"name\":\"bob\"},\
                      {\"kind\":\"user\",\"name\":\"\\\"carol\\\"\"}],\
                      \"kind\":3,\"body\":\"/yE=\",\
                      \"client_msg_id\":\"00000000-03e8-7707-8707-070707070707\"}";
        assert_eq!(question(&request).expect("legal"), wanted);
        let edit = BeforeSendRequest { edit: true, ..request.clone() };
        let asked = question(&edit).expect("legal");
        assert!(asked.ends_with(b",\"edit\":true}"), "{asked:?}");
        let back_end = BeforeSendRequest { device: String::new(), ..request };
        let asked = question(&back_end).expect("legal");
        assert!(asked.starts_with(b"{\"sender\":\"alice\",\"to\":"));
    }

    #[test]
    fn an_answer_that_is_none_is_a_failure() {
        let replaced = Verdict::Replace(Bytes::from_static(b"!"));
        for (answer, wanted) in [
            ("{\"verdict\":\"allow\"}", Verdict::Allow),
            ("{\"verdict\":\"reject\",\"reason\":\"whatever\"}", Verdict::Reject),
            ("{\"body\":\"IQ==\",\"verdict\":\"replace\"}", replaced),
            ("{\"verdict\":\"drop\"}", Verdict::Drop),
        ] {
            assert_eq!(verdict(answer.as_bytes()), Ok(wanted), "{answer}");
        }
        for answer in [
            "",
            "{}",
            "allow",
            "{\"verdict\":\"ALLOW\"}",
            "{\"verdict\":\"replace\"}",
            "{\"verdict\":\"replace\",\"body\":\"?\"}",
        ] {
            assert!(verdict(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
